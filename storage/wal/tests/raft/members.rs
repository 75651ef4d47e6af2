//! Replicas join and leave.

use std::collections::BTreeSet;

use esker_env::sim::Crash;
use esker_types::NodeId;
use esker_types::limits::HEARTBEAT;
use esker_wal::ProposeError;
use tokio::time::{sleep, timeout};

use super::trio::{NODES, PATIENCE, Trio};
use super::world::{node_id, run};

fn address(node: NodeId) -> String {
    format!("n{}:1", node.sequence())
}

fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().map(|node| node_id(*node)).collect()
}

/// Asks whoever leads until it is done, as an operator's command does.
async fn admit(trio: &Trio, node: NodeId) {
    let admitted = timeout(PATIENCE, async {
        loop {
            let leader = trio.leader().await;
            let admitted = trio.replica(leader).admit(node, &address(node)).await;
            let caught_up = admitted.is_ok() && trio.replica(leader).lag(node) == Some(0);
            if caught_up {
                return;
            }
            sleep(HEARTBEAT).await;
        }
    });
    admitted.await.expect("it catches up");
}

async fn set_voters(trio: &Trio, voters: &BTreeSet<NodeId>) {
    let set = timeout(PATIENCE, async {
        loop {
            let leader = trio.leader().await;
            let set = trio.replica(leader).set_voters(voters).await;
            let now = trio.replica(trio.leader().await).members();
            if set.is_ok() && now.voters == *voters && !now.changing {
                return;
            }
            sleep(HEARTBEAT).await;
        }
    });
    set.await.expect("a quorum is up");
}

#[test]
fn a_lost_disk_is_replaced_by_a_new_node_while_appends_go_on() {
    for seed in 0..10 {
        run(async {
            let mut trio = Trio::new(500 + seed).await;
            for number in 0..10 {
                trio.append(number).await;
            }
            let lost = if seed % 2 == 0 {
                trio.leader().await
            } else {
                trio.follower().await
            };
            trio.crash(lost, Crash::PowerCut).await;
            assert_eq!(trio.append(10).await, 10, "seed {seed}");
            let new = node_id(4);
            trio.enlist(500 + seed, new).await;
            // It holds nothing, and nobody asks it to vote.
            sleep(PATIENCE).await;
            assert_eq!(trio.replica(new).leads_in(), None);
            admit(&trio, new).await;
            assert_eq!(trio.append(11).await, 11, "seed {seed}");
            let mut voters = ids(&NODES);
            voters.remove(&lost);
            voters.insert(new);
            set_voters(&trio, &voters).await;
            assert_eq!(trio.append(12).await, 12, "seed {seed}");
            // Of the two that are left one may go: the new one counts.
            let mut old = trio.up().into_iter().filter(|node| *node != new);
            trio.crash(old.next().expect("two"), Crash::PowerCut).await;
            assert_eq!(trio.append(13).await, 13, "seed {seed}");
            trio.converge().await;
            assert_eq!(trio.head(new).await, (0..14).collect::<Vec<_>>());
        });
    }
}

#[test]
fn leaders_die_while_the_voters_change_and_it_ends_as_it_was_asked() {
    for seed in 0..20 {
        run(async {
            let mut trio = Trio::new(600 + seed).await;
            trio.append(0).await;
            let new = node_id(4);
            trio.enlist(600 + seed, new).await;
            admit(&trio, new).await;
            let leader = trio.leader().await;
            let voters = ids(&[1, 2, 3, 4]);
            let (changing, now) = (trio.replica(leader).clone(), voters.clone());
            let change = tokio::spawn(async move { changing.set_voters(&now).await });
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            trio.crash(leader, Crash::PowerCut).await;
            // Known to have failed, or not known.
            let told = change.await.expect("it does not panic");
            assert_eq!(trio.append(1).await, 1, "seed {seed}, told {told:?}");
            set_voters(&trio, &voters).await;
            trio.start(leader).await;
            assert_eq!(trio.append(2).await, 2, "seed {seed}");
            trio.converge().await;
            for node in trio.up() {
                assert_eq!(trio.head(node).await, [0, 1, 2], "seed {seed}");
            }
        });
    }
}

