//! What a read costs does not grow with what is dead, or with what other partitions have.

use std::time::Duration;

use esker_cache::BlockCache;
use esker_log::{Engine, EngineOptions};
use esker_shard::ConfigChange;
use esker_tests::node::{SHARD, World, run};
use esker_types::limits::MIB;
use esker_types::{Lane, Offset, PartitionId};

use crate::{GRACE, Kept, at, days, pass, start};

/// Requests of a read of one or two batches whose segments are known: each is opened, its index
/// and its block are fetched, and so may what is looked at first.
const FEW: u64 = 12;

/// Reads `partition` from `from` to its end: how many records, and at how many GETs.
async fn read(kept: &Kept, engine: &Engine, partition: PartitionId, from: u64) -> (u64, u64) {
    let gets = || {
        let get = kept.store.counters().get;
        get.done + get.not_found
    };
    let before = gets();
    let from = Offset::new(from).expect("small");
    let readers = engine.readers();
    let reader = readers.open(SHARD, partition, from, Lane::Tail).await;
    let (mut reader, mut records) = (reader.expect("in range"), 0);
    loop {
        let chunk = reader.step().await.expect("readable");
        if chunk.batches.is_empty() {
            return (records, gets() - before);
        }
        records += chunk.batches.iter().map(|b| b.range.len()).sum::<u64>();
    }
}

/// An engine that keeps one segment open at a time.
fn forgetful(kept: &Kept) -> Engine {
    let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
    let (store, env) = (kept.store.clone(), kept.node.env.clone());
    let options = EngineOptions {
        opened_bytes: 1,
        ..EngineOptions::default()
    };
    Engine::new(kept.node.head(), store, env, blocks, options)
}

#[test]
fn what_retention_and_the_collector_took_away_costs_a_reader_nothing() {
    run(async {
        let mut kept = start(&mut World::new(81), "reads-1").await;
        let day = days(1) + Duration::from_secs(3600);
        kept.put_topic(1, 1, &[ConfigChange::Retention(Some(day))])
            .await;
        kept.put_topic(2, 1, &[]).await;
        // The oldest segment lives on for the sake of another topic.
        kept.append(at(2, 0), 1).await;
        for _ in 0..200 {
            kept.flush_one(at(1, 0)).await;
        }
        let engine = forgetful(&kept);
        assert_eq!(read(&kept, &engine, at(1, 0), 0).await.0, 200);
        assert_eq!(engine.readers().known_segments(), 200);
        let (_, early) = read(&kept, &engine, at(1, 0), 199).await;

        pass(days(3)).await;
        kept.flush_one(at(1, 0)).await;
        for _ in 0..3 {
            kept.retain().await;
        }
        kept.checkpoint().await.expect("something has changed");
        kept.collect().await;
        pass(GRACE + Duration::from_secs(1)).await;
        let deleted = kept.collect().await.deleted;
        assert!(deleted >= 198, "{deleted} deleted");

        let log_start = kept.log_start(at(1, 0));
        assert_eq!(log_start, 200);
        let (records, late) = read(&kept, &engine, at(1, 0), log_start).await;
        assert_eq!(records, 1);
        assert!(late <= early + FEW, "{late} GETs after {early}");
        let known = engine.readers().known_segments();
        assert_eq!(known, kept.manifest().len(), "and no more is kept");
        assert_eq!(read(&kept, &engine, at(2, 0), 0).await.0, 1);
    });
}

#[test]
fn a_quiet_partition_of_a_busy_shard_is_looked_for_once() {
    run(async {
        let kept = start(&mut World::new(82), "reads-2").await;
        let (quiet, busy) = (at(1, 0), at(1, 1));
        kept.put_topic(1, 1, &[]).await;
        kept.append(quiet, 1).await;
        for _ in 0..300 {
            kept.flush_one(busy).await;
        }
        kept.append(quiet, 1).await;
        for _ in 0..30 {
            kept.flush_one(busy).await;
        }
        let engine = forgetful(&kept);
        let (records, first) = read(&kept, &engine, quiet, 0).await;
        assert_eq!(records, 2);
        assert!(first <= 330 + FEW, "{first}");
        for _ in 0..5 {
            let (records, again) = read(&kept, &engine, quiet, 0).await;
            assert_eq!(records, 2);
            assert!(again <= FEW, "{again}");
            // What is looked at does not move with each segment that comes.
            kept.flush_one(busy).await;
        }
        let (records, end) = read(&kept, &engine, quiet, 1).await;
        assert_eq!(records, 1);
        assert!(end <= FEW, "{end}");
        // Who follows finds the end at once.
        let (records, tail) = read(&kept, &forgetful(&kept), busy, 334).await;
        assert_eq!(records, 1);
        assert!(tail <= 4, "{tail}");
    });
}
