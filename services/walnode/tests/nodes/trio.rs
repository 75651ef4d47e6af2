//! Three nodes that found each other over a simulated network, each on a disk of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_log::{Head as _, HeadError};
use esker_shard::{AppendBatch, AppendOutcome, Command, Outcome, PutTopic, TopicConfig};
use esker_types::{
    ClusterId, ContentHash, Incarnation, NodeId, PartitionId, PartitionIndex, ShardId, Timestamp,
    TopicId, TopicName, TopicVersion,
};
use esker_wal::disk::WalOptions;
use esker_wal::{KeeperOptions, Replica};
use esker_walnode::peers::{Answering, Calling, Credentials};
use esker_walnode::{Directory, Identity, Node, NodeOptions};
use tokio::time::{Instant, sleep, timeout};

pub(crate) const NODES: [u64; 3] = [1, 2, 3];
pub(crate) const SHARDS: u32 = 2;
pub(crate) const SHARD: ShardId = ShardId(1);
pub(crate) const BATCH_BYTES: usize = 100 << 10;
/// Ten times what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: ClusterId = ClusterId(42);
const DISK_BYTES: u64 = 128 << 20;

pub(crate) struct Trio {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) network: SimNetwork,
}

/// The world of one node.
pub(crate) struct World {
    pub(crate) env: Env,
    /// In which it takes its state to have begun.
    pub(crate) incarnation: Incarnation,
}

fn id(node: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, node).expect("small")
}

fn address(node: u64) -> String {
    format!("n{node}:7072")
}

fn partition() -> PartitionId {
    let topic = TopicId::new(Incarnation::FIRST, 1).expect("small");
    let index = PartitionIndex(0);
    PartitionId { topic, index }
}

impl World {
    /// A simulated one, whose files are on `disk`.
    pub(crate) fn simulated(node: u64, disk: &SimDisk, network: &SimNetwork) -> Self {
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(node)),
            files: Arc::new(disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(network.at(&format!("n{node}"))),
        };
        let incarnation = Incarnation::FIRST;
        Self { env, incarnation }
    }
}

impl Trio {
    /// Three nodes, each in its `world`, and a topic with a partition on [`SHARD`].
    pub(crate) async fn found(world: impl Fn(u64, &SimNetwork) -> World) -> Self {
        let network = SimNetwork::new();
        let mut nodes = BTreeMap::new();
        for node in NODES {
            nodes.insert(node, start(node, world(node, &network)).await);
        }
        let voters = NODES.map(|node| (id(node), address(node))).into();
        for replica in nodes[&1].replicas() {
            replica.found(&voters).await.expect("nobody has a log");
        }
        let trio = Self { nodes, network };
        let put = Command::PutTopic(PutTopic {
            topic: partition().topic,
            name: TopicName::new("t").expect("a name"),
            version: TopicVersion(1),
            config: TopicConfig::default(),
            partitions: vec![partition().index],
        });
        let put = timeout(PATIENCE, async {
            loop {
                let head = trio.nodes[&trio.leader().await].head();
                if let Ok(Outcome::TopicPut { .. }) = head.propose(SHARD, put.clone()).await {
                    break;
                }
            }
        });
        put.await.expect("it is put");
        trio
    }

    pub(crate) fn replica(&self, node: u64) -> &Replica {
        let replicas = self.nodes[&node].replicas();
        let mut of_shard = replicas.iter().filter(|replica| replica.shard() == SHARD);
        of_shard.next().expect("every node has one")
    }

    /// Who leads [`SHARD`] by the word of a quorum.
    pub(crate) async fn leader(&self) -> u64 {
        let found = timeout(PATIENCE, async {
            loop {
                for node in NODES {
                    if self.replica(node).read_index().await.is_ok() {
                        return node;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        found.await.expect("somebody comes to lead")
    }

    /// Who leads once nothing has moved for a while.
    pub(crate) async fn settled(&self, calm: Duration) -> u64 {
        let (mut leader, mut since) = (self.leader().await, Instant::now());
        while since.elapsed() < calm {
            sleep(calm / 20).await;
            let now = self.leader().await;
            if now != leader {
                (leader, since) = (now, Instant::now());
            }
        }
        leader
    }

    /// What `node` leads.
    pub(crate) fn led_by(&self, node: u64) -> usize {
        let replicas = self.nodes[&node].replicas().iter();
        replicas
            .filter(|replica| replica.leads_in().is_some())
            .count()
    }

    /// Appends a batch at `node`.
    pub(crate) async fn append_at(&self, node: u64, number: u64) -> Result<(), HeadError> {
        let batch = AppendBatch {
            partition: partition(),
            bytes: u32::try_from(BATCH_BYTES).expect("small"),
            records: 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer: None,
            hash: ContentHash(u128::from(number)),
            expected_end: None,
            fencing: None,
        };
        let bytes = number.to_le_bytes().into_iter().cycle();
        let bytes: Bytes = bytes.take(BATCH_BYTES).collect();
        let answer = self.nodes[&node].head().append(SHARD, batch, bytes).await?;
        let outcome = answer.await?;
        let accepted = matches!(outcome, AppendOutcome::Accepted { .. });
        assert!(accepted, "{outcome:?}");
        Ok(())
    }

    /// Appends a batch at whoever leads.
    pub(crate) async fn append(&self, number: u64) {
        let appended = timeout(PATIENCE, async {
            loop {
                if self.append_at(self.leader().await, number).await.is_ok() {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        appended.await.expect("it is taken");
    }
}

async fn start(number: u64, World { env, incarnation }: World) -> Node {
    let directory = Directory::take(&env, Path::new("/data")).await;
    let directory = directory.expect("nobody else has it");
    let (disk, _) = directory.one_of_several(&env).expect("it is empty");
    let identity = Identity {
        cluster: CLUSTER,
        node: id(number),
        disk: Some(disk),
        incarnation,
        ..Identity::founder(&env, SHARDS)
    };
    directory.belongs_to(&env, &identity).expect("it is empty");
    let credentials = Credentials {
        cluster: CLUSTER,
        node: id(number),
        disk: disk.0,
    };
    let options = NodeOptions {
        wal: WalOptions {
            file_bytes: 4 << 20,
            group_bytes: 3 << 19,
            disk_bytes: DISK_BYTES,
            ..WalOptions::default()
        },
        keeper: KeeperOptions::default(),
        head_bytes: DISK_BYTES / 4,
    };
    let peers = Arc::new(Calling::new(Arc::clone(&env.network), credentials));
    let node = Node::start(&env, directory, &identity, options, peers).await;
    let node = node.expect("it starts");
    let answering = Answering::new(credentials, node.replicas().to_vec(), DISK_BYTES / 4);
    let listener = env.network.listen(&address(number)).await;
    tokio::spawn(answering.serve(listener.expect("a free address")));
    node
}

/// Runs a test in simulated time.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}
