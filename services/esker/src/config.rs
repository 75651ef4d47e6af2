//! The configuration of a server: one TOML file, overridden by the environment, overridden by flags.
//!
//! ```text
//!   defaults ◄── esker.toml ◄── ESKER_WAL_DISK=2GiB ◄── --listen …
//! ```
//! Sizes are bytes, or text such as `64MiB`; times are text such as `10s` or `250ms`. An unknown
//! key refuses to start.

mod quantity; // sizes and times as people write them
mod sections; // what there is to be told
mod layers; // defaults, file, environment, flags, each over the one before
mod bounds; // what may be told

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

use layers::{KEYS, defaults, merge, misspelt, only_texts, set};
pub(crate) use quantity::{Size, Span};
pub(crate) use sections::Upkeep;
use sections::{Agent, Cache, Cluster, Flush, Listen, ObjectStore, Role, Wal};

/// Everything that a server is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it keeps its WAL, its checkpoints and its cache. Default: `./esker-data`.
    pub(crate) data_dir: PathBuf,
    /// What it is: `wal` (keeps replicas), `agent` (serves clients). Default: both.
    pub(crate) roles: Vec<Role>,
    /// Serve addresses other than loopback without TLS. Default: false.
    pub(crate) insecure: bool,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// The bucket.
    pub(crate) object_store: ObjectStore,
    /// Fixed when a cluster is founded.
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

/// Why a configuration is refused: one line that names the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, has an unknown key, or a value of a wrong kind.
    #[error("the configuration is refused: {what}")]
    Text {
        /// What and where.
        what: String,
    },
    /// A value out of bounds.
    #[error("`{key}` is {value}; {allowed}")]
    Bounds {
        /// Which.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

impl Config {
    /// Defaults, then `text` (a TOML file), then `environment`, then `flags` (key and value), each
    /// over what came before.
    pub(crate) fn build(
        kind: Kind,
        text: Option<&str>,
        environment: &BTreeMap<String, String>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table = defaults(kind);
        if let Some(text) = text {
            let file: Table = text.parse().map_err(|error| misspelt(text, &error))?;
            merge(&mut table, file);
        }
        for key in KEYS {
            let name = format!("ESKER_{}", key.replace('.', "_").to_uppercase());
            if let Some(value) = environment.get(&name) {
                set(&mut table, key, value);
            }
        }
        for (key, value) in flags {
            set(&mut table, key, value);
        }
        only_texts(&table)?;
        let config = Self::deserialize(Value::Table(table));
        let config = config.map_err(|error| ConfigError::Text {
            what: error.to_string().trim_end().replace('\n', " "),
        })?;
        config.check()?;
        Ok(config)
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

    /// Where metrics and health are served. A public API on any free port has them on another.
    pub(crate) fn metrics(&self) -> SocketAddr {
        let Listen { public, metrics } = self.listen;
        metrics.unwrap_or_else(|| {
            let next = if public.port() == 0 {
                0
            } else {
                public.port().wrapping_add(1)
            };
            SocketAddr::new(public.ip(), next)
        })
    }

    /// Bytes of unflushed records before appends are refused.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.wal.head.map_or(self.wal.disk.0 / 2, |head| head.0)
    }
}

#[cfg(test)]
mod tests;
