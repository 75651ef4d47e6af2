//! Who tails a partition, who looks here and there, and who reads everything at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use esker_checker::{Call, Mode, Offset, Outcome, Reply, Session, View};
use esker_client::direct::{Direct, StoreOptions};
use esker_client::{Client, Error, From, ReadOptions, Until};
use esker_env::Env;
use esker_env::sim::SeededEntropy;

use crate::pen::{Pen, seen};

/// Time for everything to reach a bucket that is well.
const DRAINS_WITHIN: Duration = Duration::from_secs(60);

/// Reads a partition from its first record on, for ever, over every death of the server.
pub(crate) async fn follow(
    client: Client,
    topic: &'static str,
    partition: u32,
    session: Session,
    pen: Pen,
    come: Arc<AtomicU64>,
) -> Error {
    let view = View::new("client", "tail");
    let options = ReadOptions {
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = match client.read(topic, partition, options).await {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    loop {
        let next = come.load(Ordering::Relaxed);
        let op = pen.read(session, partition, next, Mode::Stale, &view);
        match reader.next().await {
            Ok(Some(batch)) => {
                let records = seen(&batch);
                pen.was_read(op, records, None);
                come.store(batch.range().end().get(), Ordering::Relaxed);
            }
            Ok(None) => panic!("a read that follows has ended"),
            Err(error) => {
                pen.failed(op, &error);
                return error;
            }
        }
    }
}

/// Looks where partitions end and reads a little from anywhere, until it is told to stop.
pub(crate) async fn look_about(
    client: Client,
    topic: &'static str,
    partitions: u32,
    session: Session,
    pen: Pen,
    random: Arc<SeededEntropy>,
    stop: Arc<AtomicBool>,
) {
    let view = View::new("client", "live");
    while !stop.load(Ordering::Relaxed) {
        let partition = u32::try_from(random.below(partitions.into())).expect("a few");
        let mode = Mode::Linearizable;
        let op = pen.invoke(session, partition, Call::CheckTail { mode });
        match client.offsets(topic, &[partition], None).await {
            Ok(offsets) => {
                let (start, end) = (offsets[0].log_start, offsets[0].end);
                let reply = Reply::Tail {
                    start: Some(Offset(start)),
                    tail: Offset(end),
                };
                pen.answer(op, Outcome::Ok(reply));
                let from = start + random.below(end - start + 1);
                read_little(&client, topic, partition, from, session, &pen, &view).await;
            }
            Err(error) => pen.failed(op, &error),
        }
        let pause = Duration::from_millis(random.below(50));
        tokio::time::sleep(pause).await;
    }
}

async fn read_little(
    client: &Client,
    topic: &str,
    partition: u32,
    from: u64,
    session: Session,
    pen: &Pen,
    view: &View,
) {
    let mode = Mode::Linearizable;
    let op = pen.read(session, partition, from, mode, view);
    let options = ReadOptions {
        from: From::Offset(esker_client::Offset::new(from).expect("small")),
        backfill: true,
        ..ReadOptions::default()
    };
    let read = async {
        let mut reader = client.read(topic, partition, options).await?;
        reader.next().await
    };
    match read.await {
        Ok(batch) => {
            let records = batch.as_ref().map(seen).unwrap_or_default();
            // Nothing there is a word about the end: it was as far before, so this is where it is.
            let end = batch.is_none().then_some(from);
            pen.was_read(op, records, end);
        }
        Err(error) => pen.failed(op, &error),
    }
}

/// The full read of every partition, live.
pub(crate) async fn read_all(
    client: &Client,
    topic: &str,
    partitions: u32,
    session: Session,
    pen: &Pen,
    view: &View,
) -> u64 {
    let mut count = 0;
    for partition in 0..partitions {
        let op = pen.read(session, partition, 0, Mode::Final, view);
        let options = ReadOptions::default();
        let mut reader = client.read(topic, partition, options).await.expect("open");
        let (mut records, mut end) = (Vec::new(), 0);
        while let Some(batch) = reader.next().await.expect("a healthy log is readable") {
            records.extend(seen(&batch));
            end = batch.range().end().get();
        }
        count += records.len() as u64;
        pen.was_read(op, records, Some(end));
    }
    count
}

/// The full read of every partition out of the bucket alone.
pub(crate) async fn read_bucket(
    url: &str,
    options: &StoreOptions,
    topic: &str,
    session: Session,
    pen: &Pen,
    view: &View,
) -> u64 {
    let direct = Direct::open(url, options, &Env::real()).await;
    let direct = direct.expect("a bucket that can be read");
    let mut count = 0;
    for offsets in direct.offsets(topic).expect("the topic is in the bucket") {
        assert_eq!(offsets.broken, None, "partition {}", offsets.partition);
        let partition = offsets.partition;
        let op = pen.read(session, partition, 0, Mode::Final, view);
        let reader = direct.read(topic, partition, From::Earliest, Until::End);
        let mut reader = reader.await.expect("open");
        let mut records = Vec::new();
        while let Some(batch) = reader.next().await.expect("a whole bucket is readable") {
            records.extend(seen(&batch));
        }
        count += records.len() as u64;
        pen.was_read(op, records, Some(reader.end_offset().get()));
    }
    count
}

/// Everything is in the bucket, without anybody's help: flushes go by age.
pub(crate) async fn drain(client: &Client, topic: &str) {
    let drained = async {
        loop {
            let status = client.admin().cluster_status().await.expect("status");
            if status.shards.iter().all(|shard| shard.head_batches == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DRAINS_WITHIN, drained)
        .await
        .expect("it drains");
    let (_, partitions) = client.admin().describe_topic(topic).await.expect("topic");
    for partition in partitions {
        assert_eq!(
            partition.tiered_end, partition.end,
            "{}",
            partition.partition
        );
    }
}
