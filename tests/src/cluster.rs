//! A cluster in one process: WAL nodes on simulated disks and agents that hold nothing, each a host of
//! its own; whatever they say to each other goes over gRPC on a simulated network.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use esker_cache::BlockCache;
use esker_env::sim::{Crash, Inline, SeededEntropy, SimClock, SimDisk, SimNetwork, Sluggish};
use esker_env::{Env, Workers};
use esker_head::{Answering as HeadAnswering, Calling as HeadCalling};
use esker_log::{Engine, EngineOptions, FlushTriggers, Head as _, Owner, UpkeepTimes, claim};
use esker_object::faults::FaultStore;
use esker_object::{Options, Store};
use esker_proto::{transport, tuning};
use esker_shard::{Command, Outcome};
use esker_types::limits::MIB;
use esker_types::{ClusterId, Incarnation, NodeId, RaftIndex, ShardId, Term};
use esker_wal::disk::WalOptions;
use esker_wal::{KeeperOptions, Replica};
use esker_walnode::members::{self, Changing, Goal};
use esker_walnode::peers::{Answering, Calling, Credentials};
use esker_walnode::{Directory, Identity, LocalHead, Node, NodeOptions};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

/// Data shards of the cluster.
const DATA_SHARDS: u32 = 2;
const CLUSTER: ClusterId = ClusterId(0xc105_7e12);
const OWNER: Owner = Owner {
    cluster: CLUSTER,
    incarnation: Incarnation::FIRST,
};
/// How long what a node writes takes at most, of one in three each.
const SLOWEST: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(4),
    Duration::from_millis(40),
];
/// How long replicas may take to become the same once nothing ails them.
const CONVERGED_IN: Duration = Duration::from_secs(60);

/// Clusters made in this process so far: memory buckets are found by name.
static CLUSTERS: AtomicU64 = AtomicU64::new(0);

/// The machines of a cluster, and what runs on them.
#[derive(Debug)]
pub struct Cluster {
    pub network: SimNetwork,
    /// Of the agents; those of the machines began with it, whoever is restarted.
    clock: Arc<SimClock>,
    keeper: KeeperOptions,
    bucket: String,
    seed: u64,
    machines: BTreeMap<u64, Machine>,
    agents: u64,
    /// Nodes that ended by themselves, and why.
    died: Arc<Mutex<Vec<String>>>,
}

/// Where a WAL node runs, again and again.
#[derive(Debug)]
struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    lives: u64,
    process: Option<Process>,
}

/// One life of a WAL node.
#[derive(Debug)]
struct Process {
    replicas: Vec<Replica>,
    head: Arc<LocalHead>,
    serving: AbortHandle,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Node>,
}

/// One life of an agent.
#[derive(Debug)]
pub struct Agent {
    pub engine: Engine,
    pub faults: FaultStore,
    running: AbortHandle,
}

/// The name of a node's host.
#[must_use]
pub fn host(node: u64) -> String {
    format!("n{node}")
}

/// Where the others reach it.
fn address(node: u64) -> String {
    format!("{}:7072", host(node))
}

fn id(node: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, node).expect("a small sequence")
}

impl Machine {
    fn new(seed: u64, node: u64, clock: &SimClock) -> Self {
        Self {
            disk: SimDisk::new(seed << 8 | node),
            clock: Arc::new(clock.beside()),
            lives: 0,
            process: None,
        }
    }
}

impl Cluster {
    /// A new cluster of `nodes`, up and founded.
    pub async fn found(seed: u64, nodes: u64, keeper: KeeperOptions) -> Self {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let clock = Arc::new(SimClock::following_tokio());
        let mut cluster = Self {
            network: SimNetwork::new(),
            clock: Arc::clone(&clock),
            keeper,
            bucket: format!("cluster-{seed}-{number}"),
            seed,
            machines: (1..=nodes)
                .map(|node| (node, Machine::new(seed, node, &clock)))
                .collect(),
            agents: 0,
            died: Arc::default(),
        };
        let store = cluster.bucket(&cluster.env("init", 0)).0;
        let claimed = claim(&store, OWNER.cluster, OWNER.incarnation).await;
        claimed.expect("nobody else has this bucket");
        for node in 1..=nodes {
            cluster.start(node).await;
        }
        let voters = (1..=nodes).map(|node| (id(node), address(node))).collect();
        for replica in cluster.replicas(1) {
            replica.found(&voters).await.expect("it has no voters");
        }
        cluster
    }

