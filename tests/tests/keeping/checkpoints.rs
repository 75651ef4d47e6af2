//! The bucket has one good checkpoint of a shard, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use esker_log::{Checkpointer, ClaimError, KeepError, Mark, Progress};
use esker_object::faults::{Fault, Rule};
use esker_object::{Counters, Key, Prefix, Verb};
use esker_shard::Command;
use esker_tests::hooked::Hooked;
use esker_tests::node::{SHARD, World, run};
use esker_types::{RaftIndex, SegmentId, ShardTime};

use crate::{CLUSTER, GRACE, Kept, OURS, OWNER, at, over, pass, start};

const MINUTE: Duration = Duration::from_secs(60);

async fn listed(kept: &Kept) -> Vec<Key> {
    let prefix = Prefix::Checkpoints(OURS, SHARD);
    let (listed, _) = kept.store.list_all(prefix).await.expect("listed");
    listed.into_iter().map(|object| object.key).collect()
}

#[test]
fn a_checkpoint_is_written_when_something_has_changed_and_time_has_passed() {
    run(async {
        let mut kept = start(&mut World::new(1), "checkpoints-1").await;
        kept.checkpoints = kept.checkpoints.due_after(MINUTE, 3);
        kept.put_topic(1, 1, &[]).await;
        let first = kept.checkpoint().await.expect("there was none");
        assert_eq!(kept.checkpoint().await, None);
        // What is not flushed, and time alone, are no change.
        kept.append(at(1, 0), 5).await;
        let time = ShardTime(kept.node.replica.state().time().0 + 1);
        let _ = kept.node.propose(Command::Tick { time }).await;
        pass(2 * MINUTE).await;
        assert_eq!(kept.checkpoint().await, None);
        kept.flush().await;
        assert_eq!(kept.checkpoint().await, None, "it looked a moment ago");
        pass(MINUTE).await;
        let second = kept.checkpoint().await.expect("flushed, and old");
        assert_eq!(listed(&kept).await, [second], "{first} is deleted");
        // Segments make one due out of turn.
        for segments in 1..=3 {
            kept.flush_one(at(1, 0)).await;
            assert_eq!(kept.checkpoint().await.is_some(), segments == 3);
        }
        let newest = kept.newest_checkpoint().await.expect("there");
        let ours = kept.node.replica.state();
        assert_eq!(newest.state.data(), ours.data());
        assert_eq!(newest.state.applied(), ours.applied());
    });
}

#[test]
fn a_life_begins_with_what_the_one_before_left() {
    run(async {
        let mut kept = start(&mut World::new(2), "checkpoints-2").await;
        kept.put_topic(1, 1, &[]).await;
        kept.flush_one(at(1, 0)).await;
        let first = kept.checkpoint().await.expect("there was none");
        let mut kept = over(kept.node, kept.store, kept.faults);
        assert_eq!(kept.checkpoint().await, None, "nothing has changed");
        assert_eq!(listed(&kept).await, [first]);
        kept.flush_one(at(1, 0)).await;
        assert!(kept.checkpoint().await.is_some());
    });
}

#[test]
fn an_older_one_goes_only_once_a_newer_one_is_verified() {
    run(async {
        let mut kept = start(&mut World::new(3), "checkpoints-3").await;
        kept.put_topic(1, 1, &[]).await;
        kept.flush_one(at(1, 0)).await;
        let first = kept.checkpoint().await.expect("there was none");
        for fault in [Fault::CorruptBody, Fault::ShortBody, Fault::Lose] {
            kept.flush_one(at(1, 0)).await;
            kept.faults.script(Rule::new(fault).on(Verb::Put));
            let error = kept.checkpoints.round(SHARD).await.expect_err("found out");
            assert!(matches!(error, KeepError::NotStored { .. }), "{error}");
            assert!(kept.has(&first).await, "{fault:?}");
        }
        let good = kept.checkpoint().await.expect("at once");
        assert_eq!(listed(&kept).await, [good]);
        assert_eq!(kept.checkpoint().await, None);

        kept.flush_one(at(1, 0)).await;
        kept.faults
            .script(Rule::new(Fault::ApplyLate).on(Verb::Put).times(6));
        let error = kept.checkpoints.round(SHARD).await.expect_err("no answer");
        assert!(matches!(error, KeepError::Bucket { .. }), "{error}");
        assert_eq!(listed(&kept).await, [good]);
        assert!(kept.faults.release().await > 0);
        let newest = kept.checkpoint().await.expect("verified this time");
        assert_eq!(listed(&kept).await, [newest]);
    });
}

#[test]
fn an_older_one_that_stays_is_tried_again_though_nothing_changes() {
    run(async {
        let mut kept = start(&mut World::new(4), "checkpoints-4").await;
        kept.put_topic(1, 1, &[]).await;
        let first = kept.checkpoint().await.expect("there was none");
        kept.flush_one(at(1, 0)).await;
        kept.faults
            .script(Rule::new(Fault::FailBefore).on(Verb::Delete).times(6));
        let error = kept.checkpoints.round(SHARD).await.expect_err("it stays");
        assert!(
            matches!(error, KeepError::OlderStays { key, .. } if key == first),
            "{error}"
        );
        assert_eq!(listed(&kept).await.len(), 2);
        assert_eq!(kept.checkpoint().await, None);
        let left = listed(&kept).await;
        assert!(left.len() == 1 && left != [first], "{left:?}");
    });
}

