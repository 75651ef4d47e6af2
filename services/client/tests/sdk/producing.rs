//! Producing: each record once, in order, and no word too much about what became of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_client::{
    Client, Code, Compression, Delivery, Durability, Error, Header, Options, ProducerOptions,
    ReadOptions, Record, Timestamp,
};
use esker_env::sim::{SeededEntropy, SimClock};
use esker_env::{Env, Job, Waker, Worker, Workers};
use esker_record::Batch;
use esker_types::limits::APPENDS_IN_FLIGHT_PER_PARTITION;

use crate::service::{Fate, error};
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
async fn a_lost_reply_is_found_again() {
    let world = World::new(1, &[]).await;
    world.service.fates(once(Fate::Break));
    let producer = world.producer(ProducerOptions::default()).await;
    let acked = producer.send(numbered(0, 0)).await.unwrap().await.unwrap();
    assert_eq!(acked.offset.get(), 0);
    assert_eq!(world.service.values(TOPIC, 0), ["0"]);
    assert_eq!(world.service.state().append_requests, 2);
}

#[tokio::test(start_paused = true)]
async fn without_an_id_a_break_is_unknown_and_not_repeated() {
    for fate in [Fate::Break, Fate::BreakBefore] {
        let world = World::new(1, &[]).await;
        let written = matches!(fate, Fate::Break);
        world.service.fates(once(fate));
        let options = ProducerOptions {
            idempotent: false,
            ..small()
        };
        let producer = world.producer(options).await;
        let mut deliveries = Vec::new();
        for number in 0..4 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
            tokio::task::yield_now().await;
        }
        let outcomes = outcomes(deliveries).await;
        let error = outcomes[0].as_ref().unwrap_err();
        assert_eq!(error.durability(), Durability::Unknown);
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        let failed = u32::try_from(failed).unwrap();
        assert!(failed < 4, "what was not sent goes on");
        let first = if written { 0 } else { failed };
        assert_eq!(world.service.values(TOPIC, 0), numbers(first..4));
    }
}

/// A stream that is refused as a whole has taken nothing, whatever was on its way by then.
#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_no_doubt() {
    for idempotent in [true, false] {
        let world = World::new(1, &[]).await;
        let refused = |code| error(code, Durability::NotWritten);
        world.service.state().append_refusals = [refused(Code::Overloaded)].into();
        let options = ProducerOptions {
            idempotent,
            ..small()
        };
        let producer = world.producer(options.clone()).await;
        let mut deliveries = Vec::new();
        for number in 0..6 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
        }
        let acked: Vec<_> = (0..6).map(Ok).collect();
        assert_eq!(outcomes(deliveries).await, acked, "{idempotent}");
        assert_eq!(world.service.values(TOPIC, 0), numbers(0..6));

        let refusals = std::iter::repeat_n(refused(Code::LimitReached), 10_000);
        world.service.state().append_refusals = refusals.collect();
        let producer = world.producer(options).await;
        let error = producer.send(wide(0, 6)).await.unwrap().await.unwrap_err();
        assert_eq!(error.code(), Code::LimitReached, "{error}");
        assert_eq!(error.durability(), Durability::NotWritten);
        assert_eq!(world.service.values(TOPIC, 0), numbers(0..6));
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_id_a_refusal_is_no_reason_to_overtake() {
    let world = World::new(1, &[]).await;
    world
        .service
        .fates(once(Fate::Refuse(Code::Overloaded, Durability::NotWritten)));
    let options = ProducerOptions {
        idempotent: false,
        ..small()
    };
    let producer = world.producer(options).await;
    for number in 0..10 {
        let _delivery = producer.send(wide(0, number)).await.unwrap();
    }
    producer.flush().await.unwrap();
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..10));
    assert_eq!(world.service.state().unanswered_max, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_takes_no_other_with_it() {
    let world = World::new(2, &[]).await;
    let mut seen = 0;
    world.service.fates(move |_| {
        seen += 1;
        match seen {
            3 => Fate::Refuse(Code::Fenced, Durability::NotWritten),
            _ => Fate::Decide,
        }
    });
    let producer = world.producer(small()).await;
    let mut deliveries = Vec::new();
    for number in 0..20 {
        deliveries.push(producer.send(wide(0, number)).await.unwrap());
    }
    let outcomes = outcomes(deliveries).await;
    let failed: Vec<_> = (0..20).filter(|&n| outcomes[n].is_err()).collect();
    assert_eq!(failed.len(), 1, "{outcomes:?}");
    let error = outcomes[failed[0]].as_ref().unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::Fenced, Durability::NotWritten)
    );
    let mut expected = numbers(0..20);
    expected.remove(failed[0]);
    assert_eq!(world.service.values(TOPIC, 0), expected);
    let state = world.service.state();
    let (_, last) = state.partitions[&(TOPIC.to_owned(), 0)]
        .batches
        .last()
        .unwrap();
    let stamp = Batch::open(last.clone())
        .unwrap()
        .header()
        .producer
        .unwrap();
    assert_eq!(stamp.epoch.as_i16(), 1, "the session after the failure");
}

