//! A node in a simulated world, servers in front of its head, and callers of them.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_head::{Answering, Calling, Refusals};
use esker_log::Head;
use esker_proto::{transport, tuning};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, CreateTopic, Outcome, PutTopic, RequestId, TopicConfig,
};
use esker_types::{
    ClusterId, ContentHash, Incarnation, Offset, OffsetRange, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, ProducerStamp, Sequence, ShardId, Timestamp, TopicName,
};
use esker_wal::disk::WalOptions;
use esker_wal::{Alone, KeeperOptions};
use esker_walnode::{Directory, Identity, Node, NodeOptions};

pub(crate) const CLUSTER: ClusterId = ClusterId(42);
pub(crate) const SHARDS: u32 = 2;
pub(crate) const SHARD: ShardId = ShardId(1);
/// Bytes that all heads may hold.
pub(crate) const HEAD_BYTES: u64 = 8 << 20;

pub(crate) struct Site {
    pub(crate) env: Env,
    pub(crate) network: SimNetwork,
    pub(crate) node: Node,
}

impl Site {
    pub(crate) async fn start(seed: u64) -> Self {
        let network = SimNetwork::new();
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            files: Arc::new(SimDisk::new(seed).mount()),
            workers: Arc::new(Inline),
            network: Arc::new(network.clone()),
        };
        let options = NodeOptions {
            wal: WalOptions {
                file_bytes: 16 << 20,
                group_bytes: 4 << 20,
                disk_bytes: 128 << 20,
                memory_bytes: 256 << 10,
                ..WalOptions::default()
            },
            keeper: KeeperOptions::default(),
            head_bytes: HEAD_BYTES,
        };
        let directory = Directory::take(&env, Path::new("/data")).await;
        let directory = directory.expect("nobody else has it");
        let founder = Identity::founder(&env, SHARDS);
        directory.belongs_to(&env, &founder).expect("it is empty");
        let node = Node::start(&env, directory, &founder, options, Arc::new(Alone)).await;
        let mut node = node.expect("it starts");
        node.lead_alone().await.expect("nobody else votes");
        Self { env, network, node }
    }

    /// Its head, in process.
    pub(crate) fn head(&self) -> Arc<dyn Head> {
        self.node.head()
    }

    /// Answers at `address` for `head`.
    pub(crate) async fn serve(&self, address: &str, head: Arc<dyn Head>) -> Arc<Refusals> {
        self.answer(address, head).await.refusals()
    }

    /// The same; what may be asked to stop.
    pub(crate) async fn answer(&self, address: &str, head: Arc<dyn Head>) -> Answering {
        let answering = Answering::new(CLUSTER, head);
        let listener = self.env.network.listen(address).await;
        let incoming = transport::incoming(listener.expect("a free address"));
        let server = tuning::peer_server().add_service(answering.service());
        tokio::spawn(server.serve_with_incoming(incoming));
        answering
    }

    /// A caller that knows `nodes`.
    pub(crate) fn calling(&self, nodes: &[&str]) -> Calling {
        let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
        Calling::new(&self.env, CLUSTER, SHARDS, nodes)
    }

    /// Its head, over the wire.
    pub(crate) async fn called(&self) -> Arc<dyn Head> {
        self.serve("node1:7072", self.head()).await;
        Arc::new(self.calling(&["node1:7072"]))
    }
}

/// Runs `test` in simulated time.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

pub(crate) fn offset(number: u64) -> Offset {
    Offset::new(number).expect("small")
}

pub(crate) fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange::new(offset(start), offset(end)).expect("in order")
}

pub(crate) fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a name")
}

/// Makes a topic, all of whose partitions are on one shard or the other, and puts it on all shards.
pub(crate) async fn make_topic(
    head: &dyn Head,
    called: &str,
    partitions: u32,
) -> Vec<(ShardId, PartitionId)> {
    let create = Command::CreateTopic(CreateTopic {
        request: RequestId(u128::from(partitions) << 64 | called.len() as u128),
        name: name(called),
        partitions,
        config: TopicConfig::default(),
    });
    let outcome = head.propose(ShardId::CATALOG, create).await;
    let Ok(Outcome::TopicCreated {
        topic,
        version,
        placement,
    }) = outcome
    else {
        panic!("{outcome:?}");
    };
    for shard in head.shards() {
        let here = (0..).zip(&placement).filter(|(_, on)| **on == shard);
        let put = Command::PutTopic(PutTopic {
            topic,
            version,
            name: name(called),
            config: TopicConfig::default(),
            partitions: here.map(|(index, _)| PartitionIndex(index)).collect(),
        });
        let outcome = head.propose(shard, put).await.expect("it is proposed");
        assert_eq!(outcome, Outcome::TopicPut { version });
    }
    let placed = (0..).zip(placement).map(|(index, shard)| {
        let index = PartitionIndex(index);
        (shard, PartitionId { topic, index })
    });
    placed.collect()
}

/// A topic with one partition on [`SHARD`] at least; that partition.
pub(crate) async fn make_partition(head: &dyn Head) -> PartitionId {
    let partitions = make_topic(head, "gravel", 2 * SHARDS).await;
    let found = partitions.iter().find(|(shard, _)| *shard == SHARD);
    found.expect("it is spread").1
}

/// A batch of `records` records, as far as a head looks into it, and its bytes.
pub(crate) fn batch(
    partition: PartitionId,
    records: u32,
    bytes: Bytes,
    producer: Option<ProducerStamp>,
) -> (AppendBatch, Bytes) {
    let hash = bytes.iter().fold(1, |hash: u128, &byte| {
        hash.wrapping_mul(257).wrapping_add(u128::from(byte))
    });
    let batch = AppendBatch {
        partition,
        bytes: u32::try_from(bytes.len()).expect("small"),
        records,
        base_timestamp: Timestamp(1000),
        max_timestamp: Timestamp(1000 + i64::from(records)),
        producer,
        hash: ContentHash(hash | 1 << 100),
        expected_end: None,
        fencing: None,
    };
    (batch, bytes)
}

pub(crate) fn stamp(producer: u64, sequence: u32) -> ProducerStamp {
    ProducerStamp {
        id: ProducerId::new(Incarnation::FIRST, producer).expect("small"),
        epoch: ProducerEpoch::FIRST,
        sequence: Sequence::ZERO.after(sequence),
    }
}

pub(crate) fn accepted(outcome: &AppendOutcome) -> OffsetRange {
    match outcome {
        AppendOutcome::Accepted { range, .. } => *range,
        other => panic!("{other:?}"),
    }
}
