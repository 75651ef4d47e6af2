//! Retention trims exactly what is due, and readers never meet a gap.

use std::time::Duration;

use esker_log::{ReadError, Retained, TimeState};
use esker_shard::{Command, ConfigChange, Outcome, Trim};
use esker_tests::node::{SHARD, World, run};
use esker_types::{Lane, Offset, PartitionId};

use crate::{Kept, at, days, key_of, pass, start};

impl Kept {
    pub(crate) async fn retain(&mut self) -> Retained {
        let round = self.retention.round(SHARD, TimeState::Runs).await;
        round.expect("retained")
    }

    /// Reads the partition from its log start on: dense, up to the end; below it, nothing.
    async fn reads_from(&self, partition: PartitionId, log_start: u64) {
        assert_eq!(self.log_start(partition), log_start, "{partition}");
        let readers = self.engine.readers();
        let offset = |number| Offset::new(number).expect("small");
        let open = |from| readers.open(SHARD, partition, offset(from), Lane::Tail);
        if let Some(below) = log_start.checked_sub(1) {
            match open(below).await {
                Err(ReadError::OutOfRange {
                    log_start: told, ..
                }) => {
                    assert_eq!(told.get(), log_start);
                }
                other => unreachable!("{other:?}"),
            }
        }
        let mut reader = open(log_start).await.expect("in range");
        let end = reader.bounds().end;
        let mut next = offset(log_start);
        loop {
            let chunk = reader.step().await.expect("readable");
            let Some(first) = chunk.batches.first() else {
                break;
            };
            assert_eq!(first.range.start(), next);
            next = chunk.next;
        }
        assert_eq!(next, end);
    }

    async fn trim(&self, partition: PartitionId, to: u64) {
        let trim = Trim {
            partition,
            to: Offset::new(to).expect("small"),
            planned_version: None,
        };
        let outcome = self.node.propose(Command::Trim(trim)).await;
        assert!(matches!(outcome, Outcome::Trimmed { .. }), "{outcome:?}");
    }
}

/// Days, and an hour for what appends and flushes themselves take.
fn for_days(number: u64) -> ConfigChange {
    ConfigChange::Retention(Some(days(number) + Duration::from_secs(3600)))
}

#[test]
fn by_age_what_is_older_goes_and_the_rest_stays() {
    run(async {
        let mut kept = start(&mut World::new(1), "retention-1").await;
        kept.put_topic(1, 1, &[for_days(2)]).await;
        kept.put_topic(2, 1, &[for_days(4)]).await;
        kept.put_topic(3, 1, &[]).await;
        // A segment a day, ten records of each partition.
        for _ in 0..6 {
            for topic in 1..=3 {
                kept.append(at(topic, 0), 10).await;
            }
            kept.flush().await;
            pass(days(1)).await;
        }
        let mut reader = {
            let readers = kept.engine.readers();
            let from = Offset::new(5).expect("small");
            readers
                .open(SHARD, at(1, 0), from, Lane::Tail)
                .await
                .expect("in range")
        };
        // The newest append is a day old by the clock, but shard time passes with appends alone:
        // segments are 0 to 5 days old to it.
        let done = kept.retain().await;
        assert_eq!((done.trimmed, done.outdated, done.removed), (2, 0, 0));
        kept.reads_from(at(1, 0), 30).await;
        kept.reads_from(at(2, 0), 10).await;
        kept.reads_from(at(3, 0), 0).await;
        assert_eq!(kept.retain().await, Retained::default());
        // A reader that stood below learns where the log starts, and misses nothing else.
        match reader.step().await {
            Ok(chunk) => assert_eq!(chunk.batches[0].range.start().get(), 5),
            Err(ReadError::OutOfRange { log_start, end, .. }) => {
                assert_eq!((log_start.get(), end.get()), (30, 60));
            }
            Err(other) => unreachable!("{other}"),
        }
        // Appends let time pass, and what is not flushed is never trimmed.
        pass(days(30)).await;
        kept.append(at(3, 0), 1).await;
        kept.append(at(1, 0), 5).await;
        assert_eq!(kept.retain().await.trimmed, 2);
        kept.reads_from(at(1, 0), 60).await;
        kept.reads_from(at(2, 0), 60).await;
        kept.reads_from(at(3, 0), 0).await;
    });
}

#[test]
fn while_shard_time_stands_nothing_is_trimmed() {
    run(async {
        let mut kept = start(&mut World::new(2), "retention-2").await;
        kept.put_topic(1, 1, &[for_days(1), ConfigChange::RetentionBytes(Some(0))])
            .await;
        kept.flush_one(at(1, 0)).await;
        pass(days(5)).await;
        kept.flush_one(at(1, 0)).await;
        let done = kept.retention.round(SHARD, TimeState::Stands).await;
        assert_eq!(done.expect("looked"), Retained::default());
        assert_eq!(kept.retain().await.trimmed, 1);
        assert_eq!(kept.log_start(at(1, 0)), 2);
    });
}

