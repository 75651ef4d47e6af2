//! The seam between compute and storage: the head of every shard, wherever it is.
//!
//! ```text
//!   append ──► queued ──► accepted, duplicate, rejected        one batch, in the order of the calls
//!   propose ─► outcome                                         any other command
//!   read ────► batches from an offset on, or where to look     one partition
//!   manifest ► segments                                        one shard
//!   past, progress ► wait for an end, for an applied index     no polling
//! ```

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use esker_env::WallMs;
use esker_segment::{PartitionFacts, Tombstone};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, HeadSize, MixedSegment, Outcome, RangeList, SegmentPlace,
    TopicConfig,
};
use esker_types::{
    ContentHash, Incarnation, LeaderEpoch, NodeId, Offset, OffsetRange, PartitionId,
    PartitionIndex, RaftIndex, RaftRange, ShardId, ShardTime, Term, Timestamp, TopicId, TopicName,
    TopicVersion,
};
use futures::future::BoxFuture;

use crate::error::HeadError;

/// Answer of the head.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, HeadError>>;

/// How far a shard was seen: what is read later must not be older.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// The life of the cluster.
    pub incarnation: Incarnation,
    /// An applied index of it.
    pub index: RaftIndex,
}

/// Who leads a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// The node.
    pub node: NodeId,
    /// Where the other nodes, and agents, reach it: `host:port`.
    pub address: String,
}

/// The wall clock of who leads a shard whose time stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderClock {
    /// Who leads.
    pub node: NodeId,
    /// What it says.
    pub wall: WallMs,
    /// It is ahead of what the time should be by what the shard and the monotonic clock know, or else behind.
    pub ahead: bool,
}

/// The watermarks of a partition, as of [`Bounds::mark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Below this, records are trimmed.
    pub log_start: Offset,
    /// Below this, segments hold what is kept.
    pub tiered_end: Offset,
    /// The first unwritten offset.
    pub end: Offset,
    /// When this was so.
    pub mark: Mark,
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

/// Who may answer a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// Who leads the shard.
    Leader,
    /// A follower, too, with batches that it has, or that they are in the bucket by now. What it has applied
    /// is committed; that something is not there, who leads alone may say.
    Follower {
        /// What the reader was told: nothing that has applied less may answer.
        seen: Mark,
    },
}

/// What the head has of a partition from an offset on.
#[derive(Clone, Debug)]
pub struct HeadRead {
    /// The partition, as who answered has it: not older than what the caller has seen.
    pub bounds: Bounds,
    /// Batches in offset order, without a gap, from the one that holds the offset on. Empty if the
    /// offset lies outside `[tiered_end, end)`, or below the log start; what the bounds then say is
    /// not older than the call, unless a follower says that it lies in the bucket.
    pub batches: Vec<HeadRecords>,
    /// A follower answered; then there are batches, or all is in the bucket by now.
    pub by_follower: bool,
}

/// A batch of the head as a reader needs it.
#[derive(Clone, Debug)]
pub struct HeadRecords {
    /// The offsets that apply gave it.
    pub range: OffsetRange,
    /// The epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
    /// The batch as its producer sent it: base offset and epoch are not set.
    pub bytes: Bytes,
}

/// A topic of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicView {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its version.
    pub version: TopicVersion,
    /// Its settings.
    pub config: TopicConfig,
    /// The data shard of each partition, from partition 0.
    pub placement: Vec<ShardId>,
    /// Data shards that have yet to end it, while it is being deleted.
    pub ending: Option<Vec<ShardId>>,
}

/// A data shard's copy of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardTopic {
    /// Which.
    pub id: TopicId,
    /// The version the shard has.
    pub version: TopicVersion,
    /// Its settings as the shard has them.
    pub config: TopicConfig,
    /// Its partitions on this shard, ascending, with their watermarks.
    pub partitions: Vec<(PartitionIndex, Bounds)>,
}

/// One page of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing<T> {
    /// What it lists, ascending.
    pub items: Vec<T>,
    /// There are more after the last.
    pub more: bool,
    /// When this was so.
    pub mark: Mark,
}

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

/// Batches of a run of entries.
#[derive(Clone, Debug)]
pub struct AcceptedRun {
    /// The batches, in the order of the entries.
    pub batches: Vec<AcceptedBatch>,
    /// The last entry that was looked at: ask on from here.
    pub upto: RaftIndex,
}

