//! Everything at once, over a bucket with bad days: nothing that is named is ever deleted.

use std::time::Duration;

use esker_env::sim::SeededEntropy;
use esker_log::TimeState;
use esker_object::Key;
use esker_object::faults::Fault;
use esker_shard::ConfigChange;
use esker_tests::node::{SHARD, World, run};
use esker_types::RaftIndex;

use crate::{GRACE, Kept, OURS, OWNER, at, days, flushed_key, pass, start};

/// With a bucket that is well for the moment: what is named is there.
async fn check(kept: &Kept, seed: u64, step: usize) {
    let (named, there) = (kept.named().await, kept.objects().await);
    let lost: Vec<_> = named.difference(&there).collect();
    assert!(lost.is_empty(), "seed {seed}, step {step}: {lost:?}");
}

#[test]
fn nothing_named_is_ever_deleted_and_in_the_end_nothing_else_is_left() {
    for seed in 0..12 {
        run(async {
            let random = SeededEntropy::new(seed);
            let mut kept = start(&mut World::new(seed), &format!("order-{seed}")).await;
            kept.put_topic(1, 1, &[ConfigChange::Retention(Some(days(1) / 24))])
                .await;
            kept.put_topic(2, 1, &[ConfigChange::RetentionBytes(Some(3000))])
                .await;
            kept.put_topic(3, 1, &[]).await;
            let mut number = 0;
            for step in 0..120 {
                kept.faults.random(
                    seed << 32 | step as u64,
                    &[
                        (Fault::FailBefore, 60),
                        (Fault::ApplyThenFail, 60),
                        (Fault::ApplyLate, 60),
                        (Fault::StaleList, 100),
                        (Fault::CorruptBody, 30),
                        (Fault::ShortBody, 30),
                        (Fault::Lose, 20),
                    ],
                );
                match random.below(9) {
                    0 | 1 => {
                        let (topic, index) = (1 + random.below(3), random.below(3));
                        let index = u32::try_from(index).expect("small");
                        kept.append(at(topic, index), 1 + random.below(8)).await;
                    }
                    2 | 3 => drop(kept.flusher().flush(OWNER, SHARD, u64::MAX).await),
                    4 => drop(kept.checkpoints.round(SHARD).await),
                    5 => drop(kept.retention.round(SHARD, TimeState::Runs).await),
                    6 => drop(kept.collector.round().await),
                    7 => pass(GRACE / (1 + u32::try_from(random.below(4)).expect("small"))).await,
                    _ => {
                        let applied = kept.node.replica.state().applied().index;
                        number += 1;
                        let from = RaftIndex(random.below(applied.0 + 3));
                        kept.faults.calm();
                        kept.litter(flushed_key(OURS, from, number)).await;
                    }
                }
                kept.faults.calm();
                kept.faults.release().await;
                pass(Duration::from_secs(61)).await;
                check(&kept, seed, step).await;
            }
            settle(&mut kept, seed).await;
        });
    }
}

/// Calm days: what is left in the end is what is named.
async fn settle(kept: &mut Kept, seed: u64) {
    for _ in 0..4 {
        kept.flush_one(at(3, 0)).await;
        let retained = kept.retention.round(SHARD, TimeState::Runs).await;
        retained.expect("a calm day");
        kept.checkpoint().await;
        kept.collect().await;
        pass(GRACE).await;
        kept.collect().await;
    }
    let named = kept.named().await;
    let position = kept
        .node
        .replica
        .state()
        .data()
        .expect("data")
        .flush_position();
    for object in kept.objects().await {
        let may_be_next = match Key::parse(&object) {
            Some(Key::FlushedSegment { range, .. }) => range.from >= position,
            Some(Key::Checkpoint { .. } | Key::Cluster { .. }) => true,
            _ => false,
        };
        assert!(
            named.contains(&object) || may_be_next,
            "seed {seed}: {object}"
        );
    }
    assert!(kept.store.counters().delete.done > 0);
}
