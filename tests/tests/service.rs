//! The SDK against the real service, over a simulated network: from a call to the disk and back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_cache::BlockCache;
use esker_client::{Client, Code, Durability, From, ProducerOptions, ReadOptions, Record, v1};
use esker_log::{Engine, EngineOptions};
use esker_shard::{RequestId, TopicConfig};
use esker_tests::hooked::Hooked;
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole, topic};
use esker_types::limits::MIB;
use tokio::task::JoinSet;

async fn read(client: &Client, partition: u32, options: ReadOptions) -> Vec<(u64, Vec<u8>)> {
    let mut reader = client
        .read("gravel", partition, options)
        .await
        .expect("opened");
    let mut records = Vec::new();
    while let Some(batch) = reader.next().await.expect("readable") {
        records.extend(batch.records().map(|record| {
            (
                record.offset.get(),
                record.value.unwrap_or_default().to_vec(),
            )
        }));
    }
    records
}

/// By another agent: the one that is asked knew the old one a moment ago.
#[test]
fn a_topic_that_another_made_anew_is_read_at_once() {
    run(async {
        let mut site = Site::new(65);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let done = whole.append("gravel", 0, &[b"old".to_vec()], None).await;
        done.expect("appended");
        let client = whole.serve().await;
        assert_eq!(read(&client, 0, ReadOptions::default()).await.len(), 1);

        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let (head, store) = (
            Arc::clone(whole.engine.head()),
            whole.engine.store().clone(),
        );
        let options = EngineOptions::default();
        let other = Engine::new(head, store, whole.env.clone(), blocks, options);
        let (name, config) = (topic("gravel"), TopicConfig::default());
        other.topics().delete(&name).await.expect("deleted");
        let made = other.topics().create(RequestId(80), &name, 1, config).await;
        made.expect("the name is free");
        assert_eq!(read(&client, 0, ReadOptions::default()).await, []);
    });
}

#[test]
fn the_offsets_of_a_whole_topic_are_one_question_a_shard() {
    run(async {
        let mut site = Site::new(23);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 300).await;
        for partition in [0, 7, 299] {
            let values = vec![b"stone".to_vec(); partition as usize + 1];
            let done = whole.append("gravel", partition, &values, None).await;
            done.expect("appended");
        }
        let asked: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let mut head = Hooked::over(Arc::clone(whole.engine.head()));
        let tally = Arc::clone(&asked);
        head.before = Box::new(move |call| {
            tally.lock().expect("unpoisoned").push(call);
            Box::pin(async {})
        });
        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let (store, env) = (whole.engine.store().clone(), whole.env.clone());
        let options = EngineOptions::default();
        let engine = Engine::new(Arc::new(head), store, env, blocks, options);
        let client = whole.serve_engine(engine).await;
        let all = client.offsets("gravel", &[], None).await.expect("known");
        let numbers: Vec<_> = all.iter().map(|of| of.partition).collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        let ends: Vec<_> = all.iter().filter(|of| of.end > 0).collect();
        let ends: Vec<_> = ends.iter().map(|of| (of.partition, of.end)).collect();
        assert_eq!(ends, [(0, 1), (7, 8), (299, 300)]);
        // Two data shards, and each is asked once before whether it has the topic.
        let calls = asked.lock().expect("unpoisoned").clone();
        assert_eq!(calls, ["shard_topics"; 4]);

        // In the order that is asked for, one twice, and what is not there is an error.
        let some = client.offsets("gravel", &[299, 0, 299], None).await;
        let some: Vec<_> = some.expect("known").iter().map(|of| of.end).collect();
        assert_eq!(some, [300, 1, 300]);
        let none = client.offsets("gravel", &[1, 300], None).await;
        let none = none.expect_err("there is no partition 300");
        assert_eq!(none.code(), Code::UnknownPartition, "{none}");
    });
}

