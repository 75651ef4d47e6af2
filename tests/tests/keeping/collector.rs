//! What nothing names goes, by evidence alone.

use std::time::Duration;

use esker_log::{Error, KeepError, TimeState};
use esker_object::faults::{Fault, Rule};
use esker_object::{Key, Verb};
use esker_shard::{Command, Outcome, Trim};
use esker_tests::node::{SHARD, World, run};
use esker_types::{Incarnation, Offset, RaftIndex, SegmentId};

use crate::{
    GRACE, Kept, OURS, OWNER, at, flushed_key, gathered_key, id, key_of, over, pass, start,
};

const SECOND: Duration = Duration::from_secs(1);

impl Kept {
    /// A shard with a segment, a checkpoint, and a flush position above 2.
    async fn settled(&mut self) {
        self.put_topic(1, 1, &[]).await;
        self.append(at(1, 0), 5).await;
        self.flush().await;
        self.checkpoint().await.expect("there was none");
    }

    async fn collects(&mut self, deleted: usize) {
        let collected = self.collect().await;
        assert_eq!(collected.deleted, deleted, "{collected:?}");
    }

    async fn retained(&mut self) -> usize {
        let round = self.retention.round(SHARD, TimeState::Runs).await;
        round.expect("retained").removed
    }

    async fn trim_all(&self) {
        let partition = at(1, 0);
        let state = self.node.replica.state();
        let found = state.data().and_then(|data| data.partition(partition));
        let trim = Trim {
            partition,
            to: found.expect("there").end(),
            planned_version: None,
        };
        let _ = self.node.propose(Command::Trim(trim)).await;
    }
}

#[test]
fn an_orphan_goes_after_the_grace_and_not_before() {
    run(async {
        let mut kept = start(&mut World::new(1), "collector-1").await;
        kept.settled().await;
        // Two flushers at once: one leaves an orphan.
        kept.append(at(1, 0), 5).await;
        let (one, two) = (kept.flusher(), kept.flusher());
        let (one, two) = tokio::join!(
            one.flush(OWNER, SHARD, u64::MAX),
            two.flush(OWNER, SHARD, u64::MAX)
        );
        assert!(matches!(
            (&one, &two),
            (Ok(_), Err(Error::Refused { .. })) | (Err(Error::Refused { .. }), Ok(_))
        ));
        let before = kept.objects().await;
        kept.checkpoint().await.expect("flushed");
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        kept.collects(0).await;
        pass(SECOND).await;
        kept.collects(1).await;
        let after = kept.objects().await;
        assert_eq!(after.len() + 1, before.len());
        assert!(after.is_superset(&kept.named().await));
        pass(GRACE).await;
        kept.collects(0).await;
    });
}

#[test]
fn what_the_log_names_stays_however_old_it_is() {
    run(async {
        let mut kept = start(&mut World::new(2), "collector-2").await;
        kept.settled().await;
        for _ in 0..20 {
            kept.flush_one(at(1, 0)).await;
            kept.collects(0).await;
            pass(GRACE).await;
        }
        kept.checkpoint().await.expect("flushed");
        pass(GRACE).await;
        kept.collects(0).await;
        assert!(kept.objects().await.is_superset(&kept.named().await));
        assert_eq!(kept.named().await.len(), 21);
    });
}

#[test]
fn a_flush_that_sleeps_for_hours_is_not_robbed_of_its_segment() {
    run(async {
        let mut kept = start(&mut World::new(3), "collector-3").await;
        kept.settled().await;
        kept.append(at(1, 0), 5).await;
        // PUT, then asleep in the middle of the verification while the collector goes round. Its
        // requests may take 15 s, so the grace is shorter here.
        kept.collector = kept.collector.with_times(SECOND, 60 * SECOND);
        let rule = Rule::new(Fault::Slow(12 * SECOND))
            .on(Verb::Head)
            .under("00000000000000000001");
        kept.faults.script(rule);
        let flusher = kept.flusher();
        let flush = flusher.flush(OWNER, SHARD, u64::MAX);
        let collect = async {
            for _ in 0..10 {
                pass(SECOND).await;
                let collected = kept.collector.round().await.expect("ours");
                assert_eq!(collected.deleted, 0);
            }
        };
        let (flushed, ()) = tokio::join!(flush, collect);
        let key = flushed.expect("committed").expect("something").key;
        pass(60 * SECOND).await;
        kept.collects(0).await;
        assert!(kept.has(&key).await);
    });
}

