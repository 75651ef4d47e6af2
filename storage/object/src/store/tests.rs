use std::sync::Arc;
use std::time::Duration;

use esker_env::sim::SimClock;
use esker_types::SegmentId;

use super::*;
use crate::budget::Budget;
use crate::error::{Cause, Kind};
use crate::faults::{Fault, FaultStore, Rule};
use crate::request::Verb;

const KEY: Key = Key::Probe(SegmentId(1));

/// A store over an empty bucket of its own, under simulated time.
fn store(name: &str, budget: Budget) -> (Store, FaultStore) {
    let env = Env {
        clock: Arc::new(SimClock::following_tokio()),
        ..Env::simulated(1).0
    };
    let options = Options {
        budget,
        ..Options::default()
    };
    Store::open_with_faults(&format!("memory://store-{name}"), &options, &env).unwrap()
}

fn body(bytes: &'static [u8]) -> Vec<Bytes> {
    vec![Bytes::from_static(bytes)]
}

fn cause(error: &Error) -> &Cause {
    match error {
        Error::Request { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_followed_by_another() {
    let (store, faults) = store("retry", Budget::default());
    faults.script(Rule::new(Fault::FailBefore).times(2).on(Verb::Put));
    store.put(&KEY, body(b"hello")).await.unwrap();
    let counters = store.counters();
    assert_eq!((counters.put.failed, counters.put.done), (2, 1));
    assert_eq!((counters.retried, counters.written_bytes), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_ends_in_an_error_that_counts_the_attempts() {
    let (store, faults) = store("spent", Budget::default());
    faults.script(Rule::new(Fault::Throttle).always());
    let error = store.put(&KEY, body(b"x")).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("after 6 attempts") && text.contains("503"),
        "{text}"
    );
    assert!(text.contains(&KEY.to_string()), "{text}");
    assert!(error.is_retriable());
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_the_total_time() {
    let budget = Budget {
        total: Duration::from_secs(25),
        attempts: 100,
        breaker_failures: 1000,
        ..Budget::default()
    };
    let (store, faults) = store("total", budget);
    faults.script(Rule::new(Fault::Slow(Duration::from_secs(3600))).always());
    let started = tokio::time::Instant::now();
    let error = store.head(&KEY).await.unwrap_err();
    assert_eq!(*cause(&error), Cause::TimedOut(Duration::from_secs(15)));
    // The second attempt began before 25 s and took its own 15 s.
    assert!(
        started.elapsed() < Duration::from_secs(41),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(store.counters().head.abandoned, 2);
}

#[tokio::test(start_paused = true)]
async fn a_definite_answer_is_not_asked_for_again() {
    let (store, _) = store("definite", Budget::default());
    assert_eq!(store.head(&KEY).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.counters().head.not_found, 1);
    assert_eq!(store.counters().requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_body_is_asked_for_again_and_never_handed_out() {
    let (store, faults) = store("short", Budget::default());
    store.put(&KEY, body(b"0123456789")).await.unwrap();
    faults.script(Rule::new(Fault::ShortBody).on(Verb::Get));
    let read = store.get_range(&KEY, 0..10, Lane::Tail).await.unwrap();
    assert_eq!(read, "0123456789");
    assert_eq!(store.counters().get.done, 2);

    faults.script(Rule::new(Fault::ShortBody).on(Verb::Get).always());
    let error = store.get_range(&KEY, 2..6, Lane::Tail).await.unwrap_err();
    assert!(error.to_string().contains("2..6"), "{error}");
    assert!(
        matches!(cause(&error), Cause::Short { got: 2, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_shorter_than_its_range_is_corrupt_at_once() {
    let (store, _) = store("truncated", Budget::default());
    store.put(&KEY, body(b"0123456789")).await.unwrap();
    let error = store.get_range(&KEY, 20..30, Lane::Tail).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("has 10 bytes"), "{error}");
    assert_eq!(store.counters().get.failed, 1, "not asked again");
}

#[tokio::test(start_paused = true)]
async fn the_circuit_opens_refuses_without_asking_and_closes_after_a_trial() {
    let budget = Budget {
        attempts: 1,
        breaker_failures: 3,
        ..Budget::default()
    };
    let (store, faults) = store("breaker", budget);
    faults.away(true);
    let mut failed = None;
    for _ in 0..3 {
        failed = Some(cause(&store.head(&KEY).await.unwrap_err()).clone());
    }
    let asked = store.counters().requests();
    let error = store.head(&KEY).await.unwrap_err();
    let last = Arc::new(failed.unwrap());
    let said = error.to_string();
    assert!(said.ends_with(&format!("the last: {last}")), "{said}");
    assert!(said.contains("failed: not asked"), "{said}");
    assert_eq!(*cause(&error), Cause::CircuitOpen { failures: 3, last });
    assert_eq!(store.counters().requests(), asked);

    // A trial that fails opens it again; one that succeeds closes it.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(matches!(
        cause(&store.head(&KEY).await.unwrap_err()),
        Cause::Unavailable(_)
    ));
    assert!(matches!(
        cause(&store.head(&KEY).await.unwrap_err()),
        Cause::CircuitOpen { .. }
    ));
    faults.away(false);
    tokio::time::advance(Duration::from_secs(2)).await;
    store.put(&KEY, body(b"x")).await.unwrap();
    store.head(&KEY).await.unwrap();
    assert_eq!(store.counters().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_tries_an_open_circuit_and_a_dropped_one_makes_room() {
    let budget = Budget {
        attempts: 1,
        breaker_failures: 1,
        ..Budget::default()
    };
    let (store, faults) = store("trial", budget);
    faults.away(true);
    store.head(&KEY).await.unwrap_err();
    faults.calm();
    tokio::time::advance(Duration::from_secs(2)).await;
    faults.script(Rule::new(Fault::Slow(Duration::from_secs(10))));
    let slow = tokio::spawn({
        let store = store.clone();
        async move { store.head(&KEY).await }
    });
    tokio::task::yield_now().await;
    let refused = store.head(&KEY).await.unwrap_err();
    assert!(
        matches!(cause(&refused), Cause::CircuitOpen { .. }),
        "{refused}"
    );
    slow.abort();
    assert!(slow.await.unwrap_err().is_cancelled());
    let answered = store.head(&KEY).await.unwrap_err();
    assert_eq!(answered.kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_full_background_queue_refuses_and_leaves_the_foreground_alone() {
    let budget = Budget {
        background: 1,
        waiting: 1,
        ..Budget::default()
    };
    let (store, faults) = store("limit", budget);
    store.put(&KEY, body(b"x")).await.unwrap();
    faults.script(Rule::new(Fault::Slow(Duration::from_secs(5))).times(2));
    let backfill = || {
        let store = store.clone();
        tokio::spawn(async move { store.get_range(&KEY, 0..1, Lane::Backfill).await })
    };
    let (running, waiting) = (backfill(), backfill());
    tokio::task::yield_now().await;
    let refused = store
        .get_range(&KEY, 0..1, Lane::Backfill)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert!(refused.to_string().contains("1 background"), "{refused}");
    assert_eq!(store.counters().refused, 1);
    faults.calm();
    store.get_range(&KEY, 0..1, Lane::Tail).await.unwrap();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    // Who waited gave the place back.
    faults.script(Rule::new(Fault::Slow(Duration::from_secs(5))).times(2));
    let (running, waiting) = (backfill(), backfill());
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.counters().refused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_payload_is_given_more_time() {
    let (store, faults) = store("deadline", Budget::default());
    let large = Bytes::from(vec![7; 8 << 20]);
    faults.script(Rule::new(Fault::Slow(Duration::from_secs(30))).on(Verb::Put));
    store.put(&KEY, vec![large]).await.unwrap();
    assert_eq!(store.counters().put.abandoned, 0);
}

#[tokio::test]
async fn what_exceeds_a_limit_is_refused_before_it_is_sent() {
    let (store, _) = store("limits", Budget::default());
    let one = Bytes::from(vec![0; 64 << 20]);
    let error = store.put(&KEY, vec![one; 9]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("536870912"), "{error}");
    for range in [0..(65 << 20), 0..u64::MAX] {
        let error = store.get_range(&KEY, range, Lane::Tail).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
    #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
    let backward = store.get_range(&KEY, 5..4, Lane::Tail).await;
    assert_eq!(backward.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(store.counters().requests(), 0);
}

#[tokio::test]
async fn names_that_are_no_keys_are_counted_and_never_listed() {
    let name = "memory://store-foreign";
    let (store, _) = self::store("foreign", Budget::default());
    store.put(&KEY, body(b"x")).await.unwrap();
    let raw = open::backend(name, &Options::default(), &Env::real()).unwrap();
    let stray = Request::Put {
        path: "probe/notes.txt".into(),
        parts: body(b"mine"),
    };
    raw.call(stray).await.unwrap();
    let page = store.list(Prefix::Probes, None).await.unwrap();
    assert_eq!((page.objects.len(), page.foreign.names), (1, 1));
}