/// How a shard stands: what flushing, admission and a person go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is applied.
    pub mark: Mark,
    /// Term of the last entry applied.
    pub term: Term,
    /// What the durable local checkpoint covers.
    pub checkpointed: RaftIndex,
    /// Shard time.
    pub time: ShardTime,
    /// The leader's clocks are apart by this much: time stands still, and with it retention by
    /// age, until they meet again or [`Head::accept_time`] is called.
    pub clock_skew: Option<Duration>,
    /// While time stands still, the clock by which it does; `None` also of a node of an earlier version.
    pub leader_clock: Option<LeaderClock>,
    /// The `to` of the last committed segment.
    pub flush_position: RaftIndex,
    /// Up to where nothing is unflushed.
    pub flushed: RaftIndex,
    /// How much is unflushed.
    pub head: HeadSize,
    /// Payload bytes that the head may hold before appends are refused.
    pub head_bytes_max: u64,
    /// Batches that it may hold.
    pub head_batches_max: u64,
    /// Segments of the manifest.
    pub segments: u64,
    /// Swaps planned at or below this index are refused.
    pub gc_boundary: RaftIndex,
    /// It is to be flushed though it is neither large nor old: the oldest WAL file waits for it, or what would be
    /// read is about to leave the leader's memory.
    pub flush_early: bool,
}

/// What is done for a shard by one of the engines that share its head, and need not be done by two: twice
/// done it wastes requests, and harms nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Job {
    /// Its head is flushed.
    Flush,
    /// Its bucket checkpoint is written.
    Checkpoint,
    /// Its time passes, and what is too old or too much is trimmed.
    Retention,
    /// What nothing names is deleted, of all shards: asked of the catalog.
    Collection,
}

/// An engine, among those that share a head; drawn when it begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u128);

/// An engine asks for a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bid {
    /// Which job.
    pub job: Job,
    /// Who asks.
    pub worker: WorkerId,
    /// It is in the middle of it: whoever else would have the job waits.
    pub busy: bool,
    /// Its last try failed: another has it, if there is one.
    pub failed: bool,
    /// How long until it asks again: one that has not for three times as long is taken for gone.
    pub again: Duration,
}

/// The state of a shard, for the bucket: without any head.
#[derive(Clone, Debug)]
pub struct BucketCheckpoint {
    /// What it covers.
    pub mark: Mark,
    /// Its bytes.
    pub chunks: Vec<Bytes>,
}

/// The head of every shard. Cheap to share; all calls may be made at the same time.
///
/// An implementation MUST answer `Unknown` rather than guess: a proposal whose fate it did not
/// see may have been applied. What it answers of a shard MUST NOT be older than what it answered
/// before, to the same caller; what a follower answers, not older than [`ReadFrom::Follower`] says.
pub trait Head: Send + Sync + fmt::Debug {
    /// Data shards, ascending. They never change.
    fn shards(&self) -> Vec<ShardId>;

    /// Queues one batch, `batch.bytes` long; what it answers with is the answer of apply. Batches
    /// of a shard are proposed in the order in which these calls were first polled. Waits while too
    /// much is in flight. Dropping the second future changes nothing.
    ///
    /// The outer error says that nothing was queued, and nothing written.
    fn append(
        &self,
        shard: ShardId,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Answer<'_, Answer<'static, AppendOutcome>>;

    /// Proposes a command and waits for its outcome.
    fn propose(&self, shard: ShardId, command: Command) -> Answer<'_, Outcome>;

    /// Where the shard stands by the word of a quorum: nothing that was acknowledged before the
    /// call lies above it, and it is applied where answers come from.
    fn read_index(&self, shard: ShardId) -> Answer<'_, Mark>;

    /// The watermarks of a partition, not older than the call; `None` if the shard does not have
    /// it.
    fn bounds(&self, shard: ShardId, partition: PartitionId) -> Answer<'_, Option<Bounds>>;

    /// Batches of a partition from the one that holds `from` on, until their bytes pass
    /// `bytes_max` (one batch is always among them); `None` if the shard does not have it, by the
    /// word of a quorum. Where `who` lets a follower answer and none does, who leads is asked.
    fn read(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        who: ReadFrom,
    ) -> Answer<'_, Option<HeadRead>>;

    /// The first offset of a batch in the head that holds a record of `time` or later, at `from`
    /// or above; `None` if there is none.
    fn by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    ) -> Answer<'_, Option<Offset>>;

    /// Waits until the partition's end or log start has left what `seen` says, and returns its
    /// bounds; `None` once the shard no longer has it.
    fn past(
        &self,
        shard: ShardId,
        partition: PartitionId,
        seen: Bounds,
    ) -> Answer<'_, Option<Bounds>>;