#[test]
fn a_zombie_s_segment_stays_while_it_may_be_next_and_goes_after() {
    run(async {
        let mut kept = start(&mut World::new(4), "collector-4").await;
        kept.settled().await;
        let position = kept
            .node
            .replica
            .state()
            .data()
            .expect("data")
            .flush_position();
        let zombie = kept.litter(flushed_key(OURS, position, 7)).await;
        for _ in 0..3 {
            kept.collects(0).await;
            pass(GRACE).await;
        }
        kept.flush_one(at(1, 0)).await;
        // The checkpoint that is in the bucket would still let it in.
        for _ in 0..3 {
            kept.collects(0).await;
            pass(GRACE).await;
        }
        kept.checkpoint().await.expect("flushed");
        kept.collects(0).await;
        pass(GRACE).await;
        kept.collects(1).await;
        assert!(!kept.has(&zombie).await);
        // It wakes up, puts it there once more, and asks for it.
        kept.litter(zombie).await;
        kept.collects(0).await;
        pass(GRACE).await;
        kept.collects(1).await;
    });
}

#[test]
fn what_the_newest_checkpoint_names_stays_though_the_log_has_let_it_go() {
    run(async {
        let mut kept = start(&mut World::new(5), "collector-5").await;
        kept.settled().await;
        let segment = key_of(&kept.manifest()[0]);
        kept.trim_all().await;
        assert_eq!(kept.retained().await, 1);
        assert!(kept.manifest().is_empty());
        for _ in 0..3 {
            kept.collects(0).await;
            pass(GRACE).await;
        }
        assert!(kept.has(&segment).await);
        kept.checkpoint().await.expect("swapped");
        // Readers may have begun with the checkpoint a moment ago.
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        kept.collects(0).await;
        pass(SECOND).await;
        kept.collects(1).await;
        assert!(!kept.has(&segment).await);
    });
}

#[test]
fn without_a_good_checkpoint_and_while_an_older_one_stays_nothing_goes() {
    run(async {
        let mut kept = start(&mut World::new(6), "collector-6").await;
        kept.put_topic(1, 1, &[]).await;
        kept.append(at(1, 0), 5).await;
        kept.flush().await;
        let orphan = kept.litter(flushed_key(OURS, RaftIndex(1), 7)).await;
        for _ in 0..3 {
            kept.collects(0).await;
            pass(GRACE).await;
        }
        kept.checkpoint().await.expect("there was none");
        kept.collects(0).await;
        pass(GRACE).await;
        // Damaged and newer.
        let damaged = Key::Checkpoint {
            incarnation: OURS,
            shard: SHARD,
            index: kept.node.replica.state().applied().index,
            id: SegmentId(u128::MAX),
        };
        kept.litter(damaged).await;
        let collected = kept.collector.round().await.expect("ours");
        assert!(
            matches!(collected.troubles[..], [KeepError::Damaged { key, .. }] if key == damaged)
        );
        assert_eq!((collected.deleted, collected.older), (0, 0));
        kept.store
            .delete(&[damaged])
            .await
            .remove(0)
            .expect("deleted");
        // A good one, and an older one that cannot be deleted.
        let older = Key::Checkpoint {
            incarnation: OURS,
            shard: SHARD,
            index: RaftIndex(1),
            id: SegmentId(1),
        };
        kept.litter(older).await;
        let rule = Rule::new(Fault::FailBefore)
            .on(Verb::Delete)
            .under(older)
            .always();
        kept.faults.script(rule);
        let collected = kept.collector.round().await.expect("ours");
        assert!(
            matches!(collected.troubles[..], [KeepError::OlderStays { key, .. }] if key == older)
        );
        assert_eq!(collected.deleted, 0);
        assert!(kept.has(&orphan).await);
        kept.faults.calm();
        pass(60 * SECOND).await;
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.older), (1, 1));
        assert!(!kept.has(&orphan).await);
    });
}

#[test]
fn another_life_s_objects_stay() {
    run(async {
        let mut kept = start(&mut World::new(7), "collector-7").await;
        kept.settled().await;
        let other = Incarnation::new(2).expect("a second");
        let theirs = kept.litter(flushed_key(other, RaftIndex(1), 7)).await;
        let ours = kept.litter(flushed_key(OURS, RaftIndex(1), 8)).await;
        kept.collects(0).await;
        pass(GRACE).await;
        kept.collects(1).await;
        assert!(kept.has(&theirs).await && !kept.has(&ours).await);
    });
}