/// Workers that take their time, and count.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn Workers>,
    takes: Duration,
    jobs: Arc<AtomicUsize>,
}

impl Workers for Slow {
    fn start(&self, name: &str, worker: Box<dyn Worker>) -> Waker {
        self.inner.start(name, worker)
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let (inner, takes) = (Arc::clone(&self.inner), self.takes);
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            inner.submit(job).await;
        })
    }
}

/// What is left of a session is decoded and compressed again, and no task waits for that.
#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_elsewhere_and_what_expires_meanwhile_hinders_nothing() {
    // The second time what was sent at once expires, and what came later goes on.
    for (takes, expected) in [(1, 7), (12, 4)] {
        let world = World::new(1, &[]).await;
        let mut seen = 0;
        world.service.fates(move |_| {
            seen += 1;
            match seen {
                1 => Fate::Refuse(Code::Fenced, Durability::NotWritten),
                _ => Fate::Decide,
            }
        });
        let env = Env::simulated(7).0;
        let jobs = Arc::new(AtomicUsize::new(0));
        let slow = Slow {
            inner: Arc::clone(&env.workers),
            takes: Duration::from_secs(takes),
            jobs: Arc::clone(&jobs),
        };
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            network: Arc::new(world.network.clone()),
            workers: Arc::new(slow),
            ..env
        };
        let uri = format!("http://{ADDRESS}");
        let client = Client::connect(&uri, Options::default(), &env).await;
        let options = ProducerOptions {
            delivery_timeout: Duration::from_secs(10),
            ..small()
        };
        let producer = client.unwrap().producer(TOPIC, options).await.unwrap();
        let mut deliveries = Vec::new();
        for number in 0..8 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
            if number == 3 {
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        }
        let outcomes = outcomes(deliveries).await;
        assert_eq!(outcomes[0].as_ref().unwrap_err().code(), Code::Fenced);
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        for failed in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(failed.durability(), Durability::NotWritten, "{failed}");
        }
        assert_eq!(world.service.values(TOPIC, 0).len(), written);
        let jobs = jobs.load(Ordering::Relaxed);
        assert_eq!((written, jobs), (expected, 1), "{outcomes:?}");
        assert!(producer.send(wide(0, 8)).await.unwrap().await.is_ok());
    }
}

/// A service forgets producers that are silent for a day.
#[tokio::test(start_paused = true)]
async fn a_producer_that_was_forgotten_goes_on_at_once() {
    let world = World::new(1, &[]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    producer.send(numbered(0, 0)).await.unwrap().await.unwrap();
    let key = (TOPIC.to_owned(), 0);
    {
        let mut state = world.service.state();
        state.partitions.get_mut(&key).unwrap().producers.clear();
    }
    let began = tokio::time::Instant::now();
    producer.send(numbered(0, 1)).await.unwrap().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..2));
}

