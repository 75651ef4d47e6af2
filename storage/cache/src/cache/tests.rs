use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_env::Env;
use esker_types::SegmentId;
use esker_types::limits::MIB;

use super::*;

mod disk; // the disk tier

type Cache = BlockCache<String>;

const BUDGET: usize = 32 * MIB;
const KEY: BlockKey = key(0);

const fn key(block: u32) -> BlockKey {
    BlockKey {
        segment: SegmentId(7),
        block,
    }
}

fn cache() -> Cache {
    Cache::in_memory(BUDGET, BUDGET).unwrap()
}

/// The true content of a block: `length` bytes that no other block has.
fn content(key: BlockKey, length: usize) -> Bytes {
    let seed = u64::from(key.block).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = seed.to_le_bytes().repeat(length.div_ceil(8));
    bytes.truncate(length);
    bytes.into()
}

async fn read(cache: &Cache, key: BlockKey, lane: Lane, length: usize) {
    let loader = move || async move { Ok(content(key, length)) };
    let bytes = cache.get_or_load(key, lane, loader).await.unwrap();
    assert!(bytes == content(key, length), "wrong bytes for {key:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_callers_at_once_make_one_load() {
    let cache = cache();
    let loads = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, loads) = (cache.clone(), Arc::clone(&loads));
            tokio::spawn(async move {
                let loader = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(Bytes::from_static(b"block"))
                };
                cache.get_or_load(KEY, Lane::Tail, loader).await
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "block");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let counters = cache.counters();
    assert_eq!(counters.loads, 1);
    assert_eq!(counters.coalesced + counters.memory_hits, 99);
    assert_eq!(cache.flights(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_everybody_who_waited_and_is_not_kept() {
    let cache = cache();
    let failing = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err("no such object".to_owned())
    };
    let (a, b) = tokio::join!(
        cache.get_or_load(KEY, Lane::Tail, failing),
        cache.get_or_load(KEY, Lane::Backfill, || async { unreachable!("it joins") }),
    );
    assert_eq!(a.unwrap_err(), "no such object");
    assert_eq!(b.unwrap_err(), "no such object");
    read(&cache, KEY, Lane::Tail, 10).await;
    let counters = cache.counters();
    assert_eq!((counters.loads, counters.load_failures), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels_nothing_for_the_others() {
    let cache = cache();
    let slow = |cache: Cache| {
        tokio::spawn(async move {
            let loader = || async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Bytes::from_static(b"block"))
            };
            cache.get_or_load(KEY, Lane::Tail, loader).await
        })
    };
    let first = slow(cache.clone());
    tokio::task::yield_now().await;
    let second = slow(cache.clone());
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(second.await.unwrap().unwrap(), "block");
    assert_eq!(cache.counters().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_everybody_left_ends_and_leaves_nothing_behind() {
    let cache = cache();
    let hanging = || async { std::future::pending().await };
    let wait = Duration::from_secs(1);
    let left = tokio::time::timeout(wait, cache.get_or_load(KEY, Lane::Tail, hanging)).await;
    assert!(left.is_err());
    assert_eq!(cache.flights(), 0);
    read(&cache, KEY, Lane::Tail, 10).await;
}

#[tokio::test]
async fn a_backfill_evicts_no_block_of_the_tail() {
    const BLOCK: usize = 256 * 1024;
    let cache = cache();
    // A quarter of the tail's budget, so that hashing into shards does not matter.
    let tail: Vec<_> = (0..32).map(key).collect();
    for &key in &tail {
        read(&cache, key, Lane::Tail, BLOCK).await;
    }
    // Ten times the budget of both lanes.
    for block in 1000..1000 + 2560 {
        read(&cache, key(block), Lane::Backfill, BLOCK).await;
    }
    let before = cache.counters();
    assert!(before.backfill_bytes <= BUDGET as u64, "{before:?}");
    for &key in &tail {
        read(&cache, key, Lane::Tail, BLOCK).await;
    }
    let after = cache.counters();
    assert_eq!(after.memory_hits - before.memory_hits, 32);
    assert_eq!(after.loads, before.loads);
}

#[tokio::test]
async fn a_tail_reader_takes_along_what_a_backfill_has() {
    let cache = cache();
    read(&cache, KEY, Lane::Backfill, 1000).await;
    assert_eq!(cache.counters().tail_bytes, 0);
    read(&cache, KEY, Lane::Tail, 1000).await;
    let counters = cache.counters();
    assert_eq!((counters.loads, counters.memory_hits), (1, 1));
    assert!(counters.tail_bytes >= 1000, "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tail_reader_that_joins_a_backfills_load_keeps_the_block() {
    let cache = cache();
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Bytes::from_static(b"block"))
    };
    let (a, b) = tokio::join!(
        cache.get_or_load(KEY, Lane::Backfill, slow),
        cache.get_or_load(KEY, Lane::Tail, || async { unreachable!("it joins") }),
    );
    assert_eq!(a, b);
    let counters = cache.counters();
    assert!(
        counters.tail_bytes > 0 && counters.backfill_bytes > 0,
        "{counters:?}"
    );
}

#[tokio::test]
async fn memory_stays_within_its_budget_and_a_giant_block_passes_through() {
    let cache = cache();
    for block in 0..200 {
        read(&cache, key(block), Lane::Tail, MIB).await;
    }
    assert!(cache.counters().tail_bytes <= BUDGET as u64);
    let before = cache.counters().tail_bytes;
    read(&cache, key(1000), Lane::Tail, 16 * MIB).await;
    let counters = cache.counters();
    assert_eq!((counters.oversized, counters.tail_bytes), (1, before));
}

#[tokio::test]
async fn the_same_calls_give_the_same_hits() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let cache = cache();
        for step in 0..600u32 {
            let lane = if step % 3 == 0 {
                Lane::Tail
            } else {
                Lane::Backfill
            };
            read(&cache, key(step * 37 % 151), lane, 300 * 1024).await;
        }
        runs.push(cache.counters());
    }
    assert_eq!(runs[0], runs[1]);
    assert!(
        runs[0].memory_hits > 0 && runs[0].loads > 151,
        "{:?}",
        runs[0]
    );
}

#[tokio::test]
async fn a_budget_that_keeps_nothing_is_refused() {
    let error = Cache::in_memory(MIB, BUDGET).unwrap_err();
    assert!(error.to_string().contains("tail_bytes"), "{error}");
}
