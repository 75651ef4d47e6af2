//! What `deploy/` has, as plain processes: its command lines and configurations, with folders and ports of
//! this machine, and a folder for a bucket. What cannot be run here, `.ci/deploy` lints.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start real processes on real files"
)]
#![expect(clippy::float_cmp, reason = "figures are counts")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the catalog and of data, unless somebody says otherwise.
const SHARDS: f64 = 17.0;
/// Where a container has its configuration.
const CONFIG: &str = "/etc/esker/esker.toml";

/// A file of `deploy/`.
fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// Words between quotes in brackets, behind `key`, in the first line of `text` that begins with it.
fn words(text: &str, key: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().map(str::trim_start);
    let list = lines.find_map(|line| line.strip_prefix(key))?;
    Some(serde_json::from_str(list).unwrap())
}

/// A service of the compose file: what is said of it, and nothing of what it is based on.
fn service(compose: &str, name: &str) -> String {
    let begin = format!("\n  {name}:\n");
    let (_, rest) = compose.split_once(&begin).unwrap();
    let of = |line: &&str| line.starts_with("    ") || line.trim().is_empty();
    rest.lines()
        .take_while(of)
        .fold(String::new(), |all, line| all + line + "\n")
}

/// What its container runs, by its own word or by the image's, with the configuration that it mounts.
fn command_line(service: &str) -> Vec<String> {
    let image = text("Dockerfile");
    assert_eq!(words(&image, "ENTRYPOINT ").unwrap(), ["esker"]);
    let own = words(service, "command: ");
    let mut line = own.unwrap_or_else(|| words(&image, "CMD ").unwrap());
    let mounted = service.split(['"', ' ']).find_map(|word| {
        let from = word.strip_suffix(":ro")?.strip_suffix(CONFIG)?;
        from.strip_prefix("./")?.strip_suffix(':')
    });
    let config = deploy("cluster").join(mounted.unwrap());
    for word in line.iter_mut().filter(|word| *word == CONFIG) {
        *word = config.display().to_string();
    }
    line
}

/// What a unit runs, with the configuration of this folder in place of the installed one.
fn exec_start(unit: &str) -> Vec<String> {
    let unit = text(unit);
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.unwrap().strip_prefix("/usr/local/bin/esker ").unwrap();
    let here = |word: &str| match word.strip_prefix("/etc/esker/") {
        Some(file) => deploy("systemd").join(file).display().to_string(),
        None => word.to_owned(),
    };
    line.split(' ').map(here).collect()
}

