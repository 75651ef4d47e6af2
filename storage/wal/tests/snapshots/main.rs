//! Snapshots under load: three nodes on real disks in one process, many shards, entries as small as they
//! may be, checkpoints and purges so often that a node which comes back is never sent what it lacks as
//! entries. One after the other is stopped, or loses its disk and is replaced, while everybody writes.
//!
//! ```text
//!   writers ─► leaders ── entries ──► followers ◄─ stopped, gone
//!                 └─ checkpoint, purge ─► snapshots ─┘
//! ```
//! A few seconds in every test run. Long enough, at a rate that is judged:
//!
//! ```sh
//! ESKER_SNAPSHOT_SECONDS=600 cargo test --release -p esker-wal --test snapshots -- --nocapture
//! ```
//! It prints entries a second, snapshots built and installed, entries purged, and the most memory that the
//! process took; the rate is what two cores must do, and on how many it was is said, too.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "real time and real files; figures for who runs it"
)]

mod load; // who writes, and who flushes
mod node; // a node on a real disk
mod trouble; // nodes are stopped, and replaced
mod ways; // from node to node

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use esker_types::ShardId;

use node::Cluster;

/// Shards of every node.
const SHARDS: u32 = 16;
/// How long the load lasts, unless `ESKER_SNAPSHOT_SECONDS` says otherwise.
const SECONDS: u64 = 5;
/// Entries a second that raft must take all the while.
const RATE_MIN: f64 = 16_000.0;
/// On so many cores.
const CORES: usize = 2;
/// Time for anything that must happen, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(120);

fn shards() -> impl Iterator<Item = ShardId> {
    (1..=SHARDS).map(ShardId)
}

/// What has happened so far.
#[derive(Default)]
struct Counts {
    /// Entries that were acknowledged.
    entries: AtomicU64,
    /// Batches among them.
    batches: AtomicU64,
    /// Checkpoints made.
    built: AtomicU64,
    /// Snapshots that came to their end.
    installed: AtomicU64,
    /// Nodes that came back.
    returned: AtomicU64,
    /// Nodes that were replaced.
    replaced: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    fn say(&self, elapsed: Duration) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let rate = of(&self.entries) as f64 / elapsed.as_secs_f64();
        println!(
            "{:>5} s: {} entries, {rate:.0} a second; {} snapshots built, {} installed; {} nodes came back, \
             {} replaced; {} MiB of memory at most",
            elapsed.as_secs(),
            of(&self.entries),
            of(&self.built),
            of(&self.installed),
            of(&self.returned),
            of(&self.replaced),
            rss_max() >> 20,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_back_are_sent_snapshots_under_load_and_all_are_the_same() {
    let asked = std::env::var("ESKER_SNAPSHOT_SECONDS").ok();
    let seconds = asked
        .as_ref()
        .map_or(SECONDS, |text| text.parse().expect("seconds"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let more = if cores > CORES { ", which is more" } else { "" };
    println!("{RATE_MIN} entries a second are demanded of {CORES} cores; these are {cores}{more}");
    let counts = Arc::<Counts>::default();
    let mut cluster = Cluster::found(&counts).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = load::begin(&cluster.ways, &counts, &stop);

    let (began, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut told = Duration::ZERO;
    let mut rounds = 0;
    // Once at least, however slow the machine is.
    while began.elapsed() < time || rounds < 2 {
        trouble::round(&mut cluster, &counts, rounds).await;
        rounds += 1;
        if began.elapsed() > told {
            counts.say(began.elapsed());
            told = began.elapsed() + Duration::from_secs(10);
        }
    }
    let elapsed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut batches = 0;
    for writer in writers {
        batches += writer.await.expect("a writer");
    }
    cluster.converge(batches).await;
    counts.say(elapsed);
    let purged: Vec<_> = shards().map(|shard| cluster.purged(shard)).collect();
    println!("purged of each shard, by who purged least: {purged:?}");
    assert!(purged.iter().all(|purged| *purged > 0), "{purged:?}");
    assert!(counts.built.load(Ordering::Relaxed) > 0, "no checkpoint");
    let installed = counts.installed.load(Ordering::Relaxed);
    assert!(installed > 0, "nobody was sent a snapshot");
    assert!(counts.replaced.load(Ordering::Relaxed) > 0);
    let rate = counts.entries.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64();
    if asked.is_some() && !cfg!(debug_assertions) {
        assert!(
            rate >= RATE_MIN,
            "{rate:.0} entries a second on {cores} cores"
        );
    }
    cluster.end().await;
}

/// The most memory that this process took so far, in bytes.
fn rss_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a size").parse::<u64>().expect("a number") << 10
}
