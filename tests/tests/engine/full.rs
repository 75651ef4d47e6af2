//! A head, a disk and a manifest that are full, and what goes on all the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use esker_env::sim::SeededEntropy;
use esker_env::{Entropy as _, Files as _};
use esker_log::{AppendError, EngineOptions, HeadError, Progress, TopicError};
use esker_shard::{Command, CommitRefusal, Outcome, RequestId, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::limits::{ENTRIES_IN_FLIGHT, MIXED_SEGMENTS_MAX};
use esker_types::{Durability, PartitionIndex, RaftRange};
use futures::future::try_join_all;

use crate::{engine_over, flushed_objects};

#[test]
fn a_bucket_that_is_away_fills_the_head_and_what_was_acked_drains_when_it_is_back() {
    run(async {
        let mut site = Site::new(15);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.faults.away(true);
        let values: Vec<_> = (0..100).map(|_| vec![7; 1000]).collect();
        let mut acked = 0;
        let refusal = loop {
            match whole.append("gravel", 0, &values, None).await {
                Ok(appended) => acked = appended.range.end().get(),
                Err(error) => break error,
            }
            assert!(acked < 10_000_000, "the head has a bound");
        };
        assert!(
            matches!(
                refusal,
                AppendError::Head(HeadError::HeadFull { .. } | HeadError::DiskFull { .. })
            ),
            "{refusal}"
        );
        assert_eq!(refusal.durability(), Durability::NotWritten);
        whole.faults.away(false);
        whole.engine.flush_now().await.expect("it drains");
        let appended = whole
            .append("gravel", 0, &values, None)
            .await
            .expect("there is room");
        assert_eq!(appended.range.start().get(), acked);
        assert_eq!(whole.read("gravel", 0, 0).await.len() as u64, acked + 100);
    });
}

/// A topic that the catalog has, and none of its shards.
async fn half_created(whole: &Whole, name: &str) {
    let mut head = Hooked::over(Arc::clone(whole.engine.head()));
    head.answer = Box::new(|shard, command| {
        let what = "somebody else leads".to_owned();
        matches!(command, Command::PutTopic(_)).then_some(Err(HeadError::NotLeader {
            shard,
            leader: None,
            what,
        }))
    });
    let engine = engine_over(whole, head, EngineOptions::default());
    let (topics, name) = (engine.topics(), topic(name));
    let created = topics.create(RequestId(77), &name, 1, TopicConfig::default());
    let error = created.await.expect_err("no shard takes it");
    assert!(matches!(error, TopicError::Partly { .. }), "{error}");
}

#[test]
fn a_topic_is_deleted_though_the_disk_is_full() {
    run(async {
        let mut site = Site::new(19);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.create("kept", 1).await;
        half_created(&whole, "half").await;
        whole.faults.away(true);
        // Somebody else takes what is free.
        let capacity = 1 << 40;
        site.disk.set_capacity(capacity);
        let free = site.disk.space(Path::new("/")).expect("told").free;
        site.disk.set_capacity(capacity - free);
        let values: Vec<_> = (0..100).map(|_| vec![7; 1000]).collect();
        let mut refused = 0;
        // Smaller ones find room a while longer.
        for count in [100, 10, 1] {
            for _ in 0..1000 {
                let full = whole.append("gravel", 0, &values[..count], None).await;
                if let Err(error) = full {
                    let full = matches!(error, AppendError::Head(HeadError::DiskFull { .. }));
                    assert!(full, "{error}");
                    refused += 1;
                    break;
                }
            }
        }
        assert_eq!(refused, 3, "there is an end to the disk");
        let read = whole.read("gravel", 0, 0).await.len();
        assert!(read > 100, "{read} records are there");
        // Who comes anew knows no topic yet, and may not write a word.
        let head = Hooked::over(Arc::clone(whole.engine.head()));
        let engine = engine_over(&whole, head, EngineOptions::default());
        let found = engine.topics().find(&topic("gravel")).await;
        assert_eq!(found.expect("found").partitions(), 1);
        // One that no shard has heard of yet is not put there in order to be ended.
        for name in ["gravel", "half"] {
            let deleted = whole.engine.topics().delete(&topic(name)).await;
            deleted.expect("what makes room gets through");
        }
        site.disk.set_capacity(capacity);
        whole.faults.away(false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let done = whole.append("kept", 0, &values, None).await;
        done.expect("there is room again");
    });
}

#[test]
fn a_shard_that_takes_no_more_segments_is_told_about_and_is_asked_less_and_less() {
    run(async {
        let mut site = Site::new(16);
        site.flush.age = Duration::from_secs(1);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.stop_flushing();
        let line = [b"a line".to_vec()];
        let done = whole.append("gravel", 0, &line, None).await;
        done.expect("appended");

        let asked = Arc::new(AtomicU64::new(0));
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        let count = Arc::clone(&asked);
        head.answer = Box::new(move |_, command| {
            matches!(command, Command::CommitSegment(_)).then(|| {
                // One that would be asked without pause ends here.
                assert!(count.fetch_add(1, Ordering::Relaxed) < 1000, "no pause");
                let full = CommitRefusal::ManifestFull;
                Ok(Outcome::Refused(full.into()))
            })
        });
        let options = EngineOptions {
            flush: site.flush,
            ..EngineOptions::default()
        };
        let engine = engine_over(&whole, head, options);
        let owner = whole.owner;
        let running = engine.clone();
        let running = tokio::spawn(async move { running.run(owner).await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asked = asked.load(Ordering::Relaxed);
        assert!((2..60).contains(&asked), "{asked} segments in a minute");
        let told = engine.head().shards().into_iter();
        let told: Vec<_> = told.filter_map(|s| engine.flush_trouble(s)).collect();
        assert!(told.len() == 1 && told[0].contains("limit"), "{told:?}");
        running.abort();
        assert_eq!(flushed_objects(&whole).await, 0, "what was refused is gone");
    });
}

#[test]
fn for_a_manifest_that_is_full_nothing_is_written_until_it_has_room() {
    run(async {
        let mut site = Site::new(18);
        site.flush.age = Duration::from_secs(1);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.stop_flushing();
        let line = [b"a line".to_vec()];
        let done = whole.append("gravel", 0, &line, None).await;
        done.expect("appended");

        let full = Arc::new(AtomicBool::new(true));
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        let stands = Arc::clone(&full);
        head.stands = Box::new(move |progress| match stands.load(Ordering::Relaxed) {
            true => Progress {
                segments: MIXED_SEGMENTS_MAX as u64,
                ..progress
            },
            false => progress,
        });
        let options = EngineOptions {
            flush: site.flush,
            ..EngineOptions::default()
        };
        let engine = engine_over(&whole, head, options);
        let (running, owner) = (engine.clone(), whole.owner);
        let running = tokio::spawn(async move { running.run(owner).await });
        let before = whole.engine.store().counters();
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(flushed_objects(&whole).await, 0);
        let after = whole.engine.store().counters();
        let shards = whole.engine.head().shards().len() as u64;
        let checkpoints = after.put.done - before.put.done;
        assert!(checkpoints <= shards + 1, "{checkpoints} PUTs");
        let told = engine.head().shards().into_iter();
        let told: Vec<_> = told.filter_map(|s| engine.flush_trouble(s)).collect();
        let said = |what: &str| told.len() == 1 && told[0].contains(what);
        assert!(said("1048576") && said("retention"), "{told:?}");
        full.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(flushed_objects(&whole).await, 1, "it has room again");
        running.abort();
    });
}

/// What is read for a flush is whole entries: those of which little is left are read as far as any others.
#[test]
fn what_is_read_at_once_for_a_flush_is_bounded_though_most_of_it_is_deleted() {
    const EACH: usize = 50_000;
    const ENTRIES: usize = 40;
    const AT_ONCE: usize = 128 << 10;
    run(async {
        let mut site = Site::new(23);
        let whole = site.start().await.expect("started");
        // Of two partitions, one lies where the kept one lies.
        whole.create("gravel", 2).await;
        whole.create("kept", 1).await;
        whole.stop_flushing();
        let topics = whole.engine.topics();
        let kept = topics.partition(&topic("kept"), PartitionIndex(0)).await;
        let (_, shard, _) = kept.expect("it is there");
        let gravel = topics.partition(&topic("gravel"), PartitionIndex(0)).await;
        let (_, of_first, _) = gravel.expect("it is there");
        let beside = u32::from(of_first != shard);
        // What no codec makes smaller.
        let mut noise = vec![0; EACH];
        SeededEntropy::new(23).fill(&mut noise);
        let (large, little) = ([noise], [b"a line".to_vec()]);
        for _ in 0..ENTRIES {
            // What comes while as many entries are under way as may be is joined.
            let first = (0..ENTRIES_IN_FLIGHT).map(|_| whole.append("kept", 0, &little, None));
            let gravel = whole.append("gravel", beside, &large, None);
            let kept = whole.append("kept", 0, &little, None);
            let all = futures::join!(try_join_all(first), gravel, kept);
            all.0.expect("appended");
            all.1.and(all.2).expect("appended");
        }
        topics.delete(&topic("gravel")).await.expect("deleted");
        let head = whole.engine.head();
        let job = head.flush_job(shard, u64::MAX).await.expect("it answers");
        let job = job.expect("there is something");
        assert!(job.bytes < AT_ONCE as u64, "{} bytes", job.bytes);
        let (mut from, mut batches, mut runs) = (job.raft.from, 0, 0);
        while from < job.raft.to {
            let rest = RaftRange::new(from, job.raft.to).expect("in order");
            let run = head.accepted(shard, rest, AT_ONCE).await.expect("read");
            (from, batches, runs) = (run.upto, batches + run.batches.len(), runs + 1);
        }
        assert_eq!(batches, ENTRIES * (ENTRIES_IN_FLIGHT + 1));
        // The last of them are in memory; of what is read, the last entry may pass what is asked for.
        let read = EACH * ENTRIES - site.wal.memory_bytes;
        let least = read / (AT_ONCE + EACH);
        assert!(runs >= least, "{runs} runs for {read} bytes");
    });
}
