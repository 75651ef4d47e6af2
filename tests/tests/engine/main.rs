//! The whole engine: topics, appends and reads, wherever what is read lies at the moment.

mod full; // what has no room
mod memory; // what is held, and for whom
mod reading; // from the head, from the bucket, by time
mod sharing; // a head with others
mod topics; // ended, and changed half-way
mod verifying; // more that is wrong than one message holds

use std::sync::Arc;

use esker_cache::BlockCache;
use esker_env::sim::{Crash, SeededEntropy};
use esker_log::{Engine, EngineOptions};
use esker_object::Prefix;
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole};
use esker_types::Incarnation;
use esker_types::limits::MIB;

type Values = Vec<(u64, Vec<u8>)>;

/// A second engine over the same bucket, with `head` in the place of the node's.
fn engine_over(whole: &Whole, head: Hooked, options: EngineOptions) -> Engine {
    let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
    let (store, env) = (whole.engine.store().clone(), whole.env.clone());
    Engine::new(Arc::new(head), store, env, blocks, options)
}

/// Segments in the bucket, whether anything names them or not.
async fn flushed_objects(whole: &Whole) -> usize {
    let mut objects = 0;
    for shard in whole.engine.head().shards() {
        let prefix = Prefix::Flushed(Incarnation::FIRST, shard);
        let listed = whole.engine.store().list_all(prefix).await;
        objects += listed.expect("listed").0.len();
    }
    objects
}

/// Appends `count` batches over three partitions; what each must read back as.
async fn load(whole: &Whole, random: &SeededEntropy, count: u64, expected: &mut [Values; 3]) {
    for number in 0..count {
        let partition = usize::try_from(random.below(3)).expect("small");
        let lines = 1 + random.below(30);
        let line = |at| format!("line {at} of batch {number}, laid down by the stream. ").repeat(4);
        let values: Vec<_> = (0..lines).map(|at| line(at).into_bytes()).collect();
        let index = u32::try_from(partition).expect("small");
        let done = whole.append("gravel", index, &values, None).await;
        let done = done.expect("appended");
        assert!(!done.duplicate);
        let first = done.range.start().get();
        expected[partition].extend((first..).zip(values));
    }
}

async fn all_reads_back(whole: &Whole, expected: &[Values; 3]) {
    for (index, expected) in (0..).zip(expected) {
        assert_eq!(whole.read("gravel", index, 0).await, *expected, "{index}");
        let middle = expected.len() / 2;
        let from = middle as u64;
        let rest = whole.read("gravel", index, from).await;
        assert_eq!(rest, expected[middle..], "{index} from {from}");
    }
}

#[test]
fn what_is_appended_reads_back_from_head_bucket_and_both_and_after_restarts() {
    run(async {
        let mut site = Site::new(11);
        let random = SeededEntropy::new(11);
        let mut expected = [Values::new(), Values::new(), Values::new()];
        let mut whole = site.start().await.expect("started");
        whole.create("gravel", 3).await;
        for round in 0..4 {
            load(&whole, &random, 120, &mut expected).await;
            all_reads_back(&whole, &expected).await;
            let flushed = whole.engine.flush_now().await.expect("flushed");
            assert!(flushed.segments > 0 || round > 0);
            for index in 0..3 {
                let bounds = whole.reader("gravel", index, 0).await.bounds();
                assert_eq!(bounds.tiered_end, bounds.end);
            }
            all_reads_back(&whole, &expected).await;
            load(&whole, &random, 40, &mut expected).await;
            all_reads_back(&whole, &expected).await;
            if round % 2 == 0 {
                whole.close().await;
            } else {
                drop(whole);
                site.disk.crash(Crash::PowerCut);
            }
            whole = site.start().await.expect("started again");
            all_reads_back(&whole, &expected).await;
        }
    });
}
