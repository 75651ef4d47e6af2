//! From an append to the bucket, and the head let go: what is flushed is read back from the bucket
//! alone, whatever the bucket does meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use esker_env::sim::SeededEntropy;
use esker_log::{Checkpointer, Error, Flusher, HeadError, Owner, claim, confirm};
use esker_object::faults::{Fault, FaultStore, Rule};
use esker_object::{Key, Options, Prefix, Store, Verb};
use esker_record::ZstdLevel;
use esker_shard::{Command, Outcome};
use esker_tests::bucket::{self, Values};
use esker_tests::hooked::Hooked;
use esker_tests::node::{self, Node, SHARD, World, partition, run};
use esker_types::{
    ClusterId, Incarnation, Lane, PartitionId, ProducerEpoch, ProducerId, ProducerStamp, SegmentId,
    Sequence, ShardId,
};
use esker_wal::KeeperOptions;

const ALL: u64 = u64::MAX;

const OWNER: Owner = Owner {
    cluster: ClusterId(0xfeed),
    incarnation: Incarnation::FIRST,
};

async fn bucket_of(node: &Node, name: &str) -> (Store, FaultStore) {
    let url = format!("memory://{name}");
    let opened = Store::open_with_faults(&url, &Options::default(), &node.env);
    let (store, faults) = opened.expect("a bucket");
    let claimed = claim(&store, OWNER.cluster, OWNER.incarnation).await;
    claimed.expect("nobody else has it");
    (store, faults)
}

fn flusher(node: &Node, store: &Store) -> Flusher {
    let level = ZstdLevel::new(1).expect("a level");
    Flusher::new(node.head(), store.clone(), node.env.clone(), level)
}

/// Appends `count` batches of a few lines over three partitions; what each must read back as.
async fn load(node: &Node, random: &SeededEntropy, count: u64) -> BTreeMap<PartitionId, Values> {
    let mut expected: BTreeMap<_, Values> = BTreeMap::new();
    for number in 0..count {
        let partition = partition(u32::try_from(random.below(3)).expect("small"));
        let line = |at| format!("line {at} of batch {number}, gravel laid down by the stream ");
        let lines = 1 + random.below(40);
        let values: Vec<_> = (0..lines)
            .map(|at| line(at).repeat(3).into_bytes())
            .collect();
        let first = node.append(partition, &values).await;
        expected
            .entry(partition)
            .or_default()
            .extend((first..).zip(values));
    }
    expected
}

/// Everything that the shard's manifest names, read from the bucket.
async fn tiered(node: &Node, store: &Store) -> BTreeMap<PartitionId, Values> {
    let state = node.replica.state();
    let mut all: BTreeMap<_, Values> = BTreeMap::new();
    for segment in state.data().expect("a data shard").manifest() {
        let (incarnation, range, id) = (segment.incarnation, segment.raft, segment.segment);
        let key = Key::FlushedSegment {
            incarnation,
            shard: SHARD,
            range,
            id,
        };
        for (partition, values) in bucket::records(store, &key, id).await {
            all.entry(partition).or_default().extend(values);
        }
    }
    all
}

