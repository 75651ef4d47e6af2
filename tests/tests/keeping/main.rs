//! What keeps the bucket and the log in order: the claim, the checkpoints, retention, the collector.
//! Over one node on a simulated disk, and a bucket that misbehaves when it is told to.

mod checkpoints;
mod claims;
mod collector;
mod damage;
mod order;
mod reads;
mod retention;
mod times;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_cache::BlockCache;
use esker_log::{
    Checkpointer, Collected, Collector, Engine, EngineOptions, Flushed, Flusher, Head, Owner,
    Retention, claim,
};
use esker_object::faults::FaultStore;
use esker_object::{Key, Options, Prefix, Store};
use esker_record::ZstdLevel;
use esker_shard::checkpoint::{Decoded, decode};
use esker_shard::{Command, ConfigChange, MixedSegment, Outcome, PutTopic, TopicConfig};
use esker_tests::node::{Node, SHARD, World};
use esker_types::limits::MIB;
use esker_types::{
    ClusterId, Incarnation, Lane, PartitionId, PartitionIndex, RaftIndex, RaftRange, SegmentId,
    ShardId, TopicId, TopicName, TopicVersion,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xe5);
pub(crate) const OURS: Incarnation = Incarnation::FIRST;
pub(crate) const GRACE: Duration = Duration::from_secs(600);
pub(crate) const ROUND: Duration = Duration::from_secs(120);
const ALL: u64 = u64::MAX;

/// Whose the buckets of these tests are.
pub(crate) const OWNER: Owner = Owner {
    cluster: CLUSTER,
    incarnation: OURS,
};

/// One life of a node, its bucket, and all that keeps order.
pub(crate) struct Kept {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) faults: FaultStore,
    pub(crate) engine: Engine,
    pub(crate) checkpoints: Checkpointer,
    pub(crate) retention: Retention,
    pub(crate) collector: Collector,
}

/// A node of `world` over the bucket `name`, which it claims.
pub(crate) async fn start(world: &mut World, name: &str) -> Kept {
    let node = world.start().await.expect("a node");
    let url = format!("memory://{name}");
    let opened = Store::open_with_faults(&url, &Options::default(), &node.env);
    let (store, faults) = opened.expect("a bucket");
    claim(&store, CLUSTER, OURS).await.expect("ours");
    over(node, store, faults)
}

pub(crate) fn over(node: Node, store: Store, faults: FaultStore) -> Kept {
    let head: Arc<dyn Head> = node.head();
    let env = node.env.clone();
    let engine = engine(&node, &store);
    let retention = Retention::new(Arc::clone(&head), engine.readers());
    let checkpoints = Checkpointer::new(Arc::clone(&head), store.clone(), env.clone(), OWNER);
    let collector = Collector::new(head, store.clone(), env, OWNER);
    Kept {
        checkpoints: checkpoints.due_after(Duration::ZERO, 16),
        collector: collector.with_times(GRACE, ROUND),
        node,
        store,
        faults,
        engine,
        retention,
    }
}

/// An engine that does nothing by itself, its caches empty.
pub(crate) fn engine(node: &Node, store: &Store) -> Engine {
    let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
    let (store, env) = (store.clone(), node.env.clone());
    Engine::new(node.head(), store, env, blocks, EngineOptions::default())
}

pub(crate) fn id(sequence: u64) -> TopicId {
    TopicId::new(OURS, sequence).expect("small")
}

pub(crate) fn at(topic: u64, index: u32) -> PartitionId {
    PartitionId {
        topic: id(topic),
        index: PartitionIndex(index),
    }
}

pub(crate) fn config(changes: &[ConfigChange]) -> TopicConfig {
    let apply = |config: TopicConfig, change| config.with(change).expect("within bounds");
    changes.iter().fold(TopicConfig::default(), apply)
}

pub(crate) fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

impl Kept {
    pub(crate) async fn put_topic(&self, topic: u64, version: u64, changes: &[ConfigChange]) {
        let put = PutTopic {
            topic: id(topic),
            name: TopicName::new(&format!("topic-{topic}")).expect("a name"),
            version: TopicVersion(version),
            config: config(changes),
            partitions: (0..3).map(PartitionIndex).collect(),
        };
        let outcome = self.node.propose(Command::PutTopic(put)).await;
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
    }

    pub(crate) async fn end_topic(&self, topic: u64) {
        let (topic, version) = (id(topic), TopicVersion(9));
        let outcome = self.node.propose(Command::EndTopic { topic, version });
        assert_eq!(outcome.await, Outcome::TopicEnded);
    }

