//! What may be asked of a shard. Every command has one encoding; `codec` beside this file is it.

mod codec; // a command as bytes

use esker_types::{
    ContentHash, FencingToken, Incarnation, Offset, OffsetRange, PartitionId, PartitionIndex,
    ProducerStamp, RaftIndex, RaftRange, SegmentId, ShardId, ShardTime, Timestamp, TopicId,
    TopicName, TopicVersion,
};

use crate::catalog::RequestId;
use crate::config::{ConfigChange, TopicConfig};
use crate::level::Level;
use crate::manifest::ObjectChecksum;

/// A command, as one raft entry carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    // Any shard.
    /// Lets shard time pass where nothing is appended.
    Tick {
        /// The leader's reading of shard time; an older one than the shard's has no effect.
        time: ShardTime,
    },
    /// Raises the level; a level at or below the current one has no effect.
    RaiseLevel {
        /// The level to follow from the next command on.
        level: Level,
    },

    // Data shards.
    /// Appends batches, each decided on its own, in order.
    Append(Append),
    /// Commits a flushed segment: the only way the flush position moves.
    CommitSegment(CommitSegment),
    /// Replaces segments in the manifest; at level 1 by nothing.
    Swap(Swap),
    /// Forbids every `Swap` planned at or below `to`, so that its leftovers may be collected.
    RaiseGcBoundary {
        /// The new boundary; one below the current has no effect.
        to: RaftIndex,
    },
    /// Hands the shard a topic, or a newer version of one.
    PutTopic(PutTopic),
    /// Ends a topic for good: its partitions go, a tombstone stays.
    EndTopic {
        /// Which.
        topic: TopicId,
        /// The version that the catalog gave the deletion.
        version: TopicVersion,
    },
    /// Drops a tombstone once nothing of its topic is left in the manifest or in the bucket.
    DropTombstone {
        /// Of which topic.
        topic: TopicId,
        /// The applied index at which the proposer read that nothing is left.
        plan_index: RaftIndex,
    },
    /// Moves a partition's log start.
    Trim(Trim),

    // The catalog.
    /// Creates a topic and places its partitions.
    CreateTopic(CreateTopic),
    /// Changes settings of a topic.
    AlterTopic {
        /// Which.
        topic: TopicId,
        /// Refuse unless this is the current version.
        expected: Option<TopicVersion>,
        /// What to change, in order; at most [`Command::CONFIG_CHANGES_MAX`].
        changes: Vec<ConfigChange>,
    },
    /// Gives a topic more partitions.
    AddPartitions {
        /// Which.
        topic: TopicId,
        /// Refuse unless this is the current version.
        expected: Option<TopicVersion>,
        /// How many it is to have in all; never fewer than it has.
        total: u32,
    },
    /// Deletes a topic: its name is free at once, its id never again.
    DeleteTopic {
        /// Which.
        topic: TopicId,
    },
    /// Tells the catalog that a data shard has applied `EndTopic`.
    TopicEnded {
        /// Which.
        topic: TopicId,
        /// Where.
        shard: ShardId,
    },
    /// Takes a block of producer ids.
    AllocateProducers {
        /// How many, in `1..=PRODUCER_ID_BLOCK`.
        count: u32,
    },
    /// Takes a node id.
    AllocateNode,
}

impl Command {
    /// Whether only the leader of a shard proposes it, of its own accord: what its clock says, what level its
    /// replicas know, and appends, which stand beside the bytes that they describe.
    #[must_use]
    pub const fn is_the_leaders(&self) -> bool {
        match self {
            Self::Tick { .. } | Self::RaiseLevel { .. } | Self::Append(_) => true,
            Self::CommitSegment(_)
            | Self::Swap(_)
            | Self::RaiseGcBoundary { .. }
            | Self::PutTopic(_)
            | Self::EndTopic { .. }
            | Self::DropTombstone { .. }
            | Self::Trim(_)
            | Self::CreateTopic(_)
            | Self::AlterTopic { .. }
            | Self::AddPartitions { .. }
            | Self::DeleteTopic { .. }
            | Self::TopicEnded { .. }
            | Self::AllocateProducers { .. }
            | Self::AllocateNode => false,
        }
    }
}