#[test]
fn what_a_producer_sends_a_reader_gets_from_head_and_bucket() {
    run(async {
        let mut site = Site::new(21);
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        let settings = BTreeMap::new();
        client
            .admin()
            .create_topic("gravel", 3, &settings)
            .await
            .expect("created");
        let producer = client.producer("gravel", ProducerOptions::default()).await;
        let producer = producer.expect("opened");
        let mut deliveries = Vec::new();
        for number in 0..5000u32 {
            let value = format!("record {number} of many").into_bytes();
            let record = Record::keyed(format!("key {}", number % 97), value);
            deliveries.push(producer.send(record).await.expect("taken"));
        }
        producer.flush().await.expect("settled");
        let mut expected: BTreeMap<u32, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let acked = delivery.await.expect("acked");
            let value = format!("record {number} of many").into_bytes();
            expected
                .entry(acked.partition)
                .or_default()
                .push((acked.offset.get(), value));
        }
        assert_eq!(expected.len(), 3, "97 keys go everywhere");
        for (partition, expected) in &expected {
            assert_eq!(
                read(&client, *partition, ReadOptions::default()).await,
                *expected
            );
        }
        let flushed = client.admin().flush().await.expect("flushed");
        assert!(flushed.segments > 0 && flushed.bytes > 0);
        for (partition, expected) in &expected {
            assert_eq!(
                read(&client, *partition, ReadOptions::default()).await,
                *expected
            );
        }
        let status = client.admin().cluster_status().await.expect("told");
        assert_eq!((status.topics, status.partitions), (1, 3));
        assert!(status.shards.iter().all(|shard| shard.head_batches == 0));
        // Nobody has told this agent that a node is beside it.
        assert!(status.shards.iter().all(|shard| !shard.leads_here));

        let mut verifying = client
            .admin()
            .verify(v1::VerifyDepth::Content)
            .await
            .expect("begun");
        let mut last = None;
        while let Some(so_far) = verifying.next().await.expect("told") {
            assert_eq!(so_far.found, []);
            last = Some(so_far);
        }
        let last = last.expect("there are segments");
        assert!(last.done && last.records == 5000, "{last:?}");
    });
}

#[test]
fn a_follower_gets_what_is_appended_later() {
    run(async {
        let mut site = Site::new(22);
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        let settings = BTreeMap::new();
        client
            .admin()
            .create_topic("gravel", 1, &settings)
            .await
            .expect("created");
        let options = ReadOptions {
            from: From::End,
            follow: true,
            ..ReadOptions::default()
        };
        let mut reader = client.read("gravel", 0, options).await.expect("opened");
        let producer = client.producer("gravel", ProducerOptions::default()).await;
        let producer = producer.expect("opened");
        for round in 0..5 {
            tokio::time::sleep(Duration::from_secs(7)).await;
            let acked = producer
                .send(Record::value("late"))
                .await
                .expect("taken")
                .await;
            assert_eq!(acked.expect("acked").offset.get(), round);
            let batch = reader.next().await.expect("readable").expect("never ends");
            let offsets: Vec<_> = batch.records().map(|record| record.offset.get()).collect();
            assert_eq!(offsets, [round]);
        }
    });
}

/// Producers without an id, too, which could not send again what may be written.
#[test]
fn an_agent_that_stops_leaves_no_append_in_doubt() {
    run(async {
        let mut site = Site::new(24);
        let mut whole = site.start().await.expect("started");
        let client = whole.serve_engine(slow(&whole)).await;
        whole.create("gravel", PRODUCERS).await;
        let (mut writing, mut reading) = (JoinSet::new(), JoinSet::new());
        for partition in 0..PRODUCERS {
            writing.spawn(write(client.clone(), partition));
            reading.spawn(follow(client.clone(), partition));
        }
        for round in 0..10 {
            tokio::time::sleep(Duration::from_millis(40 + 3 * round)).await;
            let stopped = tokio::time::timeout(STOPS_WITHIN, whole.stop_serving()).await;
            stopped.expect("no stream keeps it from stopping");
            whole.serve_engine(slow(&whole)).await;
        }
        assert!(
            writing.try_join_next().is_none(),
            "all wrote until the last stop"
        );
        while let Some(written) = writing.join_next().await {
            written.expect("every append is acknowledged");
        }
        while let Some(read) = reading.join_next().await {
            read.expect("each record once, in order");
        }
    });
}

