//! What apply answers: what became of a command, and of each batch of an append.

use esker_types::limits::{BATCH_DECODED_BYTES_MAX, PRODUCERS_PER_PARTITION_MAX, RECORD_BYTES_MIN};
use esker_types::{
    FencingToken, LeaderEpoch, NodeId, Offset, OffsetRange, ProducerEpoch, ProducerId, RaftIndex,
    Sequence, ShardId, TopicId, TopicVersion,
};

use crate::level::Level;
use crate::refusal::Refusal;

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
    #[error(
        "the partition remembers {PRODUCERS_PER_PARTITION_MAX} producers of the last 24 hours, which \
         is the limit: keep a producer open instead of beginning a new one for every few records, or \
         append without a producer id"
    )]
    TooManyProducers,
}

impl AppendError {
    /// Whether an append that has a producer, and was sent before, was not written then either: it was looked
    /// for among what its producer wrote, and not found. Else an earlier copy may stand.
    #[must_use]
    pub const fn excludes_an_earlier_copy(&self) -> bool {
        match self {
            // Decided before it is looked for.
            Self::UnknownPartition
            | Self::PartitionEnded
            | Self::TooLarge { .. }
            | Self::RecordCount { .. }
            // What would tell is forgotten.
            | Self::StaleProducerEpoch { .. }
            | Self::DuplicateExpired
            // Whether it is, is looked at later.
            | Self::Fenced { .. }
            // By one of other content, or hashed another way.
            | Self::SequenceReused => false,
            Self::SequenceGap { .. }
            | Self::ExpectedEnd { .. }
            | Self::OffsetsExhausted { .. }
            | Self::TooManyProducers => true,
        }
    }
}
