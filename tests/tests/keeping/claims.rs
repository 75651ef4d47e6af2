//! One bucket, one cluster.

use std::time::Duration;

use esker_env::Env;
use esker_log::{ClaimError, claim, confirm};
use esker_object::faults::{Fault, FaultStore, Rule};
use esker_object::{Key, Options, Prefix, Store, Verb};
use esker_tests::node::run;
use esker_types::{ClusterId, Incarnation, RaftIndex};

use crate::{CLUSTER, OURS, flushed_key};

const OTHER: ClusterId = ClusterId(0x07e4);

fn bucket(name: &str) -> (Store, FaultStore) {
    let (env, _, _) = Env::simulated(1);
    let url = format!("memory://claims-{name}");
    Store::open_with_faults(&url, &Options::default(), &env).expect("a bucket")
}

fn key(cluster: ClusterId, incarnation: Incarnation) -> Key {
    Key::Cluster {
        incarnation,
        cluster,
    }
}

async fn claims(store: &Store) -> Vec<Key> {
    let (listed, _) = store.list_all(Prefix::Clusters).await.expect("listed");
    listed.into_iter().map(|object| object.key).collect()
}

#[test]
fn an_empty_bucket_is_claimed_once_and_for_good() {
    run(async {
        let (store, faults) = bucket("once");
        for _ in 0..3 {
            claim(&store, CLUSTER, OURS).await.expect("ours");
            confirm(&store, CLUSTER, OURS).await.expect("ours");
        }
        assert_eq!(claims(&store).await, [key(CLUSTER, OURS)]);
        // A listing that is late does not take our claim away.
        faults.script(Rule::new(Fault::StaleList).on(Verb::List).always());
        confirm(&store, CLUSTER, OURS).await.expect("ours");
    });
}

#[test]
fn a_bucket_of_another_cluster_is_refused_by_name_and_left_alone() {
    run(async {
        let (store, _) = bucket("taken");
        claim(&store, OTHER, OURS).await.expect("theirs");
        let error = claim(&store, CLUSTER, OURS).await.expect_err("theirs");
        assert!(matches!(
            error,
            ClaimError::Taken {
                by: OTHER,
                incarnation: OURS
            }
        ));
        let said = error.to_string();
        assert!(
            said.contains(&OTHER.to_string()) && said.contains("esker recover"),
            "{said}"
        );
        assert_eq!(claims(&store).await, [key(OTHER, OURS)]);
        let again = claim(&store, OTHER, OURS.next().expect("a second")).await;
        assert!(
            matches!(again, Err(ClaimError::Taken { .. })),
            "one life at a time"
        );
    });
}

#[test]
fn what_somebody_wrote_without_a_claim_is_not_ours_to_write_into() {
    run(async {
        let (store, _) = bucket("littered");
        let there = flushed_key(OURS, RaftIndex(3), 1);
        store.put(&there, vec![]).await.expect("put");
        let error = claim(&store, CLUSTER, OURS).await.expect_err("not empty");
        assert!(
            matches!(error, ClaimError::NotEmpty { key, .. } if key == there),
            "{error}"
        );
        assert!(claims(&store).await.is_empty());
    });
}

#[test]
fn of_two_at_the_same_time_at_most_one_claims_and_losers_leave_nothing() {
    for (seed, slow) in [[0, 0], [1000, 0], [0, 1000], [1000, 1000], [1000, 1001]]
        .into_iter()
        .enumerate()
    {
        run(async move {
            let (store, faults) = bucket(&format!("race-{seed}"));
            for (cluster, slow) in [CLUSTER, OTHER].into_iter().zip(slow) {
                let slow = Fault::Slow(Duration::from_millis(slow));
                let rule = Rule::new(slow).on(Verb::Put).under(key(cluster, OURS));
                faults.script(rule);
            }
            let (one, two) = tokio::join!(claim(&store, CLUSTER, OURS), claim(&store, OTHER, OURS));
            let mut won = Vec::new();
            for (cluster, outcome) in [(CLUSTER, one), (OTHER, two)] {
                match outcome {
                    Ok(()) => won.push(key(cluster, OURS)),
                    Err(ClaimError::Rival { .. } | ClaimError::Taken { .. }) => {}
                    Err(other) => unreachable!("{other}"),
                }
            }
            assert!(won.len() <= 1, "{slow:?}: {won:?}");
            assert_eq!(claims(&store).await, won, "{slow:?}");
        });
    }
}

#[test]
fn a_claim_that_was_cut_short_is_made_again() {
    run(async {
        let (store, faults) = bucket("cut");
        for fault in [Fault::Lose, Fault::ShortBody, Fault::CorruptBody] {
            faults.script(Rule::new(fault).on(Verb::Put));
            let error = claim(&store, CLUSTER, OURS).await.expect_err("found out");
            assert!(
                matches!(
                    error,
                    ClaimError::NotStored { .. } | ClaimError::Other { .. }
                ),
                "{fault:?}: {error}"
            );
        }
        faults.script(Rule::new(Fault::ApplyLate).on(Verb::Put).times(6));
        let error = claim(&store, CLUSTER, OURS).await.expect_err("no answer");
        assert!(matches!(error, ClaimError::Bucket(_)), "{error}");
        claim(&store, CLUSTER, OURS).await.expect("ours");
        assert!(faults.release().await > 0);
        claim(&store, CLUSTER, OURS).await.expect("still ours");
        confirm(&store, CLUSTER, OURS).await.expect("ours");
    });
}

#[test]
fn a_cluster_that_was_rebuilt_or_whose_claim_is_gone_stops() {
    run(async {
        let (store, _) = bucket("rebuilt");
        claim(&store, CLUSTER, OURS).await.expect("ours");
        let next = OURS.next().expect("a second");
        store.put(&key(OTHER, next), vec![]).await.expect("put");
        let error = confirm(&store, CLUSTER, OURS).await.expect_err("over");
        assert!(
            matches!(error, ClaimError::Superseded { by: OTHER, .. }),
            "{error}"
        );
        for gone in [key(OTHER, next), key(CLUSTER, OURS)] {
            store.delete(&[gone]).await.remove(0).expect("deleted");
        }
        let error = confirm(&store, CLUSTER, OURS).await.expect_err("gone");
        assert!(matches!(error, ClaimError::Missing { .. }), "{error}");
    });
}
