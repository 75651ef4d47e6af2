//! Why apply refuses a command as a whole. A refusal changes nothing but the applied index.

use esker_types::limits::{
    MIXED_SEGMENTS_MAX, PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, PRODUCER_ID_BLOCK, TOPICS_MAX,
};
use esker_types::{
    Offset, OffsetRange, PartitionId, RaftIndex, SegmentId, ShardId, TopicId, TopicVersion,
};

use crate::config::ConfigError;
use crate::level::Level;

/// Why a command was refused as a whole.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// A command of the catalog at a data shard, or the other way round.
    #[error("shard {shard} does not take this command")]
    WrongShard {
        /// Which shard said so.
        shard: ShardId,
    },
    /// The shard does not follow the command's level yet.
    #[error("the command needs level {needed}, the shard follows level {level}")]
    AboveLevel {
        /// What the command needs.
        needed: Level,
        /// What the shard follows.
        level: Level,
    },
    /// The shard has never had the topic, or not yet.
    #[error("the shard does not have the topic {topic}")]
    UnknownTopic {
        /// Which.
        topic: TopicId,
    },
    /// The topic was deleted.
    #[error("the topic {topic} was deleted")]
    TopicEnded {
        /// Which.
        topic: TopicId,
    },
    /// An index that was never applied.
    #[error("index {index} lies above the applied index {applied}")]
    NotApplied {
        /// The index named.
        index: RaftIndex,
        /// The applied index before this command.
        applied: RaftIndex,
    },
    /// Of `CommitSegment`.
    #[error("the segment is not part of the log: {0}")]
    Commit(#[from] CommitRefusal),
    /// Of `Swap`.
    #[error("the manifest stays as it is: {0}")]
    Swap(#[from] SwapRefusal),
    /// Of `DropTombstone`.
    #[error("the tombstone stays: {0}")]
    Tombstone(#[from] TombstoneRefusal),
    /// Of `Trim`.
    #[error("the log start stays: {0}")]
    Trim(#[from] TrimRefusal),
    /// Of a command of the catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogRefusal),
}

/// Why a segment was not committed. The object is an orphan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitRefusal {
    /// Another flush came first, or this one was never next.
    #[error("it begins at {from}, the flush position is {flush_position}")]
    NotNext {
        /// Where the segment begins.
        from: RaftIndex,
        /// Where it would have to begin.
        flush_position: RaftIndex,
    },
    /// It holds nothing, so it may move nothing.
    #[error("it holds no range")]
    Empty,
    /// Its ranges are not ascending, each partition once, none empty.
    #[error("its ranges are not in canonical order at {partition}")]
    NotCanonical {
        /// The first one out of order.
        partition: PartitionId,
    },
    /// A range that apply assigned is not in it.
    #[error("{partition} {expected} is missing")]
    Missing {
        /// Of which partition.
        partition: PartitionId,
        /// What it should hold.
        expected: OffsetRange,
    },
    /// A range differs from what apply assigned.
    #[error("{partition} has {given}, not {expected}")]
    WrongRange {
        /// Of which partition.
        partition: PartitionId,
        /// What it holds.
        given: OffsetRange,
        /// What it should hold.
        expected: OffsetRange,
    },
    /// A range that apply did not assign.
    #[error("{partition} {given} was not assigned there")]
    Extra {
        /// Of which partition.
        partition: PartitionId,
        /// What it holds.
        given: OffsetRange,
    },
    /// The manifest is full.
    #[error("the manifest has {MIXED_SEGMENTS_MAX} segments, which is the limit")]
    ManifestFull,
}

/// Why a swap was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwapRefusal {
    /// It replaces nothing.
    #[error("it names no segment")]
    Empty,
    /// Planned too long ago.
    #[error("it was planned at {plan_index}, the collector's boundary is {boundary}")]
    Collected {
        /// When it was planned.
        plan_index: RaftIndex,
        /// The boundary.
        boundary: RaftIndex,
    },
    /// A segment is not in the manifest, or not as named, or named twice.
    #[error("segment {segment} is not in the manifest as named")]
    NotThere {
        /// Which.
        segment: SegmentId,
    },
    /// The ranges given are not the segment's.
    #[error("the ranges of segment {segment} are others")]
    OtherRanges {
        /// Which.
        segment: SegmentId,
    },
    /// A range that readers may still ask for.
    #[error("{partition} {range} of segment {segment} is still part of the log")]
    StillRead {
        /// In which segment.
        segment: SegmentId,
        /// Of which partition.
        partition: PartitionId,
        /// Which.
        range: OffsetRange,
    },
}

/// Why a tombstone stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TombstoneRefusal {
    /// Segments in the manifest hold ranges of the topic.
    #[error("segments of the manifest hold {ranges} ranges of the topic")]
    StillHeld {
        /// How many.
        ranges: u64,
    },
    /// The proposer looked before the last of it went.
    #[error("it was planned at {plan_index}, the last of the topic went at {changed}")]
    Stale {
        /// When the proposer looked.
        plan_index: RaftIndex,
        /// When the topic last gained or lost a range, or ended.
        changed: RaftIndex,
    },
}

/// Why a log start stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TrimRefusal {
    /// The partition is not on this shard.
    #[error("this shard does not have the partition {partition}")]
    UnknownPartition {
        /// Which.
        partition: PartitionId,
    },
    /// Past the end.
    #[error("offset {to} lies past the end {end}")]
    OutOfRange {
        /// The offset asked for.
        to: Offset,
        /// Where the partition ends.
        end: Offset,
    },
    /// The setting that decided it has changed.
    #[error("it was planned with version {planned}, the topic has version {current}")]
    OldVersion {
        /// The version it was planned with.
        planned: TopicVersion,
        /// The version the topic has.
        current: TopicVersion,
    },
}

/// Why the catalog refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatalogRefusal {
    /// The name is taken.
    #[error("the name is taken by the topic {topic}")]
    NameTaken {
        /// By which.
        topic: TopicId,
    },
    /// A number of partitions that no topic may have.
    #[error("a topic may have 1 to {PARTITIONS_PER_TOPIC_MAX} partitions, not {partitions}")]
    PartitionCount {
        /// How many were asked for.
        partitions: u32,
    },
    /// Fewer partitions than the topic has.
    #[error("the topic has {current} partitions and cannot go back to {asked}")]
    FewerPartitions {
        /// How many it has.
        current: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// Too many topics.
    #[error("the cluster has {TOPICS_MAX} topics, which is the limit")]
    TooManyTopics,
    /// Too many partitions.
    #[error("{asked} more partitions on top of {current} are above the limit of {PARTITIONS_MAX}")]
    TooManyPartitions {
        /// How many there are.
        current: u32,
        /// How many more were asked for.
        asked: u32,
    },
    /// Somebody changed the topic meanwhile.
    #[error("the topic has version {current}, not {expected}")]
    OtherVersion {
        /// The version it has.
        current: TopicVersion,
        /// The version the caller expects.
        expected: TopicVersion,
    },
    /// A setting out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A block of no or too many producer ids.
    #[error("a block has 1 to {PRODUCER_ID_BLOCK} producer ids, not {count}")]
    ProducerCount {
        /// How many were asked for.
        count: u32,
    },
    /// No id is left in this incarnation.
    #[error("this incarnation has no {what} ids left")]
    NoIdsLeft {
        /// Ids of what.
        what: &'static str,
    },
    /// No such data shard holds the topic.
    #[error("the topic {topic} was not placed on {shard}")]
    NotPlaced {
        /// Which topic.
        topic: TopicId,
        /// Which shard.
        shard: ShardId,
    },
}
