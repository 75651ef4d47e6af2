//! Bytes into a state, every one of them checked: what comes out keeps every invariant, or
//! nothing comes out.

use std::sync::Arc;

use esker_types::limits::{
    DATA_SHARDS_MAX, ENTRY_BATCHES_MAX, LEADER_EPOCHS_PER_PARTITION_MAX, PARTITIONS_PER_TOPIC_MAX,
    PRODUCER_WINDOW,
};
use esker_types::{
    ContentHash, Monotone, PartitionId, ProducerId, RaftIndex, SegmentId, ShardId, Timestamp,
    TopicId,
};
use imbl::OrdMap;

use super::encode::section_crc;
use super::{
    Decoded, FORMAT, HEADER_BYTES, MAGIC, PAYLOAD_BYTES_MAX, SECTION_CRC_BYTES,
    SECTION_HEADER_BYTES, Scope, Tag,
};
use crate::catalog::{Catalog, CatalogTopic, RequestId};
use crate::codec::Reader;
use crate::data::Data;
use crate::error::Error;
use crate::head::{HeadBatch, HeadEntry};
use crate::invariants;
use crate::level::Level;
use crate::manifest::{MixedSegment, ObjectChecksum, RangesHash};
use crate::partition::{EpochStart, Partition};
use crate::producer::{Mark, Producer};
use crate::state::{Body, State};
use crate::topic::{Tombstone, Topic};

const WHAT: &str = "a checkpoint";
const MARK_BYTES: usize = 4 + 4 + 8 + 16;
const HEAD_BATCH_BYTES: usize = 4 + 4 + 4 + 12 + 16 + 8;

/// Reads a checkpoint back.
///
/// # Errors
/// [`Error`], for anything that `encode` does not write. [`Error::Level`] asks for a newer build.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let mut sections = Sections::open(bytes)?;
    let (state, scope) = match sections.next()? {
        Some((Tag::Shard, mut from)) => {
            let shard = read_shard(&mut from)?;
            from.finish()?;
            shard
        }
        _ => {
            return Err(Error::Sections {
                what: "the shard does not come first",
            });
        }
    };
    let mut builder = Builder {
        state,
        scope,
        records: 1,
    };
    let mut last = Tag::Shard;
    while let Some((tag, mut from)) = sections.next()? {
        if tag < last || tag == last && matches!(tag, Tag::Shard | Tag::Marks) {
            return Err(Error::Sections {
                what: "a section comes out of turn",
            });
        }
        if last < Tag::Marks && tag != Tag::Marks {
            return Err(Error::Sections {
                what: "the marks do not come second",
            });
        }
        last = tag;
        if tag == Tag::End {
            builder.check_records(from.u64()?)?;
            from.finish()?;
            sections.finish()?;
            invariants::check(&builder.state)?;
            return Ok(Decoded {
                state: builder.state,
                scope: builder.scope,
            });
        }
        while from.left() > 0 {
            builder.record(tag, &mut from)?;
        }
    }
    Err(Error::Sections {
        what: "the end is missing",
    })
}

/// Takes sections off the bytes, one after the other, checked.
struct Sections<'a> {
    /// Everything; a section's CRC covers what precedes it if it is the first.
    bytes: &'a [u8],
    at: usize,
    /// Where the next section's CRC begins to cover.
    covered_from: usize,
    number: u32,
}

impl<'a> Sections<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut from = Reader::new(WHAT, bytes);
        if from.bytes(MAGIC.len())? != MAGIC {
            return Err(Error::Sections {
                what: "it does not begin as a checkpoint",
            });
        }
        let format = from.u16()?;
        if format != FORMAT {
            return Err(Error::Unknown {
                what: "a checkpoint's format",
                value: format.into(),
            });
        }
        Ok(Self {
            bytes,
            at: HEADER_BYTES,
            covered_from: 0,
            number: 0,
        })
    }

    fn next(&mut self) -> Result<Option<(Tag, Reader<'a>)>, Error> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let mut from = Reader::new(WHAT, rest);
        let (tag, number, length) = (from.u8()?, from.u32()?, from.u32()?);
        let length = usize::try_from(length).expect("32 bits fit a usize here");
        if length > PAYLOAD_BYTES_MAX {
            return Err(Error::TooMany {
                what: "payload bytes of a section",
                value: length as u64,
                limit: PAYLOAD_BYTES_MAX as u64,
            });
        }
        let payload = from.bytes(length)?;
        let crc = from.u32()?;
        let covered_to = self.at + SECTION_HEADER_BYTES + length;
        if crc != section_crc(&self.bytes[self.covered_from..covered_to]) {
            return Err(Error::Checksum {
                section: self.number,
            });
        }
        if number != self.number {
            return Err(Error::Sections {
                what: "a section is missing",
            });
        }
        let tag = Tag::from_number(tag).ok_or(Error::Unknown {
            what: "a section's tag",
            value: tag.into(),
        })?;
        self.at = covered_to + SECTION_CRC_BYTES;
        self.covered_from = self.at;
        self.number += 1;
        Ok(Some((tag, Reader::new(WHAT, payload))))
    }

    fn finish(&self) -> Result<(), Error> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            bytes => Err(Error::Trailing { what: WHAT, bytes }),
        }
    }
}

