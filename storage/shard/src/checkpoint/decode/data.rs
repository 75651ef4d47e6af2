//! Records of a data shard.

use std::ops::Bound;
use std::sync::Arc;

use esker_types::limits::{ENTRY_BATCHES_MAX, LEADER_EPOCHS_PER_PARTITION_MAX};
use esker_types::limits::{PRODUCER_CHECKPOINT_BYTES, PRODUCER_WINDOW};
use esker_types::{ContentHash, Monotone, PartitionId, RaftIndex, SegmentId, Timestamp, TopicId};
use imbl::OrdMap;

use super::push;
use crate::checkpoint::{Scope, Tag};
use crate::codec::Reader;
use crate::data::Data;
use crate::error::Error;
use crate::head::{HeadBatch, HeadEntry};
use crate::manifest::{MixedSegment, ObjectChecksum, RangesHash};
use crate::partition::{EpochStart, Partition};
use crate::producer::{Mark, Producer};
use crate::producers::Producers;
use crate::topic::{Tombstone, Topic};

const MARK_BYTES: usize = 4 + 4 + 8 + 16;
/// Partition, id, epoch, time and count of a producer, before its marks.
const PRODUCER_HEAD_BYTES: usize = 12 + 8 + 2 + 8 + 4;
const _: () =
    assert!(PRODUCER_HEAD_BYTES + PRODUCER_WINDOW * MARK_BYTES <= PRODUCER_CHECKPOINT_BYTES);
const HEAD_BATCH_BYTES: usize = 4 + 4 + 4 + 12 + 16 + 8;

/// Reads one record of a section and adds it.
pub(super) fn read(
    data: &mut Data,
    tag: Tag,
    scope: Scope,
    from: &mut Reader<'_>,
) -> Result<(), Error> {
    match tag {
        Tag::Marks => {
            data.flush_position = Monotone::new(from.index()?);
            data.gc_boundary = Monotone::new(from.index()?);
            data.swept = from.option(Reader::partition)?;
            Ok(())
        }
        Tag::Topics => read_topic(data, from),
        Tag::Partitions => read_partition(data, from),
        Tag::Producers => read_producer(data, from),
        Tag::Head if scope == Scope::Local => read_head_entry(data, from),
        Tag::Segments => read_segment(data, from),
        Tag::Tombstones => read_tombstone(data, from),
        Tag::Unflushed if scope == Scope::Local => read_unflushed(data, from),
        Tag::Gone => {
            let (first, last) = (from.topic()?, from.topic()?);
            if data.gone.push_run(first, last) {
                return Ok(());
            }
            Err(Error::Order {
                what: "topics that are gone",
            })
        }
        _ => Err(Error::Sections {
            what: "a section that this checkpoint cannot have",
        }),
    }
}

fn read_topic(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.topic()?;
    let topic = Topic {
        version: from.version()?,
        name: from.name()?,
        config: from.config()?,
        mixed_ranges: from.u64()?,
    };
    push(&mut data.topics, id, Arc::new(topic), "topics")
}

fn read_partition(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.partition()?;
    let (log_start, tiered_end, end) = (from.offset()?, from.offset()?, from.offset()?);
    let fencing = from.option(Reader::fencing)?;
    let count = from.count("leader epochs", LEADER_EPOCHS_PER_PARTITION_MAX, 12)?;
    let epoch = |from: &mut Reader<'_>| {
        Ok(EpochStart {
            epoch: from.epoch()?,
            start: from.offset()?,
        })
    };
    let epochs = (0..count)
        .map(|_| epoch(from))
        .collect::<Result<_, Error>>()?;
    let partition = Partition {
        log_start: Monotone::new(log_start),
        tiered_end: Monotone::new(tiered_end),
        end: Monotone::new(end),
        epochs,
        fencing,
        producers: Producers::default(),
    };
    push(&mut data.partitions, id, Arc::new(partition), "partitions")
}

