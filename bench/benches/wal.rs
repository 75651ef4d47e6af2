//! The log on a real disk: entries queued together, so that groups come in several sizes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use esker_bench::noise;
use esker_env::Env;
use esker_types::{EntryId, RaftIndex, ShardId, Term};
use esker_wal::disk::{Body, Wal, WalOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const SHARD: ShardId = ShardId(1);

/// A log, and the entry that comes next.
struct Log {
    wal: Arc<Wal>,
    next: u64,
}

impl Log {
    /// Appends `count` entries at once and waits until all are synced; nobody needs them then.
    async fn append(&mut self, body: &Body, count: u64) {
        let first = self.next;
        self.next += count;
        let id = |index| EntryId {
            term: Term(1),
            index: RaftIndex(index),
        };
        let entries = (first..self.next).map(|index| (id(index), body.clone()));
        let (tell, synced) = oneshot::channel();
        let done = move |outcome| {
            // The bench waits for it below.
            let _ = tell.send(outcome);
        };
        self.wal.append(SHARD, entries, done).expect("they follow");
        synced.await.expect("it is told").expect("the disk works");
        let last = RaftIndex(self.next - 1);
        self.wal.purge(SHARD, id(last.0));
        self.wal.release(SHARD, last);
    }
}

fn wal(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    // In the folder that builds go to: what is temporary may lie in memory.
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let env = Env::real();
    let options = WalOptions::default();
    let opened = Wal::open(
        &env,
        scratch.path(),
        options,
        BTreeMap::new(),
        Arc::new(|_| {}),
    );
    let (wal, _) = runtime.block_on(opened).expect("an empty folder");
    let mut log = Log { wal, next: 1 };
    let mut group = criterion.benchmark_group("wal");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    for (name, bytes, count) in [
        ("1 entry of 4 KiB", 4 << 10, 1),
        ("16 entries of 4 KiB", 4 << 10, 16),
        ("4 entries of 64 KiB", 64 << 10, 4),
        ("4 entries of 256 KiB", 256 << 10, 4),
        ("4 entries of 1 MiB", 1 << 20, 4),
    ] {
        let body = Body::new(b"bench", vec![noise(bytes)]);
        group.throughput(Throughput::Bytes(bytes as u64 * count));
        group.bench_function(format!("append {name}"), |bench| {
            bench.iter(|| runtime.block_on(log.append(&body, count)));
        });
    }
    group.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
