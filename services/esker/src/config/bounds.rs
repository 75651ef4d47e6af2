//! What may be told. Whatever is not is refused by its key, with its value and what may be.

use std::time::Duration;

use esker_record::ZstdLevel;
use esker_types::limits::{
    BATCH_BYTES_MAX, BATCH_DECODED_BYTES_MAX, DATA_SHARDS_MAX, GIB, MIB, OBJECT_PUT_BYTES_MAX,
    WAL_GROUP_BYTES_MAX,
};

use super::{Config, ConfigError, Span};

/// Memory of a cache below which it is of no use: it refuses it itself.
const CACHE_MEMORY_MIN: u64 = 32 * MIB as u64;
/// The same of its disk.
const CACHE_DISK_MIN: u64 = 16 * MIB as u64;
/// No budget comes near it.
const BYTES_MAX: u64 = u64::MAX / 2;
/// URLs that are right, for those who wrote another.
const URLS: &str = "write file:///var/lib/esker/bucket, s3://my-bucket/prefix, \
     gs://my-bucket/prefix, az://my-container/prefix or memory://name";

// One append, or one batch that is read, of any size fits its budget.
const _: () = assert!(96 * MIB > BATCH_BYTES_MAX + BATCH_DECODED_BYTES_MAX);
const _: () = assert!(64 * MIB >= BATCH_DECODED_BYTES_MAX);

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.sizes()?;
        self.times()?;
        self.role()?;
        if let Some(url) = &self.object_store.url {
            bucket(url)?;
        }
        self.addresses()
    }

    fn sizes(&self) -> Result<(), ConfigError> {
        let mib = MIB as u64;
        // What is written at once goes into one file, twice, behind what the file opens with.
        let least = 3 * WAL_GROUP_BYTES_MAX as u64;
        within("wal.file", self.wal.file.0, least, GIB)?;
        let least = 8 * self.wal.file.0;
        within("wal.disk", self.wal.disk.0, least, BYTES_MAX)?;
        within("wal.head", self.head_bytes(), mib, self.wal.disk.0 / 2)?;
        within("wal.memory", self.wal.memory.0, mib, BYTES_MAX)?;
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
        let cache = &self.cache;
        within("cache.memory", cache.memory.0, CACHE_MEMORY_MIN, BYTES_MAX)?;
        let backfill = cache.backfill_memory.0;
        within(
            "cache.backfill_memory",
            backfill,
            CACHE_MEMORY_MIN,
            BYTES_MAX,
        )?;
        match cache.disk.0 {
            0 => Ok(()),
            disk => within("cache.disk", disk, CACHE_DISK_MIN, BYTES_MAX),
        }
    }

    fn times(&self) -> Result<(), ConfigError> {
        let (millis, second) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (second(3600), second(86_400));
        lasting("flush.age", self.flush.age, millis(10), hour)?;
        let upkeep = &self.upkeep;
        lasting("upkeep.checkpoint", upkeep.checkpoint, second(1), hour)?;
        lasting("upkeep.retention", upkeep.retention, second(1), hour)?;
        lasting("upkeep.collect", upkeep.collect, second(1), day)?;
        lasting("upkeep.grace", upkeep.grace, second(1), day)?;
        Ok(())
    }

    fn role(&self) -> Result<(), ConfigError> {
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
        Ok(())
    }

    fn addresses(&self) -> Result<(), ConfigError> {
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

/// Whether `url` may name a bucket; whether it does, the bucket tells.
fn bucket(url: &str) -> Result<(), ConfigError> {
    let refused = |value: String, what: &str| {
        Err(ConfigError::Bounds {
            key: "object_store.url",
            value,
            allowed: format!("{what}; {URLS}"),
        })
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        // It may be anything, a secret too.
        return refused(format!("{} bytes of text", url.len()), "it has no scheme");
    };
    if rest.contains(['@', '?', '#']) {
        let what = "credentials and settings go into the environment";
        return refused(format!("\"{}://…\"", scheme.escape_debug()), what);
    }
    let value = format!("{url:?}");
    match scheme {
        "file" if !rest.starts_with('/') => refused(value, "its path is not absolute"),
        "file" => Ok(()),
        "s3" | "gs" | "az" | "memory" if rest.split('/').next() == Some("") => {
            refused(value, "it names no bucket")
        }
        "s3" | "gs" | "az" | "memory" => Ok(()),
        _ => refused(value, "its scheme is unknown"),
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
