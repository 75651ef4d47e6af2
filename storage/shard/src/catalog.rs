//! The body of shard 0: topics, their names, where their partitions are, and who got which id.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use esker_types::{ShardId, TopicId, TopicName, TopicVersion};
use imbl::{OrdMap, OrdSet};

use crate::config::TopicConfig;

/// Id of a request to create a topic, chosen at random by whoever asks: the same request asked
/// again after an unknown outcome is answered alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

/// The body of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalog {
    /// Partitions on each data shard, those of topics being deleted included. Fixed keys.
    pub(crate) load: OrdMap<ShardId, u32>,
    pub(crate) topics: OrdMap<TopicId, Arc<CatalogTopic>>,
    /// Names of topics that are not being deleted.
    pub(crate) names: OrdMap<TopicName, TopicId>,
    /// Sequences of the next ids of this incarnation.
    pub(crate) next_topic: u64,
    pub(crate) next_producer: u64,
    pub(crate) next_node: u64,
}

/// A topic as the catalog knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogTopic {
    pub(crate) name: TopicName,
    pub(crate) version: TopicVersion,
    pub(crate) config: TopicConfig,
    /// The data shard of each partition, from partition 0.
    pub(crate) placement: Vec<ShardId>,
    /// Who created it, and a hash of what was asked for.
    pub(crate) request: RequestId,
    pub(crate) asked: u128,
    /// Data shards that have yet to end it; `None` while it is not being deleted.
    pub(crate) ending: Option<OrdSet<ShardId>>,
}

impl Catalog {
    /// A catalog of `data_shards` shards and nothing else.
    pub(crate) fn new(data_shards: u32) -> Self {
        Self {
            load: (1..=data_shards)
                .map(|shard| (ShardId(shard), 0u32))
                .collect(),
            topics: OrdMap::new(),
            names: OrdMap::new(),
            next_topic: 1,
            next_producer: 1,
            next_node: 1,
        }
    }

    /// How many data shards the cluster was given at init.
    #[must_use]
    pub fn data_shards(&self) -> u32 {
        u32::try_from(self.load.len()).expect("at most DATA_SHARDS_MAX")
    }

    /// Partitions of the cluster, those of topics being deleted included.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        self.load.values().sum()
    }

    /// Sequence of the topic id that is given next.
    #[must_use]
    pub const fn next_topic(&self) -> u64 {
        self.next_topic
    }

    /// Sequence of the node id that is given next.
    #[must_use]
    pub const fn next_node(&self) -> u64 {
        self.next_node
    }

    /// A topic, even while it is being deleted.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> Option<&CatalogTopic> {
        self.topics.get(&topic).map(|topic| &**topic)
    }

    /// Every topic, those being deleted included, by id.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &CatalogTopic)> {
        self.topics.iter().map(|(id, topic)| (*id, &**topic))
    }

    /// The topic of this name that is not being deleted.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(TopicId, &CatalogTopic)> {
        let id = *self.names.get(name)?;
        Some((id, self.topic(id).expect("every name stands for a topic")))
    }

    /// Topics that are not being deleted, by name.
    pub fn names(&self) -> impl Iterator<Item = (&TopicName, TopicId)> {
        self.names.iter().map(|(name, id)| (name, *id))
    }

    /// Places `count` partitions, one after the other on the least loaded shard, the lowest id
    /// first among equals.
    pub(crate) fn place(&mut self, count: u32) -> Vec<ShardId> {
        let mut by_load: BTreeSet<_> = self.load.iter().map(|(id, load)| (*load, *id)).collect();
        let placed = (0..count).map(|_| {
            let (load, shard) = by_load
                .pop_first()
                .expect("there is at least one data shard");
            by_load.insert((load + 1, shard));
            shard
        });
        let placement: Vec<_> = placed.collect();
        self.load = by_load.into_iter().map(|(load, id)| (id, load)).collect();
        placement
    }

    /// Takes the partitions of a topic that is gone off their shards.
    pub(crate) fn displace(&mut self, placement: &[ShardId]) {
        for shard in placement {
            *self
                .load
                .get_mut(shard)
                .expect("partitions are placed on data shards") -= 1;
        }
    }
}

impl CatalogTopic {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> TopicVersion {
        self.version
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// The data shard of each partition, from partition 0.
    #[must_use]
    pub fn placement(&self) -> &[ShardId] {
        &self.placement
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.placement.len()).expect("at most PARTITIONS_PER_TOPIC_MAX")
    }

    /// The data shards that have yet to end it, while it is being deleted.
    #[must_use]
    pub fn awaiting(&self) -> Option<Vec<ShardId>> {
        self.ending
            .as_ref()
            .map(|shards| shards.iter().copied().collect())
    }

    /// The data shards that hold partitions of it.
    pub(crate) fn shards(&self) -> OrdSet<ShardId> {
        self.placement.iter().copied().collect()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
