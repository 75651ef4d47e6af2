//! Segments in memory: written, opened and read the way an agent does, with slices for GETs.
#![expect(dead_code, reason = "each test binary uses its part of the samples")]

use bytes::Bytes;
use esker_record::codec::Decoder;
use esker_record::{Batch, Builder, Compression, NewRecord, Scratch, ZstdLevel, content_hash};
use esker_segment::{
    Assembler, Depth, Error, Extension, Mark, Opened, Opening, Origin, Partition, PartitionFacts,
    Placement, ProducerWindow, Sealer, Segment, Summary, Tail, Tombstone, Verified, Verifier,
    Writer,
};
use esker_types::{
    ContentHash, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, RaftIndex, RaftRange, SegmentId, Sequence, ShardId,
    ShardTime, Timestamp, TopicId, TopicName, TopicVersion,
};

/// A batch to be written: how many records, how large, how packed, under which epoch.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) records: u32,
    pub(crate) value_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) epoch: u32,
    pub(crate) timestamp: i64,
    pub(crate) shallow: bool,
}

impl Plan {
    pub(crate) fn plain(records: u32, value_bytes: usize) -> Self {
        Self {
            records,
            value_bytes,
            compression: Compression::None,
            epoch: 1,
            timestamp: 1_700_000_000_000,
            shallow: false,
        }
    }
}

/// A partition to be written.
#[derive(Clone, Debug)]
pub(crate) struct PartitionPlan {
    pub(crate) facts: PartitionFacts,
    pub(crate) batches: Vec<Plan>,
}

/// What was written, and what must be read again.
pub(crate) struct Written {
    pub(crate) bytes: Bytes,
    pub(crate) summary: Summary,
    /// Per partition the batches as they must come out.
    pub(crate) batches: Vec<(PartitionId, Vec<(Bytes, Placement)>)>,
}

pub(crate) fn segment_id() -> SegmentId {
    SegmentId::from_parts(1_700_000_000_000, 0x5EED)
}

pub(crate) fn partition_id(topic: u64, index: u32) -> PartitionId {
    PartitionId {
        topic: TopicId::new(Incarnation::FIRST, topic).unwrap(),
        index: PartitionIndex(index),
    }
}

pub(crate) fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

pub(crate) fn origin() -> Origin {
    Origin {
        segment: segment_id(),
        incarnation: Incarnation::FIRST,
        shard: ShardId(3),
        raft: RaftRange::new(RaftIndex(100), RaftIndex(250)).unwrap(),
        final_offsets: true,
        zstd_level: ZstdLevel::DEFAULT,
    }
}

pub(crate) fn facts(topic: u64, index: u32, start: u64) -> PartitionFacts {
    PartitionFacts {
        id: partition_id(topic, index),
        topic: TopicName::new(&format!("topic-{topic}")).unwrap(),
        start: offset(start),
        log_start: offset(start / 2),
        fencing: None,
        producers: Vec::new(),
    }
}

/// Two topics, three partitions, every codec kind, an extension, a producer, a fence.
pub(crate) fn small() -> Vec<PartitionPlan> {
    let mut first = facts(1, 0, 40);
    first.fencing = Some(FencingToken(9));
    first.producers = vec![ProducerWindow {
        id: ProducerId::new(Incarnation::FIRST, 7).unwrap(),
        epoch: ProducerEpoch::from_i16(2).unwrap(),
        last_append: ShardTime(1_700_000_000_999),
        marks: vec![Mark {
            sequence: Sequence::from_i32(30).unwrap(),
            records: 3,
            base_offset: offset(40),
            hash: ContentHash(0xABCD << 64),
        }],
    }];
    let packed = |compression| Plan {
        compression,
        timestamp: 1_700_000_000_500,
        ..Plan::plain(5, 200)
    };
    let later = Plan {
        epoch: 4,
        shallow: true,
        ..Plan::plain(2, 10)
    };
    vec![
        PartitionPlan {
            facts: first,
            batches: vec![Plan::plain(3, 30), packed(Compression::Lz4), later],
        },
        PartitionPlan {
            facts: facts(1, 5, 0),
            batches: vec![packed(Compression::Zstd(ZstdLevel::DEFAULT))],
        },
        PartitionPlan {
            facts: facts(2, 0, 1 << 40),
            batches: vec![Plan::plain(1, 0), Plan::plain(10, 100)],
        },
    ]
}

pub(crate) fn tombstones() -> Vec<Tombstone> {
    vec![Tombstone {
        topic: TopicId::new(Incarnation::FIRST, 99).unwrap(),
        version: TopicVersion(12),
    }]
}

pub(crate) fn batch(plan: &Plan, seed: u64) -> Batch {
    let mut builder = Builder::new(plan.compression, 64 << 20);
    for n in 0..plan.records {
        let mut value = format!("{seed}.{n} ").into_bytes();
        value.resize(plan.value_bytes, b'.');
        let timestamp = Timestamp(plan.timestamp + i64::from(n));
        builder.push(&NewRecord::value(timestamp, &value)).unwrap();
    }
    builder.finish(None).unwrap()
}

