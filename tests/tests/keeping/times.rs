//! A time is found without opening what was opened for one before.

use esker_cache::BlockCache;
use esker_log::{Engine, EngineOptions};
use esker_tests::node::{SHARD, World, run};
use esker_types::limits::MIB;
use esker_types::{Offset, Timestamp};

use super::{at, start};

/// Segments of the test.
const SEGMENTS: u64 = 60;
/// Requests that a time costs once segments are known: the one that has it is opened, halving
/// finds it again for the reader, and its block is read with what lies ahead.
const ANY_TIME: u64 = 12;

#[test]
fn only_the_first_search_for_a_time_opens_every_segment() {
    run(async {
        let kept = start(&mut World::new(71), "times-1").await;
        let (first, second) = (at(1, 0), at(1, 1));
        kept.put_topic(1, 1, &[]).await;
        // Records of a batch are a millisecond apart from 1000 on, so that each segment has one
        // that is later than all before.
        let (mut starts, mut end) = (Vec::new(), 0);
        let mut values = Vec::new();
        for _ in 0..SEGMENTS {
            values.push(vec![7; 50]);
            kept.node.append(first, &values).await;
            kept.node.append(second, &values).await;
            kept.flush().await;
            starts.push(end);
            end += values.len() as u64;
        }
        // It keeps one segment open at a time.
        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let (store, env) = (kept.store.clone(), kept.node.env.clone());
        let options = EngineOptions {
            opened_bytes: 1,
            ..EngineOptions::default()
        };
        let engine = Engine::new(kept.node.head(), store, env, blocks, options);
        let gets = || kept.store.counters().get.done;
        let cost = async |partition, late: u64| {
            let before = gets();
            let time = Timestamp(1000 + i64::try_from(late).expect("small"));
            let found = engine.readers().by_time(SHARD, partition, time).await;
            let found = found.expect("readable").map(Offset::get);
            let expected = starts.get(usize::try_from(late).expect("small"));
            assert_eq!(found, expected.map(|start| start + late), "{late}");
            gets() - before
        };
        let all = cost(first, SEGMENTS - 1).await;
        assert!((SEGMENTS..=SEGMENTS + ANY_TIME).contains(&all), "{all}");
        for late in [0, 1, 17, 40, SEGMENTS - 1] {
            for partition in [first, second] {
                let some = cost(partition, late).await;
                assert!(some <= ANY_TIME, "{some} for {late} of {partition}");
            }
        }
        assert_eq!(cost(first, SEGMENTS).await, 0, "nothing is that late");

        // What is flushed meanwhile is looked at, and nothing else.
        values.push(vec![7; 50]);
        kept.node.append(first, &values).await;
        kept.flush().await;
        let before = gets();
        let time = Timestamp(1000 + i64::try_from(SEGMENTS).expect("small"));
        let found = engine.readers().by_time(SHARD, first, time).await;
        assert_eq!(
            found.expect("readable").map(Offset::get),
            Some(end + SEGMENTS)
        );
        assert!(gets() - before <= ANY_TIME, "{}", gets() - before);
    });
}
