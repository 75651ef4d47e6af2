//! What a segment says of its shard, its partitions and its batches, beside the batches.

use bytes::Bytes;
use esker_record::ZstdLevel;
use esker_types::{
    ContentHash, FencingToken, Incarnation, LeaderEpoch, Offset, PartitionId, ProducerEpoch,
    ProducerId, RaftRange, SegmentId, Sequence, ShardId, ShardTime, TopicId, TopicName,
    TopicVersion,
};

/// Where a segment comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The object's own id: an object under another's key is found out.
    pub segment: SegmentId,
    /// The life of the cluster that wrote it.
    pub incarnation: Incarnation,
    /// The shard its partitions belong to.
    pub shard: ShardId,
    /// The raft entries whose accepted batches it holds.
    pub raft: RaftRange,
    /// Whether its writer knew the final offsets (always, as long as a flush follows apply).
    pub final_offsets: bool,
    /// Level at which its blocks were compressed.
    pub zstd_level: ZstdLevel,
}

/// What a recovery needs to know of a partition, beside its batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionFacts {
    /// Which.
    pub id: PartitionId,
    /// Its topic's name when the segment was written.
    pub topic: TopicName,
    /// Offset of the first batch that will be pushed.
    pub start: Offset,
    /// Its log start when the segment was written.
    pub log_start: Offset,
    /// The highest fencing token it has accepted.
    pub fencing: Option<FencingToken>,
    /// Windows of the producers with a batch in range, ascending by id.
    pub producers: Vec<ProducerWindow>,
}

/// An epoch and the first offset written under it, in a partition's range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset here.
    pub start: Offset,
}

/// All that a partition remembers of a producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerWindow {
    /// Who.
    pub id: ProducerId,
    /// Its session.
    pub epoch: ProducerEpoch,
    /// Shard time of its last append.
    pub last_append: ShardTime,
    /// Its last batches, oldest first, at most `PRODUCER_WINDOW`; some may lie before the range.
    pub marks: Vec<Mark>,
}

/// One remembered batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Sequence of its first record.
    pub sequence: Sequence,
    /// Its records.
    pub records: u32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Its content hash, or its checksum in place of one.
    pub hash: ContentHash,
}

/// A topic that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tombstone {
    /// Which.
    pub topic: TopicId,
    /// The version that ended it.
    pub version: TopicVersion,
}

/// What a batch is given when it is placed in a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Offset of its first record.
    pub offset: Offset,
    /// The epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
    /// Shard time of its append.
    pub append_time: ShardTime,
    /// Its content hash, or its checksum in place of one.
    pub hash: ContentHash,
    /// Whatever later versions want to say of it; a reader skips the types it does not know.
    pub extensions: Vec<Extension>,
}

/// A typed remark on a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// What it is. None is given so far.
    pub kind: u16,
    /// What it says.
    pub bytes: Bytes,
}
