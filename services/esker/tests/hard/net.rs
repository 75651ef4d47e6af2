//! A network in namespaces: a host for each process, and ways between them that are cut, one direction
//! at a time and without a word to either end.
//!
//! ```text
//!   this process, 10.9.0.1 ─ bridge ─┬─ 10.9.0.2, a namespace of its own
//!                                    ├─ 10.9.0.3
//!                                    └─ …
//! ```
//! It takes no more than what any user may have: a user namespace with a network of its own, in which
//! the test runs once more. What a host drops comes from an address: so a way is cut where it ends.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Says to a test that it runs in a namespace, and where it leaves its word once it has come to its end.
const INSIDE: &str = "INSIDE_A_NAMESPACE";
/// Its word.
const ENDED: &str = "all was asserted";
/// Each step of it, and whether anybody may take them.
const STEPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hard/network.sh");
/// Time for a namespace to be there.
const SOON: Duration = Duration::from_secs(5);

/// Hosts, and the ways that are cut.
pub(crate) struct Net {
    hosts: Vec<Host>,
    cut: Vec<(String, String)>,
}

/// A host. A process holds its namespace that waits for the end of its input, whose other end is this
/// process.
struct Host {
    address: String,
    holder: Child,
}

/// Runs the ignored test `name` of this binary in a namespace. Whether it passed, and said so itself by
/// [`ended`]; why not, if this system lets nobody have one.
pub(crate) fn inside(name: &str) -> Result<bool, String> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["-Urn", "--kill-child"]).stdin(Stdio::null());
        command
    };
    let may = unshare().args(["sh", STEPS, "may"]).output();
    let why = match may {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = why {
        return Err(format!(
            "nobody may make network namespaces with `unshare -Urn`, `ip`, `nsenter`: {why}"
        ));
    }
    let this = std::env::current_exe().expect("this test");
    let again = ["--exact", name, "--ignored", "--nocapture"];
    let folder = tempfile::tempdir().expect("a scratch folder");
    let word = folder.path().join("word");
    let status = unshare().arg(this).args(again).env(INSIDE, &word).status();
    // A test that is not there has not failed.
    let has_ended = fs::read_to_string(word).is_ok_and(|word| word == ENDED);
    if !has_ended {
        println!("{name} has not come to its end: {status:?}");
    }
    Ok(has_ended && status.is_ok_and(|status| status.success()))
}

/// Whether this process runs in a namespace of its own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// The last that a test says that runs [`inside`].
pub(crate) fn ended() {
    let word = std::env::var_os(INSIDE).expect("it runs inside");
    fs::write(word, ENDED).expect("whoever runs it has made its folder");
}

impl Net {
    /// A network with no host beside this one. Only inside.
    pub(crate) fn new() -> Self {
        assert!(is_inside(), "it would change the network of the machine");
        sh(&[], &["bridge"]);
        Self {
            hosts: Vec::new(),
            cut: Vec::new(),
        }
    }

    /// One host more: its address, and what a command begins with that runs there.
    pub(crate) fn host(&mut self) -> (String, Vec<String>) {
        let number = self.hosts.len() + 2;
        let address = format!("10.9.0.{number}");
        let holder = Command::new("unshare")
            .args(["-n", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare starts");
        let began = Instant::now();
        let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
        let id = holder.id().to_string();
        while namespace(&id) == namespace("self") {
            assert!(began.elapsed() < SOON, "no namespace in {SOON:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        sh(&[], &["link", &number.to_string(), &id]);
        let there = ["nsenter", "-t", &id, "-n"].map(str::to_owned).to_vec();
        sh(&there, &["host", &address]);
        self.hosts.push(Host {
            address: address.clone(),
            holder,
        });
        (address, there)
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(crate) fn cut(&mut self, from: &str, to: &str) {
        let way = (from.to_owned(), to.to_owned());
        if !self.cut.contains(&way) {
            sh(&self.at(to), &["cut", from]);
            self.cut.push(way);
        }
    }

    /// The same, both ways.
    pub(crate) fn part(&mut self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// All ways are open.
    pub(crate) fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cut) {
            sh(&self.at(&to), &["heal", &from]);
        }
    }

    fn at(&self, address: &str) -> Vec<String> {
        let host = self.hosts.iter().find(|host| host.address == address);
        let id = host.expect("it is one of them").holder.id().to_string();
        ["nsenter", "-t", &id, "-n"].map(str::to_owned).to_vec()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// One of [`STEPS`], where `there` leads.
fn sh(there: &[String], step: &[&str]) {
    let words: Vec<_> = there
        .iter()
        .map(String::as_str)
        .chain(["sh", STEPS])
        .collect();
    let mut command = Command::new(words[0]);
    let output = command.args(&words[1..]).args(step).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{step:?}: {said}");
}
