//! What apply answers: what was done, or why it was refused. A refusal changes nothing.

use esker_types::limits::{
    BATCH_DECODED_BYTES_MAX, MIXED_SEGMENTS_MAX, PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX,
    PRODUCER_ID_BLOCK, PRODUCERS_PER_PARTITION_MAX, RECORD_BYTES_MIN, TOPICS_MAX,
};
use esker_types::{
    FencingToken, LeaderEpoch, NodeId, Offset, OffsetRange, PartitionId, ProducerEpoch, ProducerId,
    RaftIndex, SegmentId, Sequence, ShardId, TopicId, TopicVersion,
};

use crate::config::ConfigError;
use crate::level::Level;

/// Records of a batch by its decoded bytes alone.
pub(crate) const RECORDS_PER_BATCH_MAX: u32 = {
    assert!(BATCH_DECODED_BYTES_MAX / RECORD_BYTES_MIN < 1 << 31);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "asserted on the line above"
    )]
    {
        (BATCH_DECODED_BYTES_MAX / RECORD_BYTES_MIN) as u32
    }
};

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// Nothing changed but the applied index.
    Refused(Refusal),
    /// Shard time passed.
    Ticked,
    /// The shard follows this level.
    Level(Level),
    /// One answer for each batch, in order.
    Appended(Vec<AppendOutcome>),
    /// The segment is part of the log.
    SegmentCommitted {
        /// Up to where the shard is flushed now.
        flush_position: RaftIndex,
    },
    /// The named segments are out of the manifest.
    Swapped,
    /// Swaps planned at or below this index are refused.
    GcBoundary(RaftIndex),
    /// The shard has the topic, at this version or a newer one.
    TopicPut {
        /// The version it has.
        version: TopicVersion,
    },
    /// The shard has ended the topic, now or before.
    TopicEnded,
    /// The tombstone is gone, now or before.
    TombstoneDropped,
    /// Where the partition's log starts now.
    Trimmed {
        /// The first offset kept.
        log_start: Offset,
    },
    /// The topic is there, created by this request.
    TopicCreated {
        /// Its id.
        topic: TopicId,
        /// Its version as of now.
        version: TopicVersion,
        /// The data shard of each partition, from partition 0.
        placement: Vec<ShardId>,
    },
    /// The topic has the settings asked for.
    TopicAltered {
        /// Its version as of now.
        version: TopicVersion,
    },
    /// The topic has the partitions asked for.
    PartitionsAdded {
        /// Its version as of now.
        version: TopicVersion,
        /// The data shard of each partition, from partition 0.
        placement: Vec<ShardId>,
    },
    /// The topic is deleted, now or before.
    TopicDeleted {
        /// Data shards that have yet to say `TopicEnded`; none once it is gone altogether.
        awaiting: Vec<ShardId>,
    },
    /// Producer ids `first..first + count`, by sequence.
    Producers {
        /// The first of them.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// A node id.
    Node(NodeId),
}

/// The answer to one batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// It is part of the log.
    Accepted {
        /// Its offsets.
        range: OffsetRange,
        /// The epoch it was written in.
        leader_epoch: LeaderEpoch,
    },
    /// It was part of the log already.
    Duplicate {
        /// The offsets it was given then.
        range: OffsetRange,
    },
    /// It is not part of the log.
    Rejected(AppendError),
}

/// Why a batch was rejected, in the order in which apply checks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// This shard has never had the partition, or not yet.
    #[error("this shard does not have the partition")]
    UnknownPartition,
    /// The topic was deleted.
    #[error("the topic was deleted")]
    PartitionEnded,
    /// Larger than the topic allows.
    #[error("a batch of {bytes} bytes is above the topic's max_batch_bytes of {limit}")]
    TooLarge {
        /// Bytes of the batch.
        bytes: u32,
        /// The topic's limit.
        limit: u32,
    },
    /// No records, or more than a batch can hold.
    #[error("a batch of {records} records, it may have 1 to {RECORDS_PER_BATCH_MAX}")]
    RecordCount {
        /// How many it says.
        records: u32,
    },
    /// The same sequences came before with other content, or cut into other batches.
    #[error("its sequences were used for other records")]
    SequenceReused,
    /// Somebody with a higher token has appended.
    #[error("fenced: the partition has seen the token {current}")]
    Fenced {
        /// The highest token seen.
        current: FencingToken,
    },
    /// The producer goes on under a newer epoch.
    #[error("the producer's epoch is {current} by now")]
    StaleProducerEpoch {
        /// The epoch it has.
        current: ProducerEpoch,
    },
    /// Records before this batch are missing.
    #[error("a gap in the producer's sequences: {expected} was due")]
    SequenceGap {
        /// The sequence due.
        expected: Sequence,
    },
    /// It may or may not have been written: what would tell is forgotten.
    #[error("it is no longer known whether these sequences were written")]
    DuplicateExpired,
    /// The partition does not end where the append expects.
    #[error("the partition ends at {actual}, not where the append expects")]
    ExpectedEnd {
        /// Where it ends.
        actual: Offset,
    },
    /// No more offsets.
    #[error("the partition has no offsets left after {end}")]
    OffsetsExhausted {
        /// Where it ends.
        end: Offset,
    },
    /// One producer too many.
    #[error("the partition remembers {PRODUCERS_PER_PARTITION_MAX} producers, which is the limit")]
    TooManyProducers,
}

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
