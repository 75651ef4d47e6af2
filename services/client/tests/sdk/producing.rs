//! Producing: each record once, in order, and no word too much about what became of it.

mod bounds; // what waits, and what is refused
mod doubt; // breaks, refusals, time over
mod sessions; // what goes on under another epoch
mod together; // groups

use std::time::Duration;

use bytes::Bytes;
use esker_client::{
    Code, Compression, Delivery, Durability, Error, Header, ProducerOptions, ReadOptions, Record,
    Timestamp,
};
use esker_env::sim::SeededEntropy;
use esker_record::Batch;
use esker_types::limits::APPENDS_IN_FLIGHT_PER_PARTITION;

use crate::service::Fate;
use crate::{ADDRESS, TOPIC, World, numbered, numbers};

/// Batches of a record or two, so that many are in flight.
fn small() -> ProducerOptions {
    ProducerOptions {
        batch_bytes: 1 << 10,
        linger: Duration::ZERO,
        ..ProducerOptions::default()
    }
}

/// A record that fills half a batch, whose value begins with its number.
fn wide(partition: u32, number: u32) -> Record {
    let headers = vec![Header {
        key: Bytes::from_static(b"width"),
        value: Some(Bytes::from(vec![b'.'; 600])),
    }];
    Record {
        headers,
        ..numbered(partition, number)
    }
}

async fn outcomes(deliveries: Vec<Delivery>) -> Vec<Result<u64, Error>> {
    let mut outcomes = Vec::new();
    for delivery in deliveries {
        outcomes.push(delivery.await.map(|acked| acked.offset.get()));
    }
    outcomes
}

fn once(fate: Fate) -> impl FnMut(&esker_client::v1::AppendRequest) -> Fate + Send {
    let mut fates = vec![fate];
    move |_| fates.pop().unwrap_or(Fate::Decide)
}

#[tokio::test(start_paused = true)]
async fn a_record_comes_back_as_it_was_sent() {
    let world = World::new(1, &[]).await;
    let records = [
        Record::default(),
        Record::keyed("", ""),
        Record {
            headers: vec![
                Header {
                    key: Bytes::from_static(b"a"),
                    value: None,
                },
                Header {
                    key: Bytes::from_static(b"a"),
                    value: Some(Bytes::new()),
                },
            ],
            timestamp: Some(Timestamp(-5)),
            ..Record::keyed("key", vec![7; 5000])
        },
    ];
    for compression in [
        None,
        Some(Compression::None),
        Some(Compression::Gzip),
        Some(Compression::Snappy),
        Some(Compression::Lz4),
    ] {
        let options = ProducerOptions {
            compression,
            ..ProducerOptions::default()
        };
        let producer = world.producer(options).await;
        for record in &records {
            let _delivery = producer.send(record.clone()).await.unwrap();
        }
        producer.flush().await.unwrap();
    }
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    let (mut count, mut codecs) = (0, 0);
    while let Some(batch) = reader.next().await.unwrap() {
        for (sent, read) in records.iter().cycle().zip(batch.records()) {
            assert_eq!(read.key, sent.key.as_deref());
            assert_eq!(read.value, sent.value.as_deref());
            let headers: Vec<_> = read.headers.map(|h| (h.key, h.value)).collect();
            let expected: Vec<_> = sent
                .headers
                .iter()
                .map(|h| (&h.key[..], h.value.as_deref()))
                .collect();
            assert_eq!(headers, expected);
            if let Some(timestamp) = sent.timestamp {
                assert_eq!(read.timestamp, timestamp);
            }
            count += 1;
        }
    }
    let state = world.service.state();
    for (_, bytes) in &state.partitions[&(TOPIC.to_owned(), 0)].batches {
        let batch = Batch::open(bytes.clone()).unwrap();
        codecs |= 1 << batch.header().attributes.codec().number();
        assert!(batch.header().producer.is_some());
    }
    assert_eq!((count, codecs), (15, 0b11111), "zstd is the topic's");
}

