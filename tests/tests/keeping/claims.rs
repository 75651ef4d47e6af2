//! One bucket, one cluster.

use std::time::Duration;

use esker_env::Env;
use esker_log::{ClaimError, claim, confirm};
use esker_object::faults::{Fault, FaultStore, Rule};
use esker_object::{Budget, Key, Options, Prefix, Store, Verb};
use esker_tests::node::run;
use esker_types::{ClusterId, Incarnation, RaftIndex, SegmentId};

use crate::{CLUSTER, OURS, flushed_key};

const OTHER: ClusterId = ClusterId(0x07e4);

fn bucket(name: &str) -> (Store, FaultStore) {
    let (env, _, _) = Env::simulated(1);
    let url = format!("memory://claims-{name}");
    // Time stands still here, so that an open circuit would never close.
    let options = Options {
        budget: Budget {
            breaker_failures: u32::MAX,
            ..Budget::default()
        },
        ..Options::default()
    };
    Store::open_with_faults(&url, &options, &env).expect("a bucket")
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
            said.contains(&OTHER.to_string()) && said.contains("--direct"),
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

#[test]
fn a_name_that_is_no_claim_is_left_alone_and_named() {
    run(async {
        let (store, _) = bucket("junk");
        let (beside, _) = bucket("junk/cluster");
        let notes = Key::Probe(SegmentId(5));
        beside.put(&notes, vec![]).await.expect("put");
        claim(&store, CLUSTER, OURS).await.expect("ours");
        let foreign = confirm(&store, CLUSTER, OURS).await.expect("ours");
        let named = format!("cluster/{notes}");
        assert_eq!((foreign.names, foreign.first), (1, Some(named)));
        beside.head(&notes).await.expect("still there");
        // Another's claim beside it counts as ever.
        let error = claim(&store, OTHER, OURS).await.expect_err("ours");
        assert!(matches!(error, ClaimError::Taken { by: CLUSTER, .. }));
    });
}

/// Both claim at the same time and see each other, and of each the first `failures` attempts to
/// delete anything fail.
async fn collide(store: &Store, faults: &FaultStore, failures: u64) -> [ClaimError; 2] {
    for cluster in [CLUSTER, OTHER] {
        let slow = || Rule::new(Fault::Slow(Duration::from_secs(1))).under(key(cluster, OURS));
        // Nothing is there when they look, and both claims are when they look again.
        faults.script(slow().on(Verb::Put));
        faults.script(slow().on(Verb::Head).after(1));
        let stuck = Rule::new(Fault::FailBefore).on(Verb::Delete);
        faults.script(stuck.under(key(cluster, OURS)).times(failures));
    }
    let (one, two) = tokio::join!(claim(store, CLUSTER, OURS), claim(store, OTHER, OURS));
    faults.calm();
    [one, two].map(|claimed| claimed.expect_err("a rival"))
}

#[test]
fn two_that_could_not_withdraw_do_not_keep_each_other_out() {
    run(async {
        let (store, faults) = bucket("stuck");
        let both = [CLUSTER, OTHER].map(|cluster| key(cluster, OURS));
        for (error, ours) in collide(&store, &faults, u64::MAX).await.iter().zip(both) {
            let said = error.to_string();
            assert!(
                matches!(error, ClaimError::NotWithdrawn { key, .. } if *key == ours),
                "{said}"
            );
            assert!(said.contains(&format!("delete `{ours}`")), "{said}");
        }
        assert_eq!(claims(&store).await.len(), 2);
        let error = claim(&store, CLUSTER, OURS).await.expect_err("theirs");
        assert!(
            matches!(error, ClaimError::Taken { by: OTHER, .. }),
            "{error}"
        );
        assert_eq!(claims(&store).await, [both[1]], "ours is taken back");
        claim(&store, OTHER, OURS).await.expect("theirs alone");
    });
}

#[test]
fn a_withdrawal_that_fails_is_tried_again() {
    run(async {
        let (store, faults) = bucket("again");
        let once = Budget::default().attempts;
        for error in collide(&store, &faults, u64::from(once) + 1).await {
            assert!(matches!(error, ClaimError::Rival { .. }), "{error}");
        }
        assert!(claims(&store).await.is_empty());
    });
}

#[test]
fn what_was_written_under_a_claim_keeps_it_where_it_is() {
    run(async {
        let (store, _) = bucket("lived");
        claim(&store, CLUSTER, OURS).await.expect("ours");
        let there = flushed_key(OURS, RaftIndex(3), 1);
        store.put(&there, vec![]).await.expect("put");
        store.put(&key(OTHER, OURS), vec![]).await.expect("put");
        let error = claim(&store, CLUSTER, OURS).await.expect_err("a rival");
        assert!(
            matches!(error, ClaimError::Taken { by: OTHER, .. }),
            "{error}"
        );
        assert_eq!(claims(&store).await.len(), 2);
    });
}
