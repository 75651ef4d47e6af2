//! A cluster of three WAL nodes and an agent, as real processes on this machine: founded, used, and used
//! while each of its nodes is killed.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start real processes on real files"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what is to stay so is looked at: many elections.
const STANDS: Duration = Duration::from_secs(5);

/// `esker serve`, running. Dropped, it is killed.
struct Serve {
    child: Child,
    /// What it said until it told where its metrics are.
    said: String,
    metrics: String,
}

impl Serve {
    /// Starts it in `folder`, and waits until it says where its metrics are.
    fn start(folder: &Path, name: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = esker(&["serve", "--config"])
            .arg(folder.join(format!("{name}.toml")))
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join(format!("{name}.log"))).unwrap())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let metrics = loop {
            let log = || std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap();
            let line = lines.next().unwrap_or_else(|| unreachable!("{}", log()));
            let line = line.unwrap();
            said.push_str(&line);
            said.push('\n');
            if let Some(metrics) = line.strip_prefix("metrics and health at http://") {
                break metrics.to_owned();
            }
        };
        Self {
            child,
            said,
            metrics,
        }
    }

    /// `host:port` behind `words` in what it said.
    fn address(&self, words: &str) -> String {
        let (_, rest) = self.said.split_once(words).unwrap();
        rest.lines().next().unwrap().to_owned()
    }

    /// Status and body of the answer to whether it is ready.
    fn readiness(&self) -> (u16, String) {
        self.get("/readyz")
    }

    /// Reads of the head that a follower has answered.
    fn followed(&self) -> u64 {
        let (_, text) = self.get("/metrics");
        let name = "esker_follower_reads_total{answered_by=\"follower\"} ";
        let mut counts = text.lines().filter_map(|line| line.strip_prefix(name));
        counts.next().unwrap().parse().unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        loop {
            let (status, body) = self.readiness();
            if status == 200 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not ready: {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as an orchestrator does.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It has ended already if it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `esker` with `args`, and no environment that it would listen to.
fn esker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(args).stdin(Stdio::null());
    for name in ["ESKER_ENDPOINT", "ESKER_LOG"] {
        command.env_remove(name);
    }
    command
}

/// Writes the configuration of a WAL node.
fn write_node(folder: &Path, name: &str) {
    let text = format!(
        "roles = [\"wal\"]\ndata_dir = {:?}\n[listen]\npeers = \"127.0.0.1:0\"\n\
         [wal]\ndisk = \"1GiB\"\n",
        folder.join(name)
    );
    std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

/// Writes that of an agent of `nodes`.
fn write_agent(folder: &Path, nodes: &[String]) -> PathBuf {
    let text = format!(
        "roles = [\"agent\"]\ndata_dir = {:?}\n[listen]\npublic = \"127.0.0.1:0\"\n\
         [cluster]\nnodes = {nodes:?}\ndata_shards = 2\n\
         [object_store]\nurl = \"file://{}\"\n[flush]\nage = \"1h\"\n",
        folder.join("agent"),
        folder.join("bucket").display()
    );
    let path = folder.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// What `command` says on stdout, given `stdin`. It must not fail.
fn out(command: &mut Command, stdin: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end without reading any of it.
    let _ = input.write_all(stdin);
    drop(input);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    stdout
}

fn init(agent: &Path) -> Value {
    let mut init = esker(&["cluster", "init", "--json", "--config"]);
    serde_json::from_slice(&out(init.arg(agent), b"")).unwrap()
}

/// The catalog and two data shards come to be led by a node each.
fn wait_until_each_leads_one(config: &Path) {
    let began = Instant::now();
    loop {
        let mut status = esker(&["cluster", "status", "--json", "--config"]);
        let status = out(status.arg(config), b"");
        let status: Value = serde_json::from_slice(&status).unwrap();
        let nodes = status["nodes"].as_array().unwrap().iter();
        if nodes.filter(|node| node["leads"] == 1).count() == 3 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    let lines = range.map(|number| format!("line {number:06}\n"));
    lines.collect::<String>().into_bytes()
}

/// The lines of `text`, sorted: partitions are read one after the other.
fn sorted(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}

const NAMES: [&str; 3] = ["wal-1", "wal-2", "wal-3"];

/// Three nodes that wait to be adopted, and where they are reached.
fn nodes_to_adopt(folder: &Path) -> ([Serve; 3], [String; 3]) {
    let nodes = NAMES.map(|name| {
        write_node(folder, name);
        Serve::start(folder, name, &[])
    });
    let addresses = [0, 1, 2].map(|at: usize| nodes[at].address("waits to be adopted, at "));
    (nodes, addresses)
}

#[test]
fn three_nodes_are_founded_and_each_may_die() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut nodes, addresses) = nodes_to_adopt(folder);
    let (status, body) = nodes[0].readiness();
    assert_eq!(status, 503, "{body}");
    assert!(
        body.contains("waits to be adopted: run `esker cluster init`"),
        "{body}"
    );

    let config = write_agent(folder, &addresses);
    let founded = init(&config);
    assert_eq!(founded["founded_before"], false, "{founded}");
    let found = founded["nodes"].as_array().unwrap().iter();
    let found: Vec<_> = found
        .map(|node| (&node["node"], &node["address"]))
        .collect();
    for (at, (node, address)) in found.iter().enumerate() {
        assert_eq!(**node, format!("n1.{}", at + 1), "{founded}");
        assert_eq!(**address, addresses[at], "{founded}");
    }
    let again = init(&config);
    assert_eq!(again["founded_before"], true, "{again}");
    assert_eq!(
        (&again["cluster_id"], &again["nodes"]),
        (&founded["cluster_id"], &founded["nodes"])
    );

    let agent = Serve::start(folder, "agent", &[("ESKER_LISTEN_METRICS", "127.0.0.1:0")]);
    agent.wait_until_ready();
    let endpoint = agent.address("is ready at ");
    let at = |args: &[&str]| {
        let mut command = esker(args);
        command.env("ESKER_ENDPOINT", &endpoint);
        command
    };
    out(
        &mut at(&["topic", "create", "logs", "--partitions", "4"]),
        b"",
    );
    for partition in 0..4 {
        let of = partition.to_string();
        let lines = lines(partition * 2500..(partition + 1) * 2500);
        out(&mut at(&["produce", "logs", "--partition", &of]), &lines);
    }
    let read = out(&mut at(&["consume", "logs"]), b"");
    assert!(sorted(&read) == sorted(&lines(0..10_000)));
    assert_eq!(agent.followed(), 0, "nobody asked for it");
    let read = out(&mut at(&["consume", "logs", "--prefer-followers"]), b"");
    assert!(sorted(&read) == sorted(&lines(0..10_000)));
    let followed = agent.followed();
    assert!(followed >= 4, "{followed} reads of four partitions");
    out(&mut at(&["cluster", "flush"]), b"");
    let read = out(&mut at(&["consume", "logs"]), b"");
    assert!(sorted(&read) == sorted(&lines(0..10_000)));
    let status = out(&mut at(&["cluster", "status", "--json"]), b"");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["cluster_id"], founded["cluster_id"], "{status}");
    for shard in status["shards"].as_array().unwrap() {
        assert_eq!(
            shard["leads_here"], false,
            "an agent leads nothing: {shard}"
        );
        let leader = shard["leader"].as_str().unwrap();
        assert!(addresses.iter().any(|node| node == leader), "{shard}");
    }

    // Whoever leads what, it is killed once, and the others go on.
    for (at_node, name) in NAMES.into_iter().enumerate() {
        nodes[at_node].kill();
        let first = 10_000 + 1000 * u32::try_from(at_node).unwrap();
        out(&mut at(&["produce", "logs"]), &lines(first..first + 1000));
        let read = out(&mut at(&["consume", "logs", "--prefer-followers"]), b"");
        assert!(sorted(&read) == sorted(&lines(0..first + 1000)));
        // The port above that of a node may be another's by now.
        let peers = [
            ("ESKER_LISTEN_PEERS", addresses[at_node].as_str()),
            ("ESKER_LISTEN_METRICS", "127.0.0.1:0"),
        ];
        nodes[at_node] = Serve::start(folder, name, &peers);
        let said = &nodes[at_node].said;
        let node = format!("is node n1.{} of cluster", at_node + 1);
        assert!(said.contains(&node), "{said}");
        nodes[at_node].wait_until_ready();
    }
    let read = out(&mut at(&["consume", "logs"]), b"");
    assert!(sorted(&read) == sorted(&lines(0..13_000)));
    wait_until_each_leads_one(&config);
    out(&mut at(&["cluster", "flush"]), b"");
    out(&mut at(&["verify", "--content"]), b"");
    agent.stop();
    nodes.into_iter().for_each(Serve::stop);
}

/// Who is alone does not count for a quorum, and who took its place in one is not taken out of service when
/// the others go.
#[test]
fn a_node_is_ready_again_once_it_has_what_a_quorum_has_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut nodes, addresses) = nodes_to_adopt(folder);
    init(&write_agent(folder, &addresses));
    for node in &nodes {
        node.wait_until_ready();
    }
    // What is committed is on the disk with what is written next, in each shard: by that word alone a node that
    // hears of nobody knows that its cluster has begun.
    let agent = Serve::start(folder, "agent", &[("ESKER_LISTEN_METRICS", "127.0.0.1:0")]);
    agent.wait_until_ready();
    let endpoint = agent.address("is ready at ");
    for name in ["logs", "lines"] {
        let mut create = esker(&["topic", "create", name, "--partitions", "4"]);
        out(create.env("ESKER_ENDPOINT", &endpoint), b"");
    }
    agent.stop();
    nodes.iter_mut().for_each(Serve::kill);
    let start = |at: usize| {
        let peers = [
            ("ESKER_LISTEN_PEERS", addresses[at].as_str()),
            ("ESKER_LISTEN_METRICS", "127.0.0.1:0"),
        ];
        Serve::start(folder, NAMES[at], &peers)
    };
    let one = start(0);
    let began = Instant::now();
    let mut said = String::new();
    while began.elapsed() < STANDS {
        assert_eq!(one.get("/healthz").0, 200);
        let (status, body) = one.readiness();
        assert_eq!(status, 503, "{body}");
        said = body;
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        said.starts_with("starting: 3 of 3 shards do not count for a quorum yet; 3 (0, 1, 2) have"),
        "{said}"
    );
    assert_eq!(one.get("/metrics").0, 200, "it runs");

    let mut other = start(1);
    one.wait_until_ready();
    other.wait_until_ready();
    other.kill();
    let began = Instant::now();
    while began.elapsed() < STANDS {
        assert_eq!(one.readiness(), (200, "ready\n".to_owned()));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What `command` says on stderr, which must fail.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Absence is no word of anybody's: of a quorum that is away, of a node that is, of another cluster.
#[test]
fn members_are_changed_by_the_word_of_all_that_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut nodes = ["wal-1", "wal-2", "wal-3", "foreign"].map(|name| {
        write_node(folder, name);
        Serve::start(folder, name, &[])
    });
    let addresses = [0, 1, 2, 3].map(|at| nodes[at].address("waits to be adopted, at "));
    let foreign = write_agent(folder, &addresses[3..]);
    let bucket = std::fs::read_to_string(&foreign).unwrap();
    std::fs::write(&foreign, bucket.replace("/bucket", "/other-bucket")).unwrap();
    init(&foreign);
    let config = write_agent(folder, &addresses[..3]);
    init(&config);
    let change = |args: &[&str]| {
        let mut command = esker(&["cluster"]);
        command.args(args).arg("--config").arg(&config);
        command
    };
    wait_until_each_leads_one(&config);

    let said = out(&mut change(&["remove", "n1.9"]), b"");
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("n1.9 held no shard: nothing was changed"),
        "{said}"
    );

    let both = folder.join("both.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let with_it = text.replace("nodes = [", &format!("nodes = [{:?}, ", addresses[3]));
    std::fs::write(&both, with_it).unwrap();
    let mut remove = esker(&["cluster", "remove", "n1.1", "--config"]);
    let said = refused(remove.arg(&both));
    assert!(
        said.contains("is of cluster") && said.contains("nothing was changed"),
        "{said}"
    );

    nodes[2].kill();
    let began = Instant::now();
    let said = refused(&mut change(&["transfer", "0", "n1.3"]));
    assert!(said.contains("not asked to lead"), "{said}");
    assert!(began.elapsed() < PATIENCE);

    nodes[1].kill();
    let said = refused(&mut change(&["add", &addresses[0]]));
    assert!(said.contains("have no leader that answers"), "{said}");
    assert!(!said.contains("removed"), "{said}");
}

#[test]
fn what_is_no_cluster_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let alone = folder.join("alone.toml");
    std::fs::write(&alone, "data_dir = \"x\"\n").unwrap();
    let no_bucket = folder.join("no-bucket.toml");
    let text = "roles = [\"wal\"]\n[cluster]\nnodes = [\"127.0.0.1:1\"]\n";
    std::fs::write(&no_bucket, text).unwrap();
    for (config, words) in [
        (&alone, "`cluster.nodes` is empty; name the WAL nodes"),
        (&no_bucket, "`object_store.url` is not said"),
        (&folder.join("none.toml"), "none.toml cannot be read"),
    ] {
        let output = esker(&["cluster", "init", "--config"]).arg(config).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
