//! "Run a cluster" of README.md, run as it stands there, but for its ports: others may have those.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start real processes on real files"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio, id};

/// Seconds that a script may take before it is ended, with all that it started.
const PATIENCE: &str = "240";

/// What is to be typed in the section, block by block.
fn blocks() -> Vec<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, section) = text.split_once("\n## Run a cluster\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").unwrap().0.to_owned());
    blocks.collect()
}

/// The first digits of ports of which all that a cluster needs are free, in place of 71 and 70: of 60 from
/// `first` on, which the other test leaves alone.
fn free_ports(first: u32) -> u32 {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let last = [12, 13, 22, 23, 32, 33, 42, 43, 70, 71];
    let all_free = |first: &u32| {
        let mut ports = last.iter().map(|last| first * 100 + last);
        ports.all(|port| is_free(u16::try_from(port).unwrap()))
    };
    let mut candidates = (0..60).map(|next| first + (id() + 7 * next) % 60);
    candidates.find(all_free).unwrap()
}

/// Types `lines` into a shell, in a folder of its own, in which `esker` is there.
fn type_in(lines: &str, ports: u32) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("bin/esker");
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_esker"), &program).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}/bin:{path}", folder.path().display());
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\nset -x\n{lines}");
    let typed = Command::new("timeout")
        .args([PATIENCE, "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("ESKER_ENDPOINT", format!("http://127.0.0.1:{ports}70"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        typed.status.success(),
        "{}\n{}\n{}",
        typed.status,
        said(&typed.stdout),
        said(&typed.stderr)
    );
}

/// Waits until an agent answers.
const READY: &str = "until esker topic list > topics 2>&1; do sleep 0.2; done\n";

/// The first block, with ports of the test's own.
fn started(block: &str, ports: u32) -> String {
    let listen = format!(
        "printf '[listen]\\npublic = \"127.0.0.1:{ports}70\"\\n' >> esker-cluster/agent.toml"
    );
    let block = block.replace("127.0.0.1:71", &format!("127.0.0.1:{ports}"));
    let (before, after) = block.split_once("\nEND\n").unwrap();
    format!("{before}\nEND\n{listen}\n{after}")
}

const HELLO: &str = "esker topic create hello --partitions 4
echo 'hello, gravel' | esker produce hello
";

/// What was written is there.
const STILL: &str = "esker consume hello | grep 'hello, gravel' > /dev/null\n";

#[test]
fn a_cluster_is_run_and_a_lost_node_replaced_as_the_readme_has_it() {
    let (ports, blocks) = (free_ports(200), blocks());
    let start = started(&blocks[0], ports);
    let (_, nodes) = start.split_once("for n in 1 2 3; do\n").unwrap();
    let (node, _) = nodes.split_once("\ndone\n").unwrap();
    let replace = blocks[2].replace("127.0.0.1:71", &format!("127.0.0.1:{ports}"));
    // The first node is lost, and a fourth is named to the agent.
    let lost = format!(
        "kill -9 $(jobs -p | head -n 1)\nn=4\n{node}\n\
         sed -i 's/:{ports}32\"/&, \"127.0.0.1:{ports}42\"/' esker-cluster/agent.toml\n\
         until grep -q adopted esker-cluster/wal-4.log; do sleep 0.2; done\n"
    );
    let lines = [
        &start, READY, HELLO, STILL, &blocks[1], &lost, &replace, STILL,
    ];
    type_in(&lines.concat(), ports);
}

#[test]
fn a_cluster_goes_on_with_tls_as_the_readme_has_it() {
    let (ports, blocks) = (free_ports(260), blocks());
    let start = started(&blocks[0], ports);
    let (export, then) = blocks[4].split_once('\n').unwrap();
    let export = export.replace(":7070", &format!(":{ports}70"));
    let lines = [
        &start, READY, HELLO, &blocks[3], &export, "\n", READY, then, STILL,
    ];
    type_in(&lines.concat(), ports);
}
