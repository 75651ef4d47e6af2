//! What may be told. Whatever is not is refused by its key, with its value and what may be.

use std::fmt::Display;
use std::time::Duration;

use esker_record::ZstdLevel;
use esker_types::limits::{
    BATCH_BYTES_MAX, BATCH_DECODED_BYTES_MAX, DATA_SHARDS_MAX, FOUNDERS_MAX, GIB, MIB,
    OBJECT_PUT_BYTES_MAX, WAL_GROUP_BYTES_MAX,
};

use super::sections::Role;
use super::{Config, Size, Span};

/// Memory of a cache below which it is of no use: it refuses it itself.
const CACHE_MEMORY_MIN: u64 = 32 * MIB as u64;
/// The same of its disk.
const CACHE_DISK_MIN: u64 = 16 * MIB as u64;
/// No budget comes near it.
const BYTES_MAX: u64 = u64::MAX / 2;
/// URLs that are right, for those who wrote another.
const URLS: &str = "write file:///var/lib/esker/bucket, s3://my-bucket/prefix, \
     gs://my-bucket/prefix or az://my-container/prefix";

// One append, or one batch that is read, of any size fits its budget.
const _: () = assert!(96 * MIB > BATCH_BYTES_MAX + BATCH_DECODED_BYTES_MAX);
const _: () = assert!(64 * MIB >= BATCH_DECODED_BYTES_MAX);