    /// The world as the `life`th process on `host` sees it.
    fn env(&self, host: &str, life: u64) -> Env {
        let of_host: u64 = host.bytes().map(u64::from).sum();
        let seed = self.seed << 24 | of_host << 12 | life;
        Env {
            clock: Arc::<SimClock>::clone(&self.clock),
            entropy: Arc::new(SeededEntropy::new(seed)),
            files: Arc::new(SimDisk::new(seed).mount()),
            workers: Arc::new(Inline),
            network: Arc::new(self.network.at(host)),
        }
    }

    /// Disks differ: one may have synced what another, who leads, has not.
    fn workers(&self, node: u64, life: u64) -> Arc<dyn Workers> {
        let seed = self.seed << 24 | node << 12 | life;
        match SLOWEST[usize::try_from((self.seed + node) % 3).expect("three")] {
            Duration::ZERO => Arc::new(Inline),
            slowest => Arc::new(Sluggish::new(seed, slowest)),
        }
    }

    fn bucket(&self, env: &Env) -> (Store, FaultStore) {
        let url = format!("memory://{}", self.bucket);
        Store::open_with_faults(&url, &Options::default(), env).expect("a bucket")
    }

    /// Starts a node, from what its disk has.
    pub async fn start(&mut self, node: u64) {
        let machine = self.machine(node);
        machine.lives += 1;
        let (lives, disk) = (machine.lives, machine.disk.clone());
        let clock = Arc::clone(&machine.clock);
        let env = Env {
            clock,
            files: Arc::new(disk.mount()),
            workers: self.workers(node, lives),
            ..self.env(&host(node), lives)
        };
        let listener = env.network.listen(&address(node)).await;
        let listener = listener.expect("its last life has ended");
        let directory = Directory::take(&env, Path::new("/data")).await;
        let directory = directory.expect("its last life has ended");
        let (disk, identity) = directory.one_of_several(&env).expect("readable");
        let identity = identity.unwrap_or_else(|| {
            let adopted = Identity {
                cluster: CLUSTER,
                node: id(node),
                disk: Some(disk),
                ..Identity::founder(&env, DATA_SHARDS)
            };
            directory.belongs_to(&env, &adopted).expect("written");
            adopted
        });
        let credentials = Credentials {
            cluster: CLUSTER,
            node: id(node),
            disk: disk.0,
        };
        let peers = Arc::new(Calling::new(Arc::clone(&env.network), credentials));
        let options = self.node_options();
        let head_bytes = options.wal.disk_bytes;
        let node_started = Node::start(&env, directory, &identity, options, peers).await;
        let started = node_started.expect("a crash leaves a log that starts");
        let replicas = started.replicas().to_vec();
        let raft = Answering::new(credentials, replicas.clone(), head_bytes).service();
        let local = started.head();
        let head = HeadAnswering::new(CLUSTER, started.head()).service();
        let members = members::Answering::new(CLUSTER, replicas.clone()).service();
        let server = tuning::peer_server()
            .add_service(raft)
            .add_service(head)
            .add_service(members);
        let serving = server.serve_with_incoming(transport::incoming(listener));
        let serving = tokio::spawn(serving).abort_handle();
        let (stop, stopped) = oneshot::channel();
        let died = Arc::clone(&self.died);
        let running = tokio::spawn(watched(started, node, stopped, died));
        self.machine(node).process = Some(Process {
            replicas,
            head: local,
            serving,
            stop,
            running,
        });
    }

    fn node_options(&self) -> NodeOptions {
        let disk_bytes = 64 << 20;
        NodeOptions {
            wal: WalOptions {
                file_bytes: 1 << 20,
                group_bytes: 256 << 10,
                disk_bytes,
                memory_bytes: 256 << 10,
                ..WalOptions::default()
            },
            keeper: self.keeper,
            head_bytes: disk_bytes / 2,
        }
    }