#[tokio::test(start_paused = true)]
async fn time_over_says_what_is_known() {
    let options = ProducerOptions {
        delivery_timeout: Duration::from_secs(20),
        reply_timeout: Duration::from_secs(5),
        ..ProducerOptions::default()
    };
    let fates = [
        (
            Fate::Refuse(Code::HeadFull, Durability::NotWritten),
            Durability::NotWritten,
            Code::HeadFull,
        ),
        (Fate::Silence, Durability::Unknown, Code::OutcomeUnknown),
        (Fate::BreakBefore, Durability::Unknown, Code::OutcomeUnknown),
    ];
    for (fate, expected, code) in fates {
        let world = World::new(1, &[]).await;
        world.service.fates(move |_| fate.clone());
        let producer = world.producer(options.clone()).await;
        let begun = tokio::time::Instant::now();
        let error = producer
            .send(numbered(0, 0))
            .await
            .unwrap()
            .await
            .unwrap_err();
        assert_eq!((error.durability(), error.code()), (expected, code));
        assert!(error.is_retriable());
        assert_eq!(begun.elapsed().as_secs(), 20);
        assert!(error.message().contains("20s; at last: "), "{error}");
        // The next one does not suffer for it.
        world.service.fates(|_| Fate::Decide);
        producer.send(numbered(0, 1)).await.unwrap().await.unwrap();
        assert_eq!(world.service.values(TOPIC, 0), ["1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_is_there_nothing_is_in_doubt() {
    for idempotent in [true, false] {
        let world = World::new(1, &[]).await;
        let options = ProducerOptions {
            idempotent,
            ..ProducerOptions::default()
        };
        let producer = world.producer(options).await;
        world.network.refuse(ADDRESS, true);
        world.network.cut(ADDRESS);
        let lost = producer.send(numbered(0, 0)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let kept = producer.send(numbered(0, 1)).await.unwrap();
        let error = lost.await.unwrap_err();
        assert_eq!(error.durability(), Durability::NotWritten, "{error}");
        world.network.refuse(ADDRESS, false);
        kept.await.unwrap();
        assert_eq!(world.service.values(TOPIC, 0), ["1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn sending_waits_for_memory_and_nothing_is_lost() {
    let world = World::new(1, &[]).await;
    world
        .service
        .fates(|_| Fate::Late(Duration::from_millis(100)));
    let options = ProducerOptions {
        memory_bytes: 4 << 10,
        ..small()
    };
    let producer = world.producer(options).await;
    let mut waited = 0;
    for number in 0..40 {
        let send = producer.send(wide(0, number));
        tokio::pin!(send);
        let soon = tokio::time::timeout(Duration::from_millis(20), &mut send).await;
        let _delivery = match soon {
            Ok(delivery) => delivery.unwrap(),
            Err(_) => {
                waited += 1;
                send.await.unwrap()
            }
        };
    }
    producer.flush().await.unwrap();
    assert!(waited > 5, "{waited}");
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..40));
    let error = producer
        .send(Record::value(vec![0; 5000]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::BatchTooLarge, Durability::NotWritten)
    );
    assert_eq!(error.limit_and_value().unwrap().0, 4096);
}

#[tokio::test(start_paused = true)]
async fn a_record_above_the_topics_limit_fails_alone() {
    let world = World::new(1, &[("max_batch_bytes", "2000")]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    let dice = SeededEntropy::new(1);
    let mut noise = vec![0; 4000];
    esker_env::Entropy::fill(&dice, &mut noise);
    let records = [numbered(0, 0), Record::value(noise), numbered(0, 1)];
    let mut deliveries = Vec::new();
    for record in records {
        deliveries.push(producer.send(record).await.unwrap());
    }
    let outcomes = outcomes(deliveries).await;
    let error = outcomes[1].as_ref().unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::BatchTooLarge, Durability::NotWritten)
    );
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert_eq!(world.service.values(TOPIC, 0), numbers(0..2));
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

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_told_before_anything_is_sent() {
    let world = World::new(2, &[]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    let error = producer.send(numbered(2, 0)).await.unwrap_err();
    assert_eq!(error.code(), Code::UnknownPartition);
    let far = Record {
        timestamp: Some(Timestamp(i64::MIN)),
        ..numbered(0, 0)
    };
    assert_eq!(
        producer.send(far).await.unwrap_err().code(),
        Code::InvalidRequest
    );
    let error = world
        .client
        .producer("other", ProducerOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::UnknownTopic);
    let tiny = ProducerOptions {
        batch_bytes: 10,
        ..ProducerOptions::default()
    };
    let error = world.client.producer(TOPIC, tiny).await.unwrap_err();
    assert_eq!(
        error.message(),
        "batch_bytes is 10, it may be 1024 to 8388608"
    );
    assert_eq!(world.service.state().append_requests, 0);
}

/// Groups of one to seven, some by name of the partition, among single records.
#[tokio::test(start_paused = true)]
async fn what_is_sent_together_is_together() {
    let world = World::new(3, &[]).await;
    let producer = world.producer(small()).await;
    let (mut all, mut singles) = (Vec::new(), Vec::new());
    for group in 0..40u32 {
        let records: Vec<_> = (0..group % 7 + 1)
            .map(|at| Record::value(format!("{group} {at}")))
            .collect();
        let partition = (group % 2 == 0).then_some(group % 3);
        let count = u64::from(group % 7 + 1);
        let delivery = producer.send_together(partition, records).await.unwrap();
        all.push((group, partition, count, delivery));
        singles.push(producer.send(Record::value("alone")).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut found = Vec::new();
    for (group, partition, count, delivery) in all {
        let acked = delivery.await.unwrap();
        assert_eq!(acked.offsets.len(), count);
        assert!(partition.is_none_or(|wanted| wanted == acked.partition));
        for (at, offset) in (0..count).zip(acked.offsets.start().get()..) {
            found.push((acked.partition, offset, format!("{group} {at}")));
        }
    }
    for single in singles {
        let acked = single.await.unwrap();
        found.push((acked.partition, acked.offset.get(), "alone".to_owned()));
    }
    found.sort();
    let mut stored = Vec::new();
    for partition in 0..3 {
        let options = ReadOptions::default();
        let mut reader = world.client.read(TOPIC, partition, options).await.unwrap();
        while let Some(batch) = reader.next().await.unwrap() {
            for record in batch.records() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                stored.push((partition, record.offset.get(), value));
            }
        }
    }
    assert_eq!(stored, found);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_together_is_refused_whole() {
    let world = World::new(1, &[("max_batch_bytes", "2000")]).await;
    let options = ProducerOptions {
        compression: Some(Compression::None),
        ..ProducerOptions::default()
    };
    let producer = world.producer(options).await;
    assert_eq!(producer.max_batch_bytes(), 2000);
    let none = producer.send_together(None, Vec::new()).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidRequest);
    let elsewhere = producer
        .send_together(Some(1), vec![Record::value("x")])
        .await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::UnknownPartition);

    let many = |count| vec![Record::value(vec![b'x'; 100]); count];
    let error = producer
        .send_together(None, many(25))
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.durability()),
        (Code::BatchTooLarge, Durability::NotWritten)
    );
    let acked = producer
        .send_together(None, many(15))
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!((acked.offsets.start().get(), acked.offsets.len()), (0, 15));
}