    /// Appends `count` values of 100 bytes, each in a batch of its own.
    pub(crate) async fn append(&self, partition: PartitionId, count: u64) {
        for number in 0..count {
            let value = format!("{number:0100}").into_bytes();
            self.node.append(partition, &[value]).await;
        }
    }

    pub(crate) fn flusher(&self) -> Flusher {
        let level = ZstdLevel::new(1).expect("a level");
        let env = self.node.env.clone();
        Flusher::new(self.node.head(), self.store.clone(), env, level)
    }

    pub(crate) async fn flush(&self) -> Flushed {
        let flushed = self
            .flusher()
            .flush(OWNER, SHARD, ALL)
            .await
            .expect("flushed");
        flushed.expect("something to flush")
    }

    pub(crate) async fn flush_one(&self, partition: PartitionId) -> Flushed {
        self.append(partition, 1).await;
        self.flush().await
    }

    /// A round that has nothing to complain about.
    pub(crate) async fn collect(&mut self) -> Collected {
        let collected = self.collector.round().await.expect("ours");
        assert!(collected.troubles.is_empty(), "{:?}", collected.troubles);
        collected
    }

    pub(crate) async fn checkpoint(&mut self) -> Option<Key> {
        let written = self.checkpoints.round(SHARD).await.expect("written");
        written.map(|written| written.key)
    }

    pub(crate) fn manifest(&self) -> Vec<MixedSegment> {
        let state = self.node.replica.state();
        let data = state.data().expect("a data shard");
        data.manifest().cloned().collect()
    }

    pub(crate) fn log_start(&self, partition: PartitionId) -> u64 {
        let state = self.node.replica.state();
        let found = state.data().and_then(|data| data.partition(partition));
        found.expect("it is there").log_start().get()
    }

    /// Every object of the bucket.
    pub(crate) async fn objects(&self) -> BTreeSet<String> {
        let (objects, _) = self.store.list_all(Prefix::All).await.expect("listed");
        objects
            .into_iter()
            .map(|object| object.key.to_string())
            .collect()
    }

    pub(crate) async fn has(&self, key: &Key) -> bool {
        self.objects().await.contains(&key.to_string())
    }

    /// Objects that the shard's state, and its newest checkpoint in the bucket, name.
    pub(crate) async fn named(&self) -> BTreeSet<String> {
        let mut named: Vec<MixedSegment> = self.manifest();
        if let Some(newest) = self.newest_checkpoint().await {
            let data = newest.state.data().expect("a data shard");
            named.extend(data.manifest().cloned());
        }
        named
            .iter()
            .map(|segment| key_of(segment).to_string())
            .collect()
    }

    /// The newest that can be read: a write may have left damage, which its writer has seen.
    pub(crate) async fn newest_checkpoint(&self) -> Option<Decoded> {
        let prefix = Prefix::Checkpoints(OURS, SHARD);
        let (listed, _) = self.store.list_all(prefix).await.expect("listed");
        for newest in listed.iter().rev() {
            let range = 0..newest.length;
            let bytes = self.store.get_range(&newest.key, range, Lane::Tail).await;
            if let Ok(decoded) = decode(&bytes.expect("there")) {
                return Some(decoded);
            }
        }
        None
    }

    /// Puts an object there that no command will name.
    pub(crate) async fn litter(&self, key: Key) -> Key {
        let bytes = vec![Bytes::from_static(b"left behind")];
        self.store.put(&key, bytes).await.expect("put");
        key
    }
}

pub(crate) fn key_of(segment: &MixedSegment) -> Key {
    Key::FlushedSegment {
        incarnation: segment.incarnation,
        shard: SHARD,
        range: segment.raft,
        id: segment.segment,
    }
}

pub(crate) fn flushed_key(incarnation: Incarnation, from: RaftIndex, number: u128) -> Key {
    Key::FlushedSegment {
        incarnation,
        shard: SHARD,
        range: RaftRange {
            from,
            to: RaftIndex(from.0 + 1),
        },
        id: SegmentId(number),
    }
}

pub(crate) fn gathered_key(shard: ShardId, plan: RaftIndex, number: u128) -> Key {
    Key::GatheredSegment {
        incarnation: OURS,
        shard,
        plan,
        id: SegmentId(number),
    }
}

/// Time passes: most of it at once, so that a node's timers do not go off for every day of it.
pub(crate) async fn pass(time: Duration) {
    let last = time.min(Duration::from_secs(1));
    tokio::time::advance(time - last).await;
    tokio::time::sleep(last).await;
}
