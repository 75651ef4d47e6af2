//! A cluster as processes: WAL nodes, agents, a folder for a bucket, and what outlives them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_client::direct::StoreOptions;
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::SOON;
use crate::net::Net;
use crate::saying::Saying;
use crate::server::{OLD_CLUSTER, Server, binary, old_binary};
use crate::site::free_port;

/// Shards beside the catalog.
pub(crate) const DATA_SHARDS: u32 = 4;
const NODES: usize = 3;
/// A WAL of many small files.
const OF_NODES: &str =
    "wal = { disk = \"384MiB\", file = \"48MiB\", head = \"64MiB\", memory = \"16MiB\" }\n";
/// Small segments, fast flushes, objects that nobody names soon collected.
const OF_AGENTS: &str = "flush = { bytes = \"64KiB\", age = \"50ms\" }\n\
    cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n\
    upkeep = { checkpoint = \"1s\", retention = \"1s\", collect = \"1s\", grace = \"2s\" }\n";
/// As small as it may be, so that everything happens often.
const SMALL: Settings = Settings {
    nodes: OF_NODES,
    agents: OF_AGENTS,
    old: false,
};
/// The same, started by the older binary.
pub(crate) const OLD: Settings = Settings { old: true, ..SMALL };
/// Foundings until nobody else has taken a port meanwhile.
const FOUNDINGS_MAX: usize = 4;
/// Entries that a node of a cluster that is well may lack: others write all the time.
const LAG_MAX: u64 = 200;
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// A cluster. Its folder is kept when a test fails.
pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) nodes: Vec<Process>,
    pub(crate) agents: Vec<Process>,
    ports: BTreeSet<u16>,
    /// Nodes that there were, for their names.
    nodes_ever: usize,
    /// Where each process has a host of its own.
    network: Option<Net>,
    settings: Settings,
    /// What was said at level WARN, and how often.
    pub(crate) warnings: BTreeMap<String, u32>,
}

/// What the configurations of a cluster say beside addresses and folders, in TOML.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) nodes: &'static str,
    pub(crate) agents: &'static str,
    /// Processes begin as the older binary.
    pub(crate) old: bool,
}

/// A process that comes back at its address, with what it has on disk.
pub(crate) struct Process {
    pub(crate) name: String,
    /// Its address without the port.
    pub(crate) host: String,
    /// What a command begins with that runs on its host.
    there: Vec<String>,
    port: u16,
    starts: u32,
    /// What it is started by next.
    pub(crate) binary: PathBuf,
    pub(crate) server: Option<Server>,
}

/// How the nodes say that they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Node by shard.
    pub(crate) leaders: BTreeMap<u32, String>,
    pub(crate) nodes: Vec<Stands>,
    silent: usize,
}

/// How one node stands.
#[derive(Clone, Debug)]
pub(crate) struct Stands {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) leads: u64,
    votes: u64,
    lag: u64,
}

impl Cluster {
    /// Three nodes, founded, and as many `agents`, which are ready; in `network`, or on this host.
    pub(crate) fn found(agents: usize, network: Option<Net>) -> Self {
        Self::found_with(SMALL, agents, network)
    }

    /// The same, with other `settings`.
    pub(crate) fn found_with(settings: Settings, agents: usize, mut network: Option<Net>) -> Self {
        for _ in 0..FOUNDINGS_MAX {
            let mut cluster = Self {
                folder: tempfile::tempdir().expect("a scratch folder"),
                nodes: Vec::new(),
                agents: Vec::new(),
                ports: BTreeSet::new(),
                nodes_ever: 0,
                network: network.take(),
                settings,
                warnings: BTreeMap::new(),
            };
            match cluster.try_found(agents) {
                Ok(()) => return cluster,
                Err(why) => {
                    println!("once more, with other ports: {why}");
                    network = cluster.network.take();
                }
            }
        }
        panic!("no cluster in {FOUNDINGS_MAX} foundings");
    }

    fn try_found(&mut self, agents: usize) -> Result<(), String> {
        for _ in 0..NODES {
            let node = self.new_node();
            self.nodes.push(node);
        }
        for at in 0..NODES {
            self.start_node(at);
        }
        for node in &mut self.nodes {
            node.server.as_mut().expect("it runs").try_ready()?;
        }
        let agents: Vec<_> = (1..=agents)
            .map(|number| self.new_agent(&format!("agent-{number}")))
            .collect();
        self.agents = agents;
        let config = self.config_of(&self.agents[0].name);
        let init = ["cluster", "init", "--json", "--config", text(&config)];
        esker(&init)?;
        for at in 0..self.agents.len() {
            self.start_agent(at);
        }
        for agent in &mut self.agents {
            agent.server.as_mut().expect("it runs").try_ready()?;
        }
        Ok(())
    }