#[tokio::test(start_paused = true)]
async fn records_share_batches_and_keys_keep_their_partition() {
    let world = World::new(3, &[]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    let mut deliveries = Vec::new();
    for number in 0..300u32 {
        let record = Record::keyed(format!("key {}", number % 10), number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    let mut places = std::collections::BTreeMap::new();
    for (number, delivery) in (0..300u32).zip(deliveries) {
        let partition = delivery.await.unwrap().partition;
        assert_eq!(*places.entry(number % 10).or_insert(partition), partition);
    }
    let written: usize = (0..3).map(|p| world.service.values(TOPIC, p).len()).sum();
    let requests = world.service.state().append_requests;
    assert_eq!(written, 300);
    assert!(requests <= 9, "{requests} batches for 3 partitions");

    // Without a key, a batch goes to one partition and the next one elsewhere.
    for round in 0..3 {
        let mut partitions = Vec::new();
        let mut deliveries = Vec::new();
        for _ in 0..20 {
            deliveries.push(producer.send(Record::value("x")).await.unwrap());
        }
        for delivery in deliveries {
            partitions.push(delivery.await.unwrap().partition);
        }
        partitions.dedup();
        assert_eq!(partitions.len(), 1, "round {round}");
    }
    assert_eq!(world.service.state().append_requests, requests + 3);
    for partition in 0..3 {
        let values = world.service.values(TOPIC, partition);
        assert_eq!(values.iter().filter(|value| *value == "x").count(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_a_window_is_in_flight() {
    let world = World::new(1, &[]).await;
    world
        .service
        .fates(|_| Fate::Late(Duration::from_millis(50)));
    let producer = world.producer(small()).await;
    for number in 0..60 {
        let _delivery = producer.send(wide(0, number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..60));
    let most = world.service.state().unanswered_max;
    assert_eq!(most, APPENDS_IN_FLIGHT_PER_PARTITION);
}

/// Whatever befalls the service and the network, everything is written once, in order, and the
/// acknowledged offset is where it is.
#[tokio::test(start_paused = true)]
async fn bad_days_cost_nothing_but_time() {
    for seed in 0..40 {
        let world = World::new(3, &[]).await;
        let dice = SeededEntropy::new(seed);
        world.service.fates(move |_| match dice.below(40) {
            0 | 1 => Fate::Break,
            2 => Fate::BreakBefore,
            3 | 4 => Fate::Refuse(Code::HeadFull, Durability::NotWritten),
            5 => Fate::Refuse(Code::Unavailable, Durability::NotWritten),
            6 | 7 => Fate::Unheard,
            8 => Fate::Refuse(Code::OutcomeUnknown, Durability::Unknown),
            9 | 10 => Fate::Late(Duration::from_millis(30)),
            _ => Fate::Decide,
        });
        let network = world.network.clone();
        let cutter = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                network.cut(ADDRESS);
            }
        });
        let producer = world.producer(small()).await;
        let mut deliveries = vec![Vec::new(), Vec::new(), Vec::new()];
        for number in 0..100 {
            for (partition, deliveries) in (0..).zip(&mut deliveries) {
                deliveries.push(producer.send(wide(partition, number)).await.unwrap());
            }
        }
        for (partition, deliveries) in (0..).zip(deliveries) {
            for (number, outcome) in (0..).zip(outcomes(deliveries).await) {
                assert_eq!(
                    outcome.unwrap(),
                    number,
                    "seed {seed}, partition {partition}"
                );
            }
            assert_eq!(world.service.values(TOPIC, partition), numbers(0..100));
        }
        cutter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn lingering_ends_with_time_with_a_flush_and_with_the_producer() {
    let world = World::new(1, &[]).await;
    let options = ProducerOptions {
        linger: Duration::from_secs(30),
        ..ProducerOptions::default()
    };
    let producer = world.producer(options).await;
    let begun = tokio::time::Instant::now();
    producer.send(numbered(0, 0)).await.unwrap().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30);
    let _flushed = producer.send(numbered(0, 1)).await.unwrap();
    producer.flush().await.unwrap();
    let left = producer.send(numbered(0, 2)).await.unwrap();
    drop(producer);
    left.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30, "neither lingers");
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..3));
}
