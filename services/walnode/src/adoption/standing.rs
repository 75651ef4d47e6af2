//! How far a node has come.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use esker_env::{Env, WorkersExt as _};
use esker_types::{ClusterId, Incarnation, NodeId};
use esker_wal::Replica;
use tokio::sync::{mpsc, oneshot, watch};

use super::founders::Founders;
use crate::directory::Directory;
use crate::disk_id::DiskId;
use crate::identity::{Identity, IdentityError};

/// Which node of which cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The life of it.
    pub incarnation: Incarnation,
    /// The node.
    pub node: NodeId,
    /// Data shards of the cluster.
    pub data_shards: u32,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Of its binary.
    pub version: String,
    /// The disk its data directory is on.
    pub disk: DiskId,
    /// What it was adopted as, if it was.
    pub membership: Option<Membership>,
    /// Its log is open: it hears the other nodes.
    pub open: bool,
    /// Shards that have a vote or an entry here, the catalog among them.
    pub shards_begun: u32,
    /// Shards whose leader it knows.
    pub shards_led: u32,
    /// Nodes of the catalog, with their addresses, as it knows them.
    pub members: BTreeMap<NodeId, String>,
    /// Whom it was adopted with to found the cluster; nobody if it was not, or joined one that stood.
    pub founders: Founders,
    /// The number that its certificate has, if it has one: it is adopted as no other node.
    pub certified: Option<u64>,
}

impl Hello {
    /// Whether every shard of its cluster has begun here.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.shards().is_some_and(|all| self.shards_begun >= all)
    }

    /// Whether it knows who leads each of them.
    #[must_use]
    pub fn is_led(&self) -> bool {
        self.shards().is_some_and(|all| self.shards_led >= all)
    }

    /// Shards of its cluster, the catalog among them.
    fn shards(&self) -> Option<u32> {
        self.membership.map(|of| of.data_shards + 1)
    }
}

/// The voters that every shard is to have, for whoever runs the node.
#[derive(Debug)]
pub struct Founding {
    /// Where each is reached.
    pub voters: BTreeMap<NodeId, String>,
    /// Told what came of it: why not, if it was not done.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// Why a node does not do as it is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It never will.
    #[error("{0}")]
    Never(String),
    /// It may later.
    #[error("{0}")]
    NotNow(String),
}

/// How far a node has come. Clones share it.
#[derive(Clone)]
pub struct Standing(Arc<Shared>);

struct Shared {
    env: Env,
    directory: PathBuf,
    disk: DiskId,
    now: watch::Sender<Now>,
    certified: OnceLock<u64>,
    /// Adoptions go one after the other: whoever comes second sees what the first has made of it.
    adopting: Mutex<()>,
    /// Why an adoption could not be written down, for whoever runs the node.
    failed: Mutex<Option<IdentityError>>,
}

#[derive(Clone)]
enum Now {
    Waiting,
    /// It is unknown what stands on the disk: the process must end.
    Failed,
    Adopted(Identity),
    Open(Identity, Arc<[Replica]>, mpsc::Sender<Founding>),
}

impl Standing {
    /// Of the node of `directory`, which must stay taken while this lives.
    ///
    /// # Errors
    /// As [`Directory::one_of_several`].
    pub fn of(env: &Env, directory: &Directory) -> Result<Self, IdentityError> {
        let (disk, identity) = directory.one_of_several(env)?;
        let now = identity.map_or(Now::Waiting, Now::Adopted);
        Ok(Self(Arc::new(Shared {
            env: env.clone(),
            directory: directory.path().to_owned(),
            disk,
            now: watch::Sender::new(now),
            certified: OnceLock::new(),
            adopting: Mutex::default(),
            failed: Mutex::default(),
        })))
    }

    /// Says which number its certificate has: it becomes no other node.
    pub fn certify(&self, number: u64) {
        // A process keeps its names while it runs.
        let _ = self.0.certified.set(number);
    }

    /// The disk it is on.
    #[must_use]
    pub fn disk(&self) -> DiskId {
        self.0.disk
    }

