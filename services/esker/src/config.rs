//! The configuration of a server: one TOML file, overridden by the environment, overridden by flags.
//!
//! ```text
//!   defaults ◄── esker.toml ◄── ESKER_WAL_DISK=2GiB ◄── --listen …
//! ```
//! Sizes are bytes, or text such as `64MiB`; times are text such as `10s` or `250ms`. An unknown
//! key refuses to start.

mod quantity; // sizes and times as people write them

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use esker_record::ZstdLevel;
use esker_types::limits::{
    APPEND_BUDGET_BYTES, BLOCK_BYTES, BUCKET_CHECKPOINT_AGE, COLLECT_PERIOD, DATA_SHARDS_CLUSTER,
    DATA_SHARDS_DEV, DATA_SHARDS_MAX, FLUSH_AGE, FLUSH_AGE_DEV, FLUSH_BYTES, GIB,
    HEAD_DISK_BYTES_CLUSTER, HEAD_DISK_BYTES_DEV, HEAD_MEMORY_BYTES, MIB, OBJECT_PUT_BYTES_MAX,
    READ_BUDGET_BYTES, READ_GRACE, RETENTION_PERIOD, WAL_FILE_BYTES, WAL_GROUP_BYTES_MAX,
};
use serde::Deserialize;
use toml::{Table, Value};

