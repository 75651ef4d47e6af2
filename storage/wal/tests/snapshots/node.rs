//! A node on a real disk, and three of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Lock};
use esker_shard::Genesis;
use esker_types::{Incarnation, LeaderEpoch, NodeId, ShardId};
use esker_wal::disk::{Checkpoints, Wal, WalOptions};
use esker_wal::{Keeper, KeeperOptions, Replica};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::ways::Ways;
use crate::{Counts, PATIENCE, SHARDS, load, shards};

/// Between two looks at what is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
const NODES: u64 = 3;
/// As often as checkpoints and purges can be.
const KEEPING: KeeperOptions = KeeperOptions {
    interval: Duration::from_millis(100),
    entries: 200,
    age: Duration::from_secs(1),
    files_held: 3,
    files_moved: 8,
};

/// Three nodes.
pub(crate) struct Cluster {
    pub(crate) ways: Ways,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    counts: Arc<Counts>,
    folder: TempDir,
    nodes_ever: u64,
}

/// A node, which runs or does not.
pub(crate) struct Node {
    folder: PathBuf,
    running: Option<Running>,
}

struct Running {
    replicas: Vec<Replica>,
    keeping: JoinHandle<()>,
}

impl Cluster {
    /// Three nodes that hold all shards, and a topic in each.
    pub(crate) async fn found(counts: &Arc<Counts>) -> Self {
        let mut cluster = Self {
            ways: Ways::new(counts),
            nodes: BTreeMap::new(),
            counts: Arc::clone(counts),
            folder: tempfile::tempdir().expect("a scratch folder"),
            nodes_ever: 0,
        };
        for _ in 0..NODES {
            cluster.enlist().await;
        }
        let voters: BTreeMap<_, _> = cluster
            .nodes
            .keys()
            .map(|node| (*node, address(*node)))
            .collect();
        for shard in shards() {
            let (_, first) = &cluster.ways.of(shard)[0];
            first.found(&voters).await.expect("nobody has a log");
        }
        join_all(shards().map(|shard| load::put_topic(&cluster.ways, shard))).await;
        cluster
    }

    /// A node more, on an empty disk, which nobody knows yet.
    pub(crate) async fn enlist(&mut self) -> NodeId {
        self.nodes_ever += 1;
        let node = NodeId::new(Incarnation::FIRST, self.nodes_ever).expect("a small sequence");
        let folder = self.folder.path().join(node.to_string());
        std::fs::create_dir(&folder).expect("it is new");
        let running = None;
        self.nodes.insert(node, Node { folder, running });
        self.start(node).await;
        node
    }

    pub(crate) async fn start(&mut self, node: NodeId) {
        let of = self.nodes.get_mut(&node).expect("it is known");
        let running = Running::start(node, &of.folder, &self.ways, &self.counts).await;
        of.running = Some(running);
    }

    /// Ends what runs of it; it keeps its disk.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        self.ways.leave(node);
        let of = self.nodes.get_mut(&node).expect("it is known");
        let running = of.running.take().expect("it runs");
        running.keeping.abort();
        join_all(running.replicas.iter().map(Replica::close)).await;
    }

    /// Has nothing more of a node that was stopped.
    pub(crate) async fn forget(&mut self, node: NodeId) {
        let of = self.nodes.remove(&node).expect("it is known");
        drop(ended(&of.folder).await);
        std::fs::remove_dir_all(of.folder).expect("it is ours");
    }

    /// Waits until all replicas of each shard have applied the same and are the same, and have no less than
    /// `batches`.
    pub(crate) async fn converge(&self, batches: u64) {
        let mut there = 0;
        for shard in shards() {
            let converged = timeout(PATIENCE, async {
                loop {
                    let replicas = self.ways.of(shard);
                    let states: Vec<_> = replicas.iter().map(|(_, of)| of.state()).collect();
                    let same = |of: &esker_shard::State| of.applied() == states[0].applied();
                    let led = self.ways.leader(shard);
                    if replicas.len() == 3 && states.iter().all(same) && led.is_some() {
                        return states;
                    }
                    sleep(LOOK).await;
                }
            });
            let states = converged.await.expect("it converges");
            let hashes: Vec<_> = states.iter().map(esker_shard::State::hash).collect();
            let all_same = hashes.iter().all(|hash| *hash == hashes[0]);
            assert!(all_same, "{shard} differs: {hashes:?}");
            there += load::end(&states[0], shard);
        }
        assert!(there >= batches, "{there} of {batches} batches are there");
    }

    /// How many entries of `shard` each replica has forgotten at least.
    pub(crate) fn purged(&self, shard: ShardId) -> u64 {
        let replicas = self.ways.of(shard).into_iter();
        let purged = replicas.map(|(_, of)| of.wal().bounds(shard).purged.index.0);
        purged.min().unwrap_or(0)
    }

    pub(crate) async fn end(mut self) {
        let nodes: Vec<_> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.stop(node).await;
        }
    }
}

