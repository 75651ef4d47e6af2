//! Reading: everything, once, in order, or an error that says why not.

use std::time::Duration;

use bytes::Bytes;
use esker_client::v1::ReadPreference;
use esker_client::{
    Batch, Code, Detail, From, Offset, ProducerOptions, ReadOptions, Reader, Record, Timestamp,
    Until,
};
use esker_types::Incarnation;

use crate::{ADDRESS, TOPIC, World, numbered, numbers};

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn between(from: u64, until: u64) -> ReadOptions {
    ReadOptions {
        from: From::Offset(offset(from)),
        until: Until::Offset(offset(until)),
        ..ReadOptions::default()
    }
}

/// Values, each checked to be at the offset that is its number.
fn values(batch: &Batch) -> Vec<String> {
    let records = batch.records().map(|record| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        assert_eq!(record.offset.get().to_string(), value);
        value
    });
    records.collect()
}

async fn rest(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(batch) = reader.next().await.unwrap() {
        all.extend(values(&batch));
    }
    all
}

async fn read(world: &World, options: ReadOptions) -> Vec<String> {
    rest(&mut world.client.read(TOPIC, 0, options).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn every_range_is_read_exactly() {
    let world = World::new(1, &[]).await;
    world.fill(0..20).await;
    assert_eq!(read(&world, ReadOptions::default()).await, numbers(0..20));
    for from in 0..=20 {
        for until in 0..=21 {
            let expected = if from < until {
                numbers(from..until.min(20))
            } else {
                Vec::new()
            };
            let options = between(u64::from(from), u64::from(until));
            assert_eq!(read(&world, options).await, expected, "{from}..{until}");
        }
    }
    let options = ReadOptions {
        from: From::End,
        ..ReadOptions::default()
    };
    assert!(read(&world, options).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broken_read_goes_on_where_it_was() {
    let world = World::new(1, &[]).await;
    world.fill(0..60).await;
    // Each stream gives the batches of one reply and breaks.
    world.service.state().read_breaks_after = Some(1);
    let from_middle = between(4, 58);
    assert_eq!(read(&world, from_middle).await, numbers(4..58));
    let reads = world.service.state().reads.clone();
    assert!(reads.len() >= 9, "{}", reads.len());
    assert!(
        reads.iter().all(|read| read.mark.is_some()),
        "the mark goes back"
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_to_answer_is_said_again_after_a_break() {
    for preference in [ReadPreference::Leader, ReadPreference::Follower] {
        let world = World::new(1, &[]).await;
        world.fill(0..9).await;
        world.service.state().read_breaks_after = Some(1);
        let options = ReadOptions {
            prefer_followers: preference == ReadPreference::Follower,
            ..ReadOptions::default()
        };
        assert_eq!(read(&world, options).await, numbers(0..9));
        let reads = world.service.state().reads.clone();
        let said = reads.iter().map(|read| read.preference());
        assert!(reads.len() > 1 && said.into_iter().all(|said| said == preference));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_bounded_read_runs_is_not_read() {
    let world = World::new(1, &[]).await;
    world.fill(0..30).await;
    world.service.state().read_breaks_after = Some(1);
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    let first = reader.next().await.unwrap().unwrap();
    assert_eq!(values(&first), numbers(0..3));
    world.fill(30..40).await;
    assert_eq!(rest(&mut reader).await, numbers(3..30));
    assert_eq!(reader.next_offset(), Some(offset(30)));
}

/// Its offsets are none of the reader's.
#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_not_read_on() {
    let world = World::new(1, &[]).await;
    world.fill(0..6).await;
    let options = ReadOptions {
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    for numbered in [0..3, 3..6] {
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!(values(&batch), numbers(numbered));
    }
    world.service.state().make_anew(TOPIC);
    world.fill(6..9).await;
    assert!(world.network.cut(ADDRESS) > 0);
    let ended = loop {
        // What came before the cut may be heard yet.
        match reader.next().await {
            Ok(batch) => assert_eq!(values(&batch.unwrap()), numbers(6..9)),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code(), Code::UnknownTopic);
    let reads = world.service.state().reads.clone();
    assert!(reads.len() >= 2 && reads.iter().all(|read| read.topic_id == Some(1)));

    // Nor if there is nothing to read.
    let seen = ReadOptions {
        topic_id: Some(1),
        ..between(9, 9)
    };
    let mut reader = world.client.read(TOPIC, 0, seen).await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().code(), Code::UnknownTopic);
}

#[tokio::test(start_paused = true)]
async fn following_outlives_cuts_and_dropped_calls() {
    let world = World::new(1, &[]).await;
    world.fill(0..6).await;
    let options = ReadOptions {
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    let mut got = Vec::new();
    let mut empty_calls = 0;
    for round in 1..=10 {
        while got.len() < round * 6 {
            // Most of these calls are dropped before there is anything.
            let call = tokio::time::timeout(Duration::from_micros(10), reader.next());
            match call.await {
                Ok(batch) => got.extend(values(&batch.unwrap().unwrap())),
                Err(_) => empty_calls += 1,
            }
        }
        let next = u32::try_from(round * 6).unwrap();
        if round < 10 {
            world.network.cut(ADDRESS);
            world.fill(next..next + 6).await;
        }
    }
    assert_eq!(got, numbers(0..60));
    assert!(empty_calls > 0);
}

/// "With the first record to be written": counted from when `read` returned, however often the
/// stream has to be opened.
#[tokio::test(start_paused = true)]
async fn what_is_appended_once_a_read_of_the_end_is_open_comes() {
    let world = World::new(1, &[]).await;
    world.fill(0..6).await;
    world.service.state().read_breaks_after = Some(0);
    let options = ReadOptions {
        from: From::End,
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    let next = reader.next_offset();
    while world.service.state().reads.len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.fill(6..9).await;
    world.service.state().read_breaks_after = None;
    let came = tokio::time::timeout(Duration::from_secs(60), reader.next()).await;
    let batch = came.expect("it comes").unwrap().unwrap();
    assert_eq!(values(&batch), numbers(6..9));
    assert_eq!(next, Some(offset(6)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_follower_outlives_any_number_of_cuts() {
    let world = World::new(1, &[]).await;
    let options = ReadOptions {
        follow: true,
        ..ReadOptions::default()
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    let client = world.client.clone();
    let network = world.network.clone();
    let disturber = tokio::spawn(async move {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            network.cut(ADDRESS);
        }
        let producer = client
            .producer(TOPIC, ProducerOptions::default())
            .await
            .unwrap();
        producer.send(numbered(0, 0)).await.unwrap().await.unwrap();
    });
    assert_eq!(values(&reader.next().await.unwrap().unwrap()), ["0"]);
    disturber.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let world = World::new(1, &[]).await;
    world.fill(0..6).await;
    world.service.state().read_breaks_after = Some(0);
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    let begun = tokio::time::Instant::now();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let waited = begun.elapsed().as_secs();
    assert!((100..=120).contains(&waited), "{waited}");
    assert_eq!(reader.next().await.unwrap_err(), error, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn an_offset_out_of_range_is_told_at_once() {
    let world = World::new(1, &[]).await;
    world.fill(0..9).await;
    let truncation = esker_client::v1::Truncation {
        partition: 0,
        before: Some(4),
    };
    world
        .client
        .admin()
        .truncate_topic(TOPIC, None, vec![truncation])
        .await
        .unwrap();
    assert_eq!(read(&world, ReadOptions::default()).await, numbers(4..9));
    for options in [between(3, 9), between(10, 12)] {
        let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.code(), Code::OffsetOutOfRange);
        let Some(Detail::OutOfRange(range)) = error.detail() else {
            panic!("{error}");
        };
        assert_eq!((range.log_start, range.end), (4, 9));
    }
    assert_eq!(world.service.state().reads.len(), 3, "none is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_time_is_found() {
    let world = World::new(1, &[]).await;
    let producer = world.producer(ProducerOptions::default()).await;
    for number in 0..10u32 {
        let record = Record {
            timestamp: Some(Timestamp(i64::from(number) * 100)),
            ..numbered(0, number)
        };
        producer.send(record).await.unwrap().await.unwrap();
    }
    let options = ReadOptions {
        from: From::Time(Timestamp(250)),
        until: Until::Time(Timestamp(700)),
        ..ReadOptions::default()
    };
    assert_eq!(read(&world, options).await, numbers(3..7));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_an_error() {
    let world = World::new(1, &[]).await;
    world.fill(0..9).await;
    let key = (TOPIC.to_owned(), 0);
    world
        .service
        .state()
        .partitions
        .get_mut(&key)
        .unwrap()
        .batches
        .remove(1);
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    assert_eq!(
        values(&reader.next().await.unwrap().unwrap()),
        numbers(0..3)
    );
    let error = reader.next().await.unwrap_err();
    assert!(error.message().contains("offset 6, 3 is due"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_an_error_that_names_the_offset() {
    let world = World::new(1, &[]).await;
    world.fill(0..9).await;
    let key = (TOPIC.to_owned(), 0);
    let (base, mut flipped) = {
        let state = world.service.state();
        let (base, bytes) = &state.partitions[&key].batches[1];
        (*base, bytes.to_vec())
    };
    *flipped.last_mut().unwrap() ^= 1;
    world.service.state().flip = Some((base, Bytes::from(flipped)));
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    assert_eq!(
        values(&reader.next().await.unwrap().unwrap()),
        numbers(0..3)
    );
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(
        error.message().contains("the batch at offset 3 is damaged"),
        "{error}"
    );
    assert_eq!(reader.next_offset(), Some(offset(3)));
    // What was read ahead behind it is not given to who asks again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reader.next().await.unwrap_err(), error);
    assert_eq!(reader.next_offset(), Some(offset(3)));
}

/// What an older life of the cluster has shown is not in this one: who has seen it must hear so.
#[tokio::test(start_paused = true)]
async fn a_mark_of_another_life_is_told() {
    let world = World::new(1, &[]).await;
    world.fill(0..6).await;
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    assert_eq!(rest(&mut reader).await, numbers(0..6));
    let seen = reader.mark().unwrap();
    assert_eq!((seen.incarnation, seen.index), (1, 6));

    world.service.state().incarnation = Incarnation::new(2).unwrap();
    world.fill(6..9).await;
    let resumed = |mark| ReadOptions {
        mark,
        ..between(6, 9)
    };
    let mut reader = world
        .client
        .read(TOPIC, 0, resumed(Some(seen)))
        .await
        .unwrap();
    assert_eq!(reader.mark(), Some(seen));
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.code(), Code::OtherIncarnation);
    assert_eq!(error.detail(), Some(&Detail::End(9)));
    assert_eq!(read(&world, resumed(None)).await, numbers(6..9));
    // Even if there is nothing to read.
    let options = ReadOptions {
        mark: Some(seen),
        ..between(9, 9)
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.code(), Code::OtherIncarnation);

    // Of one life, the later counts.
    let early = esker_client::v1::Mark {
        incarnation: 2,
        index: 1,
    };
    let reader = world.client.read(TOPIC, 0, resumed(Some(early))).await;
    let late = reader.unwrap().mark().unwrap();
    assert_eq!((late.incarnation, late.index), (2, 9));
}

#[tokio::test(start_paused = true)]
async fn damage_is_an_error_or_is_stepped_over_aloud() {
    let world = World::new(1, &[]).await;
    world.fill(0..12).await;
    let key = (TOPIC.to_owned(), 0);
    world
        .service
        .state()
        .partitions
        .get_mut(&key)
        .unwrap()
        .damaged = Some((3, 6));
    let mut reader = world
        .client
        .read(TOPIC, 0, ReadOptions::default())
        .await
        .unwrap();
    assert_eq!(
        values(&reader.next().await.unwrap().unwrap()),
        numbers(0..3)
    );
    assert_eq!(reader.next().await.unwrap_err().code(), Code::DataLoss);

    let options = ReadOptions {
        skip_damaged: true,
        ..ReadOptions::default()
    };
    let mut reader = world.client.read(TOPIC, 0, options).await.unwrap();
    let mut got = Vec::new();
    let mut skipped = Vec::new();
    while let Some(batch) = reader.next().await.unwrap() {
        got.extend(values(&batch));
        if batch.skipped().is_some() {
            skipped.push(batch.range().to_string());
        }
    }
    assert_eq!(got, [numbers(0..3), numbers(6..12)].concat());
    assert_eq!(skipped, ["[3, 6)"]);
}

/// What a reader leaves unread must not fill a window that a producer needs.
#[tokio::test(start_paused = true)]
async fn slow_readers_hold_nobody_up() {
    let settings = [("compression", "none"), ("max_batch_bytes", "2000000")];
    let world = World::new(1, &settings).await;
    let producer = world.producer(ProducerOptions::default()).await;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    for _ in 0..40 {
        let _delivery = producer.send(Record::value(large.clone())).await.unwrap();
    }
    producer.flush().await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(
            world
                .client
                .read(TOPIC, 0, ReadOptions::default())
                .await
                .unwrap(),
        );
    }
    // All of them fill what they may.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for _ in 0..10 {
        producer
            .send(Record::value("small"))
            .await
            .unwrap()
            .await
            .unwrap();
    }
    for reader in &mut readers {
        let mut bytes = 0;
        while let Some(batch) = reader.next().await.unwrap() {
            bytes += batch
                .records()
                .map(|r| r.value.unwrap().len())
                .sum::<usize>();
        }
        assert_eq!(bytes, 40 << 20);
    }
}