#[test]
fn a_damaged_one_is_replaced_at_once_by_one_that_lies_above_it() {
    run(async {
        let mut kept = start(&mut World::new(5), "checkpoints-5").await;
        kept.put_topic(1, 1, &[]).await;
        kept.flush_one(at(1, 0)).await;
        let index = kept.node.replica.state().applied().index;
        let damaged = |index| Key::Checkpoint {
            incarnation: OURS,
            shard: SHARD,
            index,
            id: SegmentId(u128::MAX - 1),
        };
        kept.litter(damaged(index)).await;
        let good = kept.checkpoint().await.expect("at once");
        assert!(good.to_string() > damaged(index).to_string());
        assert_eq!(listed(&kept).await, [good]);
        // One that is ahead of all that was ever committed is another's: nothing is written.
        let ahead = kept.litter(damaged(RaftIndex(index.0 + 1000))).await;
        let mut kept = over(kept.node, kept.store, kept.faults);
        let error = kept
            .checkpoints
            .round(SHARD)
            .await
            .expect_err("ahead of us");
        assert!(matches!(error, KeepError::Ahead { .. }), "{error}");
        assert_eq!(listed(&kept).await, [good, ahead]);
    });
}

#[test]
fn one_that_is_ahead_of_an_older_directory_is_told_about_and_never_replaced() {
    run(async {
        let mut kept = start(&mut World::new(7), "checkpoints-7").await;
        kept.put_topic(1, 1, &[]).await;
        kept.append(at(1, 0), 100).await;
        kept.flush().await;
        let newest = kept.checkpoint().await.expect("there was none");
        // The directory as it was long before: it has a claim, and next to no entries.
        let older = World::new(70).start().await.expect("a node");
        let mut kept = over(older, kept.store, kept.faults);
        let before = kept.store.counters();
        kept.put_topic(1, 1, &[]).await;
        for round in 0..150 {
            kept.append(at(1, 0), 1).await;
            let error = kept.checkpoints.round(SHARD).await.expect_err("ahead");
            assert!(matches!(error, KeepError::Ahead { .. }), "{round}: {error}");
            // Another one may have its turn, and this one again: it stays so.
            kept.checkpoints.forget(SHARD);
            let error = kept.checkpoints.watch(SHARD).await.expect_err("ahead");
            assert!(matches!(error, KeepError::Ahead { .. }), "{round}: {error}");
        }
        assert!(kept.node.replica.state().applied().index.0 > 140);
        let after = kept.store.counters();
        let changed = |of: &Counters| (of.put.done, of.delete.done);
        assert_eq!(changed(&after), changed(&before));
        assert_eq!(listed(&kept).await, [newest]);
    });
}

#[test]
fn nothing_is_collected_by_a_checkpoint_that_is_ahead_of_an_older_directory() {
    run(async {
        let mut kept = start(&mut World::new(8), "checkpoints-8").await;
        kept.put_topic(1, 1, &[]).await;
        kept.append(at(1, 0), 100).await;
        kept.flush().await;
        let newest = kept.checkpoint().await.expect("there was none");
        let older = Key::Checkpoint {
            incarnation: OURS,
            shard: SHARD,
            index: RaftIndex(1),
            id: SegmentId(1),
        };
        kept.litter(older).await;
        let before = kept.objects().await;
        let node = World::new(80).start().await.expect("a node");
        let mut kept = over(node, kept.store, kept.faults);
        kept.put_topic(1, 1, &[]).await;
        for _ in 0..3 {
            let collected = kept.collector.round().await.expect("ours");
            let told = &collected.troubles[..];
            assert!(matches!(told, [KeepError::Ahead { .. }]), "{told:?}");
            pass(GRACE).await;
        }
        assert_eq!(kept.objects().await, before);
        assert_eq!(listed(&kept).await, [older, newest]);
    });
}

#[test]
fn a_head_that_has_yet_to_apply_what_it_has_is_no_older_directory() {
    run(async {
        let mut kept = start(&mut World::new(9), "checkpoints-9").await;
        kept.put_topic(1, 1, &[]).await;
        kept.checkpoint().await.expect("there was none");
        // It has just begun, and has applied nothing.
        let mut head = Hooked::over(kept.node.head());
        head.stands = Box::new(|progress| {
            let mark = Mark {
                index: RaftIndex::ZERO,
                ..progress.mark
            };
            Progress { mark, ..progress }
        });
        let (store, env) = (kept.store.clone(), kept.node.env.clone());
        let mut checkpoints = Checkpointer::new(Arc::new(head), store, env, OWNER);
        let done = checkpoints.round(SHARD).await.expect("nothing is ahead");
        assert_eq!(done, None, "and nothing is new");
    });
}

#[test]
fn nothing_is_written_to_a_bucket_that_is_another_life_s() {
    run(async {
        let mut kept = start(&mut World::new(6), "checkpoints-6").await;
        kept.put_topic(1, 1, &[]).await;
        let next = Key::Cluster {
            incarnation: OURS.next().expect("a second"),
            cluster: CLUSTER,
        };
        kept.litter(next).await;
        let error = kept.checkpoints.round(SHARD).await.expect_err("over");
        assert!(error.ends_us(), "{error}");
        let error = kept.collector.round().await.expect_err("over");
        assert!(matches!(
            error,
            KeepError::Claim(ClaimError::Superseded { .. })
        ));
        assert!(listed(&kept).await.is_empty());
    });
}
