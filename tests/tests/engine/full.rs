//! A head, a disk and a manifest that are full, and what goes on all the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use esker_env::Files as _;
use esker_log::{AppendError, EngineOptions, HeadError, Progress, TopicError};
use esker_shard::{Command, CommitRefusal, Outcome, RequestId, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::Durability;
use esker_types::limits::MIXED_SEGMENTS_MAX;

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
