//! Who a data directory belongs to: one small file, written once at founding or adoption, once more
//! when the bucket is claimed, and a last time when the log has begun.
//!
//! ```text
//!   identity.json   { "version": 1, "cluster": "<32 hex>", "incarnation": 1, "node": 4294967297,
//!                     "data_shards": 4, "claimed": true, "begun": true }
//!                   and "disk": "<32 hex>" where the node was adopted into a cluster of several,
//!                   "founders": [{ "node": 4294967297, "address": "10.0.0.1:7072", "disk": "<32 hex>" }, …]
//!                   where it was to found it with them
//! ```
//! The cluster's id stands on the disk before the bucket is claimed under it: a founding that dies
//! half-way goes on under the same id. *begun*: the log was made. A directory without it is one that
//! lost it from then on: it votes for nobody, and is not founded a second time over what is in the
//! bucket.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use esker_env::{Env, Files, OpenMode, replace_file};
use esker_types::limits::DATA_SHARDS_MAX;
use esker_types::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::adoption::{Founder, Founders, Membership};
use crate::disk_id::DiskId;

/// Version of the file.
const VERSION: u32 = 1;
/// Bytes that such a file never has.
const BYTES_MAX: u64 = 8192;

/// Who a data directory belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life of it in which the directory was founded.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
    /// Data shards of the cluster.
    pub data_shards: u32,
    /// The bucket was claimed by this node: one that was adopted has no bucket.
    pub claimed: bool,
    /// The log was made, on disk.
    pub begun: bool,
    /// The disk that the node was adopted with; `None` of a cluster of one.
    pub disk: Option<DiskId>,
    /// Whom the cluster was to be founded with when it was adopted; nobody if it stood, or is of one.
    pub founders: Founders,
}

/// Why a directory has no identity that can be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// There is a log, and nothing says whose.
    #[error(
        "{path} holds a log and no identity.json: put that back from a copy, or start anew in an \
         empty directory",
        path = path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It was adopted with another disk.
    #[error(
        "{path} was given to disk {adopted}, and this is disk {disk}: it is a copy; start the node anew \
         in an empty directory",
        path = path.display()
    )]
    Copied {
        /// The file.
        path: PathBuf,
        /// The disk it was given to.
        adopted: DiskId,
        /// Where it lies now.
        disk: DiskId,
    },
    /// One of several nodes is to be a cluster of one.
    #[error(
        "{path} belongs to node {node} of cluster {cluster}, which has more nodes: name them in \
         cluster.nodes, or choose another data directory",
        path = path.display()
    )]
    OneOfSeveral {
        /// The directory.
        path: PathBuf,
        /// The node.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// A cluster of one is to be one of several nodes.
    #[error(
        "{path} belongs to cluster {cluster}, a cluster of one that founded itself: start it with \
         roles = [\"wal\", \"agent\"] and no cluster.nodes, or choose an empty data directory",
        path = path.display()
    )]
    OneAlone {
        /// The directory.
        path: PathBuf,
        /// The cluster.
        cluster: ClusterId,
    },
    /// It does not say what it should.
    #[error(
        "{path} is no identity of a node: {what}; put it back from a copy, or start the node anew in \
         an empty directory under a new id",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    cluster: String,
    incarnation: u32,
    node: u64,
    data_shards: u32,
    claimed: bool,
    begun: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founders: Vec<StoredFounder>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFounder {
    node: u64,
    address: String,
    disk: String,
}

impl StoredFounder {
    fn of((node, founder): (NodeId, &Founder)) -> Self {
        Self {
            node: node.as_u64(),
            address: founder.address.clone(),
            disk: founder.disk.to_string(),
        }
    }

    fn read(self) -> Option<(NodeId, Founder)> {
        let (address, disk) = (self.address, DiskId::parse(&self.disk)?);
        Some((NodeId::from_u64(self.node)?, Founder { address, disk }))
    }
}

impl Identity {
    /// The first node of a new cluster of `data_shards`.
    #[must_use]
    pub fn founder(env: &Env, data_shards: u32) -> Self {
        let node = NodeId::new(Incarnation::FIRST, 1).expect("1 is a small sequence");
        Self {
            cluster: ClusterId(env.entropy.next_u128()),
            incarnation: Incarnation::FIRST,
            node,
            data_shards,
            claimed: false,
            begun: false,
            disk: None,
            founders: Founders::default(),
        }
    }

    /// Of the node on `disk`, adopted as `membership` says.
    pub(crate) const fn adopted(membership: Membership, founders: Founders, disk: DiskId) -> Self {
        Self {
            cluster: membership.cluster,
            incarnation: membership.incarnation,
            node: membership.node,
            data_shards: membership.data_shards,
            claimed: false,
            begun: false,
            disk: Some(disk),
            founders,
        }
    }

    /// Which node of which cluster it is.
    #[must_use]
    pub const fn membership(&self) -> Membership {
        Membership {
            cluster: self.cluster,
            incarnation: self.incarnation,
            node: self.node,
            data_shards: self.data_shards,
        }
    }

