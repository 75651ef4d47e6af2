//! What can go wrong.

mod keep; // in keeping a bucket

use esker_object::{Key, Kind};
use esker_shard::{CommitRefusal, Refusal};
use esker_types::limits::MIXED_SEGMENTS_MAX;
use esker_types::{Durability, Offset, OffsetRange, PartitionId, RaftIndex, SegmentId, ShardId};

pub use keep::{ClaimError, Ended, KeepError};

use crate::head::Leader;

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
        /// Who does, if that is known.
        leader: Option<Leader>,
        /// The same in words.
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
    /// The head holds what it may, since the bucket is behind, or the shard as many producers. Nothing was written.
    #[error("{what}")]
    HeadFull {
        /// The shard.
        shard: ShardId,
        /// What it holds, and may hold, in words.
        what: String,
        /// The limit: bytes, or batches or producers if those are what is too many.
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
    /// The bucket is not known to be ours.
    #[error("{what}; the head keeps everything")]
    NotConfirmed {
        /// What is known of our claim.
        what: String,
    },
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
    /// Where the segment was put, our claim is not: a folder that is not mounted, or a bucket that
    /// somebody emptied or put in its place. Nothing was committed.
    #[error(
        "the segment {segment} of {shard} was put where our claim `{claim}` is not: mount the \
         folder again, or put the bucket or its claim back; nothing is committed, and the head \
         keeps everything"
    )]
    NotOurs {
        /// The shard.
        shard: ShardId,
        /// The segment.
        segment: SegmentId,
        /// Our claim.
        claim: Key,
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
    /// The manifest takes no segment more. Nothing was written.
    #[error(
        "the manifest of {shard} has {segments} segments, the limit is {MIXED_SEGMENTS_MAX}: nothing \
         of it is flushed, and the head fills. Raise `flush.age`, or `flush.bytes` and with it \
         `wal.memory` of nodes, so that there are fewer, and give topics a shorter retention, or truncate or delete some, so that old \
         ones go"
    )]
    ManifestFull {
        /// The shard.
        shard: ShardId,
        /// Segments it has.
        segments: u64,
    },
    /// The shard did not take the segment: see [`Error::is_overtaken`]. The object is an orphan.
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

impl Error {
    /// Whether somebody else flushed first, so that the shard is where it should be. Any other
    /// refusal lasts, and the next segment may be refused for it too.
    #[must_use]
    pub const fn is_overtaken(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                refusal: Refusal::Commit(CommitRefusal::NotNext { .. }),
                ..
            }
        )
    }

    /// Whether the segment was next and was refused all the same, so that none of this name can be
    /// committed any more. One that was overtaken may have been committed by an attempt whose answer was lost.
    pub(crate) const fn is_refused_for_good(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                refusal: Refusal::Commit(_),
                ..
            }
        ) && !self.is_overtaken()
    }

    /// Our claim, if the bucket has lost it.
    pub(crate) const fn lost_claim(&self) -> Option<Key> {
        match self {
            Self::NotOurs { claim, .. } => Some(*claim),
            _ => None,
        }
    }

    /// Whether the shard may have changed between the plan of a flush and its end: a new plan then
    /// goes through, unless the head contradicts itself.
    #[must_use]
    pub const fn is_of_an_old_plan(&self) -> bool {
        use CommitRefusal::{Empty, Extra, Missing, WrongRange};
        let refusal = match self {
            Self::Job { .. } => return true,
            Self::Refused { refusal, .. } => refusal,
            _ => return false,
        };
        matches!(
            refusal,
            Refusal::Commit(Empty | Extra { .. } | Missing { .. } | WrongRange { .. })
        )
    }
}

/// Why nothing could be read. Nothing is ever skipped unless a reader asks for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The head did not answer.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// No such partition, or not any more.
    #[error("there is no partition {partition}; it never was, or its topic was deleted")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// Below the log start or above the end.
    #[error("offset {offset} is out of range: {partition} has [{log_start}, {end})")]
    OutOfRange {
        /// The partition.
        partition: PartitionId,
        /// What was asked for.
        offset: Offset,
        /// The first offset kept.
        log_start: Offset,
        /// The first unwritten offset.
        end: Offset,
    },
    /// The bucket did not answer.
    #[error("the segment {segment} cannot be read now: {source}")]
    Bucket {
        /// The segment.
        segment: SegmentId,
        /// What the bucket said.
        source: esker_object::Error,
    },
    /// The bucket does not have a segment that the log names.
    #[error("the bucket has no segment {segment}, which the log names: its data is lost")]
    Gone {
        /// The segment.
        segment: SegmentId,
    },
    /// Offsets that are in a segment which is missing or damaged. [`Reader::skip_to`] steps over
    /// them.
    ///
    /// [`Reader::skip_to`]: crate::Reader::skip_to
    #[error("{range} of {partition} cannot be read: {source}")]
    Lost {
        /// The partition.
        partition: PartitionId,
        /// Its offsets: at most what lies between the segments around that can be read.
        range: OffsetRange,
        /// What is wrong with the segment.
        source: Box<ReadError>,
    },
    /// A segment is not what was written.
    #[error(transparent)]
    Damaged(#[from] esker_segment::Error),
    /// A batch that is not what its producer sent, or never was one.
    #[error("the batch {range} of {partition} cannot be read: {what}")]
    Batch {
        /// The partition.
        partition: PartitionId,
        /// Its offsets.
        range: OffsetRange,
        /// What is wrong with it.
        what: String,
    },
    /// No segment holds an offset that lies below the tiered end.
    #[error("no segment of the log holds offset {offset} of {partition}: its data is lost")]
    Uncovered {
        /// The partition.
        partition: PartitionId,
        /// The offset.
        offset: Offset,
    },
    /// What was to be read kept moving from head to bucket.
    #[error("offset {offset} of {partition} kept moving while it was read; read again")]
    Restless {
        /// The partition.
        partition: PartitionId,
        /// The offset.
        offset: Offset,
    },
}

impl ReadError {
    /// Whether a segment, or a part of it, is missing or damaged for good, so that others may be
    /// read all the same.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::Damaged(_) | Self::Lost { .. } => true,
            Self::Bucket { source, .. } => source.kind() == Kind::Corrupt,
            _ => false,
        }
    }

    /// The segment whose object is not there, if that is what is wrong.
    pub(crate) fn gone(&self) -> Option<SegmentId> {
        match self {
            Self::Gone { segment } => Some(*segment),
            Self::Lost { source, .. } => source.gone(),
            _ => None,
        }
    }

    /// A loss names the offsets `[from, to)` of `partition` that it touches, if it did not before.
    pub(crate) fn touching(self, partition: PartitionId, from: Offset, to: Offset) -> Self {
        let touches = match &self {
            Self::Damaged(esker_segment::Error::Damaged(damage)) => damage.touches.is_some(),
            Self::Lost { .. } => true,
            other => !other.is_loss(),
        };
        match OffsetRange::new(from, to) {
            Some(range) if !touches && !range.is_empty() => Self::Lost {
                partition,
                range,
                source: Box::new(self),
            },
            _ => self,
        }
    }
}