/// Less than a process gives it before it ends.
const STOPS_WITHIN: Duration = Duration::from_millis(100);
const PRODUCERS: u32 = 8;
/// Records of each.
const RECORDS: u64 = 200;

/// Another engine over the same head, whose appends take a while: there are always some under way.
fn slow(whole: &Whole) -> Engine {
    let mut head = Hooked::over(Arc::clone(whole.engine.head()));
    head.before = Box::new(|call| {
        Box::pin(async move {
            if call == "append" {
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        })
    });
    let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
    let (store, env) = (whole.engine.store().clone(), whole.env.clone());
    Engine::new(Arc::new(head), store, env, blocks, EngineOptions::default())
}

async fn write(client: Client, partition: u32) {
    let options = ProducerOptions {
        idempotent: partition.is_multiple_of(2),
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    };
    let producer = client.producer("gravel", options).await.expect("opened");
    for number in 0..RECORDS {
        let record = vec![Record::value(number.to_string())];
        let sent = producer.send_together(Some(partition), record).await;
        let acked = sent.expect("taken").await.expect("acknowledged");
        assert_eq!(acked.offsets.start().get(), number);
    }
}

async fn follow(client: Client, partition: u32) {
    let options = ReadOptions {
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = client
        .read("gravel", partition, options)
        .await
        .expect("opened");
    let mut come = 0;
    while come < RECORDS {
        let batch = reader.next().await.expect("readable").expect("never ends");
        for record in batch.records() {
            let value = come.to_string();
            assert_eq!(
                (record.offset.get(), record.value),
                (come, Some(value.as_bytes()))
            );
            come += 1;
        }
    }
}

#[test]
fn errors_say_what_is_wrong_and_whether_data_is_durable() {
    run(async {
        let mut site = Site::new(23);
        let whole = site.start().await.expect("started");
        let client = whole.serve().await;
        let admin = client.admin();
        let bad = BTreeMap::from([("max_batch_bytes".to_owned(), "0".to_owned())]);
        let error = admin
            .create_topic("gravel", 1, &bad)
            .await
            .expect_err("out of bounds");
        assert_eq!(error.code(), Code::InvalidRequest);
        assert_eq!(error.durability(), Durability::NotWritten);
        assert!(error.message().contains("max_batch_bytes"), "{error}");

        let settings = BTreeMap::new();
        for name in ["", "a/b", "..", "x".repeat(250).as_str()] {
            let error = admin
                .create_topic(name, 1, &settings)
                .await
                .expect_err("no name");
            assert_eq!(error.code(), Code::InvalidRequest, "{name:?}: {error}");
        }
        let error = admin
            .create_topic("gravel", 0, &settings)
            .await
            .expect_err("none");
        assert_eq!(error.limit_and_value(), Some((100_000, 0)));

        admin
            .create_topic("gravel", 1, &settings)
            .await
            .expect("created");
        let error = admin
            .create_topic("gravel", 2, &settings)
            .await
            .expect_err("taken");
        assert_eq!(error.code(), Code::TopicExists);
        let error = admin.describe_topic("sand").await.expect_err("unknown");
        assert_eq!(error.code(), Code::UnknownTopic);

        let options = ReadOptions {
            from: From::Offset(esker_client::Offset::new(5).expect("small")),
            ..ReadOptions::default()
        };
        let error = match client.read("gravel", 0, options).await {
            Err(error) => error,
            Ok(mut reader) => reader.next().await.expect_err("above the end"),
        };
        assert_eq!(error.code(), Code::OffsetOutOfRange);
        assert!(
            error.message().contains("holds none, and 0 comes next"),
            "{error}"
        );
    });
}