fn read_producer(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let (id, producer_id) = (from.partition()?, from.producer_id()?);
    let (epoch, last_append) = (from.producer_epoch()?, from.time()?);
    let count = from.count("a producer's window", PRODUCER_WINDOW, MARK_BYTES)?;
    let mark = |from: &mut Reader<'_>| {
        Ok(Mark {
            sequence: from.sequence()?,
            records: from.u32()?,
            start: from.offset()?,
            hash: ContentHash(from.u128()?),
        })
    };
    let window = (0..count)
        .map(|_| mark(from))
        .collect::<Result<_, Error>>()?;
    let disorder = Error::Order { what: "producers" };
    let producer = Producer::from_parts(epoch, last_append, window).ok_or(disorder.clone())?;
    // Across partitions too: the last partition that has producers must be this one or below.
    let above = (Bound::Excluded(id), Bound::Unbounded);
    let next = data.partitions.range(above).next();
    if next.is_some_and(|(_, partition)| !partition.producers.is_empty()) {
        return Err(disorder);
    }
    let partition = data.partitions.get_mut(&id).ok_or(Error::Unknown {
        what: "a producer's partition",
        value: id.topic.as_u64(),
    })?;
    let producers = &mut Arc::make_mut(partition).producers;
    if producers.last() >= Some(producer_id) {
        return Err(disorder);
    }
    producers.insert(producer_id, Arc::new(producer));
    data.producers += 1;
    Ok(())
}

fn read_head_entry(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.entry()?;
    let (epoch, time) = (from.epoch()?, from.time()?);
    let count = from.count("batches of an entry", ENTRY_BATCHES_MAX, HEAD_BATCH_BYTES)?;
    let batch = |from: &mut Reader<'_>| {
        Ok(HeadBatch {
            ordinal: from.u32()?,
            at: from.u32()?,
            bytes: from.u32()?,
            partition: from.partition()?,
            range: from.range()?,
            max_timestamp: Timestamp(from.i64()?),
        })
    };
    let batches = (0..count)
        .map(|_| batch(from))
        .collect::<Result<Vec<_>, Error>>()?;
    let ascending = data.head.last_index().unwrap_or(RaftIndex::ZERO) < id.index;
    if !ascending || batches.is_empty() {
        return Err(Error::Order {
            what: "entries of the head",
        });
    }
    data.head.insert(
        id.index,
        HeadEntry {
            term: id.term,
            epoch,
            time,
            batches,
        },
    );
    Ok(())
}

fn read_segment(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let segment = MixedSegment {
        incarnation: from.incarnation()?,
        raft: from.raft()?,
        segment: SegmentId(from.u128()?),
        length: from.u64()?,
        checksum: ObjectChecksum(from.u64()?),
        range_count: from.u32()?,
        ranges_hash: RangesHash(from.u128()?),
        newest: from.time()?,
        bytes: from.u64()?,
    };
    let place = segment.place();
    push(&mut data.manifest, place, Arc::new(segment), "segments")
}

fn read_tombstone(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.topic()?;
    let tombstone = Tombstone {
        version: from.version()?,
        mixed_ranges: from.u64()?,
        changed: from.index()?,
        unflushed: OrdMap::new(),
    };
    push(&mut data.tombstones, id, Arc::new(tombstone), "tombstones")
}

fn read_unflushed(data: &mut Data, from: &mut Reader<'_>) -> Result<(), Error> {
    let (index, id, range) = (from.index()?, from.partition()?, from.range()?);
    let next = (Bound::Excluded(id.topic), Bound::Unbounded);
    let next: Option<(&TopicId, &Arc<Tombstone>)> = data.tombstones.range(next).next();
    let later = next.is_some_and(|(_, tombstone)| !tombstone.unflushed.is_empty());
    let Some(tombstone) = data.tombstones.get_mut(&id.topic).filter(|_| !later) else {
        return Err(Error::Order {
            what: "what ended topics had unflushed",
        });
    };
    let unflushed: &mut OrdMap<(RaftIndex, PartitionId), _> =
        &mut Arc::make_mut(tombstone).unflushed;
    push(
        unflushed,
        (index, id),
        range,
        "what ended topics had unflushed",
    )
}
