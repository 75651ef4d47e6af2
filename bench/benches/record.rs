//! A record batch: built by a producer, checked by an agent, decoded by a reader.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_bench::{BATCH_BYTES, ZSTD, batch, lines, total};
use esker_record::{Builder, Compression, Depth, NewRecord, Records, Rules, Scratch, admit};
use esker_types::Timestamp;
use esker_types::limits::BATCH_BYTES_MAX;

fn record(criterion: &mut Criterion) {
    let lines = lines(BATCH_BYTES, 1);
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Bytes(total(&lines)));
    for (name, compression) in [("plain", Compression::None), ("zstd", ZSTD)] {
        let mut builder = Builder::new(compression, BATCH_BYTES_MAX);
        group.bench_function(format!("build, {name}"), |bench| {
            bench.iter(|| {
                for line in &lines {
                    let record = NewRecord::value(Timestamp(1_773_472_918_000), line);
                    builder.push(&record).expect("there is room");
                }
                builder.finish(None).expect("there is room")
            });
        });
        let (batch, mut scratch) = (batch(&lines, compression), Scratch::new(4 << 20));
        let rules = Rules {
            batch_bytes_max: BATCH_BYTES_MAX,
            depth: Depth::Deep,
        };
        group.bench_function(format!("check, {name}"), |bench| {
            bench.iter(|| {
                let checked = admit(batch.bytes().clone(), &rules, &mut scratch);
                checked.expect("we made it")
            });
        });
        group.bench_function(format!("decode, {name}"), |bench| {
            bench.iter(|| {
                let plain = scratch.decode_owned(&batch).expect("we made it");
                let records = Records::new(batch.header(), &plain);
                let values = records.map(|record| record.expect("we made it").value);
                black_box(values.flatten().map(<[u8]>::len).sum::<usize>())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
