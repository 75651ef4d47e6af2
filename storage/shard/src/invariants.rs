//! What always holds, as predicates that run: after each apply in debug builds while the state is
//! small, and on every state that is read from a checkpoint.

use std::collections::BTreeMap;

use esker_types::limits::{LEADER_EPOCHS_PER_PARTITION_MAX, PRODUCERS_PER_PARTITION_MAX};
use esker_types::{
    Incarnation, NodeId, PartitionId, ProducerId, RaftIndex, SegmentId, ShardId, TopicId,
};

use crate::catalog::Catalog;
use crate::data::Data;
use crate::partition::Partition;
use crate::state::{Body, State};

/// Above this many partitions, unflushed batches, segments and topics together, a debug build
/// checks only what costs nothing: a whole check is linear in the state.
const WHOLE_CHECK_MAX: usize = 512;

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// Watermarks of a partition out of order.
    #[error("watermarks of {0} are out of order")]
    Watermarks(PartitionId),
    /// Epoch starts of a partition out of order, above its end or too many.
    #[error("leader epochs of {0} are out of order")]
    Epochs(PartitionId),
    /// A producer's window out of order or above the partition's end, or too many producers.
    #[error("producers of {0} are out of order")]
    Producers(PartitionId),
    /// Producers counted for the shard are not those of its partitions.
    #[error("the producers of partitions do not add up to those of the shard")]
    ProducerCount,
    /// A partition without its topic, or of one that ended.
    #[error("partition {0} has no live topic")]
    NoTopic(PartitionId),
    /// The head disagrees with itself.
    #[error("the head's maps or counts disagree")]
    Head,
    /// The head does not hold exactly what lies between tiered end and end.
    #[error("the head does not hold what {0} has unflushed")]
    HeadRange(PartitionId),
    /// Indexes out of order: manifest, flush position, head, applied.
    #[error("index {0} is out of order")]
    Index(RaftIndex),
    /// Segments overlap or lie above the flush position.
    #[error("segment {0} is out of its place")]
    Segment(SegmentId),
    /// Ranges counted for topics are not those of the segments.
    #[error("the ranges of topics do not add up to those of the segments")]
    RangeCount,
    /// A topic that is here and has ended.
    #[error("topic {0} has ended and is there")]
    EndedTopic(TopicId),
    /// Names and topics of the catalog disagree.
    #[error("name and topic {0} disagree")]
    Name(TopicId),
    /// The next id of a kind lies outside what ids there are.
    #[error("the catalog has no such ids to give")]
    Ids,
    /// Names that stand for no topic.
    #[error("{0} names stand for no topic")]
    StrayNames(usize),
    /// A topic that no allocation gave, or that waits for a shard it was not placed on.
    #[error("topic {0} cannot be")]
    Topic(TopicId),
    /// Placement and load of a data shard disagree.
    #[error("load of {0} is not what is placed there")]
    Load(ShardId),
}

/// Checks everything. Linear in the size of the state.
pub(crate) fn check(state: &State) -> Result<(), Violation> {
    match &state.body {
        Body::Data(data) => check_data(state, data),
        Body::Catalog(catalog) => check_catalog(state, catalog),
    }
}

/// The check of a debug build after each apply.
///
/// # Panics
/// If an invariant does not hold: half right is worse than dead.
pub(crate) fn check_after_apply(state: &State) {
    let size = match &state.body {
        Body::Data(data) => {
            let batches = usize::try_from(data.head_size().batches).unwrap_or(usize::MAX);
            data.partitions.len() + data.manifest.len() + data.topics.len() + batches
        }
        Body::Catalog(catalog) => {
            catalog.topics.len() + usize::try_from(catalog.partition_count()).unwrap_or(usize::MAX)
        }
    };
    let checked = match &state.body {
        Body::Data(data) if size > WHOLE_CHECK_MAX => check_indexes(state, data),
        Body::Catalog(_) if size > WHOLE_CHECK_MAX => Ok(()),
        _ => check(state),
    };
    assert_eq!(checked, Ok(()), "{} after {}", state.shard, state.applied);
}

fn check_data(state: &State, data: &Data) -> Result<(), Violation> {
    check_indexes(state, data)?;
    check_manifest(state, data)?;
    let head = data.head.audit().ok_or(Violation::Head)?;
    if let Some((id, _)) = head
        .ranges
        .iter()
        .find(|(id, _)| !data.partitions.contains_key(*id))
    {
        return Err(Violation::HeadRange(*id));
    }
    for (id, partition) in data.partitions() {
        check_partition(id, partition)?;
        if !data.topics.contains_key(&id.topic) {
            return Err(Violation::NoTopic(id));
        }
        let unflushed = head
            .ranges
            .get(&id)
            .map(|range| (range.start(), range.end()));
        let (tiered_end, end) = (partition.tiered_end(), partition.end());
        if unflushed != (tiered_end < end).then_some((tiered_end, end)) {
            return Err(Violation::HeadRange(id));
        }
    }
    let producers = data.partitions().map(|(_, it)| it.producers.len());
    if producers.sum::<usize>() != data.producers {
        return Err(Violation::ProducerCount);
    }
    check_unflushed(data)?;
    let ended = data.topics.keys().find(|topic| data.has_ended(**topic));
    let dropped = data
        .tombstones
        .keys()
        .find(|topic| data.gone.contains(**topic));
    match ended.or(dropped) {
        Some(topic) => Err(Violation::EndedTopic(*topic)),
        None => Ok(()),
    }
}

