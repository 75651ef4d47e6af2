use esker_env::Env;
use esker_types::{Lane, SegmentId};

use super::*;
use crate::error::{Error, Kind};
use crate::keys::{Key, Prefix};
use crate::open::Options;
use crate::request::Verb;
use crate::store::Store;

fn key(n: u128) -> Key {
    Key::Probe(SegmentId(n))
}

fn body(bytes: &'static [u8]) -> Vec<Bytes> {
    vec![Bytes::from_static(bytes)]
}

fn open(name: &str) -> (Store, FaultStore) {
    let url = format!("memory://faults-{name}");
    let mut options = Options::default();
    options.budget.attempts = 1;
    Store::open_with_faults(&url, &options, &Env::simulated(1).0).unwrap()
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_has_landed() {
    let (store, faults) = open("lost-answer");
    faults.script(Rule::new(Fault::ApplyThenFail).on(Verb::Put));
    let error = store.put(&key(1), body(b"abc")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(store.head(&key(1)).await.unwrap(), 3);
    assert_eq!(faults.injected(), 1);
}

#[tokio::test]
async fn a_late_put_lands_after_everything_else() {
    let (store, faults) = open("late");
    faults.script(Rule::new(Fault::ApplyLate).on(Verb::Put).under(key(1)));
    store.put(&key(1), body(b"late")).await.unwrap_err();
    assert_eq!(
        store.head(&key(1)).await.unwrap_err().kind(),
        Kind::NotFound
    );
    store.delete(&[key(1)]).await.remove(0).unwrap();
    assert_eq!((faults.held(), faults.release().await), (1, 1));
    assert_eq!(store.head(&key(1)).await.unwrap(), 4);
    assert_eq!(faults.held(), 0);
}

#[tokio::test]
async fn a_lost_put_is_found_by_a_head_and_a_damaged_one_by_its_bytes() {
    let (store, faults) = open("writes");
    faults.script(Rule::new(Fault::Lose).on(Verb::Put));
    store.put(&key(1), body(b"0123")).await.unwrap();
    assert_eq!(
        store.head(&key(1)).await.unwrap_err().kind(),
        Kind::NotFound
    );
    faults.script(Rule::new(Fault::ShortBody).on(Verb::Put));
    store.put(&key(1), body(b"0123")).await.unwrap();
    assert_eq!(store.head(&key(1)).await.unwrap(), 2);
    faults.script(Rule::new(Fault::CorruptBody).on(Verb::Put));
    store.put(&key(1), body(b"0123")).await.unwrap();
    let read = store.get_range(&key(1), 0..4, Lane::Tail).await.unwrap();
    assert_eq!(read, Bytes::from_static(b"01\x223"));
    // A get that is harmed, too, does not set it right.
    faults.script(Rule::new(Fault::CorruptBody).on(Verb::Get));
    let read = store.get_range(&key(1), 0..4, Lane::Tail).await.unwrap();
    assert_eq!(read, Bytes::from_static(b"01\x023"));
}

#[tokio::test]
async fn a_swapped_body_is_another_objects() {
    let (store, faults) = open("swapped");
    store.put(&key(1), body(b"one")).await.unwrap();
    store.put(&key(2), body(b"two")).await.unwrap();
    store.put(&key(3), body(b"x")).await.unwrap();
    faults.script(Rule::new(Fault::SwappedBody).on(Verb::Get));
    let read = store.get_range(&key(1), 0..3, Lane::Tail).await.unwrap();
    assert_eq!(read, "two");
}

#[tokio::test]
async fn a_stale_list_shows_what_was_and_not_what_is() {
    let (store, faults) = open("stale");
    store.put(&key(1), body(b"one")).await.unwrap();
    store.put(&key(2), body(b"two")).await.unwrap();
    store.delete(&[key(1)]).await.remove(0).unwrap();
    faults.script(Rule::new(Fault::StaleList));
    let stale = store.list(Prefix::Probes, None).await.unwrap();
    let keys: Vec<_> = stale.objects.iter().map(|object| object.key).collect();
    assert_eq!(keys, [key(1)]);
    let fresh = store.list(Prefix::Probes, None).await.unwrap();
    assert_eq!(fresh.objects[0].key, key(2));
}

#[tokio::test]
async fn a_rule_waits_for_its_turn_its_verb_and_its_prefix() {
    let (store, faults) = open("rule");
    let rule = Rule::new(Fault::FailBefore).on(Verb::Head).under(key(2));
    faults.script(rule.after(1));
    store.put(&key(2), body(b"x")).await.unwrap();
    store.put(&key(3), body(b"x")).await.unwrap();
    store.head(&key(3)).await.unwrap();
    store.head(&key(2)).await.unwrap();
    store.head(&key(2)).await.unwrap_err();
    store.head(&key(2)).await.unwrap();
}

#[tokio::test]
async fn the_same_seed_brings_the_same_faults() {
    let mut runs = Vec::new();
    for run in 0..2 {
        let (store, faults) = open(&format!("seed-{run}"));
        faults.random(7, &[(Fault::FailBefore, 200), (Fault::ApplyThenFail, 200)]);
        let mut outcomes = Vec::new();
        for n in 0..100 {
            // A failure in a row too many would open the circuit, which asks the clock.
            outcomes.push(store.put(&key(n), body(b"x")).await.is_ok());
        }
        runs.push(outcomes);
    }
    assert_eq!(runs[0], runs[1]);
    let failed = runs[0].iter().filter(|ok| !**ok).count();
    assert!((15..=60).contains(&failed), "{failed} of 100 failed");
}

#[tokio::test]
async fn a_bucket_that_is_away_comes_back_whole() {
    let (store, faults) = open("away");
    store.put(&key(1), body(b"x")).await.unwrap();
    faults.away(true);
    assert_eq!(
        store.head(&key(1)).await.unwrap_err().kind(),
        Kind::Unavailable
    );
    faults.away(false);
    store.head(&key(1)).await.unwrap();
}

#[tokio::test]
async fn the_probe_names_the_step_at_which_a_store_breaks_its_word() {
    for (fault, verb, step) in [
        (Fault::FailBefore, Verb::Put, "put"),
        (Fault::Lose, Verb::Put, "read after write"),
        (Fault::CorruptBody, Verb::Put, "read after write"),
        (Fault::ShortBody, Verb::Put, "read after write"),
        (Fault::StaleList, Verb::List, "list after put"),
        (Fault::FailBefore, Verb::Delete, "delete"),
        (Fault::Lose, Verb::Delete, "head after delete"),
    ] {
        let (store, faults) = open(&format!("probe-{step}-{fault:?}"));
        store.probe().await.unwrap();
        faults.script(Rule::new(fault).on(verb).times(2));
        match store.probe().await.unwrap_err() {
            Error::Probe { step: named, .. } => assert_eq!(named, step, "{fault:?}"),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn the_probe_catches_a_lost_overwrite() {
    let (store, faults) = open("probe-overwrite");
    faults.script(Rule::new(Fault::Lose).on(Verb::Put).after(1));
    let error = store.probe().await.unwrap_err().to_string();
    assert!(error.contains("read after overwrite"), "{error}");
}