    /// Whose it is, if it was adopted.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.0.now.borrow().identity().cloned()
    }

    /// Waits until it is adopted.
    ///
    /// # Errors
    /// [`IdentityError`] if that could not be written down: the process must end, and the next start
    /// goes by what stands on the disk.
    pub async fn adopted(&self) -> Result<Identity, IdentityError> {
        let mut now = self.0.now.subscribe();
        let settled = now.wait_for(|now| !matches!(now, Now::Waiting)).await;
        let identity = settled.expect("the sender is ours").identity().cloned();
        match identity {
            Some(identity) => Ok(identity),
            None => {
                let failed = self.0.failed.lock();
                let failed = failed.expect("nothing panics under this lock").take();
                Err(failed.expect("whoever runs the node asks once"))
            }
        }
    }

    /// Makes it a node of a cluster: on its disk when this returns. Does nothing if it is that node
    /// already. `disk` is what it said of itself before; `founders` are those the cluster is to be
    /// founded with, nobody if it stands.
    ///
    /// # Errors
    /// [`Refused`] if it is another's, or another disk, or to be founded with others.
    pub async fn adopt(
        &self,
        disk: DiskId,
        membership: Membership,
        founders: Founders,
    ) -> Result<(), Refused> {
        let shared = Arc::clone(&self.0);
        if disk != shared.disk {
            return Err(Refused::Never(format!(
                "this is disk {}, the adoption is for disk {disk}: the address leads to another \
                 machine than it did",
                shared.disk
            )));
        }
        let as_founder = founders.get(membership.node).map(|founder| founder.disk);
        if !founders.is_empty() && as_founder != Some(disk) {
            let node = membership.node;
            return Err(Refused::Never(format!(
                "this is disk {disk}, and is not among the founders as {node}"
            )));
        }
        // Once begun it is done, whether whoever asked waits for it or not.
        let workers = Arc::clone(&self.0.env.workers);
        workers
            .run(move || shared.adopt(membership, founders))
            .await
    }

    /// Says that the log is open. Returns where foundings come, one at a time.
    pub fn open(&self, identity: Identity, replicas: &[Replica]) -> mpsc::Receiver<Founding> {
        let (found, foundings) = mpsc::channel(1);
        let now = Now::Open(identity, replicas.into(), found);
        self.0.now.send_replace(now);
        foundings
    }

    /// Has every shard founded with `voters`. Shards that have begun stay as they are.
    ///
    /// # Errors
    /// [`Refused`] if it is of another cluster, or was not adopted with `voters`, or is not open yet.
    pub async fn found(
        &self,
        cluster: ClusterId,
        voters: BTreeMap<NodeId, String>,
    ) -> Result<(), Refused> {
        let now = self.0.now.borrow().clone();
        let identity = now.identity().filter(|of| of.cluster == cluster);
        let identity = identity.ok_or_else(|| {
            Refused::Never(format!(
                "this node is {now}, and cluster {cluster} is to be founded"
            ))
        })?;
        if identity.founders.is_empty() {
            let node = identity.node;
            return Err(Refused::Never(format!(
                "this node is {node}, which joins a cluster that stands, and founds none"
            )));
        }
        if voters != identity.founders.voters() {
            return Err(Refused::Never(format!(
                "this node founds its cluster with those it was adopted with: {}",
                identity.founders
            )));
        }
        let Now::Open(_, _, found) = now else {
            return Err(Refused::NotNow("it reads its log".to_owned()));
        };
        let (done, told) = oneshot::channel();
        let ended = || Refused::NotNow("it is about to end".to_owned());
        let founding = Founding { voters, done };
        found.send(founding).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?.map_err(Refused::NotNow)
    }

    /// What it says of itself.
    pub async fn hello(&self) -> Hello {
        let now = self.0.now.borrow().clone();
        let (mut shards_begun, mut shards_led, mut members) = (0, 0, BTreeMap::new());
        if let Now::Open(_, replicas, _) = &now {
            for replica in replicas.iter() {
                // One that has ended takes the process with it.
                shards_begun += u32::from(replica.has_begun().await.unwrap_or(false));
                shards_led += u32::from(replica.leader().is_some());
            }
            members = replicas
                .first()
                .map(|of| of.members().all)
                .unwrap_or_default();
        }
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            disk: self.0.disk,
            membership: now.identity().map(Identity::membership),
            open: matches!(now, Now::Open(..)),
            shards_begun,
            shards_led,
            members,
            founders: now
                .identity()
                .map(|of| of.founders.clone())
                .unwrap_or_default(),
            certified: self.0.certified.get().copied(),
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Standing(disk {}: {})",
            self.0.disk,
            *self.0.now.borrow()
        )
    }
}

impl Shared {
    fn adopt(&self, membership: Membership, founders: Founders) -> Result<(), Refused> {
        let _one = self
            .adopting
            .lock()
            .expect("nothing panics under this lock");
        let now = self.now.borrow().clone();
        match now.identity() {
            Some(identity) if identity.membership() == membership => {
                if identity.founders == founders {
                    return Ok(());
                }
                return Err(Refused::Never(format!(
                    "this node is {now}, adopted to found it with {}: found it with those",
                    identity.founders
                )));
            }
            Some(_) => {
                let Membership { cluster, node, .. } = membership;
                return Err(Refused::Never(format!(
                    "this node is {now}, and is to be {node} of cluster {cluster}"
                )));
            }
            None if matches!(now, Now::Failed) => {
                return Err(Refused::NotNow("it is about to end".to_owned()));
            }
            None => {}
        }
        let node = membership.node;
        if let Some(number) = self.certified.get()
            && *number != node.sequence()
        {
            return Err(Refused::Never(format!(
                "its certificate is of node {number}, and it is to be {node}: give it one of node {}",
                node.sequence()
            )));
        }
        let identity = Identity::adopted(membership, founders, self.disk);
        if let Err(error) = identity.save(&*self.env.files, &self.directory) {
            let text = format!("the adoption may not be on the disk: {error}");
            *self.failed.lock().expect("nothing panics under this lock") = Some(error);
            self.now.send_replace(Now::Failed);
            return Err(Refused::NotNow(text));
        }
        self.now.send_replace(Now::Adopted(identity));
        Ok(())
    }
}

impl Now {
    const fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Waiting | Self::Failed => None,
            Self::Adopted(identity) | Self::Open(identity, ..) => Some(identity),
        }
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            Some(Identity { cluster, node, .. }) => write!(f, "{node} of cluster {cluster}"),
            None => f.write_str("not adopted yet"),
        }
    }
}