    /// A node with an empty disk, which nobody knows yet.
    pub(crate) fn new_node(&mut self) -> Process {
        self.nodes_ever += 1;
        let name = format!("wal-{}", self.nodes_ever);
        let (node, data) = (self.process(&name), self.path(&name));
        let own = format!(
            "roles = [\"wal\"]\ndata_dir = {data:?}\nlisten.peers = {:?}\n\
             listen.metrics = \"{}:0\"\ninsecure = {}\n",
            node.address(),
            node.host,
            self.network.is_some(),
        );
        fs::write(self.config_of(&name), own + self.settings.nodes).expect("a configuration");
        node
    }

    /// An agent with no cache, which knows the nodes that there are.
    pub(crate) fn new_agent(&mut self, name: &str) -> Process {
        let agent = self.process(name);
        self.configure(&agent);
        agent
    }

    /// Tells an agent, before it starts, which nodes there are now.
    pub(crate) fn configure(&self, agent: &Process) {
        let nodes: Vec<_> = self.nodes.iter().map(Process::address).collect();
        let own = format!(
            "roles = [\"agent\"]\ndata_dir = {:?}\nlisten.public = \"{}\"\n\
             listen.metrics = \"127.0.0.1:0\"\ninsecure = {}\nobject_store.url = {:?}\n\
             cluster = {{ nodes = {nodes:?}, data_shards = {DATA_SHARDS} }}\n",
            self.path(&agent.name),
            agent.address(),
            self.network.is_some(),
            self.url(),
        );
        fs::write(self.config_of(&agent.name), own + self.settings.agents)
            .expect("a configuration");
    }

    pub(crate) fn start_node(&mut self, at: usize) {
        self.nodes[at].start(self.folder.path());
    }

    pub(crate) fn start_agent(&mut self, at: usize) {
        self.agents[at].start(self.folder.path());
    }

    /// `kill -9` of those that run, all before the first death is waited for.
    pub(crate) fn kill(&mut self, nodes: &[usize], agents: &[usize]) {
        let mut struck = Vec::new();
        struck.extend(nodes.iter().filter_map(|at| self.nodes[*at].server.take()));
        struck.extend(
            agents
                .iter()
                .filter_map(|at| self.agents[*at].server.take()),
        );
        struck.iter().for_each(Server::strike);
        for server in struck {
            let said = server.kill();
            self.hear(&said);
        }
    }

    /// SIGTERM to one node, which stops well.
    pub(crate) fn stop_node(&mut self, at: usize) {
        stop(&mut self.nodes[at..=at], &mut self.warnings);
    }

    /// SIGTERM to one agent, which stops well.
    pub(crate) fn stop_agent(&mut self, at: usize) {
        stop(&mut self.agents[at..=at], &mut self.warnings);
    }

    /// SIGTERM to all agents, and then to all nodes: all stop well.
    pub(crate) fn stop(&mut self) {
        stop(&mut self.agents, &mut self.warnings);
        stop(&mut self.nodes, &mut self.warnings);
    }

    /// Nothing that it said is an error.
    fn hear(&mut self, said: &Saying) {
        hear(&mut self.warnings, said);
    }

