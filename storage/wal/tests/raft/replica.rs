//! A single voter: what it takes, joins, and refuses.

use esker_types::limits::GIB;
use esker_types::{Durability, Incarnation, ProducerId, ProducerStamp};
use esker_wal::{AppendRefusal, Share};

use super::world::{Node, SHARD, World, accepted, batch, payload, run};

#[test]
fn appends_get_dense_offsets_and_survive_a_restart() {
    run(async {
        let mut world = World::new(1);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        for number in 0..50 {
            assert_eq!(accepted(node.append(number, 1000).await), number);
        }
        let before = (node.replica.state(), node.head().await);
        node.stop().await;
        let node = world.start().await.expect("it comes back");
        let read = node.head().await;
        assert_eq!(read.len(), 50);
        assert_eq!(read, before.1);
        let (was, is) = (
            before.0.data().cloned(),
            node.replica.state().data().cloned(),
        );
        assert_eq!(was, is);
        // A retry of what was acked before the restart gets its old offset.
        assert_eq!(accepted(node.append(48, 1000).await), 48);
        assert_eq!(accepted(node.append(50, 1000).await), 50);
    });
}

#[test]
fn appends_that_wait_share_entries_and_syncs() {
    run(async {
        let mut world = World::new(2);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let (applied, groups) = (node.replica.state().applied(), node.wal.stats().groups);
        let mut answers = Vec::new();
        for number in 0..500 {
            let queued = node
                .appender
                .append(batch(number, 100), payload(number, 100))
                .await;
            answers.push(queued.expect("admitted"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(
                accepted(answer.await),
                number,
                "answered in the order of the calls"
            );
        }
        let entries = node.replica.state().applied().index.0 - applied.index.0;
        let groups = node.wal.stats().groups - groups;
        assert!(
            entries <= 20 && groups <= 20,
            "{entries} entries, {groups} groups for 500 appends"
        );
    });
}

#[test]
fn an_append_that_fits_no_group_is_refused_and_many_that_fit_are_not_joined_past_it() {
    run(async {
        let mut world = World::new(7);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let refusal = node
            .append(0, 64 << 10)
            .await
            .expect_err("larger than a group");
        assert_eq!(refusal.durability(), Durability::NotWritten);
        assert!(
            refusal
                .to_string()
                .contains("the limit of this WAL is 57344"),
            "{refusal}"
        );
        // Together they are many times what a group holds, and they all wait at the same time.
        let mut answers = Vec::new();
        for number in 0..300 {
            let bytes = if number % 3 == 0 { 20_000 } else { 50 };
            let queued = node
                .appender
                .append(batch(number, bytes), payload(number, bytes))
                .await;
            answers.push(queued.expect("admitted"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(accepted(answer.await), number);
        }
    });
}

#[test]
fn a_full_head_is_refused_with_both_numbers_and_a_flush_lets_appends_on() {
    run(async {
        let mut world = World::new(3);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        node.appender.set_share(Share::of(20_000));
        let mut number = 0;
        let refusal = loop {
            match node.append(number, 3000).await {
                Ok(_) => number += 1,
                Err(refusal) => break refusal,
            }
            assert!(number < 100);
        };
        assert_eq!(refusal.durability(), Durability::NotWritten);
        assert!(
            matches!(refusal, AppendRefusal::HeadFull { share: 20_000, .. }),
            "{refusal}"
        );
        assert_eq!(number, 6);
        node.flush().await.expect("there is a head");
        assert_eq!(accepted(node.append(number, 3000).await), number);

        // Small batches fill a head by their number.
        node.appender.set_share(Share {
            batches: 3,
            ..Share::of(GIB)
        });
        for _ in 0..2 {
            number += 1;
            accepted(node.append(number, 10).await);
        }
        let refusal = node.append(number + 1, 10).await.expect_err("crowded");
        let crowded = AppendRefusal::HeadCrowded {
            shard: SHARD,
            batches: 3,
            share: 3,
        };
        assert_eq!(refusal, crowded, "{refusal}");
    });
}

/// Producers come and go by the million; what a shard keeps of each goes into every checkpoint.
#[test]
fn a_producer_too_many_is_refused_before_it_is_written_and_those_that_are_known_go_on() {
    run(async {
        let mut world = World::new(8);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let by = |of: Option<u64>, number| {
            let mut batch = batch(number, 10);
            let id = |of| ProducerId::new(Incarnation::FIRST, of).expect("a small sequence");
            batch.producer = match (batch.producer, of) {
                (Some(stamp), Some(of)) => Some(ProducerStamp {
                    id: id(of),
                    ..stamp
                }),
                _ => None,
            };
            let payload = payload(number, 10);
            async { node.appender.append(batch, payload).await?.await }
        };
        node.appender.set_share(Share {
            producers: 2,
            ..Share::of(GIB)
        });
        assert_eq!(accepted(by(Some(1), 0).await), 0);
        assert_eq!(accepted(by(Some(2), 0).await), 1);
        let last = node.wal.bounds(SHARD).last;
        let refusal = by(Some(3), 0).await.expect_err("one too many");
        let full = AppendRefusal::ProducersFull {
            shard: SHARD,
            producers: 2,
            limit: 2,
        };
        assert_eq!(refusal, full, "{refusal}");
        assert_eq!(refusal.durability(), Durability::NotWritten);
        assert_eq!(node.wal.bounds(SHARD).last, last, "nothing was proposed");

        assert_eq!(accepted(by(Some(2), 1).await), 2);
        assert_eq!(accepted(by(Some(1), 0).await), 0, "a duplicate");
        assert_eq!(accepted(by(None, 0).await), 3);
        node.appender.set_share(Share::of(GIB));
        assert_eq!(accepted(by(Some(3), 0).await), 4, "the same once more");

        // Counted again from what is on disk.
        let count = |node: &Node| node.replica.state().data().expect("data").producer_count();
        assert_eq!(count(&node), 3);
        node.replica.checkpoint().await.expect("it has room");
        node.stop().await;
        let node = world.start().await.expect("it comes back");
        assert_eq!(count(&node), 3);
    });
}
