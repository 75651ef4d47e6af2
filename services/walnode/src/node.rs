//! A WAL node, whole: its lock, its log, a replica of every shard, and what keeps them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use esker_env::Env;
use esker_shard::{Catalog, Command, Genesis, State};
use esker_types::limits::{CLOCK_ASKED_REST, HEARTBEAT};
use esker_types::{LeaderEpoch, NodeId, ShardId, ShardTime};
use esker_wal::disk::{Checkpoints, Fatal, OnFatal, Recovery, Wal, WalOptions};
use esker_wal::peers::Peers;
use esker_wal::{Appender, Elsewhere, Error, Keeper, KeeperOptions, ProposeError, Replica};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::alike::{Differences, compare};
use crate::balance::balance;
use crate::directory::Directory;
use crate::hand_over::{
    hand_over, hand_over_when_damaged, hand_over_when_full, hand_over_when_slow,
};
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

impl NodeOptions {
    /// Its log, for so many data shards beside the catalog.
    fn wal_of(&self, data_shards: u32) -> WalOptions {
        WalOptions {
            shards: data_shards as usize + 1,
            heads_bytes: self.head_bytes,
            ..self.wal.clone()
        }
    }

    /// Makes sure that its budgets hold so many data shards. Opens nothing.
    ///
    /// # Errors
    /// [`NodeError::Wal`].
    pub fn check(&self, data_shards: u32) -> Result<(), NodeError> {
        Ok(self.wal_of(data_shards).check()?)
    }
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
    /// It was to lead alone, and has others to vote with.
    #[error(
        "this node votes with {}: it leads nothing alone; name the nodes of the cluster in \
         `cluster.nodes`",
        others.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ")
    )]
    NotAlone {
        /// The other voters.
        others: Vec<NodeId>,
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
    node: NodeId,
    head: Arc<LocalHead>,
    wal: Arc<Wal>,
    recovery: Recovery,
    replicas: Vec<Replica>,
    differences: Differences,
    ends: mpsc::Receiver<NodeError>,
    /// Why the log ended. What ends after it ends because of it.
    fatal: mpsc::Receiver<Fatal>,
    /// Stop with the node.
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts the node of `identity`: opens its log and a replica of every shard, and goes on from
    /// what is there. Who leads is for the voters to decide; a new cluster has none before
    /// [`Replica::found`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(
        env: &Env,
        directory: Directory,
        identity: &Identity,
        options: NodeOptions,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, NodeError> {
        // The first reason is the one that is told.
        let (tell, ends) = mpsc::channel(1);
        let (die, fatal) = mpsc::channel(1);
        let on_fatal: OnFatal = Arc::new(move |why: &Fatal| {
            let _ = die.try_send(why.clone());
        });
        let ways = Arc::clone(&peers);
        let opened = open(env, directory, identity, &options, ways, on_fatal).await?;
        let (wal, recovery, replicas) = opened;
        let led = led(env, &replicas, identity, options.head_bytes);
        let clock = Arc::clone(&env.clock);
        let keeper = Keeper::new(
            Arc::clone(&wal),
            replicas.clone(),
            Arc::clone(&clock),
            options.keeper,
        );
        let workers = Arc::clone(&env.workers);
        let (holders, log) = (keeper.holders(), Arc::clone(&wal));
        let head = LocalHead::new(led.clone(), holders, log, workers, clock);
        let mut tasks = watch(&led, &tell);
        tasks.spawn(async move {
            let error = keeper.run().await;
            let _ = tell.try_send(NodeError::Wal(error));
        });
        tasks.spawn(hand_over_when_slow(Arc::clone(&wal), replicas.clone()));
        tasks.spawn(hand_over_when_full(Arc::clone(&wal), replicas.clone()));
        tasks.spawn(hand_over_when_damaged(replicas.clone()));
        tasks.spawn(balance(identity.node, replicas.clone()));
        let differences = Differences::default();
        let (all, found) = (replicas.clone(), differences.clone());
        tasks.spawn(compare(identity.node, all, peers, found));
        tasks.spawn(own_ids(replicas[0].clone()));
        for Led { replica, appender } in led.clone() {
            if let Some(appender) = appender {
                tasks.spawn(take_office(replica, appender));
            }
        }
        tasks.spawn(lend(led, options.head_bytes));
        Ok(Self {
            node: identity.node,
            head: Arc::new(head),
            wal,
            recovery,
            replicas,
            differences,
            ends,
            fatal,
            tasks,
        })
    }

    /// Founds what is not founded yet with this node as the only voter, and waits until it leads
    /// every shard and its id is taken.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn lead_alone(&mut self) -> Result<(), NodeError> {
        let (replicas, head) = (&self.replicas, &self.head);
        let alone = BTreeMap::from([(self.node, String::new())]);
        let (id, own) = (self.node, self.node.sequence());
        let lead = async {
            for replica in replicas {
                replica.found(&alone).await?;
                let others = replica.members().all.into_keys().filter(|node| *node != id);
                let others: Vec<_> = others.collect();
                if !others.is_empty() {
                    return Err(NodeError::NotAlone { others });
                }
                replica.lead().await?;
            }
            head.take_offices().await?;
            let mut states = replicas[0].watch();
            let taken = |state: &State| {
                let catalog = state.catalog();
                catalog.is_none_or(|catalog| catalog.next_node() > own)
            };
            // It ends with the replica, and that is told.
            let _ = states.wait_for(taken).await;
            Ok::<_, NodeError>(())
        };
        tokio::select! {
            biased;
            Some(why) = self.fatal.recv() => Err(NodeError::Fatal(why)),
            led = lead => led,
        }
    }

    /// Its replicas, the catalog's first.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Replicas that were found to differ from what this node leads.
    #[must_use]
    pub const fn differences(&self) -> &Differences {
        &self.differences
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

    /// Has others lead what it leads, as far as there are others.
    pub async fn hand_over(&self) {
        hand_over(&self.replicas).await;
    }

    /// Ends the node: has others lead what it leads, and checkpoints what it can, so that the next
    /// start has little to do.
    pub async fn close(self) {
        self.hand_over().await;
        self.leave().await;
    }

    /// Ends it as [`Node::close`] does, of which the others know already.
    pub async fn leave(self) {
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
    peers: Arc<dyn Peers>,
    on_fatal: OnFatal,
) -> Result<(Arc<Wal>, Recovery, Vec<Replica>), NodeError> {
    let checkpoints = Checkpoints::open(env, &directory.path().join("checkpoints"))?;
    let indexes = checkpoints.indexes()?.into_iter();
    let covered: BTreeMap<_, _> = indexes.map(|(shard, id)| (shard, id.index)).collect();
    let folder = directory.path().join("wal");
    let wal = WalOptions {
        begun: identity.begun,
        ..options.wal_of(identity.data_shards)
    };
    let (wal, recovery) = Wal::open(env, &folder, wal, covered, on_fatal).await?;
    // Before anybody hears a vote or an entry: from here on a directory without its log is one that
    // lost it.
    if !identity.begun {
        let begun = Identity {
            begun: true,
            ..identity.clone()
        };
        directory.belongs_to(env, &begun)?;
    }
    wal.hold(directory.into_lock());
    let mut replicas = Vec::new();
    for shard in 0..=identity.data_shards {
        let genesis = Genesis {
            shard: ShardId(shard),
            incarnation: identity.incarnation,
            epoch_base: LeaderEpoch(0),
            data_shards: identity.data_shards,
        };
        let (wal, checkpoints, peers) = (Arc::clone(&wal), checkpoints.clone(), Arc::clone(&peers));
        let node = identity.node;
        replicas.push(Replica::open(env, wal, checkpoints, node, genesis, peers).await?);
    }
    Ok((wal, recovery, replicas))
}

/// What leads each of `replicas`, whenever it does.
fn led(env: &Env, replicas: &[Replica], identity: &Identity, head_bytes: u64) -> Vec<Led> {
    let share = equal_part(head_bytes, identity.data_shards);
    let all: Arc<[Replica]> = replicas.into();
    let elsewhere: Elsewhere = Arc::new(move || {
        let times = all.iter().map(|replica| replica.state().time());
        times.max().unwrap_or(ShardTime::ZERO)
    });
    let led = replicas.iter().map(|replica| {
        let data = replica.shard().carries_data();
        let (clock, elsewhere) = (Arc::clone(&env.clock), Arc::clone(&elsewhere));
        Led {
            replica: replica.clone(),
            appender: data.then(|| Appender::start(replica.clone(), clock, share, elsewhere)),
        }
    });
    led.collect()
}

/// Tells when a part of the node has ended.
fn watch(led: &[Led], tell: &mpsc::Sender<NodeError>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for Led { replica, appender } in led {
        let (ended, shard, told) = (replica.ended(), replica.shard(), tell.clone());
        tasks.spawn(async move {
            ended.await;
            let _ = told.try_send(NodeError::Ended { shard });
        });
        if let Some(queue) = appender.clone() {
            let told = tell.clone();
            tasks.spawn(async move {
                queue.ended().await;
                let what = format!("the queue of appends of {shard}");
                let _ = told.try_send(NodeError::Died { what });
            });
        }
    }
    tasks
}

/// Whenever this node leads the catalog: takes the ids of all members out of those it gives away,
/// so that nobody gets one again.
async fn own_ids(catalog: Replica) {
    let mut known = None;
    while let Some(term) = catalog.leads_anew(known).await {
        match take_ids(&catalog).await {
            Ok(()) => known = Some(term),
            // Deposed, or without room: as soon as it leads again, or has some.
            Err(error) => {
                tracing::debug!(%error, "the ids of the members are not taken yet");
                tokio::time::sleep(HEARTBEAT).await;
            }
        }
    }
    // Its end is told by others.
    std::future::pending().await
}

/// Takes office whenever this node comes to lead: a clock that is wrong is told of before anybody
/// appends.
async fn take_office(replica: Replica, appender: Appender) {
    let mut known = None;
    loop {
        let anew = tokio::time::timeout(CLOCK_ASKED_REST, replica.leads_anew(known));
        match anew.await {
            Ok(None) => break,
            Ok(Some(term)) => match appender.take_office().await {
                Ok(()) => known = Some(term),
                Err(_) => tokio::time::sleep(HEARTBEAT).await,
            },
            // Clocks may have been set right meanwhile.
            Err(_) => appender.ask_clocks_again().await,
        }
    }
    // Its end is told by others.
    std::future::pending().await
}

async fn take_ids(catalog: &Replica) -> Result<(), ProposeError> {
    catalog.read_index().await?;
    loop {
        let members = catalog.members();
        let highest = members.all.keys().map(|node| node.sequence()).max();
        let state = catalog.state();
        let next = state.catalog().map(Catalog::next_node);
        if next.is_none_or(|next| Some(next) > highest) {
            return Ok(());
        }
        let proposed = catalog.propose(&Command::AllocateNode, Vec::new()).await?;
        // Whatever it is, the next look at the catalog tells.
        let _ = proposed.await?;
    }
}

/// How long to wait for the reason why the log ended, once something else has.
const FATAL_WAIT: Duration = Duration::from_millis(250);
