//! A segment: written as a flush does, and its blocks read as a reader does.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_bench::{BATCH_BYTES, ZSTD, batch, lines};
use esker_record::codec::Decoder;
use esker_record::{Batch, Compression};
use esker_segment::{
    Assembler, BlockNumber, Opened, Opening, Origin, PartitionFacts, Placement, Sealer, Segment,
    Writer,
};
use esker_types::{
    ContentHash, Incarnation, LeaderEpoch, Offset, PartitionId, PartitionIndex, RaftIndex,
    RaftRange, SegmentId, ShardId, ShardTime, TopicId, TopicName,
};

/// Batches of the segment, over this many partitions.
const BATCHES: usize = 64;
const PARTITIONS: usize = 8;

fn origin() -> Origin {
    Origin {
        segment: SegmentId::from_parts(1_773_472_918_000, 7),
        incarnation: Incarnation::FIRST,
        shard: ShardId(1),
        raft: RaftRange::new(RaftIndex(0), RaftIndex(100)).expect("not empty"),
        final_offsets: true,
        zstd_level: esker_record::ZstdLevel::FAST,
    }
}

/// The object of `batches`, in order over the partitions.
fn write(batches: &[Batch]) -> Vec<Bytes> {
    let (mut writer, mut sealer) = (Writer::new(origin()), Sealer::new(origin().zstd_level));
    let (mut assembler, header) = Assembler::start();
    let mut object = vec![header];
    for (index, batches) in (0..).zip(batches.chunks(BATCHES / PARTITIONS)) {
        let facts = PartitionFacts {
            id: PartitionId {
                topic: TopicId::new(Incarnation::FIRST, 1).expect("small"),
                index: PartitionIndex(index),
            },
            topic: TopicName::new("logs").expect("a name"),
            start: Offset::ZERO,
            log_start: Offset::ZERO,
            fencing: None,
            producers: Vec::new(),
        };
        writer.begin(facts).expect("in order");
        let mut next = Offset::ZERO;
        for batch in batches {
            let placement = Placement {
                offset: next,
                leader_epoch: LeaderEpoch(1),
                append_time: ShardTime(1),
                hash: ContentHash(u128::from(next.get())),
                extensions: Vec::new(),
            };
            if let Some(block) = writer.push(batch, &placement).expect("it fits") {
                object.extend(assembler.push(block.seal(&mut sealer).expect("it fits")));
            }
            let records = u64::from(batch.header().records);
            next = next.checked_add(records).expect("few");
        }
    }
    let (last, index) = writer.finish().expect("it is not empty");
    object.extend(assembler.push(last.seal(&mut sealer).expect("it fits")));
    let (chunks, _) = assembler.finish(index, Vec::new()).expect("it fits");
    object.extend(chunks);
    object
}

fn open(object: &Bytes) -> Segment {
    let length = object.len() as u64;
    let mut opening = Opening::new(origin().segment, length).expect("it is long enough");
    loop {
        let bytes = get(object, opening.wants());
        match opening.take(bytes).expect("we made it") {
            Opened::Done(segment, _) => return segment,
            Opened::More(more) => opening = more,
        }
    }
}

fn get(object: &Bytes, range: std::ops::Range<u64>) -> Bytes {
    let at = |n| usize::try_from(n).expect("it is in memory");
    object.slice(at(range.start)..at(range.end))
}

fn segment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(20);
    for (name, compression) in [
        ("batches as zstd", ZSTD),
        ("plain batches", Compression::None),
    ] {
        let batches: Vec<_> = (0..BATCHES as u64)
            .map(|seed| batch(&lines(BATCH_BYTES, seed), compression))
            .collect();
        let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("write, {name}"), |bench| {
            bench.iter(|| write(&batches));
        });
        let object: Bytes = write(&batches).concat().into();
        let segment = open(&object);
        let mut decoder = Decoder::new();
        group.bench_function(format!("read, {name}"), |bench| {
            bench.iter(|| {
                for at in 0..segment.blocks().len() {
                    let number = BlockNumber(u32::try_from(at).expect("few"));
                    let span = segment.block_span(number..=number).expect("there is one");
                    let block = segment.decode_block(number, get(&object, span), &mut decoder);
                    black_box(block.expect("we made it"));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, segment);
criterion_main!(benches);