    /// Segments of the shard's manifest above `after`, at most `count`.
    fn manifest(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        count: usize,
    ) -> Answer<'_, Listing<MixedSegment>>;

    /// Where the state stands that answers come from, whether the shard is led there or not: what was
    /// answered before this call is not newer. `None` if nothing is known of the shard.
    fn mark(&self, shard: ShardId) -> Option<Mark>;

    /// Where who leads the shard is reached, `host:port`, as it was last heard; `None` if nobody said.
    /// Asks nobody: it may be another by now.
    fn leader(&self, shard: ShardId) -> Option<String>;

    /// Whether a job of the shard is for who asks: of all engines that ask for it, one is told so, as
    /// long as it goes on asking. Two may be for a moment, after a change of leaders.
    fn turn(&self, shard: ShardId, bid: Bid) -> Answer<'_, bool>;

    /// How the shard stands.
    fn progress(&self, shard: ShardId) -> Answer<'_, Progress>;

    /// The same, for who cannot wait as long as others: once `patience` is over nobody else is asked, and it is
    /// said of what it failed.
    fn progress_within(&self, shard: ShardId, _patience: Duration) -> Answer<'_, Progress> {
        // Who knows at once needs none.
        self.progress(shard)
    }

    /// Waits until something was applied above `seen`, or for `patience`; how the shard stands
    /// then.
    fn progress_past(
        &self,
        shard: ShardId,
        seen: RaftIndex,
        patience: Duration,
    ) -> Answer<'_, Progress>;

    /// Lets time pass on a shard to which nobody appends: its leader writes it down, unless it
    /// stands still.
    fn tick(&self, shard: ShardId) -> Answer<'_, ()>;

    /// Accepts the wall clock of the shard's leader as it is, after a jump.
    fn accept_time(&self, shard: ShardId) -> Answer<'_, ()>;

    /// What to flush next of `shard`: whole entries, at least one, then as long as they stay
    /// within `bytes_max`. `None` if nothing is there to flush.
    fn flush_job(&self, shard: ShardId, bytes_max: u64) -> Answer<'_, Option<FlushJob>>;

    /// The accepted batches of the entries of `raft`, in order, until their bytes pass `bytes_max`
    /// (one entry is always among them). Rejected ones are in the log and not in the answer.
    ///
    /// Fails with [`HeadError::Released`] if an entry is in the bucket by now.
    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> Answer<'_, AcceptedRun>;

    /// The state of `shard` for the bucket.
    fn checkpoint(&self, shard: ShardId) -> Answer<'_, BucketCheckpoint>;

    /// The topic of this name that is not being deleted, or that there is none, by the word of a quorum.
    fn topic(&self, name: &TopicName) -> Answer<'_, Option<TopicView>>;

    /// Topics with ids above `after`, those being deleted included; at most `count`.
    fn topics(&self, after: Option<TopicId>, count: usize) -> Answer<'_, Listing<TopicView>>;

    /// Topics with ids above `after` that had this name and are being deleted; at most `count`. Others may be among
    /// them, listed by a node of an earlier version.
    fn ending(
        &self,
        name: &TopicName,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<TopicView>>;

    /// Topics that `shard` has, with ids above `after`; at most `count`.
    fn shard_topics(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<ShardTopic>>;

    /// Tombstones that `shard` keeps, with ids above `after`, and the ranges of each that segments
    /// of the manifest still hold; at most `count`.
    fn tombstones(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<(TopicId, u64)>>;
}

impl ReadFrom {
    /// What a follower must have applied that answers; `None` if none may.
    #[must_use]
    pub const fn seen(self) -> Option<Mark> {
        match self {
            Self::Leader => None,
            Self::Follower { seen } => Some(seen),
        }
    }
}

impl Bounds {
    /// Where an offset lies.
    #[must_use]
    pub fn place(&self, offset: Offset) -> Place {
        if offset < self.log_start {
            Place::Below
        } else if offset < self.tiered_end {
            Place::Tiered
        } else if offset < self.end {
            Place::Head
        } else if offset == self.end {
            Place::End
        } else {
            Place::Above
        }
    }
}

/// Where an offset lies in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Below the log start: out of range.
    Below,
    /// In a segment.
    Tiered,
    /// In the head.
    Head,
    /// The next one to be written.
    End,
    /// Above the end: out of range.
    Above,
}