pub(crate) use quantity::{Size, Span};

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

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Keeps replicas of shards on disk.
    Wal,
    /// Serves clients; holds nothing that must survive.
    Agent,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    /// The public gRPC API. Default: `127.0.0.1:7070`.
    pub(crate) public: SocketAddr,
    /// Metrics and health over HTTP. Default: where the public API is, one port higher.
    pub(crate) metrics: Option<SocketAddr>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectStore {
    /// `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`, `memory://name`. Default:
    /// `bucket` in the data directory.
    pub(crate) url: Option<String>,
    /// Settings of the store by the names of its kind: `aws_endpoint`, `aws_region`, … Secrets
    /// belong into the environment. Default: none.
    pub(crate) settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// Data shards, fixed when the cluster is founded: 1 to 1024. Default: 16, `dev` 4.
    pub(crate) data_shards: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wal {
    /// Bytes of all its files together, at least 8 files. Default: 8 GiB, `dev` 1 GiB.
    pub(crate) disk: Size,
    /// Bytes of unflushed records before appends are refused; at most half of `disk`. Default: half
    /// of `disk`.
    pub(crate) head: Option<Size>,
    /// Bytes of the head kept in memory. Default: 256 MiB.
    pub(crate) memory: Size,
    /// Bytes of one file: 48 MiB, so that the largest entries fit, to 1 GiB. Default: 64 MiB.
    pub(crate) file: Size,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flush {
    /// Head bytes of a shard that make a flush due: 64 KiB to 256 MiB. Default: 64 MiB.
    pub(crate) bytes: Size,
    /// Age of a shard's oldest unflushed batch that makes a flush due: 10 ms to 1 h. Default: 10 s,
    /// `dev` 5 s.
    pub(crate) age: Span,
    /// How hard blocks are compressed: 1 to 19. Default: 1.
    pub(crate) zstd_level: u8,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cache {
    /// Memory for blocks of the tail, at least 32 MiB. Default: 192 MiB.
    pub(crate) memory: Size,
    /// Memory for blocks of history, at least 32 MiB. Default: 64 MiB.
    pub(crate) backfill_memory: Size,
    /// Disk for blocks; 0 for none, else at least 16 MiB. Default: 4 GiB.
    pub(crate) disk: Size,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    /// Memory for appends on their way, all clients together: 96 MiB, so that one of any size fits,
    /// to 2 GiB. Default: 256 MiB.
    pub(crate) append_memory: Size,
    /// Memory for replies that wait for those who read, and batches decoded for them, all clients
    /// together: 64 MiB, so that one of any size fits, to 2 GiB. Default: 256 MiB.
    pub(crate) read_memory: Size,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upkeep {
    /// Age of a shard's checkpoint in the bucket that makes the next one due: 1 s to 1 h. Default:
    /// 60 s.
    pub(crate) checkpoint: Span,
    /// Time between two looks for what retention lets go: 1 s to 1 h. Default: 30 s.
    pub(crate) retention: Span,
    /// Time between two looks for objects that nothing names: 1 s to 1 day. Default: 5 min.
    pub(crate) collect: Span,
    /// How long such an object is kept, for those who still read it: 1 s to 1 day; longer than any
    /// read of one segment takes. Default: 10 min.
    pub(crate) grace: Span,
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

/// Keys that the environment may set: `wal.disk` by `ESKER_WAL_DISK`.
const KEYS: [&str; 23] = [
    "data_dir",
    "insecure",
    "listen.public",
    "listen.metrics",
    "object_store.url",
    "cluster.data_shards",
    "wal.disk",
    "wal.head",
    "wal.memory",
    "wal.file",
    "flush.bytes",
    "flush.age",
    "flush.zstd_level",
    "cache.memory",
    "cache.backfill_memory",
    "cache.disk",
    "agent.append_memory",
    "agent.read_memory",
    "upkeep.checkpoint",
    "upkeep.retention",
    "upkeep.collect",
    "upkeep.grace",
    "roles",
];

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

    fn check(&self) -> Result<(), ConfigError> {
        let mib = MIB as u64;
        // What is written at once goes into one file, twice, behind what the file opens with.
        let least = 3 * WAL_GROUP_BYTES_MAX as u64;
        within("wal.file", self.wal.file.0, least, GIB)?;
        let least = 8 * self.wal.file.0;
        within("wal.disk", self.wal.disk.0, least, u64::MAX / 2)?;
        within("wal.head", self.head_bytes(), mib, self.wal.disk.0 / 2)?;
        within("wal.memory", self.wal.memory.0, mib, u64::MAX / 2)?;
        let (least, most) = (96 * mib, 2 * GIB);
        within(
            "agent.append_memory",
            self.agent.append_memory.0,
            least,
            most,
        )?;
        let (least, most) = (64 * mib, 2 * GIB);
        within("agent.read_memory", self.agent.read_memory.0, least, most)?;
        let most = OBJECT_PUT_BYTES_MAX as u64 / 2;
        within("flush.bytes", self.flush.bytes.0, 64 << 10, most)?;
        let highest = ZstdLevel::MAX.get().into();
        within("flush.zstd_level", self.flush.zstd_level.into(), 1, highest)?;
        let shards = u64::from(self.cluster.data_shards);
        within("cluster.data_shards", shards, 1, DATA_SHARDS_MAX.into())?;
        let (millis, second) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (second(3600), second(86_400));
        lasting("flush.age", self.flush.age, millis(10), hour)?;
        let upkeep = &self.upkeep;
        lasting("upkeep.checkpoint", upkeep.checkpoint, second(1), hour)?;
        lasting("upkeep.retention", upkeep.retention, second(1), hour)?;
        lasting("upkeep.collect", upkeep.collect, second(1), day)?;
        lasting("upkeep.grace", upkeep.grace, second(1), day)?;
        if self.roles.len() == 1 {
            return Err(ConfigError::Bounds {
                key: "roles",
                value: "one of two".to_owned(),
                allowed: r#"this version runs both in one process: write ["wal", "agent"]"#
                    .to_owned(),
            });
        }
        if self.roles.is_empty() {
            return Err(ConfigError::Bounds {
                key: "roles",
                value: "empty".to_owned(),
                allowed: r#"write ["wal", "agent"], or one of them"#.to_owned(),
            });
        }
        for (key, address) in [
            ("listen.public", self.listen.public),
            ("listen.metrics", self.metrics()),
        ] {
            if !address.ip().is_loopback() && !self.insecure {
                return Err(ConfigError::Bounds {
                    key,
                    value: address.to_string(),
                    allowed:
                        "without TLS only loopback is served; use 127.0.0.1, or --insecure if \
                              everybody who reaches that address may read and write everything"
                            .to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// What is wrong with `text`, and where. What stands there may be a secret.
fn misspelt(text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let before = &text[..text.floor_char_boundary(at)];
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
    let what = error.message().replace('\n', " ");
    ConfigError::Text {
        what: format!("line {line}, column {column}: {what}"),
    }
}

/// That the settings of the store are texts: other values would be told with what is wrong.
fn only_texts(table: &Table) -> Result<(), ConfigError> {
    let refused = |what: &str| {
        let what = what.to_owned();
        Err(ConfigError::Text { what })
    };
    let Some(Value::Table(store)) = table.get("object_store") else {
        return refused("`object_store` is a section: write [object_store]");
    };
    let Some(Value::Table(settings)) = store.get("settings") else {
        return refused("`object_store.settings` is a section: write [object_store.settings]");
    };
    match settings.iter().find(|(_, value)| !value.is_str()) {
        Some((key, _)) => refused(&format!(
            "`object_store.settings.{key}` is no text: put it between quotes"
        )),
        None => Ok(()),
    }
}

fn within(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Bounds {
        key,
        value: value.to_string(),
        allowed: format!("it may be {least} to {most}"),
    })
}

fn lasting(
    key: &'static str,
    value: Span,
    least: Duration,
    most: Duration,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value.0) {
        return Ok(());
    }
    let (value, least, most) = (
        value.0.as_secs_f64(),
        least.as_secs_f64(),
        most.as_secs_f64(),
    );
    Err(ConfigError::Bounds {
        key,
        value: format!("{value} s"),
        allowed: format!("it may be {least} s to {most} s"),
    })
}

fn defaults(kind: Kind) -> Table {
    let (disk, shards, age) = match kind {
        Kind::Dev => (HEAD_DISK_BYTES_DEV, DATA_SHARDS_DEV, FLUSH_AGE_DEV),
        Kind::Serve => (HEAD_DISK_BYTES_CLUSTER, DATA_SHARDS_CLUSTER, FLUSH_AGE),
    };
    let text = format!(
        r#"
        data_dir = "./esker-data"
        roles = ["wal", "agent"]
        insecure = false
        [listen]
        public = "127.0.0.1:7070"
        [object_store]
        settings = {{}}
        [cluster]
        data_shards = {shards}
        [wal]
        disk = {disk}
        memory = {HEAD_MEMORY_BYTES}
        file = {WAL_FILE_BYTES}
        [flush]
        bytes = {FLUSH_BYTES}
        age = "{age}ms"
        zstd_level = 1
        [cache]
        memory = {cache}
        backfill_memory = {backfill}
        disk = {cache_disk}
        [agent]
        append_memory = {APPEND_BUDGET_BYTES}
        read_memory = {READ_BUDGET_BYTES}
        [upkeep]
        checkpoint = "{checkpoint}s"
        retention = "{retention}s"
        collect = "{collect}s"
        grace = "{grace}s"
        "#,
        age = age.as_millis(),
        cache = 192 * BLOCK_BYTES,
        backfill = 64 * BLOCK_BYTES,
        cache_disk = 4 * GIB,
        checkpoint = BUCKET_CHECKPOINT_AGE.as_secs(),
        retention = RETENTION_PERIOD.as_secs(),
        collect = COLLECT_PERIOD.as_secs(),
        grace = READ_GRACE.as_secs(),
    );
    text.parse().expect("the defaults are TOML")
}

/// Puts `over` over `under`, table by table.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Sets `key`, dotted, to what `text` says: a number or a truth value if it is one, a list of words
/// for roles, else a text.
fn set(table: &mut Table, key: &str, text: &str) {
    let value = match key {
        "roles" => Value::Array(text.split(',').map(|role| role.trim().into()).collect()),
        _ => match (text.parse::<i64>(), text.parse::<bool>()) {
            (Ok(number), _) => Value::Integer(number),
            (_, Ok(truth)) => Value::Boolean(truth),
            _ => Value::String(text.to_owned()),
        },
    };
    let mut table = table;
    let mut key = key;
    while let Some((section, rest)) = key.split_once('.') {
        let section = table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(section) = section else {
            return;
        };
        (table, key) = (section, rest);
    }
    table.insert(key.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Config, ConfigError> {
        Config::build(Kind::Dev, Some(text), &BTreeMap::new(), &[])
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        let config = Config::build(Kind::Dev, None, &BTreeMap::new(), &[]).expect("defaults");
        assert_eq!(config.wal.disk.0, GIB);
        assert_eq!(config.head_bytes(), GIB / 2);
        assert_eq!(config.cluster.data_shards, 4);
        let bucket = config.bucket();
        assert!(bucket.starts_with("file:///"), "{bucket}");
        assert!(bucket.ends_with("/esker-data/bucket"), "{bucket}");
        let config = Config::build(Kind::Serve, None, &BTreeMap::new(), &[]).expect("defaults");
        assert_eq!(
            (config.wal.disk.0, config.cluster.data_shards),
            (8 * GIB, 16)
        );
    }

    #[test]
    fn the_configuration_for_containers_is_taken() {
        let text = include_str!("../../../deploy/esker.toml");
        let config = Config::build(Kind::Serve, Some(text), &BTreeMap::new(), &[]);
        let config = config.expect("it is good");
        assert_eq!(config.bucket(), "s3://esker");
        assert_eq!(config.metrics().to_string(), "0.0.0.0:7071");
    }

    #[test]
    fn flags_go_over_the_environment_over_the_file() {
        let text = "[wal]\ndisk = \"2GiB\"\n[flush]\nage = \"1s\"\nbytes = 100000\n";
        let environment = BTreeMap::from([
            ("ESKER_WAL_DISK".to_owned(), "3GiB".to_owned()),
            ("ESKER_FLUSH_BYTES".to_owned(), "200000".to_owned()),
            ("ESKER_ROLES".to_owned(), "wal, agent".to_owned()),
        ]);
        let flags = [("flush.bytes", "300000".to_owned())];
        let config = Config::build(Kind::Dev, Some(text), &environment, &flags).expect("good");
        assert_eq!(config.wal.disk.0, 3 * GIB);
        assert_eq!(config.flush.age.0.as_secs(), 1);
        assert_eq!(config.flush.bytes.0, 300_000);
        assert_eq!(config.roles, [Role::Wal, Role::Agent]);
    }

    #[test]
    fn what_is_wrong_is_refused_in_one_line_that_names_the_key() {
        for (text, named) in [
            ("dataa_dir = \"x\"", "dataa_dir"),
            ("[wal]\ndiskk = 1", "diskk"),
            ("[wal]\ndisk = 0", "wal.disk"),
            ("[wal]\ndisk = -1", "-1"),
            ("[wal]\nfile = \"47MiB\"", "wal.file"),
            ("[wal]\ndisk = \"1GiBB\"", "1GiBB"),
            ("[agent]\nappend_memory = \"95MiB\"", "agent.append_memory"),
            ("[agent]\nread_memory = \"63MiB\"", "agent.read_memory"),
            ("[flush]\nage = \"0s\"", "flush.age"),
            ("[upkeep]\ngrace = \"0s\"", "upkeep.grace"),
            ("[upkeep]\ncollect = \"25h\"", "upkeep.collect"),
            ("[flush]\nzstd_level = 20", "flush.zstd_level"),
            ("a = 1\n\n  b = = 2", "line 3, column 7"),
            ("[cluster]\ndata_shards = 0", "cluster.data_shards"),
            ("roles = []", "roles"),
            ("roles = [\"king\"]", "king"),
            ("[listen]\npublic = \"0.0.0.0:7070\"", "listen.public"),
            ("[listen]\npublic = \"here\"", "socket"),
            ("= 1", "key"),
        ] {
            let error = build(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
        assert!(build("insecure = true\n[listen]\npublic = \"0.0.0.0:7070\"").is_ok());
    }

    /// It goes to terminals and logs.
    #[test]
    fn what_is_wrong_is_said_without_the_text_of_its_line() {
        for wrong in [
            "aws_secret_access_key = \"hush/+1",
            "aws_secret_access_key = hush/+1\"",
            "aws_secret_access_key = hush",
            "aws_secret_access_key = \"hush\\q\"",
            "aws_secret_access_key = \"a\" \"hush\"",
            "aws_secret_access_key \"hush\"",
            "aws_secret_access_key: hush",
            "aws_secret_access_key = [\"hush\"]",
            "aws_secret_access_key = \"\"\"hush",
            "aws_secret_access_key = 'hush",
            "aws_secret_access_key = { hush = 1 }",
        ] {
            let text = format!("[object_store.settings]\naws_region = \"r\"\n{wrong}\n");
            let error = build(&text).expect_err(wrong).to_string();
            assert!(!error.contains("hush"), "{wrong}: {error}");
            assert!(
                error.contains("line ") || error.contains("aws_secret_access_key"),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
        let numbers = "[object_store.settings]\naws_secret_access_key = 471147\n";
        let error = build(numbers).expect_err("no text").to_string();
        assert!(!error.contains("471147"), "{error}");
        for text in [
            "object_store = \"hush\"",
            "[object_store]\nsettings = \"hush\"",
        ] {
            let error = build(text).expect_err(text).to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
