//! What waits for memory, and what is refused before it is sent or for its size.

use std::time::Duration;

use esker_client::{Code, Durability, ProducerOptions, Record, Timestamp};
use esker_env::sim::SeededEntropy;
use esker_types::limits::PRODUCER_EXPIRY;

use super::{outcomes, small, wide};
use crate::service::Fate;
use crate::{TOPIC, World, numbered, numbers};

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
    // So long after it was written, no window would know a batch that is sent again.
    for delivery_timeout in [PRODUCER_EXPIRY, Duration::MAX] {
        let long = ProducerOptions {
            delivery_timeout,
            ..ProducerOptions::default()
        };
        let error = world.client.producer(TOPIC, long).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
        let text = error.message();
        assert!(
            text.contains("delivery_timeout") && text.contains("43200s"),
            "{text}"
        );
    }
    assert_eq!(world.service.state().append_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_may_be_waited_for_without_end() {
    let world = World::new(1, &[]).await;
    let options = ProducerOptions {
        reply_timeout: Duration::MAX,
        ..ProducerOptions::default()
    };
    let producer = world.producer(options).await;
    let delivery = producer.send(numbered(0, 0)).await.unwrap();
    assert_eq!(delivery.await.unwrap().offset.get(), 0);
}

/// Who waits can be told for what.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_the_clients_setback_until_it_is_written() {
    let world = World::new(1, &[]).await;
    let mut left = 40;
    world.service.fates(move |_| {
        left -= 1;
        match left {
            0.. => Fate::Refuse(Code::HeadFull, Durability::NotWritten),
            _ => Fate::Decide,
        }
    });
    let producer = world.producer(ProducerOptions::default()).await;
    assert_eq!(world.client.setback(), None);
    let delivery = producer.send(numbered(0, 0)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let setback = world.client.setback().unwrap();
    assert_eq!(setback.code(), Code::HeadFull);
    delivery.await.unwrap();
    assert_eq!(world.client.setback(), None);
}
