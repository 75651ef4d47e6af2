//! The seam between compute and storage: the head of every shard, wherever it is.

use std::fmt;

use bytes::Bytes;
use esker_segment::{PartitionFacts, Tombstone};
use esker_shard::{Command, Outcome, RangeList};
use esker_types::{
    ContentHash, Incarnation, LeaderEpoch, OffsetRange, PartitionId, RaftIndex, RaftRange, ShardId,
    ShardTime,
};
use futures::future::BoxFuture;

use crate::error::HeadError;

/// What to flush next of a shard, and what its segment must say beside the batches.
#[derive(Clone, Debug)]
pub struct FlushJob {
    /// The shard.
    pub shard: ShardId,
    /// The life of the cluster.
    pub incarnation: Incarnation,
    /// The entries, from the flush position on.
    pub raft: RaftRange,
    /// What they hold of each partition, in canonical order; never empty.
    pub ranges: RangeList,
    /// Payload bytes.
    pub bytes: u64,
    /// One for each of `ranges`, in their order; producers are left to the flusher, who sees them
    /// in the batches.
    pub partitions: Vec<PartitionFacts>,
    /// The shard's, ascending.
    pub tombstones: Vec<Tombstone>,
}

/// A batch of the head.
#[derive(Clone, Debug)]
pub struct AcceptedBatch {
    /// Its partition.
    pub partition: PartitionId,
    /// The offsets that apply gave it.
    pub range: OffsetRange,
    /// The epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
    /// Shard time of its append.
    pub append_time: ShardTime,
    /// Its content hash, or its checksum in place of one.
    pub hash: ContentHash,
    /// The batch as its producer sent it: base offset and epoch are not set.
    pub bytes: Bytes,
}

/// Batches of a run of entries.
#[derive(Clone, Debug)]
pub struct AcceptedRun {
    /// The batches, in the order of the entries.
    pub batches: Vec<AcceptedBatch>,
    /// The last entry that was looked at: ask on from here.
    pub upto: RaftIndex,
}

/// The head of every shard. Cheap to share; all calls may be made at the same time.
///
/// An implementation MUST answer `Unknown` rather than guess: a proposal whose fate it did not
/// see may have been applied.
pub trait Head: Send + Sync + fmt::Debug {
    /// What to flush next of `shard`: whole entries, at least one, then as long as they stay
    /// within `bytes_max`. `None` if nothing is there to flush.
    fn flush_job(
        &self,
        shard: ShardId,
        bytes_max: u64,
    ) -> BoxFuture<'_, Result<Option<FlushJob>, HeadError>>;

    /// The accepted batches of the entries of `raft`, in order, until their bytes pass `bytes_max`
    /// (one entry is always among them). Rejected ones are in the log and not in the answer.
    ///
    /// Fails with [`HeadError::Released`] if an entry is in the bucket by now.
    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<AcceptedRun, HeadError>>;

    /// Proposes a command and waits for its outcome.
    fn propose(
        &self,
        shard: ShardId,
        command: Command,
    ) -> BoxFuture<'_, Result<Outcome, HeadError>>;
}
