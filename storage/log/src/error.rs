//! What can go wrong.

use esker_shard::Refusal;
use esker_types::{Durability, OffsetRange, PartitionId, RaftIndex, SegmentId, ShardId};

/// Why the head did not answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// No head of this shard is here.
    #[error("{shard} has no head here")]
    NoShard {
        /// The shard.
        shard: ShardId,
    },
    /// Whoever was asked does not lead the shard. Nothing was written.
    #[error("{shard}: {what}")]
    NotLeader {
        /// The shard.
        shard: ShardId,
        /// Who does, as far as it is known.
        what: String,
    },
    /// An entry that is in the bucket by now.
    #[error("entry {index} of {shard} is released: the bucket has it")]
    Released {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: RaftIndex,
    },
    /// The command was not proposed. Nothing was written.
    #[error("{shard}: {what}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Why.
        what: String,
    },
    /// The head holds what it may: the bucket is behind. Nothing was written.
    #[error("{what}")]
    HeadFull {
        /// The shard.
        shard: ShardId,
        /// What it holds, and may hold, in words.
        what: String,
        /// The limit: bytes, or batches if those are what is too many.
        limit: u64,
        /// What is held.
        held: u64,
    },
    /// The WAL has no room above its reserve. Nothing was written.
    #[error("{what}")]
    DiskFull {
        /// The shard.
        shard: ShardId,
        /// In words.
        what: String,
        /// Bytes of room.
        room: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// It was proposed, and what became of it is unknown.
    #[error("{shard}: {what}")]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// What happened.
        what: String,
    },
    /// The log of the shard cannot be read.
    #[error("{shard}: {what}")]
    Corrupt {
        /// The shard.
        shard: ShardId,
        /// Where, and what.
        what: String,
    },
}

impl HeadError {
    /// Whether what was proposed may have been written all the same.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        match self {
            Self::Unknown { .. } => Durability::Unknown,
            _ => Durability::NotWritten,
        }
    }
}

/// Why a flush did not end with a committed segment. The head still has everything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The head did not answer.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The bucket did not take the segment, or could not be asked what it has.
    #[error("the segment {segment} of {shard} is not in the bucket: {source}")]
    Bucket {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// What the bucket said.
        source: esker_object::Error,
    },
    /// The bucket acknowledged the segment and has something else.
    #[error(
        "the bucket acknowledged the segment {segment} of {shard} and does not have it: {what}"
    )]
    NotStored {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// What it has instead.
        what: String,
    },
    /// A batch of the head is damaged. The shard flushes nothing until it is dealt with.
    #[error("{shard} cannot flush: the batch {range} of {partition} is damaged: {what}")]
    Batch {
        /// The shard.
        shard: ShardId,
        /// Its partition.
        partition: PartitionId,
        /// Its offsets.
        range: OffsetRange,
        /// What is wrong with it.
        what: String,
    },
    /// The segment cannot be written.
    #[error(transparent)]
    Segment(#[from] esker_segment::Error),
    /// The head's batches are not those of the job.
    #[error("{shard} handed out batches of {partition} that do not make up its flush job")]
    Job {
        /// The shard.
        shard: ShardId,
        /// The partition.
        partition: PartitionId,
    },
    /// The shard did not take the segment: somebody else flushed first. The object is an orphan.
    #[error("{shard} refused the segment {segment}: {refusal}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// Why.
        refusal: Refusal,
    },
}
