//! The body of a data shard: topics, partitions, head and manifest.
//!
//! What bounds it: topics and partitions by the catalog (`TOPICS_MAX`, `PARTITIONS_MAX`), which
//! counts a topic until every shard has ended it; the head by admission, which goes by
//! [`Data::head_size`], and producers by [`Data::producer_count`]; the manifest by `MIXED_SEGMENTS_MAX`; tombstones by the manifest and by
//! those who drop them.

use std::sync::Arc;

use esker_types::{Monotone, Offset, PartitionId, PartitionIndex, RaftIndex, RaftRange, TopicId};
use imbl::OrdMap;

use crate::head::{FlushPlan, Head, HeadEntry, HeadPosition, HeadSize};
use crate::manifest::{Manifest, MixedSegment, SegmentPlace};
use crate::partition::Partition;
use crate::topic::{GoneTopics, Tombstone, Topic};

/// The body of a data shard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data {
    pub(crate) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(crate) partitions: OrdMap<PartitionId, Arc<Partition>>,
    /// What all partitions remember of them, together.
    pub(crate) producers: usize,
    pub(crate) tombstones: OrdMap<TopicId, Arc<Tombstone>>,
    pub(crate) gone: GoneTopics,
    pub(crate) head: Head,
    pub(crate) manifest: Manifest,
    pub(crate) flush_position: Monotone<RaftIndex>,
    pub(crate) gc_boundary: Monotone<RaftIndex>,
    /// Where the sweep for expired producers goes on; `None` begins at the first partition.
    pub(crate) swept: Option<PartitionId>,
}

impl Data {
    /// A topic that has not ended.
    #[must_use]
    pub fn topic(&self, topic: TopicId) -> Option<&Topic> {
        self.topics.get(&topic).map(|topic| &**topic)
    }

    /// Topics that have not ended, by id.
    pub fn topics(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.topics.iter().map(|(id, topic)| (*id, &**topic))
    }

    /// A partition of a topic that has not ended.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions
            .get(&partition)
            .map(|partition| &**partition)
    }

    /// Partitions of topics that have not ended, by id.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions
            .iter()
            .map(|(id, partition)| (*id, &**partition))
    }

    /// Partitions of one topic on this shard, by id.
    pub fn partitions_of(&self, topic: TopicId) -> impl Iterator<Item = (PartitionId, &Partition)> {
        let first = PartitionId {
            topic,
            index: PartitionIndex(0),
        };
        let last = PartitionId {
            topic,
            index: PartitionIndex(u32::MAX),
        };
        self.partitions
            .range(first..=last)
            .map(|(id, partition)| (*id, &**partition))
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Topics that ended and of which something is left, by id.
    pub fn tombstones(&self) -> impl Iterator<Item = (TopicId, &Tombstone)> {
        self.tombstones
            .iter()
            .map(|(id, tombstone)| (*id, &**tombstone))
    }

    /// Whether the topic has ended here, with or without a tombstone left.
    #[must_use]
    pub fn has_ended(&self, topic: TopicId) -> bool {
        self.tombstones.contains_key(&topic) || self.gone.contains(topic)
    }

    /// Mixed segments of the manifest, in log order.
    pub fn manifest(&self) -> impl DoubleEndedIterator<Item = &MixedSegment> {
        self.manifest.values().map(|segment| &**segment)
    }

    /// How many mixed segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.manifest.len()
    }

    /// The mixed segment at `place`.
    #[must_use]
    pub fn segment(&self, place: SegmentPlace) -> Option<&MixedSegment> {
        self.manifest.get(&place).map(|segment| &**segment)
    }

    /// The `to` of the last committed segment; 0 before the first. Nothing else moves it.
    #[must_use]
    pub const fn flush_position(&self) -> RaftIndex {
        self.flush_position.get()
    }

    /// Swaps planned at or below this index are refused.
    #[must_use]
    pub const fn gc_boundary(&self) -> RaftIndex {
        self.gc_boundary.get()
    }

    /// How many producers its partitions remember, one of two partitions twice; some may be expired.
    #[must_use]
    pub const fn producer_count(&self) -> usize {
        self.producers
    }

    /// How much is unflushed.
    #[must_use]
    pub fn head_size(&self) -> HeadSize {
        self.head.size()
    }

    /// The unflushed batch that holds `offset` of `partition`.
    #[must_use]
    pub fn head_lookup(&self, partition: PartitionId, offset: Offset) -> Option<HeadPosition> {
        self.head.lookup(partition, offset)
    }

    /// Unflushed batches of a partition in offset order, from the one that holds `offset` on, or
    /// from the first above it.
    pub fn head_batches(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Iterator<Item = HeadPosition> {
        self.head.batches_from(partition, offset)
    }

    /// Entries of `raft` that hold accepted, unflushed batches of live partitions, ascending.
    /// Entries at or below the flush position hold none.
    pub fn head_entries(&self, raft: RaftRange) -> impl Iterator<Item = (RaftIndex, &HeadEntry)> {
        self.head.entries(raft)
    }
}

// `State` adds what needs the applied index: `flushed` and `flush_plan`.
impl Data {
    pub(crate) fn flushed(&self, applied: RaftIndex) -> RaftIndex {
        match self.head.first_index() {
            Some(RaftIndex(first)) => RaftIndex(first - 1),
            None => applied,
        }
    }

    pub(crate) fn flush_plan(&self, bytes_max: u64, to: RaftIndex) -> Option<FlushPlan> {
        self.head.plan(self.flush_position(), bytes_max, to)
    }
}
