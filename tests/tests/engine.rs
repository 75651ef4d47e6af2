//! The whole engine: topics, appends and reads, wherever what is read lies at the moment.

use std::time::Duration;

use esker_env::sim::{Crash, SeededEntropy};
use esker_log::{AppendError, HeadError, ReadError, TopicError};
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::{Durability, Lane, Offset, PartitionIndex, Timestamp};

type Values = Vec<(u64, Vec<u8>)>;

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