impl Running {
    async fn start(node: NodeId, folder: &Path, ways: &Ways, counts: &Arc<Counts>) -> Self {
        let env = Env::real();
        let lock = ended(folder).await;
        let checkpoints = Checkpoints::open(&env, &folder.join("checkpoints")).expect("a folder");
        let covered = checkpoints.indexes().expect("readable").into_iter();
        let covered = covered.map(|(shard, id)| (shard, id.index)).collect();
        let options = WalOptions {
            file_bytes: 16 << 20,
            group_bytes: 2 << 20,
            disk_bytes: 1 << 30,
            memory_bytes: 32 << 20,
            shards: SHARDS as usize,
            ..WalOptions::default()
        };
        let fatal = Arc::new(|fatal: &_| unreachable!("the log ended: {fatal}"));
        let opened = Wal::open(&env, &folder.join("wal"), options, covered, fatal).await;
        let (wal, _) = opened.expect("a log that can be read");
        wal.hold(lock);
        let mut replicas = Vec::new();
        for shard in shards() {
            let (wal, checkpoints) = (Arc::clone(&wal), checkpoints.clone());
            let peers = Arc::new(ways.clone());
            let opened = Replica::open(&env, wal, checkpoints, node, genesis(shard), peers).await;
            let replica = opened.expect("it opens");
            ways.join(node, replica.clone());
            replicas.push(replica);
        }
        let keeper = Keeper::new(wal, replicas.clone(), Arc::clone(&env.clock), KEEPING);
        let keeping = tokio::spawn(keep(keeper, replicas.clone(), Arc::clone(counts)));
        Self { replicas, keeping }
    }
}

/// Waits until the last thread of a node's life before has ended, which may still write; its lock.
async fn ended(folder: &Path) -> Box<dyn Lock> {
    let lock = timeout(PATIENCE, async {
        loop {
            match Env::real().files.lock(&folder.join("lock")) {
                Ok(lock) => return lock,
                Err(_) => sleep(LOOK).await,
            }
        }
    });
    lock.await.expect("it ends")
}

/// Keeps a node's log small, and counts the checkpoints that it made itself.
async fn keep(mut keeper: Keeper, replicas: Vec<Replica>, counts: Arc<Counts>) {
    loop {
        sleep(KEEPING.interval).await;
        let covered = || replicas.iter().map(|replica| replica.checkpointed().0);
        let before: Vec<_> = covered().collect();
        // Raft of it ends first where it is stopped.
        if keeper.turn().await.is_err() {
            return;
        }
        let built = before
            .into_iter()
            .zip(covered())
            .filter(|(before, now)| before < now);
        Counts::add(&counts.built, built.count() as u64);
    }
}

fn genesis(shard: ShardId) -> Genesis {
    Genesis {
        shard,
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards: SHARDS,
    }
}

pub(crate) fn address(node: NodeId) -> String {
    format!("{node}:1")
}
