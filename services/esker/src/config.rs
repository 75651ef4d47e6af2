//! The configuration of a server: one TOML file, overridden by the environment, overridden by flags.
//!
//! ```text
//!   defaults ◄── esker.toml ◄── ESKER_WAL_DISK=2GiB ◄── --listen …
//! ```
//! Sizes are bytes, or text such as `64MiB`; times are text such as `10s` or `250ms`. An unknown
//! key refuses to start, and so does a variable that is all but one of ours. Whatever is refused is refused at once, each with who said it.

mod quantity; // sizes and times as people write them
mod address; // addresses likewise
mod sections; // what there is to be told
mod layers; // defaults, file, environment, flags, each over the one before
mod variables; // of the environment, and what is all but one
mod said; // who told what: a line of the file, a variable, a flag
mod bounds; // what may be told
pub(crate) mod tls; // what proves who is there, whole or not at all

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use address::Address;
use layers::{KEYS, defaults, get, merge, misspelt, no_texts, set};
pub(crate) use quantity::{Size, Span};
use said::Said;
pub(crate) use sections::Role;
pub(crate) use sections::Upkeep;
use sections::{Agent, Cache, Cluster, Flush, Listen, ObjectStore, Tls, Wal};
use variables::variable;

/// Everything that a server is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it keeps its WAL, its checkpoints and its cache. Default: `./esker-data`.
    pub(crate) data_dir: PathBuf,
    /// What it is: `wal` (keeps replicas), `agent` (serves clients). Default: both, which is a cluster
    /// of one unless `cluster.nodes` says otherwise.
    pub(crate) roles: Vec<Role>,
    /// Serve addresses other than loopback without TLS. Default: false.
    pub(crate) insecure: bool,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// What proves who is there.
    pub(crate) tls: Tls,
    /// The bucket.
    pub(crate) object_store: ObjectStore,
    /// What it is a part of.
    pub(crate) cluster: Cluster,
    /// The write-ahead log of this node.
    pub(crate) wal: Wal,
    /// When heads go to the bucket.
    pub(crate) flush: Flush,
    /// Blocks of the bucket kept here.
    pub(crate) cache: Cache,
    /// What serves clients.
    pub(crate) agent: Agent,
    /// What is done in the bucket now and then.
    pub(crate) upkeep: Upkeep,
}

/// What is being configured, which decides some defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Everything in one process, for a try.
    Dev,
    /// For good.
    Serve,
}

/// A configuration file, read.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path}, line {line}, column {column}: {what}", path = path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Where, both from one on.
        line: usize,
        /// See there.
        column: usize,
        /// What is wrong there, without what stands there: it may be a secret.
        what: String,
    },
    /// Keys that there are none of, values of a wrong kind or out of bounds: all of them.
    #[error("{}", list(.0))]
    Refused(Vec<Fault>),
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[error("{by}`{key}` {what}")]
pub(crate) struct Fault {
    /// Who told it, and a colon; nothing where nobody did.
    by: String,
    key: String,
    /// Its value and what it may be.
    what: String,
}

/// One fault in its line, several in a line each.
fn list(faults: &[Fault]) -> String {
    match faults {
        [fault] => fault.to_string(),
        _ => {
            let lines = faults.iter().map(|fault| format!("\n  {fault}"));
            let lines: String = lines.collect();
            format!(
                "{} things are wrong with the configuration:{lines}",
                faults.len()
            )
        }
    }
}

impl Config {
    /// Defaults, then `file`, then `environment`, then `flags` (key and value), each over what came
    /// before.
    pub(crate) fn build(
        kind: Kind,
        file: Option<&File>,
        environment: &BTreeMap<String, String>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table = defaults(kind);
        let mut said = Said::default();
        let mut faults = Vec::new();
        if let Some(file) = file {
            let over: Table = (file.text.parse()).map_err(|error| misspelt(file, &error))?;
            faults = said.by_file(file)?;
            merge(&mut table, over);
        }
        faults.extend(variables::misspelt(environment));
        for key in KEYS {
            let name = variable(key);
            if let Some(value) = environment.get(&name) {
                set(&mut table, key, value);
                said.by(key, name);
            }
        }
        for (key, value) in flags {
            set(&mut table, key, value);
            said.by(key, said::flag(key));
        }
        if faults.is_empty() {
            faults = misfits(kind, &table, &said);
        }
        if !faults.is_empty() {
            return Err(ConfigError::Refused(faults));
        }
        let config = Self::deserialize(Value::Table(table));
        // Each key fits by itself: so do all of them.
        let config = config.map_err(|error| {
            ConfigError::Refused(vec![said.fault("configuration", error.message())])
        });
        let mut config = config?;
        config.cluster.is_said = said.has("cluster.data_shards");
        let faults: Vec<_> = config.out_of_bounds().into_iter().collect();
        if faults.is_empty() {
            return Ok(config);
        }
        let told = faults.into_iter().map(|(key, what)| said.fault(key, what));
        Err(ConfigError::Refused(told.collect()))
    }

    /// Whether it has `role`.
    pub(crate) fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it is a cluster of one, which founds itself.
    pub(crate) fn is_alone(&self) -> bool {
        self.is(Role::Wal) && self.is(Role::Agent) && self.cluster.nodes.is_empty()
    }

    /// Whether it serves anything but metrics without TLS.
    pub(crate) fn is_open(&self) -> bool {
        let public = self.is(Role::Agent) && self.tls.public().is_none();
        let peers = self.is(Role::Wal) && !self.is_alone() && self.tls.peers().is_none();
        public || peers
    }

    /// The bucket's URL.
    pub(crate) fn bucket(&self) -> String {
        match &self.object_store.url {
            Some(url) => url.clone(),
            None => {
                // A URL knows no directory that it is relative to.
                let directory = std::path::absolute(&self.data_dir);
                let directory = directory.unwrap_or_else(|_| self.data_dir.clone());
                format!("file://{}", directory.join("bucket").display())
            }
        }
    }

    /// Where metrics and health are served. What is served on any free port has them on another.
    pub(crate) fn metrics(&self) -> SocketAddr {
        if let Some(Address(metrics)) = self.listen.metrics {
            return metrics;
        }
        let Address(below) = match self.is(Role::Agent) {
            true => self.listen.public,
            false => self.listen.peers,
        };
        let next = match below.port() {
            0 => 0,
            port => port.wrapping_add(1),
        };
        SocketAddr::new(below.ip(), next)
    }

    /// Bytes of unflushed records before appends are refused.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.wal.head.map_or(self.wal.disk.0 / 2, |head| head.0)
    }
}

/// Keys of `table` whose values are of a wrong kind.
fn misfits(kind: Kind, table: &Table, said: &Said) -> Vec<Fault> {
    let mut faults = Vec::new();
    for key in KEYS.into_iter().filter(|key| said.has(key)) {
        let Some(value) = get(table, key) else {
            continue;
        };
        let mut alone = defaults(kind);
        layers::put(&mut alone, key, value.clone());
        if let Err(error) = Config::deserialize(Value::Table(alone)) {
            faults.push(said.fault(key, format!("is refused: {}", error.message().trim_end())));
        }
    }
    let settings = no_texts(table).into_iter();
    faults.extend(settings.map(|key| said.fault(&key, "is no text: put it between quotes")));
    faults
}

#[cfg(test)]
mod tests;