/// A key that is out of bounds: what it is, and what it may be.
pub(super) type Beyond = (&'static str, String);

impl Config {
    /// Everything that is out of bounds.
    pub(super) fn out_of_bounds(&self) -> Vec<Beyond> {
        let mut beyond = self.sizes();
        beyond.extend(self.times());
        beyond.extend(self.role());
        beyond.extend(self.nodes());
        beyond.extend(self.object_store.url.as_deref().and_then(bucket));
        beyond.extend(self.no_bucket());
        beyond.extend(self.tls.missing());
        beyond.extend(self.addresses());
        beyond
    }

    fn sizes(&self) -> Vec<Beyond> {
        let mib = MIB as u64;
        let (wal, flush, cache, agent) = (&self.wal, &self.flush, &self.cache, &self.agent);
        let mut beyond = Vec::new();
        // What is written at once goes into one file, twice, behind what the file opens with.
        let file_least = 3 * WAL_GROUP_BYTES_MAX as u64;
        let put_most = OBJECT_PUT_BYTES_MAX as u64 / 2;
        let head = self.head_bytes();
        let mut size = |key, value: u64, least: u64, most: u64| {
            beyond.extend(match most {
                BYTES_MAX if value < least => {
                    let (value, least) = (Size(value), Size(least));
                    Some((key, format!("is {value}; it may be {least} or more")))
                }
                _ => within(key, Size(value), Size(least), Size(most)),
            });
        };
        size("wal.file", wal.file.0, file_least, GIB);
        size("wal.disk", wal.disk.0, 8 * wal.file.0, BYTES_MAX);
        if wal.head.is_some() {
            size("wal.head", head, mib, wal.disk.0 / 2);
        }
        size("wal.memory", wal.memory.0, mib, BYTES_MAX);
        size(
            "agent.append_memory",
            agent.append_memory.0,
            96 * mib,
            2 * GIB,
        );
        size("agent.read_memory", agent.read_memory.0, 64 * mib, 2 * GIB);
        size("flush.bytes", flush.bytes.0, 64 << 10, put_most);
        size("cache.memory", cache.memory.0, CACHE_MEMORY_MIN, BYTES_MAX);
        let backfill = cache.backfill_memory.0;
        size(
            "cache.backfill_memory",
            backfill,
            CACHE_MEMORY_MIN,
            BYTES_MAX,
        );
        if cache.disk.0 > 0 {
            size("cache.disk", cache.disk.0, CACHE_DISK_MIN, BYTES_MAX);
        }
        let highest = ZstdLevel::MAX.get().into();
        beyond.extend(within(
            "flush.zstd_level",
            flush.zstd_level.into(),
            1,
            highest,
        ));
        let shards = self.cluster.data_shards;
        beyond.extend(within("cluster.data_shards", shards, 1, DATA_SHARDS_MAX));
        beyond
    }

    fn times(&self) -> Vec<Beyond> {
        let (millis, second) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (second(3600), second(86_400));
        let upkeep = &self.upkeep;
        let times = [
            ("flush.age", self.flush.age, millis(10), hour),
            ("upkeep.checkpoint", upkeep.checkpoint, second(1), hour),
            ("upkeep.retention", upkeep.retention, second(1), hour),
            ("upkeep.collect", upkeep.collect, second(1), day),
            ("upkeep.grace", upkeep.grace, second(1), day),
        ];
        let times = times.into_iter();
        times
            .filter_map(|(key, value, least, most)| within(key, value, Span(least), Span(most)))
            .collect()
    }

    fn role(&self) -> Option<Beyond> {
        let what = match self.roles.as_slice() {
            [] => "is empty",
            [Role::Wal] | [Role::Agent] | [Role::Wal, Role::Agent] | [Role::Agent, Role::Wal] => {
                return None;
            }
            _ => "has a role twice",
        };
        let roles = r#"write ["wal"], ["agent"], or ["wal", "agent"] for both in one process"#;
        Some(("roles", format!("{what}; {roles}")))
    }

    fn nodes(&self) -> Option<Beyond> {
        let nodes = &self.cluster.nodes;
        let refused = |what: String| Some(("cluster.nodes", what));
        if nodes.is_empty() && self.roles == [Role::Agent] {
            return refused(
                "is empty; an agent alone asks the WAL nodes of its cluster: name them, \
                 [\"10.0.0.1:7072\", …], or write roles = [\"wal\", \"agent\"] for a cluster of one"
                    .to_owned(),
            );
        }
        if nodes.len() > FOUNDERS_MAX {
            let named = nodes.len();
            return refused(format!("names {named} nodes; it may name {FOUNDERS_MAX}"));
        }
        let mut sorted: Vec<_> = nodes.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        twice.and_then(|pair| refused(format!("names {} twice", pair[0])))
    }

    /// The bucket of a cluster is nobody's own folder.
    fn no_bucket(&self) -> Option<Beyond> {
        let needed = self.is(Role::Agent) && !self.is_alone();
        (needed && self.object_store.url.is_none()).then(|| {
            let what = "is not said; all agents of a cluster have one bucket";
            ("object_store.url", format!("{what}; {URLS}"))
        })
    }

    fn addresses(&self) -> Vec<Beyond> {
        let listen = &self.listen;
        // Where nobody says where metrics are, they are beside another of these.
        let metrics = listen.metrics.map(|at| ("listen.metrics", at.0));
        let public = self.is(Role::Agent) && self.tls.public().is_none();
        let public = public.then_some(("listen.public", listen.public.0));
        let peers = self.is(Role::Wal) && !self.is_alone() && self.tls.peers().is_none();
        let peers = peers.then_some(("listen.peers", listen.peers.0));
        let open = [public, metrics, peers].into_iter().flatten();
        let open = open.filter(|(_, address)| !address.ip().is_loopback() && !self.insecure);
        open.map(|(key, address)| {
            let section = match key {
                "listen.public" => ", or say tls.public",
                "listen.peers" => ", or say tls.peers",
                _ => "; metrics have no TLS",
            };
            let what = format!(
                "is {address}; without TLS only loopback is served: use 127.0.0.1{section}, or \
                 --insecure if everybody who reaches that address may read and write everything"
            );
            (key, what)
        })
        .collect()
    }
}

/// What is wrong with `url`, if it cannot name a bucket; whether it does, the bucket tells.
fn bucket(url: &str) -> Option<Beyond> {
    let refused = |value: String, what: &str| {
        Some(("object_store.url", format!("is {value}; {what}; {URLS}")))
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
        "file" => None,
        "memory" => refused(
            value,
            "it would live only as long as this process, and with it all that was flushed",
        ),
        "s3" | "gs" | "az" if rest.split('/').next() == Some("") => {
            refused(value, "it names no bucket")
        }
        "s3" | "gs" | "az" => None,
        _ => refused(value, "its scheme is unknown"),
    }
}

/// What is wrong with `value`, unless it lies between `least` and `most`, both included.
fn within<T: PartialOrd + Display + Copy>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Option<Beyond> {
    if (least..=most).contains(&value) {
        return None;
    }
    Some((key, format!("is {value}; it may be {least} to {most}")))
}