#[test]
fn a_round_that_runs_out_of_time_starts_no_delete_and_the_next_goes_on() {
    run(async {
        let mut kept = start(&mut World::new(8), "collector-8").await;
        kept.settled().await;
        let mut orphans = Vec::new();
        for number in 0..64 {
            orphans.push(kept.litter(flushed_key(OURS, RaftIndex(1), number)).await);
        }
        kept.collects(0).await;
        pass(GRACE).await;
        // Sixteen at a time, two seconds each: the third batch is cut short.
        kept.collector = kept.collector.with_times(GRACE, 5 * SECOND);
        kept.faults
            .script(Rule::new(Fault::Slow(2 * SECOND)).on(Verb::Delete).always());
        let deletes = |kept: &Kept| {
            let of = kept.store.counters().delete;
            of.done + of.not_found + of.failed + of.abandoned
        };
        let before = deletes(&kept);
        let collected = kept.collect().await;
        assert!(collected.out_of_time);
        assert_eq!(collected.deleted, 32);
        assert_eq!(deletes(&kept) - before, 48);
        pass(60 * SECOND).await;
        assert_eq!(deletes(&kept) - before, 48, "nothing goes on by itself");
        let collected = kept.collect().await;
        assert_eq!(collected.deleted, 32);
        let collected = kept.collect().await;
        assert!(!collected.out_of_time);
        let left = kept.objects().await;
        assert!(
            !orphans
                .iter()
                .any(|orphan| left.contains(&orphan.to_string()))
        );
    });
}

#[test]
fn a_collector_that_begins_anew_grants_the_grace_anew() {
    run(async {
        let mut kept = start(&mut World::new(9), "collector-9").await;
        kept.settled().await;
        kept.litter(flushed_key(OURS, RaftIndex(1), 7)).await;
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        let mut kept = over(kept.node, kept.store, kept.faults);
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        kept.collects(0).await;
        pass(SECOND).await;
        kept.collects(1).await;
    });
}

#[test]
fn a_delete_that_fails_is_tried_again() {
    run(async {
        let mut kept = start(&mut World::new(10), "collector-10").await;
        kept.settled().await;
        let orphans = [1, 2, 3].map(|number| flushed_key(OURS, RaftIndex(1), number));
        for orphan in orphans {
            kept.litter(orphan).await;
        }
        kept.collects(0).await;
        pass(GRACE).await;
        let rule = Rule::new(Fault::FailBefore)
            .on(Verb::Delete)
            .under(orphans[1]);
        kept.faults.script(rule.always());
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.failed), (2, 1));
        kept.faults.calm();
        // Somebody else was faster: what is not there counts as deleted, or is not seen.
        kept.store
            .delete(&[orphans[1]])
            .await
            .remove(0)
            .expect("deleted");
        pass(60 * SECOND).await;
        kept.faults
            .script(Rule::new(Fault::StaleList).on(Verb::List).always());
        let collected = kept.collect().await;
        assert_eq!(collected.failed, 0);
        kept.faults.calm();
        kept.collects(0).await;
    });
}

#[test]
fn what_a_swap_would_have_named_is_forbidden_first() {
    run(async {
        let mut kept = start(&mut World::new(11), "collector-11").await;
        kept.settled().await;
        let plan = kept.node.replica.state().applied().index;
        let (base, id_of) = (Offset::ZERO, SegmentId);
        let partition = at(1, 0);
        let products = [
            gathered_key(SHARD, plan, 1),
            Key::PartitionSegment {
                incarnation: OURS,
                partition,
                plan,
                base,
                id: id_of(2),
            },
            Key::ManifestPage {
                incarnation: OURS,
                partition,
                plan,
                base,
                id: id_of(3),
            },
        ];
        let nobody_s = Key::PartitionSegment {
            incarnation: OURS,
            partition: at(77, 0),
            plan,
            base,
            id: id_of(4),
        };
        for key in products.into_iter().chain([nobody_s]) {
            kept.litter(key).await;
        }
        let boundary = |kept: &Kept| {
            let state = kept.node.replica.state();
            state.data().expect("data").gc_boundary()
        };
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        kept.collects(0).await;
        assert_eq!(boundary(&kept), RaftIndex::ZERO, "it may be proposed yet");
        pass(SECOND).await;
        kept.collects(0).await;
        assert_eq!(boundary(&kept), plan);
        pass(GRACE).await;
        kept.collects(0).await;
        kept.checkpoint().await.expect("the boundary has moved");
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.unplaced), (3, 1));
        assert!(kept.has(&nobody_s).await);
    });
}