#[test]
fn by_bytes_the_newest_segments_that_are_enough_stay() {
    run(async {
        let mut kept = start(&mut World::new(3), "retention-3").await;
        // A batch of one such value has 61 bytes of header, and less than 20 around the value.
        let batch = 61 + 110;
        let limit = ConfigChange::RetentionBytes(Some(25 * batch));
        kept.put_topic(1, 1, &[limit]).await;
        kept.put_topic(2, 1, &[]).await;
        let mut batches = 0;
        for _ in 0..6 {
            kept.append(at(1, 0), 10).await;
            kept.append(at(1, 1), 3).await;
            kept.append(at(2, 0), 50).await;
            batches += kept.flush().await.summary.batches;
        }
        assert_eq!(batches, 6 * 63);
        // 60 batches, of which the newest 30 are enough, and the newest 20 are not; of the other
        // partition all 18 are not enough.
        let done = kept.retain().await;
        assert_eq!((done.trimmed, done.removed), (1, 0));
        kept.reads_from(at(1, 0), 30).await;
        kept.reads_from(at(1, 1), 0).await;
        kept.reads_from(at(2, 0), 0).await;
        assert_eq!(kept.retain().await.trimmed, 0);
        // One more segment makes one more due; the head does not count, and is not trimmed.
        kept.append(at(1, 0), 10).await;
        assert_eq!(kept.retain().await.trimmed, 0);
        kept.flush().await;
        assert_eq!(kept.retain().await.trimmed, 1);
        kept.reads_from(at(1, 0), 40).await;
        // A limit that comes later counts what was there before.
        kept.put_topic(2, 2, &[ConfigChange::RetentionBytes(Some(1))])
            .await;
        assert_eq!(kept.retain().await.trimmed, 1);
        kept.reads_from(at(2, 0), 250).await;
    });
}

#[test]
fn an_age_that_comes_later_reaches_what_was_walked_by() {
    run(async {
        let mut kept = start(&mut World::new(4), "retention-4").await;
        kept.put_topic(1, 1, &[for_days(1)]).await;
        kept.put_topic(2, 1, &[]).await;
        kept.append(at(2, 0), 4).await;
        kept.flush_one(at(1, 0)).await;
        pass(days(3)).await;
        kept.append(at(1, 0), 1).await;
        assert_eq!(kept.retain().await.trimmed, 1);
        kept.put_topic(2, 2, &[for_days(1)]).await;
        assert_eq!(kept.retain().await.trimmed, 1);
        kept.reads_from(at(2, 0), 4).await;
    });
}

#[test]
fn a_setting_that_changes_while_it_is_planned_by_is_planned_by_anew() {
    run(async {
        let mut kept = start(&mut World::new(5), "retention-5").await;
        kept.put_topic(1, 1, &[for_days(1)]).await;
        kept.append(at(1, 0), 10).await;
        kept.flush().await;
        pass(days(3)).await;
        kept.append(at(1, 0), 1).await;
        // The bucket is slow, so that the topic changes between the reading and the trim.
        let slow = esker_object::faults::Fault::Slow(Duration::from_secs(1));
        let rule = esker_object::faults::Rule::new(slow).on(esker_object::Verb::Get);
        kept.faults.script(rule);
        let change = {
            let node = &kept.node;
            let put = esker_shard::PutTopic {
                topic: crate::id(1),
                name: esker_types::TopicName::new("topic-1").expect("a name"),
                version: esker_types::TopicVersion(2),
                config: crate::config(&[for_days(1), ConfigChange::MaxBatchBytes(1000)]),
                partitions: vec![],
            };
            async move {
                pass(Duration::from_millis(500)).await;
                node.propose(Command::PutTopic(put)).await
            }
        };
        let round = kept.retention.round(SHARD, TimeState::Runs);
        let (round, outcome) = tokio::join!(round, change);
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
        let round = round.expect("retained");
        assert_eq!((round.trimmed, round.outdated), (0, 1));
        assert_eq!(kept.log_start(at(1, 0)), 0);
        assert_eq!(kept.retain().await.trimmed, 1);
        kept.reads_from(at(1, 0), 10).await;
    });
}

#[test]
fn a_segment_leaves_the_manifest_once_nothing_of_it_is_read() {
    run(async {
        let mut kept = start(&mut World::new(6), "retention-6").await;
        kept.put_topic(1, 1, &[]).await;
        kept.put_topic(2, 1, &[]).await;
        for _ in 0..4 {
            kept.append(at(1, 0), 10).await;
            kept.append(at(2, 0), 1).await;
            kept.flush().await;
        }
        let before = kept.manifest();
        assert_eq!(kept.retain().await.removed, 0);
        kept.trim(at(1, 0), 25).await;
        assert_eq!(kept.retain().await.removed, 0, "the other topic is read");
        kept.trim(at(2, 0), 3).await;
        assert_eq!(kept.retain().await.removed, 2, "the third holds 20 to 30");
        assert_eq!(kept.manifest(), before[2..]);
        kept.reads_from(at(1, 0), 25).await;
        kept.end_topic(1).await;
        assert_eq!(kept.retain().await.removed, 1);
        assert_eq!(kept.manifest(), before[3..]);
        kept.reads_from(at(2, 0), 3).await;
        kept.end_topic(2).await;
        assert_eq!(kept.retain().await.removed, 1);
        assert!(kept.manifest().is_empty());
    });
}

#[test]
fn a_segment_that_is_lost_stops_nothing_but_itself() {
    run(async {
        let mut kept = start(&mut World::new(7), "retention-7").await;
        kept.put_topic(1, 1, &[for_days(1)]).await;
        for _ in 0..3 {
            kept.flush_one(at(1, 0)).await;
        }
        let lost = key_of(&kept.manifest()[1]);
        kept.store.delete(&[lost]).await.remove(0).expect("deleted");
        pass(days(3)).await;
        kept.append(at(1, 0), 1).await;
        let done = kept.retain().await;
        assert_eq!((done.trimmed, done.removed), (1, 2));
        assert!(done.unreadable > 0);
        kept.reads_from(at(1, 0), 3).await;
        assert_eq!(kept.manifest().len(), 1, "what it held is not known");
    });
}
