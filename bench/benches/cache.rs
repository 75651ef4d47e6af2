//! The block cache: a block that is there, and one that must be loaded.

use std::convert::Infallible;

use criterion::{Criterion, criterion_group, criterion_main};
use esker_bench::noise;
use esker_cache::{BlockCache, BlockKey};
use esker_types::limits::MIB;
use esker_types::{Lane, SegmentId};
use tokio::runtime::Runtime;

fn cache(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let cache = BlockCache::<Infallible>::in_memory(128 * MIB, 64 * MIB).expect("large enough");
    let block = noise(MIB);
    let mut next = 0;
    let get = |number, lane| {
        let key = BlockKey {
            segment: SegmentId(7),
            block: number,
        };
        let loaded = block.clone();
        let load = move || async move { Ok(loaded) };
        runtime
            .block_on(cache.get_or_load(key, lane, load))
            .expect("it never fails")
    };
    let mut group = criterion.benchmark_group("cache");
    group.bench_function("hit", |bench| bench.iter(|| get(0, Lane::Tail)));
    group.bench_function("load", |bench| {
        bench.iter(|| {
            next += 1;
            get(next, Lane::Backfill)
        });
    });
    group.finish();
}

criterion_group!(benches, cache);
criterion_main!(benches);
