//! The whole engine: topics, appends and reads, wherever what is read lies at the moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_cache::BlockCache;
use esker_env::sim::{Crash, SeededEntropy};
use esker_env::{Entropy, Files as _};
use esker_log::{
    Alteration, AppendError, Engine, EngineOptions, HeadError, NewAppend, Progress, ReadError,
    TopicError,
};
use esker_object::faults::{Fault, Rule};
use esker_object::{Prefix, Verb};
use esker_shard::{Command, CommitRefusal, ConfigChange, Outcome, RequestId, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, batch, topic};
use esker_types::limits::{MIB, MIXED_SEGMENTS_MAX};
use esker_types::{Durability, Incarnation, Lane, Offset, PartitionIndex, Timestamp};

type Values = Vec<(u64, Vec<u8>)>;

/// A second engine over the same bucket, with `head` in the place of the node's.
fn engine_over(whole: &Whole, head: Hooked, options: EngineOptions) -> Engine {
    let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
    let (store, env) = (whole.engine.store().clone(), whole.env.clone());
    Engine::new(Arc::new(head), store, env, blocks, options)
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

#[test]
fn what_the_head_holds_keeps_no_part_of_a_connections_buffer() {
    run(async {
        let mut site = Site::new(19);
        let whole = site.start().await.expect("started");
        whole.stop_flushing();
        whole.create("gravel", 1).await;
        // Small ones are checked on the spot, large ones by a worker.
        for bytes in [100, 200_000] {
            let batch = batch(&[vec![b'x'; bytes]], None);
            let mut buffer = vec![0; 1_000_000];
            buffer[7..7 + batch.len()].copy_from_slice(&batch);
            let buffer = Bytes::from(buffer);
            let new = NewAppend {
                topic: topic("gravel"),
                partition: PartitionIndex(0),
                batch: buffer.slice(7..7 + batch.len()),
                expected_end: None,
                fencing: None,
            };
            let ready = whole.engine.appends().check(new).await.expect("in order");
            let answer = whole.engine.appends().submit(ready).await.expect("queued");
            answer.await.expect("appended");
            assert!(buffer.is_unique(), "a batch of {bytes} bytes keeps it");
        }
        assert_eq!(whole.read("gravel", 0, 0).await.len(), 2);
    });
}

#[test]
fn readers_of_history_are_ahead_of_themselves_only_as_far_as_all_of_them_may() {
    run(async {
        let mut site = Site::new(21);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        for number in 0..60u8 {
            // What no codec makes smaller, in blocks of its own.
            let mut noise = vec![0; 200_000];
            SeededEntropy::new(number.into()).fill(&mut noise);
            let values = [noise];
            whole
                .append("gravel", 0, &values, None)
                .await
                .expect("appended");
        }
        whole.engine.flush_now().await.expect("flushed");
        let options = EngineOptions {
            ahead_bytes: 3 * MIB,
            ..EngineOptions::default()
        };
        let head = Hooked::over(Arc::clone(whole.engine.head()));
        let engine = engine_over(&whole, head, options);
        let found = engine
            .topics()
            .partition(&topic("gravel"), PartitionIndex(0))
            .await;
        let (_, shard, partition) = found.expect("it is there");
        let mut readers = Vec::new();
        for _ in 0..4 {
            let reader = engine
                .readers()
                .open(shard, partition, Offset::ZERO, Lane::Tail);
            readers.push((reader.await.expect("there"), 0));
        }
        let mut most = 0;
        while readers.iter().any(|(_, read)| *read < 60) {
            for (reader, read) in readers.iter_mut().filter(|(_, read)| *read < 60) {
                let chunk = reader.step().await.expect("readable");
                *read += chunk.batches.len();
                most = most.max(engine.readers().ahead_bytes());
            }
        }
        assert!((MIB..=3 * MIB).contains(&most), "{most}");
        drop(readers);
        assert_eq!(engine.readers().ahead_bytes(), 0);
    });
}

#[test]
fn a_reader_whose_caller_stops_waiting_loses_nothing() {
    run(async {
        let mut site = Site::new(20);
        let random = SeededEntropy::new(20);
        let mut expected = [Values::new(), Values::new(), Values::new()];
        let whole = site.start().await.expect("started");
        whole.create("gravel", 3).await;
        load(&whole, &random, 300, &mut expected).await;
        whole.engine.flush_now().await.expect("flushed");
        let slow = Fault::Slow(Duration::from_millis(10));
        whole
            .faults
            .script(Rule::new(slow).on(Verb::Get).times(u64::MAX));

        let (mut reader, mut read, mut given_up) = (whole.reader("gravel", 0, 0).await, 0, 0);
        while read < expected[0].len() as u64 {
            let step = tokio::time::timeout(Duration::from_millis(3), reader.step());
            match step.await {
                Err(_) => given_up += 1,
                Ok(chunk) => {
                    for batch in chunk.expect("readable").batches {
                        assert_eq!(batch.range.start().get(), read, "no gap, nothing twice");
                        read = batch.range.end().get();
                    }
                }
            }
        }
        assert!(given_up > 0);
    });
}

#[test]
fn a_reader_that_follows_sees_every_record_once_while_its_partition_is_flushed() {
    run(async {
        let mut site = Site::new(12);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let mut reader = whole.reader("gravel", 0, 0).await;
        let following = tokio::spawn(async move {
            let mut next = 0;
            while next < 2000 {
                let chunk = reader.step().await.expect("readable");
                if chunk.batches.is_empty() {
                    reader.grown().await.expect("it grows");
                }
                for batch in chunk.batches {
                    assert_eq!(batch.range.start().get(), next, "no gap, nothing twice");
                    next = batch.range.end().get();
                }
            }
            next
        });
        for number in 0..200u64 {
            let values: Vec<_> = (0..10)
                .map(|at| format!("{number} {at} ").repeat(100).into_bytes())
                .collect();
            whole
                .append("gravel", 0, &values, None)
                .await
                .expect("appended");
            if number % 20 == 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(following.await.expect("it ends"), 2000);
    });
}

#[test]
fn out_of_range_names_the_range_and_a_time_finds_its_first_record() {
    run(async {
        let mut site = Site::new(13);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        for round in 0..6 {
            let values = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
            whole
                .append("gravel", 0, &values, None)
                .await
                .expect("appended");
            if round == 2 {
                whole.engine.flush_now().await.expect("flushed");
            }
        }
        let found = whole
            .engine
            .topics()
            .partition(&topic("gravel"), PartitionIndex(0))
            .await;
        let (_, shard, partition) = found.expect("it is there");
        let readers = whole.engine.readers();
        let open = |from| {
            readers.open(
                shard,
                partition,
                Offset::new(from).expect("small"),
                Lane::Tail,
            )
        };
        assert!(open(18).await.is_ok(), "the end itself");
        let error = open(19).await.expect_err("above the end");
        assert!(error.to_string().contains("[0, 18)"), "{error}");

        // Every batch has the times 1000, 1001 and 1002.
        let at = async |time| {
            readers
                .by_time(shard, partition, Timestamp(time))
                .await
                .expect("read")
        };
        assert_eq!(at(0).await.map(Offset::get), Some(0));
        assert_eq!(at(1002).await.map(Offset::get), Some(2));
        assert_eq!(at(1003).await, None);

        let truncated = whole.engine.topics();
        let to = Offset::new(10).expect("small");
        let start = truncated
            .truncate(&topic("gravel"), PartitionIndex(0), Some(to))
            .await;
        assert_eq!(start.expect("trimmed"), to);
        let error = open(9).await.expect_err("below the log start");
        assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
        assert_eq!(whole.read("gravel", 0, 10).await.len(), 8);
        // Offset 10 has the time 1001.
        assert_eq!(at(1001).await.map(Offset::get), Some(10));
    });
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free_at_once() {
    run(async {
        let mut site = Site::new(14);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        whole
            .append("gravel", 1, &[b"old".to_vec()], None)
            .await
            .expect("appended");
        whole
            .engine
            .topics()
            .delete(&topic("gravel"))
            .await
            .expect("deleted");
        let error = whole.append("gravel", 1, &[b"late".to_vec()], None).await;
        let error = error.expect_err("nobody has it");
        assert!(
            matches!(error, AppendError::Topic(TopicError::Unknown { .. })),
            "{error}"
        );
        assert_eq!(error.durability(), Durability::NotWritten);
        whole.create("gravel", 1).await;
        assert_eq!(whole.read("gravel", 0, 0).await, []);
    });
}

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

#[test]
fn a_topic_is_deleted_though_the_disk_is_full() {
    run(async {
        let mut site = Site::new(19);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.create("kept", 1).await;
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
        let deleted = whole.engine.topics().delete(&topic("gravel")).await;
        deleted.expect("what makes room gets through");
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

async fn flushed_objects(whole: &Whole) -> usize {
    let mut objects = 0;
    for shard in whole.engine.head().shards() {
        let prefix = Prefix::Flushed(Incarnation::FIRST, shard);
        let listed = whole.engine.store().list_all(prefix).await;
        objects += listed.expect("listed").0.len();
    }
    objects
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

#[test]
fn a_time_is_found_though_its_batch_goes_to_the_bucket_while_it_is_looked_for() {
    run(async {
        let mut site = Site::new(17);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        whole.stop_flushing();
        let values = [b"a".to_vec(), b"b".to_vec()];
        for _ in 0..2 {
            let done = whole.append("gravel", 0, &values, None).await;
            done.expect("appended");
        }
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        let flusher = whole.engine.clone();
        head.before = Box::new(move |call| {
            let flusher = flusher.clone();
            Box::pin(async move {
                if call == "by_time" {
                    flusher.flush_now().await.expect("flushed");
                }
            })
        });
        let engine = engine_over(&whole, head, EngineOptions::default());
        let topics = engine.topics();
        let found = topics.partition(&topic("gravel"), PartitionIndex(0)).await;
        let (_, shard, partition) = found.expect("it is there");
        let readers = engine.readers();
        let found = readers.by_time(shard, partition, Timestamp(1001)).await;
        assert_eq!(found.expect("read").map(Offset::get), Some(1));
    });
}

#[test]
fn what_failed_half_way_says_what_was_done_and_is_not_said_to_be_undone() {
    run(async {
        let mut site = Site::new(18);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        let name = topic("gravel");
        let topics = whole.engine.topics();
        let version = topics.find(&name).await.expect("there").version;
        let alteration = Alteration {
            changes: vec![ConfigChange::RetentionBytes(Some(1 << 30))],
            partitions: Some(1),
            expected: None,
        };
        let error = topics.alter(&name, alteration).await;
        let error = error.expect_err("it has two");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        assert!(
            error.to_string().contains("settings were changed"),
            "{error}"
        );
        let view = topics.find(&name).await.expect("there");
        assert!(view.version > version);

        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        head.answer = Box::new(|shard, command| {
            let pushed = match command {
                // The other one is looked for first, and pushed again.
                Command::PutTopic(put) => put.name == topic("sand"),
                Command::EndTopic { .. } => true,
                _ => false,
            };
            let what = "somebody else leads".to_owned();
            pushed.then_some(Err(HeadError::NotLeader { shard, what }))
        });
        let engine = engine_over(&whole, head, EngineOptions::default());
        let request = RequestId(77);
        let config = TopicConfig::default();
        let sand = topic("sand");
        let created = engine.topics().create(request, &sand, 2, config);
        let error = created.await.expect_err("no shard takes it");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        let deleted = engine.topics().delete(&name).await;
        let error = deleted.expect_err("no shard ends it");
        assert_eq!(error.durability(), Durability::Unknown, "{error}");
        assert!(error.to_string().contains("its name is free"), "{error}");
    });
}