/// What ended topics had unflushed lies above the flush position, and chains by partition.
fn check_unflushed(data: &Data) -> Result<(), Violation> {
    let mut ends = BTreeMap::new();
    for (topic, tombstone) in &data.tombstones {
        for ((index, id), range) in &tombstone.unflushed {
            let chains = ends
                .insert(*id, range.end())
                .is_none_or(|end| end == range.start());
            let above = *index > data.flush_position();
            if !chains || !above || range.is_empty() || id.topic != *topic {
                return Err(Violation::HeadRange(*id));
            }
        }
    }
    Ok(())
}

/// Flush position, head and applied index, and the boundary of the collector.
fn check_indexes(state: &State, data: &Data) -> Result<(), Violation> {
    let applied = state.applied.index;
    let (flush_position, boundary) = (data.flush_position(), data.gc_boundary());
    if flush_position > applied {
        return Err(Violation::Index(flush_position));
    }
    if boundary > applied {
        return Err(Violation::Index(boundary));
    }
    if data
        .head
        .first_index()
        .is_some_and(|first| first <= flush_position)
    {
        return Err(Violation::Index(flush_position));
    }
    let changes = data.tombstones.values().map(|tombstone| tombstone.changed);
    if let Some(late) = changes.max().filter(|&changed| changed > applied) {
        return Err(Violation::Index(late));
    }
    match data.head.last_index().filter(|&last| last > applied) {
        Some(last) => Err(Violation::Index(last)),
        None => Ok(()),
    }
}

/// Segments stand one after the other up to the flush position. Where retention has taken one out
/// there is a gap; an overlap there never is.
fn check_manifest(state: &State, data: &Data) -> Result<(), Violation> {
    let mut ranges = 0;
    let mut before: Option<(Incarnation, RaftIndex)> = None;
    for (place, entry) in &data.manifest {
        let overlaps =
            before.is_some_and(|(life, to)| life == entry.incarnation && entry.raft.from < to);
        let is_ours = entry.incarnation == state.incarnation;
        let above = is_ours && entry.raft.to > data.flush_position();
        let empty = entry.raft.is_empty() || entry.range_count == 0;
        let later = entry.incarnation > state.incarnation;
        if *place != entry.place() || overlaps || above || empty || later {
            return Err(Violation::Segment(entry.segment));
        }
        before = Some((entry.incarnation, entry.raft.to));
        ranges += u64::from(entry.range_count);
    }
    let live = data.topics.values().map(|topic| topic.mixed_ranges);
    let ended = data
        .tombstones
        .values()
        .map(|tombstone| tombstone.mixed_ranges);
    let counted = live.chain(ended).try_fold(0u64, u64::checked_add);
    if counted != Some(ranges) {
        return Err(Violation::RangeCount);
    }
    Ok(())
}

fn check_partition(id: PartitionId, partition: &Partition) -> Result<(), Violation> {
    let end = partition.end();
    if partition.log_start() > end || partition.tiered_end() > end {
        return Err(Violation::Watermarks(id));
    }
    let epochs = partition.epochs();
    let ascending = epochs
        .windows(2)
        .all(|w| w[0].epoch < w[1].epoch && w[0].start < w[1].start);
    let below_end = epochs.last().is_none_or(|last| last.start < end);
    if !ascending || !below_end || epochs.len() > LEADER_EPOCHS_PER_PARTITION_MAX {
        return Err(Violation::Epochs(id));
    }
    let fits = partition.producers().all(|(_, producer)| {
        let last = producer.window().last().map(|mark| mark.range().end());
        producer.is_ordered() && last.is_some_and(|last| last <= end)
    });
    if !fits || partition.producers.len() > PRODUCERS_PER_PARTITION_MAX {
        return Err(Violation::Producers(id));
    }
    Ok(())
}

fn check_catalog(state: &State, catalog: &Catalog) -> Result<(), Violation> {
    let ids = [
        (catalog.next_topic, TopicId::SEQUENCE_MAX),
        (catalog.next_producer, ProducerId::SEQUENCE_MAX),
        (catalog.next_node, NodeId::SEQUENCE_MAX),
    ];
    if ids.iter().any(|&(next, last)| next == 0 || next > last + 1) {
        return Err(Violation::Ids);
    }
    let mut load: BTreeMap<ShardId, u32> = catalog.load.keys().map(|shard| (*shard, 0)).collect();
    let mut live: usize = 0;
    for (id, topic) in catalog.topics() {
        let given = id.incarnation() < state.incarnation
            || id.incarnation() == state.incarnation && id.sequence() < catalog.next_topic;
        let awaited = topic.ending.as_ref();
        let awaits_its_own =
            awaited.is_none_or(|shards| !shards.is_empty() && shards.is_subset(topic.shards()));
        if !given || !awaits_its_own || topic.placement.is_empty() {
            return Err(Violation::Topic(id));
        }
        if awaited.is_none() {
            live += 1;
            if catalog.names.get(&topic.name) != Some(&id) {
                return Err(Violation::Name(id));
            }
        }
        for shard in &topic.placement {
            *load.get_mut(shard).ok_or(Violation::Load(*shard))? += 1;
        }
    }
    if catalog.names.len() > live {
        return Err(Violation::StrayNames(catalog.names.len() - live));
    }
    let wrong = load
        .iter()
        .find(|(shard, count)| catalog.load.get(*shard) != Some(*count));
    match wrong {
        Some((shard, _)) => Err(Violation::Load(*shard)),
        None => Ok(()),
    }
}
