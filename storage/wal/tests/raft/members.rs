//! Replicas join and leave.

use std::collections::BTreeSet;

use esker_env::sim::Crash;
use esker_types::limits::{HEARTBEAT, HOLDERS_MAX};
use esker_types::{NodeId, RaftIndex};
use esker_wal::{Members, ProposeError, Replica};
use tokio::time::{sleep, timeout};

use super::trio::{NODES, PATIENCE, QUORUM_WAIT, Trio};
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

/// The same for a vote.
async fn promote(trio: &Trio, node: NodeId) {
    settle(trio, async |leader, members| {
        let votes = members.voters.contains(&node) && !members.changing;
        // Refused or unknown, the next look tells.
        let _ = leader.promote(node).await;
        votes
    })
    .await;
}

/// The same for a node that is to go.
async fn remove(trio: &Trio, node: NodeId) {
    settle(trio, async |leader, members| {
        let gone = !members.all.contains_key(&node) && !members.changing;
        // Refused or unknown, the next look tells.
        let _ = leader.remove(node).await;
        gone
    })
    .await;
}

/// Asks the leader of the moment until it says that it is done.
async fn settle(trio: &Trio, is_done: impl AsyncFn(&Replica, Members) -> bool) {
    let settled = timeout(PATIENCE, async {
        loop {
            let leader = trio.replica(trio.leader().await);
            if is_done(leader, leader.members()).await {
                return;
            }
            sleep(HEARTBEAT).await;
        }
    });
    settled.await.expect("a quorum is up");
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
            promote(&trio, new).await;
            remove(&trio, lost).await;
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
            let changing = trio.replica(leader).clone();
            let change = tokio::spawn(async move { changing.promote(new).await });
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            trio.crash(leader, Crash::PowerCut).await;
            // Known to have failed, or not known.
            let told = change.await.expect("it does not panic");
            assert_eq!(trio.append(1).await, 1, "seed {seed}, told {told:?}");
            promote(&trio, new).await;
            trio.start(leader).await;
            assert_eq!(trio.append(2).await, 2, "seed {seed}");
            trio.converge().await;
            for node in trio.up() {
                assert_eq!(trio.head(node).await, [0, 1, 2], "seed {seed}");
            }
        });
    }
}

/// Two operators: what one has begun, the other neither undoes nor is kept from his own by.
#[test]
fn a_vote_that_was_taken_does_not_come_back_with_the_next_change() {
    let mut left_over = 0;
    for seed in 0..10 {
        run(async {
            let mut trio = Trio::new(650 + seed).await;
            trio.append(0).await;
            let (fourth, new) = (node_id(4), node_id(5));
            for node in [fourth, new] {
                trio.enlist(650 + seed, node).await;
                admit(&trio, node).await;
            }
            promote(&trio, fourth).await;
            let leader = trio.leader().await;
            let [sent_away, heir, other]: [_; 3] = {
                let others = ids(&[1, 2, 3, 4])
                    .into_iter()
                    .filter(|node| *node != leader);
                others.collect::<Vec<_>>().try_into().expect("three")
            };
            for node in [sent_away, other, new] {
                trio.mesh.cut(leader, node);
            }
            let changing = trio.replica(leader).clone();
            let change = tokio::spawn(async move { changing.remove(sent_away).await });
            // The first of the two steps comes to one node, and so to no quorum.
            while {
                let members = trio.replica(heir).members();
                members.voters == members.to_vote
            } {
                tokio::task::yield_now().await;
            }
            trio.crash(leader, Crash::PowerCut).await;
            // Known to have failed, or not known.
            let _ = change.await.expect("it does not panic");
            assert_eq!(trio.append(1).await, 1, "seed {seed}");
            let stood = trio.replica(trio.leader().await).members();
            let joint = stood.voters != stood.to_vote;
            let to_vote = stood.to_vote;
            left_over += u32::from(joint);
            promote(&trio, new).await;
            let mut expected = to_vote;
            expected.insert(new);
            let now = trio.replica(trio.leader().await).members();
            assert_eq!(now.voters, expected, "seed {seed}");
            trio.start(leader).await;
            assert_eq!(trio.append(2).await, 2, "seed {seed}");
        });
    }
    assert!(left_over > 0, "no leader died between the two steps");
}

