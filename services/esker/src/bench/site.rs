//! A cluster of one's own: this binary, in a scratch folder, each node and the agent in a process of its
//! own, the bucket a folder.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use esker_client::{Client, Options};
use esker_env::{Env, WorkersExt};

use super::process::Process;
use crate::failure::Failure;

/// How long a cluster may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// A cluster that runs. It ends when this is dropped; its folder stays.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) nodes: Vec<Process>,
    pub(crate) agent: Process,
    /// Of its agent.
    pub(crate) address: String,
}

/// What its processes took up to a moment.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Seconds of a core, of all.
    pub(crate) cpu: f64,
    /// Bytes that each node holds, and the agent.
    pub(crate) nodes: Vec<u64>,
    pub(crate) agent: u64,
}

/// Where a process listens, and what it is told.
struct Plan {
    metrics: String,
    config: PathBuf,
    text: String,
}

impl Site {
    /// Founds one of `nodes` nodes with `shards` data shards in `folder`, which is made, and waits until it
    /// is ready.
    pub(crate) async fn found(
        env: &Env,
        folder: &Path,
        nodes: usize,
        shards: u32,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io(&folder.display().to_string(), &error);
        let made = env.files.create_dir_all(folder);
        made.map_err(failed)?;
        let ports = free_ports(env, 2 * nodes + 2).await.map_err(failed)?;
        let (ports, of_agent) = ports.split_at(2 * nodes);
        let peers: Vec<_> = ports.iter().step_by(2).collect();
        let nodes = ports.chunks(2).enumerate().map(|(at, ports)| {
            let name = format!("wal-{}", at + 1);
            let data = folder.join(&name);
            let listen = format!(
                "listen = {{ peers = {:?}, metrics = {:?} }}",
                ports[0], ports[1]
            );
            Plan {
                metrics: ports[1].clone(),
                config: folder.join(format!("{name}.toml")),
                text: format!("roles = [\"wal\"]\ndata_dir = {data:?}\n{listen}\n"),
            }
        });
        let address = of_agent[0].clone();
        let agent = Plan {
            metrics: of_agent[1].clone(),
            config: folder.join("agent.toml"),
            text: format!(
                "roles = [\"agent\"]\ndata_dir = {:?}\n\
                 listen = {{ public = {:?}, metrics = {:?} }}\n\
                 cluster = {{ nodes = {peers:?}, data_shards = {shards} }}\n\
                 object_store.url = \"file://{}\"\n",
                folder.join("agent"),
                of_agent[0],
                of_agent[1],
                folder.join("bucket").display(),
            ),
        };
        let (nodes, config): (Vec<_>, _) = (nodes.collect(), agent.config.clone());
        let started = env.workers.run(move || {
            for plan in nodes.iter().chain([&agent]) {
                crate::run::write_new(&plan.config, &plan.text, false)?;
            }
            let nodes: io::Result<Vec<_>> = nodes.iter().map(Plan::start).collect();
            Ok::<_, io::Error>((nodes?, init(&config)?, agent.start()?))
        });
        let (nodes, init, agent) = started.await.map_err(failed)?;
        if let Some(said) = init {
            return Err(Failure::new(format!("no cluster of our own: {said}")));
        }
        let site = Self {
            nodes,
            agent,
            address,
        };
        site.ready(env).await?;
        Ok(site)
    }

    async fn ready(&self, env: &Env) -> Result<(), Failure> {
        let began = env.clock.monotonic();
        while !self.agent.is_ready(env).await {
            if env.clock.monotonic().since(began) > READY_MAX {
                let text = format!("a cluster of our own is not ready after {READY_MAX:?}");
                let next = "a cluster by hand, as README has it, says why";
                return Err(Failure::new(text).and_next(next.to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// A client of its agent.
    pub(crate) async fn client(&self, env: &Env) -> Result<Client, Failure> {
        let client =
            Client::connect(&format!("http://{}", self.address), Options::default(), env).await;
        client.map_err(|error| Failure::reading(&error))
    }

    /// What its processes took so far.
    pub(crate) fn taken(&self) -> Taken {
        let all = self.nodes.iter().chain([&self.agent]);
        Taken {
            cpu: all.map(Process::cpu_seconds).sum(),
            nodes: self.nodes.iter().map(Process::resident).collect(),
            agent: self.agent.resident(),
        }
    }

    /// The most that one of them ever held, in bytes.
    pub(crate) fn most_resident(&self) -> u64 {
        let all = self.nodes.iter().chain([&self.agent]);
        all.map(Process::most_resident).max().unwrap_or(0)
    }
}

impl Plan {
    fn start(&self) -> io::Result<Process> {
        let child = esker(&["serve"], &self.config)?
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Process::new(child, self.metrics.clone()))
    }
}

/// What it says if it fails.
fn init(agent: &Path) -> io::Result<Option<String>> {
    let ended = esker(&["cluster", "init"], agent)?
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    Ok((!ended.status.success()).then_some(said))
}

fn esker(command: &[&str], config: &Path) -> io::Result<Command> {
    let mut esker = Command::new(std::env::current_exe()?);
    esker
        .args(command)
        .arg("--config")
        .arg(config)
        .env_remove("ESKER_ENDPOINT")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(esker)
}

/// Free when they were looked for.
async fn free_ports(env: &Env, count: usize) -> io::Result<Vec<String>> {
    let mut listening = Vec::new();
    for _ in 0..count {
        listening.push(env.network.listen("127.0.0.1:0").await?);
    }
    let address = listening
        .iter()
        .map(|listener| listener.address().to_owned());
    Ok(address.collect())
}