#[test]
fn what_is_flushed_is_in_the_bucket_and_the_wal_lets_go_of_it() {
    run(async {
        let mut world = World::new(1);
        let node = world.start().await.expect("a fresh node");
        let (store, _) = bucket_of(&node, "flush-1").await;
        node.put_topic(3).await;
        let expected = load(&node, &SeededEntropy::new(1), 300).await;
        let flusher = flusher(&node, &store);
        let mut segments = 0;
        while let Some(flushed) = flusher
            .flush(OWNER, SHARD, 256 << 10)
            .await
            .expect("flushed")
        {
            segments += 1;
            assert_eq!(flushed.flush_position, flushed.raft.to);
        }
        assert!(segments > 2, "{segments} segments");
        let state = node.replica.state();
        for (_, partition) in state.data().expect("a data shard").partitions() {
            assert_eq!(partition.tiered_end(), partition.end());
        }
        assert_eq!(tiered(&node, &store).await, expected);

        // The head is let go once a durable checkpoint knows of it, and not before.
        assert!(node.wal.oldest(SHARD).is_some());
        let mut keeper = node.keeper(KeeperOptions {
            age: Duration::ZERO,
            ..Default::default()
        });
        for _ in 0..3 {
            keeper.turn().await.expect("kept");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let held = node.wal.oldest(SHARD);
        assert!(
            held.is_none_or(|index| index > state.applied().index),
            "{held:?} is still held"
        );
        node.replica.close().await;

        let node = world.start().await.expect("it comes back");
        assert_eq!(node.replica.state().data(), state.data());
        assert_eq!(tiered(&node, &store).await, expected);
        assert_eq!(flusher_again(&node, &store).await, None);
    });
}

async fn flusher_again(node: &Node, store: &Store) -> Option<u64> {
    let flushed = flusher(node, store)
        .flush(OWNER, SHARD, ALL)
        .await
        .expect("nothing to do");
    flushed.map(|flushed| flushed.summary.batches)
}

#[test]
fn a_bucket_that_stores_something_else_is_found_out_and_the_head_keeps_everything() {
    run(async {
        let mut world = World::new(2);
        let node = world.start().await.expect("a fresh node");
        let (store, faults) = bucket_of(&node, "flush-2").await;
        node.put_topic(3).await;
        let expected = load(&node, &SeededEntropy::new(2), 50).await;
        let before = node.replica.state();
        for fault in [Fault::CorruptBody, Fault::ShortBody, Fault::Lose] {
            faults.script(Rule::new(fault).on(Verb::Put));
            let error = flusher(&node, &store)
                .flush(OWNER, SHARD, ALL)
                .await
                .expect_err("found out");
            assert!(
                matches!(error, Error::NotStored { .. }),
                "{fault:?}: {error}"
            );
            let state = node.replica.state();
            assert_eq!(state.data(), before.data(), "{fault:?} moved something");
        }
        // An answer that is lost after the effect is no harm: the key is this flush's alone.
        faults.script(Rule::new(Fault::ApplyThenFail).on(Verb::Put));
        flusher(&node, &store)
            .flush(OWNER, SHARD, ALL)
            .await
            .expect("flushed")
            .expect("something");
        assert_eq!(tiered(&node, &store).await, expected);
    });
}

#[test]
fn a_flush_waits_behind_no_reader_of_history_however_many_there_are() {
    run(async {
        let mut world = World::new(8);
        let node = world.start().await.expect("a fresh node");
        let (store, faults) = bucket_of(&node, "flush-8").await;
        node.put_topic(3).await;
        load(&node, &SeededEntropy::new(8), 50).await;
        let old = Key::Probe(SegmentId(1));
        store.put(&old, vec![vec![7; 9].into()]).await.expect("put");
        let slow = Rule::new(Fault::Slow(Duration::from_secs(10))).on(Verb::Get);
        faults.script(slow.under(old).always());
        let readers: Vec<_> = (0..300)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.get_range(&old, 0..9, Lane::Backfill).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let flushed = flusher(&node, &store).flush(OWNER, SHARD, ALL).await;
        assert!(flushed.expect("flushed").is_some());
        let head = node.head();
        let mut checkpoints = Checkpointer::new(head, store.clone(), node.env.clone(), OWNER);
        let written = checkpoints.round(SHARD).await;
        assert!(written.expect("written").is_some());
        confirm(&store, OWNER.cluster, OWNER.incarnation)
            .await
            .expect("ours");
        let done = readers.iter().filter(|reader| reader.is_finished()).count();
        assert_eq!(done, 0, "readers that were waited for");
        for reader in readers {
            reader.await.expect("no panic").expect("read");
        }
    });
}

#[test]
fn of_two_flushers_one_commits_and_the_other_leaves_an_orphan() {
    run(async {
        let mut world = World::new(3);
        let node = world.start().await.expect("a fresh node");
        let (store, _) = bucket_of(&node, "flush-3").await;
        node.put_topic(3).await;
        let expected = load(&node, &SeededEntropy::new(3), 50).await;
        let (one, other) = (flusher(&node, &store), flusher(&node, &store));
        let (one, other) =
            tokio::join!(one.flush(OWNER, SHARD, ALL), other.flush(OWNER, SHARD, ALL));
        let outcomes = [one, other].map(|outcome| match outcome {
            Ok(Some(_)) => "committed",
            Err(Error::Refused { .. }) => "refused",
            other => unreachable!("{other:?}"),
        });
        assert!(
            outcomes.contains(&"committed") && outcomes.contains(&"refused"),
            "{outcomes:?}"
        );
        assert_eq!(tiered(&node, &store).await, expected);
        let elsewhere = flusher(&node, &store)
            .flush(OWNER, ShardId(9), ALL)
            .await
            .expect_err("no shard");
        assert!(
            matches!(elsewhere, Error::Head(HeadError::NoShard { .. })),
            "{elsewhere}"
        );
    });
}

#[test]
fn a_topic_deleted_while_it_is_flushed_costs_a_new_plan_and_no_failure() {
    // Once planned, before it is read; once it is in the bucket, before it is committed.
    for (call, segments) in [("accepted", 0), ("propose", 1)] {
        run(async move {
            let mut world = World::new(4);
            let node = Arc::new(world.start().await.expect("a fresh node"));
            let (store, _) = bucket_of(&node, &format!("flush-4-{call}")).await;
            node.put_topic(3).await;
            load(&node, &SeededEntropy::new(4), 30).await;
            let mut head = Hooked::over(node.head());
            let (deleter, once) = (Arc::clone(&node), Arc::new(AtomicBool::new(true)));
            head.before = Box::new(move |called| {
                let due = called == call && once.swap(false, Ordering::Relaxed);
                let node = Arc::clone(&deleter);
                Box::pin(async move {
                    if due {
                        let version = esker_types::TopicVersion(2);
                        let topic = esker_tests::node::topic();
                        let ended = node.propose(Command::EndTopic { topic, version });
                        assert!(!matches!(ended.await, Outcome::Refused(_)));
                    }
                })
            });
            let level = ZstdLevel::new(1).expect("a level");
            let flusher = Flusher::new(Arc::new(head), store.clone(), node.env.clone(), level);
            let flushed = flusher.flush(OWNER, SHARD, ALL).await;
            let flushed = flushed.expect("nobody hears of it");
            assert_eq!(flushed.iter().count(), segments, "{call}: {flushed:?}");
            assert_eq!(node.replica.state().head_size().batches, 0);
            let prefix = Prefix::Flushed(Incarnation::FIRST, SHARD);
            let page = store.list(prefix, None).await.expect("listed");
            assert_eq!(page.objects.len(), segments, "{call}");
        });
    }
}

#[test]
fn a_run_that_lacks_what_lies_in_its_midst_costs_a_new_plan() {
    run(async {
        let mut world = World::new(7);
        let node = world.start().await.expect("a fresh node");
        let (store, _) = bucket_of(&node, "flush-7").await;
        node.put_topic(3).await;
        load(&node, &SeededEntropy::new(7), 30).await;
        let expected = node.replica.state().head_size().batches;
        let mut head = Hooked::over(node.head());
        // Parts of one job are answered at different times.
        let once = AtomicBool::new(true);
        head.runs = Box::new(move |mut run| {
            if once.swap(false, Ordering::Relaxed) {
                run.batches.remove(run.batches.len() / 2);
            }
            run
        });
        let level = ZstdLevel::new(1).expect("a level");
        let flusher = Flusher::new(Arc::new(head), store.clone(), node.env.clone(), level);
        let flushed = flusher.flush(OWNER, SHARD, ALL).await.expect("flushed");
        let flushed = flushed.expect("there is something");
        assert!(expected > 6, "one of three has a midst");
        assert_eq!(flushed.summary.ranges.len(), 3);
        assert_eq!(node.replica.state().head_size().batches, 0);
    });
}

#[test]
fn a_segment_tells_the_windows_of_its_own_batches_however_much_came_after() {
    run(async {
        let mut world = World::new(6);
        let node = world.start().await.expect("a fresh node");
        let (store, _) = bucket_of(&node, "flush-6").await;
        node.put_topic(1).await;
        let id = ProducerId::new(Incarnation::FIRST, 7).expect("a small sequence");
        for sequence in 0..20 {
            let sequence = Sequence::from_i32(sequence).expect("small");
            let stamp = ProducerStamp {
                id,
                epoch: ProducerEpoch::FIRST,
                sequence,
            };
            let values = [b"a line".repeat(20).clone()];
            let (batch, bytes) = node::batch(partition(0), &values, Some(stamp));
            let answer = node.appender.append(batch, bytes).await.expect("admitted");
            answer.await.expect("accepted");
        }
        let flusher = flusher(&node, &store);
        let mut next = 0;
        while let Some(flushed) = flusher.flush(OWNER, SHARD, 1500).await.expect("flushed") {
            let key = &flushed.key;
            let partitions = bucket::partitions(&store, key, flushed.summary.segment).await;
            let [partition] = &partitions[..] else {
                unreachable!("one partition")
            };
            let [window] = &partition.producers[..] else {
                unreachable!("one producer")
            };
            next += partition.range.len();
            let sequences: Vec<_> = window
                .marks
                .iter()
                .map(|mark| mark.sequence.as_i32())
                .collect();
            let last = i32::try_from(next).expect("small");
            let first =
                (last - 5).max(i32::try_from(partition.range.start().get()).expect("small"));
            assert_eq!(sequences, (first..last).collect::<Vec<_>>());
        }
        assert_eq!(next, 20);
    });
}

#[test]
fn every_acked_record_reaches_a_bucket_that_fails_three_times_in_ten() {
    for seed in 0..20 {
        run(async {
            let mut world = World::new(seed);
            let node = world.start().await.expect("a fresh node");
            let (store, faults) = bucket_of(&node, &format!("flush-5-{seed}")).await;
            node.put_topic(3).await;
            let random = SeededEntropy::new(seed);
            let mut expected: BTreeMap<PartitionId, Values> = BTreeMap::new();
            let flusher = flusher(&node, &store);
            let mut failures = 0;
            faults.random(
                seed,
                &[
                    (Fault::FailBefore, 60),
                    (Fault::Throttle, 60),
                    (Fault::ApplyThenFail, 60),
                    (Fault::ApplyLate, 40),
                    (Fault::CorruptBody, 30),
                    (Fault::ShortBody, 30),
                    (Fault::Lose, 20),
                ],
            );
            for _ in 0..10 {
                for (partition, values) in load(&node, &random, 10).await {
                    expected.entry(partition).or_default().extend(values);
                }
                failures += u32::from(flusher.flush(OWNER, SHARD, 64 << 10).await.is_err());
                faults.release().await;
            }
            faults.calm();
            // A breaker that opened gives the bucket some rest first.
            tokio::time::sleep(Duration::from_secs(60)).await;
            while flusher
                .flush(OWNER, SHARD, ALL)
                .await
                .expect("calm")
                .is_some()
            {}
            assert_eq!(
                tiered(&node, &store).await,
                expected,
                "seed {seed}, {failures} failures"
            );
            assert!(faults.injected() > 0);
        });
    }
}
