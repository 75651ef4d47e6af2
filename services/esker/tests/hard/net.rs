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

/// Says to a test that it runs in a namespace.
const INSIDE: &str = "INSIDE_A_NAMESPACE";
/// Sets up this end.
const BRIDGE: &str = "ip link set lo up && ip link add esker0 type bridge && \
     ip addr add 10.9.0.1/24 dev esker0 && ip link set esker0 up";
/// What a host needs: its own addresses are looked up late, so that what is to be dropped is first.
const HOST: &str = "ip link set lo up && ip addr add $0/24 dev eth0 && ip link set eth0 up && \
     ip rule add pref 100 lookup local && ip rule del pref 0";
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

/// Runs the ignored test `name` of this binary in a namespace. Whether it passed; why not, if this
/// system lets nobody have one.
pub(crate) fn inside(name: &str) -> Result<bool, String> {
    let inside = |command: &mut Command| {
        let status = command.stdin(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["-Urn", "--kill-child"]);
        command
    };
    let may = format!(
        "{BRIDGE} && ip link add esker1 type veth peer name esker2 && ip rule add pref 10 from 10.9.0.9 blackhole && \
         nsenter --version >/dev/null"
    );
    if !inside(unshare().args(["sh", "-c", &may]).stderr(Stdio::null())) {
        return Err(
            "nobody may make network namespaces with `unshare -Urn`, `ip`, `nsenter`".into(),
        );
    }
    let this = std::env::current_exe().expect("this test");
    let again = ["--exact", name, "--ignored", "--nocapture"];
    Ok(inside(unshare().arg(this).args(again).env(INSIDE, "yes")))
}

/// Whether this process runs in a namespace of its own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

impl Net {
    /// A network with no host beside this one. Only inside.
    pub(crate) fn new() -> Self {
        assert!(is_inside(), "it would change the network of the machine");
        sh(&[], BRIDGE, "");
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
        let link = format!(
            "ip link add v{number} type veth peer name eth0 netns {id} && \
             ip link set v{number} master esker0 up"
        );
        sh(&[], &link, "");
        let there = ["nsenter", "-t", &id, "-n"].map(str::to_owned).to_vec();
        sh(&there, HOST, &address);
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
            let rule = format!("ip rule add pref 10 from {from} blackhole");
            sh(&self.at(to), &rule, "");
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
            let rule = format!("ip rule del pref 10 from {from} blackhole");
            sh(&self.at(&to), &rule, "");
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

/// `line`, with one argument, where `there` leads.
fn sh(there: &[String], line: &str, argument: &str) {
    let mut words = there.iter().map(String::as_str);
    let mut command = Command::new(words.next().unwrap_or("sh"));
    command.args(words);
    if !there.is_empty() {
        command.arg("sh");
    }
    let output = command.args(["-c", line, argument]).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}