type Environment = Vec<(&'static str, String)>;

fn esker(line: &[String], environment: &Environment) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esker"));
    command.args(line).stdin(Stdio::null());
    for name in ["ESKER_ENDPOINT", "ESKER_LOG", "ESKER_TLS_CA"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// What it says on stdout, given `stdin`. It must not fail.
fn out(command: &mut Command, stdin: &str) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end without reading any of it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    assert!(
        status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}

/// A server. Dropped, it is killed.
struct Server {
    child: Child,
    said: String,
    metrics: String,
}

impl Server {
    /// Starts it, and waits until it says where its metrics are.
    fn start(line: &[String], environment: &Environment, log: &Path) -> Self {
        let mut command = esker(line, environment);
        command
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap());
        let mut child = command.spawn().unwrap();
        let (mut said, mut metrics) = (String::new(), None);
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            said = said + &line + "\n";
            metrics = line
                .strip_prefix("metrics and health at http://")
                .map(str::to_owned);
            if metrics.is_some() {
                break;
            }
        }
        let logged = || std::fs::read_to_string(log).unwrap();
        let metrics = metrics.unwrap_or_else(|| unreachable!("{}", logged()));
        Self {
            child,
            said,
            metrics,
        }
    }

    /// What stands behind `words` in what it said.
    fn behind(&self, words: &str) -> String {
        let (_, rest) = self.said.split_once(words).unwrap();
        rest.lines().next().unwrap().to_owned()
    }

    fn get(&self, path: &str) -> (bool, String) {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer.starts_with("HTTP/1.1 200 "), answer)
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        loop {
            match self.get("/readyz") {
                (true, _) => return,
                (false, answer) => assert!(began.elapsed() < PATIENCE, "not ready: {answer}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Names of its figures, and names with each label that they have.
    fn figures(&self) -> BTreeSet<String> {
        let (is_there, answer) = self.get("/metrics");
        assert!(is_there, "{answer}");
        let figures = answer.lines().filter(|line| line.starts_with("esker_"));
        let of = |line: &str| {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',');
            let labelled = labels.map(|label| format!("{name}{{{label}}}"));
            labelled.chain([name.to_owned()]).collect::<Vec<_>>()
        };
        figures.flat_map(of).collect()
    }

    /// The sum of what stands behind figures whose name begins so.
    fn sum(&self, name: &str) -> f64 {
        let (is_there, answer) = self.get("/metrics");
        assert!(is_there, "{answer}");
        let lines = answer.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Stops it as Docker, systemd and Kubernetes do.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success() && self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is of this machine in place of a container's or a host's: of a node.
fn of_node(folder: &Path, name: &str) -> Environment {
    vec![
        ("ESKER_DATA_DIR", folder.join(name).display().to_string()),
        ("ESKER_LISTEN_PEERS", "127.0.0.1:0".to_owned()),
        ("ESKER_LISTEN_METRICS", "127.0.0.1:0".to_owned()),
        ("ESKER_WAL_DISK", "1GiB".to_owned()),
    ]
}

/// Of an agent, and of who founds its cluster.
fn of_agent(folder: &Path, name: &str, nodes: &[Server]) -> Environment {
    let nodes = nodes
        .iter()
        .map(|node| node.behind("waits to be adopted, at "));
    let nodes: Vec<_> = nodes.collect();
    let bucket = format!("file://{}", folder.join("bucket").display());
    vec![
        ("ESKER_DATA_DIR", folder.join(name).display().to_string()),
        ("ESKER_LISTEN_PUBLIC", "127.0.0.1:0".to_owned()),
        ("ESKER_LISTEN_METRICS", "127.0.0.1:0".to_owned()),
        ("ESKER_CLUSTER_NODES", nodes.join(",")),
        ("ESKER_OBJECT_STORE_URL", bucket),
    ]
}

fn owned(line: &[&str]) -> Vec<String> {
    line.iter().map(ToString::to_string).collect()
}

/// Whether a container of `node` is healthy, by the word of the compose file.
fn is_healthy(compose: &str, node: &Server) -> bool {
    let mut lines = compose.lines().map(str::trim_start);
    let test = lines.find_map(|line| line.strip_prefix("- exec 3<>").map(|_| &line[2..]));
    let (host, port) = node.metrics.split_once(':').unwrap();
    let test = test
        .unwrap()
        .replace("127.0.0.1/7071", &format!("{host}/{port}"));
    assert!(test.contains(port), "{test}");
    Command::new("bash")
        .args(["-c", &test])
        .status()
        .unwrap()
        .success()
}

/// Figures that alerts, dashboard and texts name are there.
fn what_is_asked_for_is_counted(counted: &BTreeSet<String>) {
    for file in [
        "prometheus/alerts.yml",
        "prometheus/tests/bucket.yml",
        "prometheus/tests/data.yml",
        "prometheus/tests/healthy.yml",
        "prometheus/tests/nodes.yml",
        "prometheus/tests/processes.yml",
        "prometheus/tests/replicas.yml",
        "grafana/dashboards/esker.json",
        "RUNBOOK.md",
        "README.md",
    ] {
        let asked = text(file);
        let asked = asked.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let asked: BTreeSet<_> = asked.filter(|word| word.starts_with("esker_")).collect();
        let none: Vec<_> = asked
            .iter()
            .filter(|name| !counted.contains(**name))
            .collect();
        assert!(!asked.is_empty(), "{file} asks for nothing");
        assert!(
            none.is_empty(),
            "{file} asks for {none:?}, which nobody counts"
        );
    }
    for file in [
        "prometheus/alerts.yml",
        "grafana/dashboards/esker.json",
        "RUNBOOK.md",
    ] {
        let labelled = labelled(&text(file));
        let none: Vec<_> = labelled.difference(counted).collect();
        assert!(!labelled.is_empty(), "{file} tells nothing apart");
        assert!(
            none.is_empty(),
            "{file} asks for {none:?}, which is nowhere"
        );
    }
}

/// What `asked` selects, by each value of each label that a process gives its figures.
fn labelled(asked: &str) -> BTreeSet<String> {
    let asked = asked.replace("\\\"", "\"");
    let selectors = asked.match_indices("esker_").filter_map(|(at, _)| {
        let (name, rest) = asked[at..].split_once('{')?;
        let (matchers, _) = rest.split_once('}')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.chars().all(is_name).then_some((name, matchers))
    });
    let each = selectors.flat_map(|(name, matchers)| {
        let matchers = matchers.split(", ").filter_map(|matcher| {
            let (label, values) = matcher.split_once('=')?;
            let label = label.trim_end_matches('!');
            // Prometheus says which process it asked.
            (label != "job").then_some((label, values.trim_start_matches('~').trim_matches('"')))
        });
        let named = move |(label, values): (&str, &str)| {
            let each = values.split('|');
            let each = each.map(|value| format!("{name}{{{label}=\"{value}\"}}"));
            each.collect::<Vec<_>>()
        };
        matchers.flat_map(named).collect::<Vec<_>>()
    });
    each.collect()
}

#[test]
fn the_cluster_of_the_compose_file_is_founded_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let compose = text("cluster/compose.yaml");
    let start = |name: &str, environment: &Environment| {
        let line = command_line(&service(&compose, name));
        Server::start(&line, environment, &folder.join(format!("{name}.log")))
    };
    let nodes = ["wal-1", "wal-2", "wal-3"].map(|name| start(name, &of_node(folder, name)));
    assert!(!is_healthy(&compose, &nodes[0]), "nobody has adopted it");

    // At each `docker compose up`.
    let init = command_line(&service(&compose, "init"));
    let here = of_agent(folder, "init", &nodes);
    let said = out(&mut esker(&init, &here), "");
    assert!(said.contains(" is founded"), "{said}");
    let said = out(&mut esker(&init, &here), "");
    assert!(
        said.contains("founded before: nothing is changed"),
        "{said}"
    );
    for node in &nodes {
        node.wait_until_ready();
        assert!(is_healthy(&compose, node));
        assert!(node.sum("esker_start_time_seconds ") > 1.7e9);
        assert_eq!(node.sum("esker_replica_voters{"), 3.0 * SHARDS);
    }

    let agents = ["agent-1", "agent-2"].map(|name| start(name, &of_agent(folder, name, &nodes)));
    let at = |agent: &Server, line: &[&str], stdin: &str| {
        agent.wait_until_ready();
        let endpoint = vec![("ESKER_ENDPOINT", agent.behind("is ready at "))];
        out(&mut esker(&owned(line), &endpoint), stdin)
    };
    let [one, other] = &agents;
    at(one, &["topic", "create", "hello", "--partitions", "4"], "");
    at(one, &["produce", "hello"], "hello, gravel\n");
    at(other, &["cluster", "flush"], "");
    assert_eq!(at(other, &["consume", "hello"], ""), "hello, gravel\n");
    // Who leads may change while it is asked.
    let began = Instant::now();
    let sum = |name: &str| -> f64 { nodes.iter().map(|node| node.sum(name)).sum() };
    while sum("esker_replica_leads{") != SHARDS || sum("esker_replica_leaderless{") != 0.0 {
        assert!(began.elapsed() < PATIENCE, "no shard has one leader");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(sum("esker_replica_term{") >= 3.0 * SHARDS);
    let healthy = words(&compose, "test: ").unwrap();
    assert_eq!(healthy[..2], ["CMD", "esker"], "of an agent, {healthy:?}");
    let healthy: Vec<_> = healthy[2..].iter().map(String::as_str).collect();
    for agent in &agents {
        at(agent, &healthy, "");
    }
    agents.into_iter().chain(nodes).for_each(Server::stop);
}

/// What is away for a minute after a power cut leaves no unit failed for good.
#[test]
fn units_are_started_again_however_often() {
    for unit in ["esker-wal", "esker-agent"] {
        let text = std::fs::read_to_string(deploy(&format!("systemd/{unit}.service"))).unwrap();
        let says = |line: &str| text.lines().any(|said| said == line);
        assert!(says("Restart=always") && says("RestartSec=5s"), "{unit}");
        assert!(says("StartLimitIntervalSec=0"), "{unit}");
    }
}

#[test]
fn what_the_units_run_is_founded_with_tls_and_counts_what_alerts_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let certs = folder.join("certs").display().to_string();
    let hosts = "1=127.0.0.1,2=127.0.0.1,3=127.0.0.1";
    let made = [
        "cluster",
        "certs",
        "--out",
        &certs,
        "--nodes",
        hosts,
        "--agent",
        "localhost",
    ];
    out(&mut esker(&owned(&made), &Vec::new()), "");
    let files = |of: &str| ["pem", "key"].map(|kind| format!("{certs}/{of}.{kind}"));
    let peers = |of: &str| {
        let [certificate, key] = files(of);
        [
            ("ESKER_TLS_PEERS_CERTIFICATE", certificate),
            ("ESKER_TLS_PEERS_KEY", key),
            ("ESKER_TLS_PEERS_CA", format!("{certs}/ca.pem")),
        ]
    };
    let nodes = ["node-1", "node-2", "node-3"].map(|name| {
        let mut here = of_node(folder, name);
        here.extend(peers(name));
        let line = exec_start("systemd/esker-wal.service");
        Server::start(&line, &here, &folder.join(format!("{name}.log")))
    });
    let mut here = of_agent(folder, "agent", &nodes);
    here.extend(peers("agent"));
    let [certificate, key] = files("agent");
    here.push(("ESKER_TLS_PUBLIC_CERTIFICATE", certificate));
    here.push(("ESKER_TLS_PUBLIC_KEY", key));
    let line = exec_start("systemd/esker-agent.service");
    let config = line.last().unwrap();
    let [operator, operator_key] = files("operator");
    let (operator, operator_key) = (operator.as_str(), operator_key.as_str());
    let init = ["cluster", "init", "--config", config];
    let shown = ["--tls-certificate", operator, "--tls-key", operator_key];
    out(&mut esker(&owned(&[init, shown].concat()), &here), "");
    let agent = Server::start(&line, &here, &folder.join("agent.log"));
    agent.wait_until_ready();
    let ready = agent.behind("is ready at ");
    let (_, port) = ready.rsplit_once(':').unwrap();
    let client = vec![
        ("ESKER_ENDPOINT", format!("https://localhost:{port}")),
        ("ESKER_TLS_CA", format!("{certs}/ca.pem")),
    ];
    out(
        &mut esker(
            &owned(&["topic", "create", "hello", "--partitions", "1"]),
            &client,
        ),
        "",
    );
    out(
        &mut esker(&owned(&["produce", "hello"]), &client),
        "hello, gravel\n",
    );

    let mut counted = agent.figures();
    for node in &nodes {
        node.wait_until_ready();
        counted.extend(node.figures());
    }
    what_is_asked_for_is_counted(&counted);
    agent.stop();
    nodes.into_iter().for_each(Server::stop);
}