    /// Waits until every process runs and is ready, every node holds every shard and lacks nothing that
    /// matters; how they stand then.
    pub(crate) async fn well(&mut self) -> Standing {
        let began = Instant::now();
        let shards = u64::from(DATA_SHARDS) + 1;
        for process in self.nodes.iter_mut().chain(&mut self.agents) {
            let server = process.server.as_mut().expect("it was started");
            if !server.was_ready() {
                tokio::task::block_in_place(|| server.ready());
            }
        }
        loop {
            self.all_live();
            let standing = tokio::task::block_in_place(|| self.standing());
            let whole = |node: &Stands| node.votes == shards && node.lag <= LAG_MAX;
            match &standing {
                Ok(standing)
                    if standing.leaders.len() as u64 == shards
                        && standing.silent == 0
                        && standing.nodes.len() == self.nodes.len()
                        && standing.nodes.iter().all(whole) =>
                {
                    return standing.clone();
                }
                _ => {}
            }
            assert!(began.elapsed() < SOON, "not well in {SOON:?}: {standing:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Nobody has ended by itself.
    pub(crate) fn all_live(&mut self) {
        for process in self.nodes.iter_mut().chain(&mut self.agents) {
            if let Some(server) = &mut process.server
                && let Some(status) = server.ended()
            {
                let (name, said) = (&process.name, server.last_words());
                panic!("{name} has ended: {status}; {said}");
            }
        }
    }

    /// How the nodes say that they stand.
    pub(crate) fn standing(&self) -> Result<Standing, String> {
        let config = self.config_of(&self.agents[0].name);
        let said = esker(&["cluster", "status", "--json", "--config", text(&config)])?;
        let list = |name: &str| said[name].as_array().cloned().unwrap_or_default();
        let count = |of: &Value| of.as_u64().expect("a number");
        let name = |of: &Value| of.as_str().expect("a text").to_owned();
        let led = |shard: &Value| {
            let leader = shard["leader"].as_str()?.to_owned();
            let number = u32::try_from(count(&shard["shard"])).expect("small");
            Some((number, leader))
        };
        let stands = |node: &Value| Stands {
            id: name(&node["node"]),
            address: name(&node["address"]),
            leads: count(&node["leads"]),
            votes: count(&node["votes"]),
            lag: count(&node["lag_entries"]),
        };
        Ok(Standing {
            leaders: list("shards").iter().filter_map(led).collect(),
            nodes: list("nodes").iter().map(stands).collect(),
            silent: list("silent").len(),
        })
    }

    /// Which of the nodes has this id.
    pub(crate) fn node(&self, standing: &Standing, id: &str) -> usize {
        let stands = standing.nodes.iter().find(|node| node.id == id);
        let address = &stands.expect("it is one of them").address;
        let at = self
            .nodes
            .iter()
            .position(|node| node.address() == *address);
        at.expect("it is one of ours")
    }

    /// Where agents are.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.agents.iter().map(Process::endpoint).collect()
    }

    /// Where the bucket is.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path("bucket").display())
    }

    /// How to open it.
    pub(crate) fn store_options(&self) -> StoreOptions {
        StoreOptions::default()
    }

    pub(crate) fn config_of(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.toml"))
    }

    /// Something in its folder; a process has its data under its name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The network that the processes have for themselves.
    pub(crate) fn network(&mut self) -> &mut Net {
        self.network.as_mut().expect("it was founded in one")
    }

    /// One process more, at an address of its own.
    fn process(&mut self, name: &str) -> Process {
        let here = || ("127.0.0.1".to_owned(), Vec::new());
        let (host, there) = self.network.as_mut().map_or_else(here, Net::host);
        let port = loop {
            let port = free_port();
            if self.ports.insert(port) {
                break port;
            }
        };
        Process {
            name: name.to_owned(),
            host,
            there,
            port,
            starts: 0,
            binary: match self.settings.old {
                true => old_binary(OLD_CLUSTER).expect("it is named"),
                false => binary(),
            },
            server: None,
        }
    }
}

impl Process {
    /// Starts it; it is not ready yet.
    pub(crate) fn start(&mut self, folder: &Path) {
        self.starts += 1;
        let log = self.log(folder);
        let config = folder.join(format!("{}.toml", self.name));
        let none = BTreeMap::new();
        let server = Server::spawn_at(&self.binary, &self.there, &config, &none, &log);
        self.server = Some(server);
    }

    /// What it said since it was started last.
    pub(crate) fn log(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}.log", self.name, self.starts))
    }

    /// The process, which runs.
    pub(crate) fn running(&self) -> &Server {
        self.server.as_ref().expect("it was started")
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!(
                "data, bucket, logs and history are in {}",
                self.folder.path().display()
            );
        }
    }
}

fn stop(processes: &mut [Process], warnings: &mut BTreeMap<String, u32>) {
    let running = processes.iter_mut();
    let servers: Vec<_> = running.filter_map(|it| it.server.take()).collect();
    servers.iter().for_each(Server::ask_to_stop);
    for server in servers {
        let said = Arc::clone(server.saying());
        server.stopped();
        hear(warnings, &said);
    }
}

fn hear(warnings: &mut BTreeMap<String, u32>, said: &Saying) {
    let errors = said.errors();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    for warning in said.warnings() {
        let said: Value = serde_json::from_str(&warning).expect("it is a line");
        let text = said["fields"]["message"].as_str().unwrap_or_default();
        *warnings.entry(text.to_owned()).or_default() += 1;
    }
}

/// What `esker ARGS` answers, in JSON; or what it says instead.
pub(crate) fn esker(args: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    for name in ["ESKER_ENDPOINT", "ESKER_LOG"] {
        command.env_remove(name);
    }
    let output = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{args:?}: {}", said.trim_end()));
    }
    Ok(serde_json::from_slice(&output.stdout).expect("it was asked for JSON"))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
