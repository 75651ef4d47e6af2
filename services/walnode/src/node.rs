//! A WAL node, whole: its lock, its log, a replica of every shard, and what keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker_env::Env;
use esker_shard::{Command, Genesis, Outcome};
use esker_types::{LeaderEpoch, NodeId, ShardId, ShardTime};
use esker_wal::disk::{Checkpoints, Fatal, OnFatal, Recovery, Wal, WalOptions};
use esker_wal::{Alone, Appender, Error, Keeper, KeeperOptions, ProposeError, Replica};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::directory::Directory;
use crate::identity::{Identity, IdentityError};
use crate::lend::{equal_part, lend};
use crate::local::{Led, LocalHead};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its log.
    pub wal: WalOptions,
    /// When checkpoints and moves are due.
    pub keeper: KeeperOptions,
    /// Payload bytes that the heads of all shards hold together.
    pub head_bytes: u64,
}

/// Why a node does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process has the directory.
    #[error("another process uses {path}; stop it, or choose another data directory", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Whose it is cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A shard had a log, and has none.
    #[error(
        "{path} has no log of {shard}, and had one: put the files of `wal` and `checkpoints` back as \
         they were; a new log under the same id would overwrite what is in the bucket",
        path = path.display()
    )]
    LogLost {
        /// The directory.
        path: PathBuf,
        /// The shard.
        shard: ShardId,
    },
    /// The log, a checkpoint or raft.
    #[error(transparent)]
    Wal(#[from] Error),
    /// The log ended. Nothing is acknowledged after it; the next start reads back what is there.
    #[error("{0}; what was acknowledged is durable, start again to go on from the disk")]
    Fatal(Fatal),
    /// A part of the node panicked.
    #[error("a part of the node has died: {what}; start again")]
    Died {
        /// Which, and how.
        what: String,
    },
    /// A replica ended by itself.
    #[error("the raft of {shard} has ended; start again")]
    Ended {
        /// Its shard.
        shard: ShardId,
    },
    /// A shard does not come to a decision.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// A running node.
pub struct Node {
    head: Arc<LocalHead>,
    wal: Arc<Wal>,
    recovery: Recovery,
    replicas: Vec<Replica>,
    ends: mpsc::Receiver<NodeError>,
    /// Why the log ended. What ends after it ends because of it.
    fatal: mpsc::Receiver<Fatal>,
    /// Stop with the node.
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts the node of `identity`, alone: every shard has one voter, this one. Returns when it
    /// leads all of them. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(
        env: &Env,
        directory: Directory,
        identity: &Identity,
        options: NodeOptions,
    ) -> Result<Self, NodeError> {
        // The first reason is the one that is told.
        let (tell, ends) = mpsc::channel(1);
        let (die, mut fatal) = mpsc::channel(1);
        let on_fatal: OnFatal = Arc::new(move |why: &Fatal| {
            let _ = die.try_send(why.clone());
        });
        let path = directory.path().to_owned();
        let (wal, recovery, replicas) = open(env, directory, identity, &options, on_fatal).await?;
        let replicas = tokio::select! {
            biased;
            Some(why) = fatal.recv() => return Err(NodeError::Fatal(why)),
            led = begin(env, replicas, identity, &path) => led?,
        };
        let share = equal_part(options.head_bytes, identity.data_shards);
        let times = replicas.iter().map(|replica| replica.state().time());
        let latest = times.max().unwrap_or(ShardTime::ZERO);
        let led = replicas.iter().map(|replica| {
            let data = replica.shard().carries_data();
            let clock = Arc::clone(&env.clock);
            Led {
                replica: replica.clone(),
                appender: data.then(|| Appender::start(replica.clone(), clock, share, latest)),
            }
        });
        let led: Vec<_> = led.collect();
        let clock = Arc::clone(&env.clock);
        let keeper = Keeper::new(Arc::clone(&wal), replicas.clone(), clock, options.keeper);
        let head = LocalHead::new(led.clone(), keeper.holders(), Arc::clone(&env.workers));
        let mut tasks = JoinSet::new();
        for replica in &replicas {
            let (ended, shard, tell) = (replica.ended(), replica.shard(), tell.clone());
            tasks.spawn(async move {
                ended.await;
                let _ = tell.try_send(NodeError::Ended { shard });
            });
        }
        let keeping = tell.clone();
        tasks.spawn(async move {
            let error = keeper.run().await;
            let _ = keeping.try_send(NodeError::Wal(error));
        });
        for led in &led {
            if let Some(queue) = led.appender.clone() {
                let (shard, tell) = (led.replica.shard(), tell.clone());
                tasks.spawn(async move {
                    queue.ended().await;
                    let what = format!("the queue of appends of {shard}");
                    let _ = tell.try_send(NodeError::Died { what });
                });
            }
        }
        tasks.spawn(lend(led, options.head_bytes));
        Ok(Self {
            head: Arc::new(head),
            wal,
            recovery,
            replicas,
            ends,
            fatal,
            tasks,
        })
    }

    /// The heads of its shards.
    #[must_use]
    pub fn head(&self) -> Arc<LocalHead> {
        Arc::clone(&self.head)
    }

    /// What the start found in the log.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Its log.
    #[must_use]
    pub const fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// Waits until the node has ended by itself, and says why. The process must end then: half
    /// alive is worse than dead.
    pub async fn ended(&mut self) -> NodeError {
        let error = tokio::select! {
            biased;
            Some(why) = self.fatal.recv() => return NodeError::Fatal(why),
            Some(error) = self.ends.recv() => error,
            Some(Err(died)) = self.tasks.join_next() => {
                NodeError::Died { what: died.to_string() }
            }
        };
        // A log that fails takes everything else with it, and may be heard of a moment later.
        match tokio::time::timeout(FATAL_WAIT, self.fatal.recv()).await {
            Ok(Some(why)) => NodeError::Fatal(why),
            _ => error,
        }
    }

    /// Ends the node: checkpoints what it can, so that the next start has little to do.
    pub async fn close(self) {
        for replica in &self.replicas {
            // A checkpoint spares the next start work, no more.
            let _ = replica.checkpoint().await;
        }
        for replica in &self.replicas {
            replica.close().await;
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("shards", &self.replicas.len())
            .finish_non_exhaustive()
    }
}

/// Opens log and replicas; the catalog is the first of them.
async fn open(
    env: &Env,
    directory: Directory,
    identity: &Identity,
    options: &NodeOptions,
    on_fatal: OnFatal,
) -> Result<(Arc<Wal>, Recovery, Vec<Replica>), NodeError> {
    let checkpoints = Checkpoints::open(env, &directory.path().join("checkpoints"))?;
    let indexes = checkpoints.indexes()?.into_iter();
    let covered: BTreeMap<_, _> = indexes.map(|(shard, id)| (shard, id.index)).collect();
    let folder = directory.path().join("wal");
    let wal = WalOptions {
        begun: identity.begun,
        shards: identity.data_shards as usize + 1,
        heads_bytes: options.head_bytes,
        ..options.wal.clone()
    };
    let (wal, recovery) = Wal::open(env, &folder, wal, covered, on_fatal).await?;
    wal.hold(directory.into_lock());
    let mut replicas = Vec::new();
    for shard in 0..=identity.data_shards {
        let genesis = Genesis {
            shard: ShardId(shard),
            incarnation: identity.incarnation,
            epoch_base: LeaderEpoch(0),
            data_shards: identity.data_shards,
        };
        let (wal, checkpoints) = (Arc::clone(&wal), checkpoints.clone());
        let node = identity.node;
        replicas.push(Replica::open(env, wal, checkpoints, node, genesis, Arc::new(Alone)).await?);
    }
    Ok((wal, recovery, replicas))
}

/// Gives every shard a log, once, and waits until it leads them; from then on the directory says
/// that it has one.
async fn begin(
    env: &Env,
    replicas: Vec<Replica>,
    identity: &Identity,
    path: &Path,
) -> Result<Vec<Replica>, NodeError> {
    for replica in &replicas {
        if identity.begun && !replica.has_begun().await? {
            let (path, shard) = (path.to_owned(), replica.shard());
            return Err(NodeError::LogLost { path, shard });
        }
        replica
            .found(&BTreeMap::from([(identity.node, String::new())]))
            .await?;
    }
    let replicas = lead(replicas, identity.node).await?;
    // Whoever leads has committed, so the logs are on the disk.
    if !identity.begun {
        let begun = Identity {
            begun: true,
            ..*identity
        };
        begun.save(&*env.files, path)?;
    }
    Ok(replicas)
}

/// Waits until every shard is led, and has given this node's id to nobody else.
async fn lead(replicas: Vec<Replica>, node: NodeId) -> Result<Vec<Replica>, NodeError> {
    for replica in &replicas {
        replica.lead().await?;
    }
    let catalog = &replicas[0];
    loop {
        let state = catalog.state();
        let next = state.catalog().map(esker_shard::Catalog::next_node);
        if next.is_none_or(|next| next > node.sequence()) {
            return Ok(replicas);
        }
        // The founder takes its own id from the catalog, so that nobody gets it again.
        let applied = catalog.propose(&Command::AllocateNode, Vec::new()).await?;
        match applied.await? {
            (_, Outcome::Node(_)) => {}
            (entry, other) => {
                unreachable!("entry {entry}: an allocation was answered with {other:?}")
            }
        }
    }
}

/// How long to wait for the reason why the log ended, once something else has.
const FATAL_WAIT: Duration = Duration::from_millis(250);