#[test]
fn two_operators_at_once_both_get_what_they_asked_for() {
    run(async {
        let mut trio = Trio::new(690).await;
        trio.append(0).await;
        let new = node_id(4);
        trio.enlist(690, new).await;
        admit(&trio, new).await;
        let sent_away = trio.follower().await;
        tokio::join!(promote(&trio, new), remove(&trio, sent_away));
        let mut expected = ids(&[1, 2, 3, 4]);
        expected.remove(&sent_away);
        let now = trio.replica(trio.leader().await).members();
        assert_eq!((now.voters, now.changing), (expected, false));
    });
}

#[test]
fn who_leads_may_be_sent_away_and_who_was_leads_no_more() {
    run(async {
        let trio = Trio::new(700).await;
        trio.append(0).await;
        let leader = trio.leader().await;
        remove(&trio, leader).await;
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
        refused(leader.promote(node_id(9)).await);
        refused(leader.admit(node_id(2), "elsewhere:1").await);
        leader.admit(node_id(2), "n2:1").await.expect("so it is");
        leader.promote(node_id(2)).await.expect("so it is");
        leader.remove(node_id(9)).await.expect("so it is");
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
fn a_shard_has_as_many_holders_as_can_be_read_and_room_again_for_who_is_removed() {
    run(async {
        let trio = Trio::new(805).await;
        let leader = trio.replica(trio.leader().await);
        let most = HOLDERS_MAX as u64;
        for node in (4..=most).map(node_id) {
            let admitted = leader.admit(node, &address(node)).await;
            admitted.expect("there is room");
        }
        let next = node_id(most + 1);
        let told = leader.admit(next, &address(next)).await;
        let told = told.expect_err("one too many").to_string();
        assert!(told.contains("remove one"), "{told}");
        leader.remove(node_id(4)).await.expect("it holds nothing");
        let admitted = leader.admit(next, &address(next)).await;
        admitted.expect("there is room again");
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
        let told = leads.promote(new).await;
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
        let mut others = trio.up().into_iter().filter(|node| *node != leader);
        let needed = others.next().expect("of three one is dead");
        let told = leads.remove(needed).await;
        assert!(
            matches!(told, Err(ProposeError::Refused { .. })),
            "{told:?}"
        );
        assert_eq!(trio.append(1).await, 1);
        // The one that is dead may go.
        remove(&trio, dead).await;
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

/// A power cut between a checkpoint that was installed and the log that ends below it: the one voter is another.
#[test]
fn a_learner_of_one_voter_starts_from_every_moment_of_its_first_snapshot() {
    run(async {
        let mut trio = Trio::new(940).await;
        let voter = trio.leader().await;
        for node in ids(&NODES).into_iter().filter(|node| *node != voter) {
            remove(&trio, node).await;
            trio.crash(node, Crash::Kill).await;
        }
        for number in 0..30 {
            trio.append(number).await;
        }
        trio.flush().await;
        trio.let_go().await;
        let mut installed = 0;
        for calls in 1..200 {
            let new = node_id(3 + calls);
            trio.enlist(940, new).await;
            trio.disk(new).kill_before(calls);
            let (leader, at) = (trio.replica(voter), address(new));
            let done = timeout(QUORUM_WAIT, async {
                while leader.admit(new, &at).await.is_err() || leader.lag(new) != Some(0) {
                    sleep(HEARTBEAT).await;
                }
            });
            let whole = done.await.is_ok();
            trio.crash(new, Crash::PowerCut).await;
            trio.start(new).await;
            let covered = trio.replica(new).checkpointed().0;
            installed += usize::from(!whole && covered > RaftIndex(0));
            if whole {
                assert!(covered > RaftIndex(0), "it came by entries");
                break;
            }
            trio.crash(new, Crash::Kill).await;
            remove(&trio, new).await;
        }
        assert!(installed > 0, "nobody died behind the checkpoint");
        trio.append(30).await;
        trio.converge().await;
    });
}