/// Batches joined into one entry. Their bytes travel beside the command in the same entry, one
/// after the other in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// The leader's reading of shard time.
    pub time: ShardTime,
    /// At most `ENTRY_BATCHES_MAX`, of at most `ENTRY_PAYLOAD_BYTES_MAX` bytes together.
    pub batches: Vec<AppendBatch>,
}

/// What apply needs to know of a batch to decide it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendBatch {
    /// Where it goes.
    pub partition: PartitionId,
    /// Bytes as it travels.
    pub bytes: u32,
    /// Records in it.
    pub records: u32,
    /// Timestamp of its first record.
    pub base_timestamp: Timestamp,
    /// Largest timestamp in it.
    pub max_timestamp: Timestamp,
    /// Its idempotent producer, if it has one.
    pub producer: Option<ProducerStamp>,
    /// Hash of its plain records (or of the batch, where the topic skips the deep check).
    pub hash: ContentHash,
    /// Refuse unless the partition ends here.
    pub expected_end: Option<Offset>,
    /// The writer's claim to the partition; without one, no claim is checked.
    pub fencing: Option<FencingToken>,
}

/// Ranges of a segment in canonical order: ascending by partition, each partition once, no range
/// empty. At most `SEGMENT_RANGES_MAX`.
pub type RangeList = Vec<(PartitionId, OffsetRange)>;

/// A flushed segment that was PUT and verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitSegment {
    /// Its id, never used before.
    pub segment: SegmentId,
    /// Bytes of the object.
    pub length: u64,
    /// Checksum of the object.
    pub checksum: ObjectChecksum,
    /// The entries it covers: from the flush position on.
    pub raft: RaftRange,
    /// What it holds of each partition, in canonical order.
    pub ranges: RangeList,
}

/// A replacement of segments in the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swap {
    /// The applied index at which what it replaces was read.
    pub plan_index: RaftIndex,
    /// The exact entries it takes out. Together at most `SEGMENT_RANGES_MAX` ranges.
    pub removes: Vec<SegmentRemoval>,
}

/// A mixed segment that a [`Swap`] takes out, with its whole range list as proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentRemoval {
    /// The incarnation that wrote it.
    pub incarnation: Incarnation,
    /// Its id.
    pub segment: SegmentId,
    /// The entries it covers.
    pub raft: RaftRange,
    /// What it holds, in canonical order.
    pub ranges: RangeList,
}

/// A topic as a data shard needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutTopic {
    /// Which.
    pub topic: TopicId,
    /// The catalog's version of it.
    pub version: TopicVersion,
    /// Its name.
    pub name: TopicName,
    /// Its settings.
    pub config: TopicConfig,
    /// Its partitions on this shard, ascending. At most `PARTITIONS_PER_TOPIC_MAX`.
    pub partitions: Vec<PartitionIndex>,
}

/// A new log start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trim {
    /// Of which partition.
    pub partition: PartitionId,
    /// The first offset to keep, at most the partition's end. Below its log start: no effect.
    pub to: Offset,
    /// The topic's version that decided it (retention); `None` if a person did.
    pub planned_version: Option<TopicVersion>,
}

/// A new topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopic {
    /// Who asks: the same id with the same content is the same request, answered alike.
    pub request: RequestId,
    /// Its name.
    pub name: TopicName,
    /// How many partitions, in `1..=PARTITIONS_PER_TOPIC_MAX`.
    pub partitions: u32,
    /// Its settings.
    pub config: TopicConfig,
}

impl Command {
    /// Changes that one `AlterTopic` carries.
    pub const CONFIG_CHANGES_MAX: usize = 16;

    /// The level from which a shard takes this command.
    #[must_use]
    pub const fn level(&self) -> Level {
        // A command that a later level adds names that level here.
        Level::FIRST
    }
}