    /// Ends a node as a crash does, with what its disk loses by it.
    pub async fn crash(&mut self, node: u64, how: Crash) {
        let Some(process) = self.machine(node).process.take() else {
            return;
        };
        // What it was about to say, it does not say any more.
        process.serving.abort();
        self.network.cut(&address(node));
        self.machine(node).disk.crash(how);
        let _ = process.stop.send(());
        for replica in &process.replicas {
            replica.close().await;
        }
        drop(process.running.await);
    }

    /// Makes the wall clock of a node's machine jump; one that was replaced meanwhile has another.
    pub fn jump_wall(&self, node: u64, by_ms: i64) {
        if let Some(machine) = self.machines.get(&node) {
            machine.clock.jump_wall(by_ms);
        }
    }

    /// Ends a node in an orderly way.
    pub async fn close(&mut self, node: u64) {
        let Some(process) = self.machine(node).process.take() else {
            return;
        };
        let _ = process.stop.send(());
        if let Ok(node) = process.running.await {
            node.close().await;
        }
        process.serving.abort();
        self.network.cut(&address(node));
    }

    /// Replaces a node whose disk is gone by one on a new disk, under an id of its own, as an operator
    /// would.
    pub async fn replace(&mut self, lost: u64) -> u64 {
        self.crash(lost, Crash::PowerCut).await;
        self.machines.remove(&lost);
        let env = self.env("operator", lost);
        let head = self.head(&env);
        let new = loop {
            match head.propose(ShardId::CATALOG, Command::AllocateNode).await {
                Ok(Outcome::Node(node)) => break node,
                Ok(other) => unreachable!("{other:?}"),
                // An id more or less does not matter.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let number = new.sequence();
        let machine = Machine::new(self.seed, number, &self.clock);
        assert!(
            self.machines.insert(number, machine).is_none(),
            "given twice"
        );
        self.start(number).await;
        let nodes: Vec<_> = self.nodes().into_iter().map(address).collect();
        let network = Arc::clone(&env.network);
        let mut changing = Changing::new(network, CLUSTER, &nodes).expect("addresses");
        let (node, address) = (new, address(number));
        let goals = [Goal::Add { node, address }, Goal::Remove { node: id(lost) }];
        for goal in goals {
            let reached = changing.reach(&goal, DATA_SHARDS, CONVERGED_IN, |_| {});
            reached.await.expect("two of three are well");
        }
        number
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        self.machines.keys().copied().collect()
    }

    fn head(&self, env: &Env) -> HeadCalling {
        let nodes = self.nodes().into_iter().map(address).collect();
        HeadCalling::new(env, CLUSTER, DATA_SHARDS, nodes)
    }

    fn machine(&mut self, node: u64) -> &mut Machine {
        self.machines.get_mut(&node).expect("one of the cluster's")
    }

    fn replicas(&self, node: u64) -> &[Replica] {
        let process = self.machines[&node].process.as_ref();
        process.map_or(&[], |process| &process.replicas)
    }

    /// Nodes that are up.
    #[must_use]
    pub fn up(&self) -> Vec<u64> {
        let up = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.process.is_some());
        up.map(|(node, _)| *node).collect()
    }

    /// Nodes that are not.
    #[must_use]
    pub fn down(&self) -> Vec<u64> {
        let all = self.machines.keys().copied();
        all.filter(|node| self.replicas(*node).is_empty()).collect()
    }

    /// Who believes to lead `shard`, in the highest term.
    #[must_use]
    pub fn leader(&self, shard: ShardId) -> Option<u64> {
        let place = usize::try_from(shard.0).expect("a few");
        let leads = self.machines.keys().filter_map(|node| {
            let term = self.replicas(*node).get(place)?.leads_in()?;
            Some((term, *node))
        });
        leads.max().map(|(_, node)| node)
    }

    /// The latest term of each shard that a node which is up has voted in.
    #[must_use]
    pub fn terms(&self) -> BTreeMap<ShardId, Term> {
        let mut terms = BTreeMap::new();
        for replica in self.machines.keys().flat_map(|node| self.replicas(*node)) {
            let vote = replica.wal().bounds(replica.shard()).vote;
            let latest: &mut Term = terms.entry(replica.shard()).or_default();
            *latest = vote
                .map(|vote| vote.term)
                .max(Some(*latest))
                .unwrap_or_default();
        }
        terms
    }

    /// What an agent is answered by a node that is up, whoever leads.
    ///
    /// # Panics
    /// If it is down.
    #[must_use]
    pub fn head_at(&self, node: u64) -> Arc<LocalHead> {
        let process = self.machines[&node].process.as_ref();
        Arc::clone(&process.expect("it is up").head)
    }

    /// Starts an agent on `host`.
    #[must_use]
    pub fn agent(&mut self, host: &str) -> Agent {
        self.agents += 1;
        let env = self.env(host, self.agents);
        let head = self.head(&env);
        let (store, faults) = self.bucket(&env);
        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let options = EngineOptions {
            flush: FlushTriggers {
                bytes: 256 << 10,
                age: Duration::from_secs(1),
            },
            upkeep: UpkeepTimes {
                checkpoint: Duration::from_secs(1),
                retention: Duration::from_secs(1),
                collect: Duration::from_secs(1),
                grace: Duration::from_secs(2),
            },
            ..EngineOptions::default()
        };
        let engine = Engine::new(Arc::new(head), store, env, blocks, options);
        let running = engine.clone();
        let running = tokio::spawn(async move { running.run(OWNER).await }).abort_handle();
        Agent {
            engine,
            faults,
            running,
        }
    }

    /// Waits until all replicas of all shards are the same.
    pub async fn converge(&self) {
        let converged = tokio::time::timeout(CONVERGED_IN, async {
            for shard in 0..=DATA_SHARDS {
                while !self.is_one(ShardId(shard)).await {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        let told = || format!("{:#?}", self.stands());
        assert!(converged.await.is_ok(), "{}", told());
        assert!(self.died().is_empty(), "{:?}", self.died());
    }

    /// Whether the replicas of `shard` have applied the same and are the same, by the word of its
    /// leader.
    async fn is_one(&self, shard: ShardId) -> bool {
        let Some(leader) = self.leader(shard) else {
            return false;
        };
        let place = usize::try_from(shard.0).expect("a few");
        let Ok(upto) = self.replicas(leader)[place].read_index().await else {
            return false;
        };
        let mut states = Vec::new();
        for node in self.machines.keys() {
            let Some(replica) = self.replicas(*node).get(place) else {
                return false;
            };
            let state = replica.state();
            if state.applied().index < upto {
                return false;
            }
            states.push((state.applied(), state.hash()));
        }
        states.sort_unstable_by_key(|(applied, _)| *applied);
        let same_index = states.first().map(|(id, _)| id) == states.last().map(|(id, _)| id);
        states.dedup();
        assert!(
            !same_index || states.len() == 1,
            "replicas of {shard} differ: {states:?}"
        );
        same_index
    }

    /// How far each replica is.
    fn stands(&self) -> Vec<(u64, ShardId, RaftIndex)> {
        let all = self.machines.keys().flat_map(|node| {
            let replicas = self.replicas(*node).iter();
            replicas.map(|replica| (*node, replica.shard(), replica.state().applied().index))
        });
        all.collect()
    }

    /// Nodes that ended by themselves, and why.
    #[must_use]
    pub fn died(&self) -> Vec<String> {
        let died = self.died.lock().unwrap_or_else(PoisonError::into_inner);
        died.clone()
    }
}

impl Agent {
    /// Ends it as a crash does: it holds nothing.
    pub fn kill(self) {
        self.running.abort();
    }

    /// Stops flushing by itself.
    pub fn stop_flushing(&self) {
        self.running.abort();
    }
}

/// Runs a node until it is told to stop, or ends by itself.
async fn watched(
    mut node: Node,
    number: u64,
    mut stopped: oneshot::Receiver<()>,
    died: Arc<Mutex<Vec<String>>>,
) -> Node {
    tokio::select! {
        biased;
        _ = &mut stopped => {}
        error = node.ended() => {
            let mut died = died.lock().unwrap_or_else(PoisonError::into_inner);
            died.push(format!("node {number}: {error}"));
        }
    }
    node
}
