//! Readers, wherever what they read lies, and while it moves.

use std::sync::Arc;
use std::time::Duration;

use esker_env::sim::SeededEntropy;
use esker_log::{EngineOptions, ReadError};
use esker_object::Verb;
use esker_object::faults::{Fault, Rule};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, topic};
use esker_types::{Lane, Offset, PartitionIndex, Timestamp};

use crate::{Values, engine_over, load};

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