pub(crate) fn write(plans: &[PartitionPlan]) -> Written {
    write_with(plans, tombstones())
}

pub(crate) fn write_with(plans: &[PartitionPlan], tombstones: Vec<Tombstone>) -> Written {
    let mut writer = Writer::new(origin());
    let mut sealer = Sealer::new(origin().zstd_level);
    let (mut assembler, header) = Assembler::start();
    let mut object = header.to_vec();
    let mut scratch = Scratch::new(0);
    let mut batches = Vec::new();
    for plan in plans {
        writer.begin(plan.facts.clone()).unwrap();
        let mut next = plan.facts.start;
        let mut expected = Vec::new();
        for (at, one) in plan.batches.iter().enumerate() {
            let batch = batch(one, next.get() + at as u64);
            let hash = if one.shallow {
                ContentHash::from_checksum(batch.header().crc)
            } else {
                content_hash(batch.header(), &scratch.decode(&batch).unwrap())
            };
            let extension = Extension {
                kind: 0x7A7A,
                bytes: Bytes::from_static(b"from later"),
            };
            let placement = Placement {
                offset: next,
                leader_epoch: LeaderEpoch(one.epoch),
                append_time: ShardTime(1_700_000_001_000 + at as u64),
                hash,
                extensions: if one.shallow { vec![extension] } else { vec![] },
            };
            if let Some(block) = writer.push(&batch, &placement).unwrap() {
                object
                    .extend_from_slice(&assembler.push(block.seal(&mut sealer).unwrap()).concat());
            }
            let mut bytes = batch.bytes().to_vec();
            esker_record::patch(&mut bytes, next, LeaderEpoch(one.epoch));
            expected.push((Bytes::from(bytes), placement));
            next = next.checked_add(one.records.into()).unwrap();
        }
        batches.push((plan.facts.id, expected));
    }
    let (last, index) = writer.finish().unwrap();
    object.extend_from_slice(&assembler.push(last.seal(&mut sealer).unwrap()).concat());
    let (chunks, summary) = assembler.finish(index, tombstones).unwrap();
    for chunk in chunks {
        object.extend_from_slice(&chunk);
    }
    assert_eq!(summary.length, object.len() as u64);
    Written {
        bytes: object.into(),
        summary,
        batches,
    }
}

pub(crate) fn get(object: &Bytes, range: std::ops::Range<u64>) -> Bytes {
    let at = |n: u64| usize::try_from(n).unwrap();
    object.slice(at(range.start)..at(range.end))
}

/// Opens an object, and says with how many GETs.
pub(crate) fn open(object: &Bytes) -> Result<(Segment, Tail, usize), Error> {
    let mut opening = Opening::new(segment_id(), object.len() as u64)?;
    for gets in 1..=2 {
        let bytes = get(object, opening.wants());
        match opening.take(bytes)? {
            Opened::Done(segment, tail) => return Ok((segment, tail, gets)),
            Opened::More(more) => opening = more,
        }
    }
    panic!("a third GET was wanted");
}

pub(crate) fn find(
    object: &Bytes,
    segment: &Segment,
    id: PartitionId,
) -> Result<Option<Partition>, Error> {
    let Some(place) = segment.directory_page(id) else {
        return Ok(None);
    };
    let bytes = get(object, place.position..place.end());
    let page = segment.decode_directory_page(place, &bytes)?;
    Ok(page.find(id).cloned())
}

/// Reads the batch that holds `offset`, as an agent does: directory, index page, block, batch.
pub(crate) fn read(
    object: &Bytes,
    id: PartitionId,
    offset: Offset,
) -> Result<Option<Batch>, Error> {
    let (segment, _, _) = open(object)?;
    let Some(partition) = find(object, &segment, id)? else {
        return Ok(None);
    };
    let Some(place) = partition.page_by_offset(offset) else {
        return Ok(None);
    };
    let page = get(object, place.position..place.end());
    let page = segment.decode_index_page(&partition, place, &page)?;
    let entry = page.by_offset(offset).unwrap();
    let span = segment.block_span(entry.block..=entry.block).unwrap();
    let block = segment.decode_block(entry.block, get(object, span), &mut Decoder::new())?;
    segment.batch(id, entry, &block).map(Some)
}

pub(crate) fn verify(object: &Bytes, depth: Depth) -> Result<Verified, Error> {
    let (segment, _, _) = open(object)?;
    let mut verifier = Verifier::new(segment, depth);
    while let Some(range) = verifier.wants() {
        verifier.take(get(object, range))?;
    }
    Ok(verifier.finish())
}

/// Every batch of every partition comes out as it went in.
pub(crate) fn assert_reads_back(written: &Written) {
    for (id, batches) in &written.batches {
        for (bytes, placement) in batches {
            let batch = read(&written.bytes, *id, placement.offset)
                .unwrap()
                .unwrap();
            assert_eq!(batch.bytes(), bytes, "{id} at {}", placement.offset);
        }
    }
}

pub(crate) fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange::new(offset(start), offset(end)).unwrap()
}