#[test]
fn who_leads_may_be_sent_away_and_who_was_leads_no_more() {
    run(async {
        let trio = Trio::new(700).await;
        trio.append(0).await;
        let leader = trio.leader().await;
        let mut voters = ids(&NODES);
        voters.remove(&leader);
        set_voters(&trio, &voters).await;
        // It leads on for a moment, so that the others hear of it.
        sleep(10 * HEARTBEAT).await;
        assert_eq!(trio.replica(leader).leads_in(), None);
        assert_eq!(trio.append(1).await, 1);
        let now = trio.replica(trio.leader().await).members();
        assert!(!now.all.contains_key(&leader), "{now:?}");
        // Nor does it trouble the others: they keep their term.
        let term = trio.replica(trio.leader().await).leads_in();
        sleep(PATIENCE).await;
        assert_eq!(trio.replica(trio.leader().await).leads_in(), term);
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    run(async {
        let trio = Trio::new(800).await;
        let leader = trio.replica(trio.leader().await);
        let before = leader.members();
        let refused = |told: Result<(), ProposeError>| {
            assert!(
                matches!(told, Err(ProposeError::Refused { .. })),
                "{told:?}"
            );
        };
        refused(leader.set_voters(&BTreeSet::new()).await);
        refused(leader.set_voters(&ids(&[1, 2, 9])).await);
        refused(leader.admit(node_id(2), "elsewhere:1").await);
        leader.admit(node_id(2), "n2:1").await.expect("so it is");
        leader.set_voters(&before.voters).await.expect("so it is");
        assert_eq!(leader.members(), before);
        let follower = trio.replica(trio.follower().await);
        let told = follower.admit(node_id(4), "n4:1").await;
        assert!(
            matches!(told, Err(ProposeError::NotLeader { .. })),
            "{told:?}"
        );
        assert_eq!(leader.members(), before);
    });
}

#[test]
fn who_was_never_reached_gets_no_vote_and_the_shard_goes_on() {
    run(async {
        let mut trio = Trio::new(810).await;
        for number in 0..5 {
            trio.append(number).await;
        }
        let (leader, dead) = (trio.leader().await, trio.follower().await);
        trio.crash(dead, Crash::PowerCut).await;
        let new = node_id(4);
        trio.enlist(810, new).await;
        for node in ids(&NODES) {
            trio.mesh.cut(node, new);
        }
        let leads = trio.replica(leader).clone();
        leads
            .admit(new, &address(new))
            .await
            .expect("two of three take it");
        sleep(PATIENCE).await;
        assert_eq!(leads.lag(new), None, "nobody knows what it has");
        let told = leads.set_voters(&ids(&[1, 2, 3, 4])).await;
        assert!(
            matches!(told, Err(ProposeError::Refused { .. })),
            "{told:?}"
        );
        assert_eq!(trio.append(5).await, 5);
    });
}

#[test]
fn no_node_that_is_needed_is_sent_away() {
    run(async {
        let mut trio = Trio::new(820).await;
        trio.append(0).await;
        let (leader, dead) = (trio.leader().await, trio.follower().await);
        trio.crash(dead, Crash::PowerCut).await;
        sleep(PATIENCE).await;
        let leads = trio.replica(leader).clone();
        let told = leads.set_voters(&[leader, dead].into()).await;
        assert!(
            matches!(told, Err(ProposeError::Refused { .. })),
            "{told:?}"
        );
        assert_eq!(trio.append(1).await, 1);
        // The one that is dead may go.
        let voters: BTreeSet<_> = trio.up().into_iter().collect();
        set_voters(&trio, &voters).await;
        assert_eq!(trio.append(2).await, 2);
    });
}

#[test]
fn leadership_goes_to_somebody_who_can_take_it_or_stays() {
    run(async {
        let mut trio = Trio::new(830).await;
        trio.append(0).await;
        let leader = trio.leader().await;
        let leads = trio.replica(leader).clone();
        for node in [leader, node_id(9)] {
            let told = leads.hand_over(node).await;
            assert!(
                matches!(told, Err(ProposeError::Refused { .. })),
                "{told:?}"
            );
        }
        assert_eq!(trio.append(1).await, 1);
        assert_eq!(trio.leader().await, leader, "it leads on");
        for dead in [2, 3].map(node_id) {
            if dead != leader {
                trio.crash(dead, Crash::Kill).await;
                sleep(10 * HEARTBEAT).await;
                assert_ne!(leads.successor(), Some(dead), "it is dead");
                trio.start(dead).await;
                sleep(PATIENCE).await;
                assert!(leads.successor().is_some() || leads.leads_in().is_none());
            }
        }
    });
}
