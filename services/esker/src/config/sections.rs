//! What there is to be told, key by key, each with its default and its bounds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::address::{Address, Reached};
use super::{Size, Span};

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
    /// The public gRPC API; a port alone is of this machine only. Default: `127.0.0.1:7070`.
    pub(crate) public: Address,
    /// Metrics and health over HTTP. Default: where the public API is, or `peers` where there is none,
    /// one port higher.
    pub(crate) metrics: Option<Address>,
    /// Where a WAL node of a cluster hears the other nodes, and agents. Default: `127.0.0.1:7072`.
    pub(crate) peers: Address,
}

/// What proves who is there. All are paths of PEM files, read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// Of the public API.
    pub(crate) public: TlsPublic,
    /// Between the nodes of a cluster and its agents.
    pub(crate) peers: TlsPeers,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsPublic {
    /// What is shown to clients, with those between it and its CA's. Default: none, and no TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key. Default: none.
    pub(crate) key: Option<PathBuf>,
    /// The CA that clients' certificates must be of. Default: none, and clients show none.
    pub(crate) client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsPeers {
    /// What is shown to nodes, and by a node to all who call it. Default: none, and no TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key. Default: none.
    pub(crate) key: Option<PathBuf>,
    /// The CA of the cluster: nobody else's certificate is let in. Default: none.
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectStore {
    /// `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`. Default: `bucket` in the data
    /// directory of a cluster of one; an agent of several nodes is told.
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
    /// Whether anybody said so.
    #[serde(skip)]
    pub(crate) is_said: bool,
    /// Where the WAL nodes of the cluster are reached, at most 7. Default: none, which is a cluster of
    /// one that founds itself.
    pub(crate) nodes: Vec<Reached>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wal {
    /// Bytes of all its files together, at least 8 files. Default: 8 GiB, `dev` 1 GiB.
    pub(crate) disk: Size,
    /// Bytes of unflushed records before appends are refused; at most half of `disk`. Default: half
    /// of `disk`.
    pub(crate) head: Option<Size>,
    /// Bytes of the head kept in memory: heads that are led here and fill half of three quarters of it are flushed
    /// before they are due, the fullest first. Default: 256 MiB.
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