#[test]
fn a_deleted_topic_leaves_nothing_and_its_tombstone_goes_last() {
    run(async {
        let mut kept = start(&mut World::new(12), "collector-12").await;
        kept.put_topic(1, 1, &[]).await;
        kept.put_topic(2, 1, &[]).await;
        kept.append(at(1, 0), 5).await;
        kept.append(at(2, 0), 5).await;
        let mixed = kept.flush().await.key;
        let alone = kept.flush_one(at(1, 1)).await.key;
        kept.checkpoint().await.expect("there was none");
        kept.end_topic(1).await;
        let tombstones = |kept: &Kept| {
            let state = kept.node.replica.state();
            state.data().expect("data").tombstones().count()
        };
        assert_eq!(kept.retained().await, 1, "the mixed one is still read");
        kept.checkpoint().await.expect("changed");
        kept.collects(0).await;
        pass(GRACE).await;
        kept.collects(1).await;
        assert!(!kept.has(&alone).await && kept.has(&mixed).await);
        assert_eq!(tombstones(&kept), 1, "the mixed one holds ranges of it");
        // The other topic ends as well: its segment leaves the manifest, and the bucket.
        kept.end_topic(2).await;
        assert_eq!(kept.retained().await, 1);
        kept.checkpoint().await.expect("changed");
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.tombstones), (0, 0));
        assert_eq!(tombstones(&kept), 2, "{mixed} is still there");
        pass(GRACE).await;
        // Orphans that came later tell nothing of them, and hold nothing back.
        kept.litter(flushed_key(OURS, RaftIndex(1), 9)).await;
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.tombstones), (1, 2));
        assert_eq!(tombstones(&kept), 0);
        assert!(!kept.has(&mixed).await);
        kept.checkpoint().await.expect("changed");
        let ended = Command::DropTombstone {
            topic: id(1),
            plan_index: RaftIndex(1),
        };
        assert_eq!(kept.node.propose(ended).await, Outcome::TombstoneDropped);
        pass(GRACE).await;
        kept.collects(1).await;
        let left = kept.objects().await;
        assert_eq!(left.len(), 2, "claim and checkpoint: {left:?}");
    });
}

#[test]
fn tombstones_go_as_long_as_a_round_may_last_and_the_next_goes_on() {
    run(async {
        let mut kept = start(&mut World::new(29), "collector-29").await;
        for topic in 1..=20 {
            kept.put_topic(topic, 1, &[]).await;
            kept.end_topic(topic).await;
        }
        kept.checkpoint().await.expect("there was none");
        // Each is looked for in the bucket, which takes a second.
        kept.collector = kept.collector.with_times(GRACE, 15 * SECOND);
        kept.faults
            .script(Rule::new(Fault::Slow(SECOND)).on(Verb::List).always());
        let first = kept.collect().await;
        assert!(first.out_of_time && first.tombstones < 15, "{first:?}");
        let second = kept.collect().await;
        assert_eq!(first.tombstones + second.tombstones, 20);
    });
}

#[test]
fn a_segment_flushed_with_a_topic_that_ended_holds_its_tombstone() {
    run(async {
        let mut kept = start(&mut World::new(13), "collector-13").await;
        kept.settled().await;
        kept.trim_all().await;
        kept.append(at(1, 0), 1).await;
        // Removed after the round has read the tombstones, seen by the next round only: the
        // tombstone must wait for it all the same.
        let segment = key_of(&kept.manifest()[0]);
        kept.end_topic(1).await;
        kept.collects(0).await;
        assert_eq!(kept.retained().await, 1);
        kept.checkpoint().await.expect("changed");
        for _ in 0..2 {
            let collected = kept.collect().await;
            assert_eq!((collected.deleted, collected.tombstones), (0, 0));
        }
        pass(GRACE).await;
        let collected = kept.collect().await;
        assert_eq!((collected.deleted, collected.tombstones), (1, 1));
        assert!(!kept.has(&segment).await);
    });
}

#[test]
fn what_probes_left_goes_after_the_grace() {
    run(async {
        let mut kept = start(&mut World::new(14), "collector-14").await;
        let left = kept.litter(Key::Probe(SegmentId(1))).await;
        kept.collects(0).await;
        pass(GRACE - SECOND).await;
        let young = kept.litter(Key::Probe(SegmentId(2))).await;
        kept.collects(0).await;
        pass(SECOND).await;
        kept.collects(1).await;
        assert!(!kept.has(&left).await && kept.has(&young).await);
    });
}
