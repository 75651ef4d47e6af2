//! Breaks, refusals and time that is over: what is said of a batch is known of it.

use std::time::Duration;

use esker_client::{Code, Durability, ProducerOptions};
use esker_record::Batch;

use super::{once, outcomes, small, wide};
use crate::service::{Fate, error};
use crate::{ADDRESS, TOPIC, World, numbered, numbers};

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

/// Nor one that breaks before the service has opened it, whoever says so.
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_opened_is_no_doubt() {
    for idempotent in [true, false] {
        let world = World::new(1, &[]).await;
        let broke = error(Code::Unavailable, Durability::Unknown);
        world.service.state().append_refusals = [broke].into();
        let options = ProducerOptions {
            idempotent,
            ..small()
        };
        let producer = world.producer(options).await;
        let mut deliveries = Vec::new();
        for number in 0..6 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
        }
        let acked: Vec<_> = (0..6).map(Ok).collect();
        assert_eq!(outcomes(deliveries).await, acked, "{idempotent}");
    }
}

/// A service that stops answers what it has taken, and says that it took nothing else.
#[tokio::test(start_paused = true)]
async fn a_service_that_stops_leaves_no_doubt() {
    for idempotent in [true, false] {
        let world = World::new(1, &[]).await;
        let mut seen = 0;
        world.service.fates(move |_| {
            seen += 1;
            if seen == 3 { Fate::Stop } else { Fate::Decide }
        });
        let options = ProducerOptions {
            idempotent,
            ..small()
        };
        let producer = world.producer(options).await;
        let mut deliveries = Vec::new();
        for number in 0..6 {
            deliveries.push(producer.send(wide(0, number)).await.unwrap());
        }
        let acked: Vec<_> = (0..6).map(Ok).collect();
        assert_eq!(outcomes(deliveries).await, acked, "{idempotent}");
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
        // Code and durability are said once, by the error itself.
        assert!(
            !error.message().contains("it is unknown whether"),
            "{error}"
        );
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
