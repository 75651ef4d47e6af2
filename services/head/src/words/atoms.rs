//! Ids, offsets, ranges, hashes.

use bytes::Bytes;
use esker_log::{Bounds, Mark};
use esker_proto::internal as wire;
use esker_shard::Level;
use esker_types::{
    Incarnation, NodeId, Offset, OffsetRange, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, ProducerStamp, RaftIndex, RaftRange, Sequence, ShardId, TopicId, TopicName,
};

use super::Fault;

pub(super) fn need<T>(field: Option<T>, what: Fault) -> Result<T, Fault> {
    field.ok_or(what)
}

/// All of `items`, read by `read`.
pub(super) fn each<A, B>(
    items: Vec<A>,
    read: impl FnMut(A) -> Result<B, Fault>,
) -> Result<Vec<B>, Fault> {
    items.into_iter().map(read).collect()
}

/// A mark.
#[must_use]
pub fn mark(mark: Mark) -> wire::Mark {
    wire::Mark {
        incarnation: mark.incarnation.get(),
        index: mark.index.0,
    }
}

/// Reads a mark.
///
/// # Errors
/// [`Fault`].
pub fn read_mark(mark: wire::Mark) -> Result<Mark, Fault> {
    Ok(Mark {
        incarnation: incarnation(mark.incarnation)?,
        index: RaftIndex(mark.index),
    })
}

pub(super) fn needed_mark(mark: Option<wire::Mark>) -> Result<Mark, Fault> {
    read_mark(need(mark, "it has no mark")?)
}

pub(super) fn incarnation(number: u32) -> Result<Incarnation, Fault> {
    need(Incarnation::new(number), "an incarnation is none")
}

pub(super) fn topic_id(raw: u64) -> Result<TopicId, Fault> {
    need(TopicId::from_u64(raw), "a topic id is none")
}

pub(super) fn node_id(raw: u64) -> Result<NodeId, Fault> {
    need(NodeId::from_u64(raw), "a node id is none")
}

pub(super) fn producer_id(raw: u64) -> Result<ProducerId, Fault> {
    need(ProducerId::from_u64(raw), "a producer id is none")
}

pub(super) fn topic_name(text: &str) -> Result<TopicName, Fault> {
    TopicName::new(text).map_err(|_| "a topic name is none")
}

pub(super) fn level(number: u32) -> Result<Level, Fault> {
    let known = u16::try_from(number).ok().and_then(Level::new);
    need(known, "a level is not known here")
}

pub(super) fn offset(number: u64) -> Result<Offset, Fault> {
    need(Offset::new(number), "an offset is none")
}

pub(super) fn partition(id: PartitionId) -> Option<wire::PartitionRef> {
    Some(wire::PartitionRef {
        topic: id.topic.as_u64(),
        index: id.index.0,
    })
}

pub(super) fn read_partition(id: Option<wire::PartitionRef>) -> Result<PartitionId, Fault> {
    let id = need(id, "it names no partition")?;
    Ok(PartitionId {
        topic: topic_id(id.topic)?,
        index: PartitionIndex(id.index),
    })
}

pub(super) fn range(range: OffsetRange) -> Option<wire::OffsetSpan> {
    Some(wire::OffsetSpan {
        start: range.start().get(),
        end: range.end().get(),
    })
}

pub(super) fn read_range(range: Option<wire::OffsetSpan>) -> Result<OffsetRange, Fault> {
    let range = need(range, "it has no offsets")?;
    let whole = OffsetRange::new(offset(range.start)?, offset(range.end)?);
    need(whole, "offsets end before they begin")
}

pub(super) fn raft(range: RaftRange) -> Option<wire::RaftSpan> {
    Some(wire::RaftSpan {
        from: range.from.0,
        to: range.to.0,
    })
}

pub(super) fn read_raft(range: Option<wire::RaftSpan>) -> Result<RaftRange, Fault> {
    let range = need(range, "it names no entries")?;
    let whole = RaftRange::new(RaftIndex(range.from), RaftIndex(range.to));
    need(whole, "entries end before they begin")
}

pub(super) fn wide(number: u128) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(super) fn read_wide(bytes: &Bytes) -> Result<u128, Fault> {
    let sixteen = bytes[..].try_into().ok();
    need(sixteen, "a number of 16 bytes has others").map(u128::from_be_bytes)
}

pub(super) fn shards(shards: &[ShardId]) -> Vec<u32> {
    shards.iter().map(|shard| shard.0).collect()
}

pub(super) fn read_shards(shards: Vec<u32>) -> Vec<ShardId> {
    shards.into_iter().map(ShardId).collect()
}

pub(super) fn bounds(bounds: Bounds) -> wire::Bounds {
    wire::Bounds {
        log_start: bounds.log_start.get(),
        tiered_end: bounds.tiered_end.get(),
        end: bounds.end.get(),
        mark: Some(mark(bounds.mark)),
    }
}

pub(super) fn read_bounds(bounds: wire::Bounds) -> Result<Bounds, Fault> {
    Ok(Bounds {
        log_start: offset(bounds.log_start)?,
        tiered_end: offset(bounds.tiered_end)?,
        end: offset(bounds.end)?,
        mark: needed_mark(bounds.mark)?,
    })
}

pub(super) fn needed_bounds(bounds: Option<wire::Bounds>) -> Result<Bounds, Fault> {
    read_bounds(need(bounds, "it has no bounds")?)
}

pub(super) fn epoch(epoch: ProducerEpoch) -> u32 {
    u32::from(epoch.as_i16().cast_unsigned())
}

pub(super) fn read_epoch(number: u32) -> Result<ProducerEpoch, Fault> {
    let epoch = i16::try_from(number).ok().and_then(ProducerEpoch::from_i16);
    need(epoch, "a producer's epoch is none")
}

pub(super) fn sequence(sequence: Sequence) -> u32 {
    sequence.as_i32().cast_unsigned()
}

pub(super) fn read_sequence(number: u32) -> Result<Sequence, Fault> {
    let sequence = i32::try_from(number).ok().and_then(Sequence::from_i32);
    need(sequence, "a producer's sequence is none")
}

pub(super) fn stamp(stamp: ProducerStamp) -> wire::ProducerStamp {
    wire::ProducerStamp {
        id: stamp.id.as_u64(),
        epoch: epoch(stamp.epoch),
        sequence: sequence(stamp.sequence),
    }
}

pub(super) fn read_stamp(stamp: wire::ProducerStamp) -> Result<ProducerStamp, Fault> {
    Ok(ProducerStamp {
        id: producer_id(stamp.id)?,
        epoch: read_epoch(stamp.epoch)?,
        sequence: read_sequence(stamp.sequence)?,
    })
}

/// Milliseconds, as many as a number holds.
pub(super) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
