//! What is held in memory is what is weighed.

use std::sync::Arc;
use std::time::Duration;

use esker_env::Entropy as _;
use esker_env::sim::SeededEntropy;
use esker_log::EngineOptions;
use esker_shard::{ConfigChange, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, topic};
use esker_types::limits::{MIB, READ_AHEAD_BYTES_MIN};
use esker_types::{Lane, Offset, PartitionIndex};

use crate::engine_over;

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

/// What a step of a reader brings and what it is ahead are fetched; nothing else is.
#[test]
fn a_reader_of_large_batches_is_ahead_by_their_bytes_and_comes_to_be_far_ahead() {
    run(async {
        let mut site = Site::new(24);
        (site.wal.file_bytes, site.wal.group_bytes) = (32 << 20, 8 << 20);
        site.wal.disk_bytes = 512 << 20;
        site.flush.bytes = 64 << 20;
        let whole = site.start().await.expect("started");
        let large = TopicConfig::default().with(&ConfigChange::MaxBatchBytes(8 << 20));
        whole
            .create_with("gravel", 1, large.expect("within bounds"))
            .await;
        // Blocks of one batch each, larger than a reader is ahead at first.
        const BATCH: usize = 4 * MIB;
        for number in 0..12u8 {
            let mut noise = vec![0; BATCH];
            SeededEntropy::new(number.into()).fill(&mut noise);
            let done = whole.append("gravel", 0, &[noise], None).await;
            done.expect("appended");
        }
        whole.engine.flush_now().await.expect("flushed");

        let mut reader = whole.reader("gravel", 0, 0).await;
        let readers = whole.engine.readers();
        let fetched = || whole.engine.store().counters().read_bytes;
        let before = fetched();
        let (mut given, mut most) = (0, 0);
        while reader.position() < reader.bounds().end {
            for batch in reader.step().await.expect("readable").batches {
                given += batch.bytes.len() as u64;
            }
            // Whatever may be loaded is, by then.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let ahead = fetched() - before - given;
            let may = READ_AHEAD_BYTES_MIN.max(BATCH) + readers.ahead_bytes() + MIB;
            assert!(ahead <= may as u64, "{ahead} bytes where {may} may be");
            most = most.max(ahead);
        }
        assert!(most >= 3 * BATCH as u64, "{most}");
    });
}

/// A block holds several partitions where each has little in it.
#[test]
fn a_batch_that_is_read_keeps_no_block_many_times_as_large() {
    run(async {
        let mut site = Site::new(25);
        site.flush.bytes = 64 << 20;
        let whole = site.start().await.expect("started");
        whole.create("gravel", 2).await;
        whole.create("sand", 8).await;
        let line = [vec![b'x'; 100]];
        for (name, partitions, times) in [("gravel", 2, 1000), ("sand", 8, 1)] {
            for number in 0..partitions * times {
                let done = whole.append(name, number % partitions, &line, None).await;
                done.expect("appended");
            }
        }
        whole.engine.flush_now().await.expect("flushed");
        for (name, partitions, alone) in [("gravel", 2, false), ("sand", 8, true)] {
            for partition in 0..partitions {
                let mut reader = whole.reader(name, partition, 0).await;
                let read = reader.step().await.expect("readable").batches;
                assert!(!read.is_empty());
                // The cache has the block, and whatever is a part of it.
                for batch in read {
                    assert_eq!(batch.bytes.is_unique(), alone, "{name}/{partition}");
                }
            }
        }
    });
}
