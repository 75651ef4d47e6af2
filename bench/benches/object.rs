//! The bucket: a segment PUT and read back, in memory, so that only our layers count.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_bench::noise;
use esker_env::Env;
use esker_object::{Key, Options, Store};
use esker_types::limits::MIB;
use esker_types::{Incarnation, Lane, RaftIndex, RaftRange, SegmentId, ShardId};
use tokio::runtime::Runtime;

const BYTES: usize = 16 * MIB;

fn object(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let env = Env::real();
    let store = Store::open("memory://bench", &Options::default(), &env).expect("memory");
    let key = Key::FlushedSegment {
        incarnation: Incarnation::FIRST,
        shard: ShardId(1),
        range: RaftRange::new(RaftIndex(0), RaftIndex(1)).expect("not empty"),
        id: SegmentId(7),
    };
    let parts = vec![noise(MIB); BYTES / MIB];
    let mut group = criterion.benchmark_group("object");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("put 16 MiB", |bench| {
        let put = || runtime.block_on(store.put(&key, parts.clone()));
        bench.iter(|| put().expect("memory takes it"));
    });
    group.throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("get 1 MiB of it", |bench| {
        let range = (MIB as u64)..(2 * MIB as u64);
        let get = || runtime.block_on(store.get_range(&key, range.clone(), Lane::Backfill));
        bench.iter(|| get().expect("it is there"));
    });
    group.finish();
}

criterion_group!(benches, object);
criterion_main!(benches);