fn read_shard(from: &mut Reader<'_>) -> Result<(State, Scope), Error> {
    let number = from.u16()?;
    let level = Level::new(number).ok_or(Error::Level {
        what: WHAT,
        found: number,
        newest: Level::NEWEST.get(),
    })?;
    let scope = from.u8()?;
    let scope = Scope::from_number(scope).ok_or(Error::Unknown {
        what: "a checkpoint's scope",
        value: scope.into(),
    })?;
    let shard = ShardId(from.u32()?);
    if shard.0 > DATA_SHARDS_MAX {
        return Err(Error::Unknown {
            what: "a shard id",
            value: shard.0.into(),
        });
    }
    let incarnation = from.incarnation()?;
    let epoch_base = from.epoch()?;
    let time = Monotone::new(from.time()?);
    let applied = from.entry()?;
    let body = if shard.carries_data() {
        Body::Data(Data::default())
    } else {
        Body::Catalog(Catalog::new(0))
    };
    Ok((
        State {
            shard,
            incarnation,
            level,
            time,
            applied,
            epoch_base,
            body,
        },
        scope,
    ))
}

/// The state as far as it has been read.
struct Builder {
    state: State,
    scope: Scope,
    records: u64,
}

impl Builder {
    fn record(&mut self, tag: Tag, from: &mut Reader<'_>) -> Result<(), Error> {
        self.records += 1;
        match &mut self.state.body {
            Body::Data(data) => read_data(data, tag, self.scope, from),
            Body::Catalog(catalog) => match tag {
                Tag::Marks => read_catalog_marks(catalog, from),
                Tag::Catalog => read_catalog_topic(catalog, from),
                _ => Err(Error::Sections {
                    what: "a section of a data shard in the catalog",
                }),
            },
        }
    }

    fn check_records(&self, written: u64) -> Result<(), Error> {
        if self.records != written {
            return Err(Error::Sections {
                what: "records are missing",
            });
        }
        Ok(())
    }
}

fn read_data(data: &mut Data, tag: Tag, scope: Scope, from: &mut Reader<'_>) -> Result<(), Error> {
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
        producers: OrdMap::new(),
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
    let above = (std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded);
    let next = data.partitions.range(above).next();
    if next.is_some_and(|(_, partition)| !partition.producers.is_empty()) {
        return Err(disorder);
    }
    let partition = data.partitions.get_mut(&id).ok_or(Error::Unknown {
        what: "a producer's partition",
        value: id.topic.as_u64(),
    })?;
    let producers: &mut OrdMap<ProducerId, _> = &mut Arc::make_mut(partition).producers;
    push(producers, producer_id, Arc::new(producer), "producers")
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
    let next = (
        std::ops::Bound::Excluded(id.topic),
        std::ops::Bound::Unbounded,
    );
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

fn read_catalog_marks(catalog: &mut Catalog, from: &mut Reader<'_>) -> Result<(), Error> {
    let data_shards = from.u32()?;
    if !(1..=DATA_SHARDS_MAX).contains(&data_shards) {
        return Err(Error::Unknown {
            what: "a number of shards",
            value: data_shards.into(),
        });
    }
    *catalog = Catalog::new(data_shards);
    catalog.next_topic = from.u64()?;
    catalog.next_producer = from.u64()?;
    catalog.next_node = from.u64()?;
    Ok(())
}

fn read_catalog_topic(catalog: &mut Catalog, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.topic()?;
    let (version, name, config) = (from.version()?, from.name()?, from.config()?);
    let (request, asked) = (RequestId(from.u128()?), from.u128()?);
    let placement = read_shards(from)?;
    let ending = from.option(|from| Ok(read_shards(from)?.into_iter().collect()))?;
    for shard in &placement {
        let unknown = Error::Unknown {
            what: "a shard id",
            value: shard.0.into(),
        };
        *catalog.load.get_mut(shard).ok_or(unknown)? += 1;
    }
    let unique = ending.is_some() || catalog.names.insert(name.clone(), id).is_none();
    if !unique {
        return Err(Error::Order {
            what: "names of topics",
        });
    }
    let topic = CatalogTopic {
        name,
        version,
        config,
        placement,
        request,
        asked,
        ending,
    };
    push(&mut catalog.topics, id, Arc::new(topic), "topics")
}

fn read_shards(from: &mut Reader<'_>) -> Result<Vec<ShardId>, Error> {
    let limit = usize::try_from(PARTITIONS_PER_TOPIC_MAX).expect("32 bits fit a usize here");
    let count = from.count("shards of a topic", limit, 4)?;
    (0..count).map(|_| from.u32().map(ShardId)).collect()
}

/// Adds a record above all others of its kind. How many there may be is decided by apply; here the
/// bytes bound it.
fn push<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, V>,
    key: K,
    value: V,
    what: &'static str,
) -> Result<(), Error> {
    if map.get_max().is_some_and(|(last, _)| *last >= key) {
        return Err(Error::Order { what });
    }
    map.insert(key, value);
    Ok(())
}