    /// What stands in `directory`; `None` if nothing does.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(files: &dyn Files, directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = path(directory);
        let Some(bytes) = read_small(files, &path)? else {
            return Ok(None);
        };
        parse(&bytes)
            .map(Some)
            .map_err(|what| IdentityError::Damaged { path, what })
    }

    /// Writes it to `directory`, durably.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save(&self, files: &dyn Files, directory: &Path) -> Result<(), IdentityError> {
        let stored = Stored {
            version: VERSION,
            cluster: self.cluster.to_string(),
            incarnation: self.incarnation.get(),
            node: self.node.as_u64(),
            data_shards: self.data_shards,
            claimed: self.claimed,
            begun: self.begun,
            disk: self.disk.map(|disk| disk.to_string()),
            founders: self.founders.iter().map(StoredFounder::of).collect(),
        };
        let text = serde_json::to_vec_pretty(&stored).expect("plain fields become JSON");
        let path = path(directory);
        let written = replace_file(files, &path, &[IoSlice::new(&text)]);
        written.map_err(|source| IdentityError::Io { path, source })
    }
}

/// The bytes of a file that is never large; `None` if there is none.
pub(crate) fn read_small(files: &dyn Files, path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let read = || {
        let file = files.open(path, OpenMode::Read)?;
        let bytes = usize::try_from(file.size()?.min(BYTES_MAX)).expect("8192 fits");
        let mut buffer = vec![0; bytes];
        let read = file.read_at(&mut buffer, 0)?;
        buffer.truncate(read);
        Ok::<_, io::Error>(buffer)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join("identity.json")
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.version != VERSION {
        let version = stored.version;
        return Err(format!(
            "it has version {version}, this binary reads {VERSION}"
        ));
    }
    let field = |name: &str| format!("its {name} is out of bounds");
    if !(1..=DATA_SHARDS_MAX).contains(&stored.data_shards) {
        return Err(field("data_shards"));
    }
    let disk = match &stored.disk {
        None => None,
        Some(disk) => Some(DiskId::parse(disk).ok_or_else(|| field("disk"))?),
    };
    let founders = stored.founders.into_iter().map(StoredFounder::read);
    let founders: Vec<_> = founders
        .collect::<Option<_>>()
        .ok_or_else(|| field("founders"))?;
    Ok(Identity {
        cluster: ClusterId::parse(&stored.cluster).ok_or_else(|| field("cluster"))?,
        incarnation: Incarnation::new(stored.incarnation).ok_or_else(|| field("incarnation"))?,
        node: NodeId::from_u64(stored.node).ok_or_else(|| field("node"))?,
        data_shards: stored.data_shards,
        claimed: stored.claimed,
        begun: stored.begun,
        disk,
        founders: Founders::new(founders)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_not_ours_is_refused() {
        let (env, _, _) = Env::simulated(1);
        let directory = Path::new("/data");
        env.files.create_dir_all(directory).expect("made");
        let load = || Identity::load(&*env.files, directory);
        assert_eq!(load().expect("readable"), None);
        let mut identity = Identity::founder(&env, 4);
        let founder = Founder {
            address: "10.0.0.1:7072".into(),
            disk: DiskId(7),
        };
        let founders = Founders::new([(identity.node, founder)]).expect("one");
        for (claimed, begun, disk, founders) in [
            (false, false, None, Founders::default()),
            (true, false, None, Founders::default()),
            (true, true, None, Founders::default()),
            (false, true, Some(DiskId(7)), Founders::default()),
            (false, true, Some(DiskId(7)), founders),
        ] {
            (identity.claimed, identity.begun) = (claimed, begun);
            (identity.disk, identity.founders) = (disk, founders);
            identity.save(&*env.files, directory).expect("written");
            assert_eq!(load().expect("readable").as_ref(), Some(&identity));
        }
        let spoil = [
            "",
            "{}",
            r#"{"version":2}"#,
            r#"{"version":1,"cluster":"x","incarnation":1,"node":1,"data_shards":4,"claimed":true,"begun":true}"#,
            r#"{"version":1,"cluster":"0000000000000000000000000000feed","incarnation":1,"node":4294967297,"data_shards":4,"claimed":false,"begun":true,"disk":"7"}"#,
            r#"{"version":1,"cluster":"0000000000000000000000000000feed","incarnation":1,"node":4294967297,"data_shards":4,"claimed":false,"begun":true,"founders":[{"node":4294967297,"address":"nowhere","disk":"00000000000000000000000000000007"}]}"#,
        ];
        for text in spoil {
            replace_file(
                &*env.files,
                &path(directory),
                &[IoSlice::new(text.as_bytes())],
            )
            .expect("written");
            let error = load().expect_err("no identity");
            assert!(error.to_string().contains("identity.json"), "{error}");
        }
    }

    /// As every version so far has written it.
    #[test]
    fn a_cluster_of_one_reads_as_it_always_did() {
        let text = r#"{"version":1,"cluster":"0000000000000000000000000000feed","incarnation":1,"node":4294967297,"data_shards":4,"claimed":true,"begun":true}"#;
        let read = parse(text.as_bytes()).expect("an identity");
        assert_eq!((read.cluster, read.disk), (ClusterId(0xfeed), None));
    }
}
