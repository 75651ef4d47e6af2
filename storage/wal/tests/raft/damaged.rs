//! Entries whose bytes rot on the disk of some of three replicas, while they run.

use std::time::Duration;

use esker_env::sim::Crash;
use esker_types::{EntryId, NodeId, Term};
use esker_wal::disk::Body;
use esker_wal::peers::{AppendReply, AppendRequest};
use futures::StreamExt as _;
use tokio::time::sleep;

use super::trio::Trio;
use super::world::{SHARD, run};

/// Of nothing is more in memory than must be.
async fn forgetful(seed: u64) -> Trio {
    Trio::with(seed, |_, options| options.memory_bytes = 1).await
}

/// With so many entries, of which the first carries number 1.
async fn holding(seed: u64, numbers: u64) -> Trio {
    let trio = forgetful(seed).await;
    for number in 0..numbers {
        assert_eq!(trio.append(number).await, number);
    }
    trio.converge().await;
    trio
}

fn other(trio: &Trio, than: &[NodeId]) -> NodeId {
    let mut up = trio.up().into_iter().filter(|node| !than.contains(node));
    up.next().expect("there are three")
}

#[test]
fn a_leader_that_has_lost_entries_goes_on_with_those_who_have_them() {
    for seed in 0..5 {
        run(async {
            let trio = holding(1000 + seed, 40).await;
            let doomed = trio.follower().await;
            for number in 1..40 {
                assert_eq!(trio.strike(doomed, number), 1, "{number}");
            }
            trio.lead(doomed).await;
            for number in 40..45 {
                assert_eq!(trio.append(number).await, number, "seed {seed}");
            }
            trio.converge().await;
            assert!(trio.replica(doomed).leads_in().is_some(), "seed {seed}");
            assert!(trio.replica(doomed).damaged() > 0, "it knows");
            for node in trio.up() {
                if node != doomed {
                    assert_eq!(trio.head(node).await, (0..45).collect::<Vec<_>>());
                }
            }
        });
    }
}

#[test]
fn all_have_lost_the_same_and_lead_in_turn() {
    run(async {
        let trio = holding(1010, 20).await;
        for node in trio.up() {
            for number in 10..20 {
                assert_eq!(trio.strike(node, number), 1);
            }
        }
        let mut next = 20;
        for _ in 0..2 {
            for node in trio.up() {
                trio.lead(node).await;
                assert_eq!(trio.append(next).await, next);
                next += 1;
            }
        }
        trio.converge().await;
        assert_eq!(trio.up().len(), 3);
    });
}

/// It gets what comes before, nothing of what is lost, and all once somebody leads who has it.
#[test]
fn who_lacks_an_entry_does_not_take_it_from_a_leader_that_has_lost_it() {
    run(async {
        let mut trio = holding(1020, 10).await;
        let late = trio.follower().await;
        trio.crash(late, Crash::Kill).await;
        for number in 10..20 {
            trio.append(number).await;
        }
        let leader = trio.leader().await;
        let whole = other(&trio, &[leader]);
        trio.converge().await;
        assert_eq!(trio.strike(leader, 15), 1);
        trio.start(late).await;
        assert_eq!(trio.append(20).await, 20);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(trio.append(21).await, 21);
        assert_eq!(trio.head(late).await, (0..15).collect::<Vec<_>>());
        assert_eq!(trio.leader().await, leader);
        // It lacks few entries, and nobody could send it the one that is lost here.
        let leads = trio.replica(leader);
        assert!(leads.damaged() > 0 && leads.hears(late).is_some_and(|lag| lag < 10));
        assert!(!leads.may_lead(late), "nobody would lead after that");
        assert!(leads.may_lead(whole));
        assert_eq!(leads.successor(), Some(whole));

        trio.lead(whole).await;
        trio.converge().await;
        assert_eq!(trio.head(late).await, (0..22).collect::<Vec<_>>());
    });
}

/// What stands for a lost entry says which it was, and no more.
#[test]
fn what_stands_for_an_entry_is_taken_by_who_has_it_alone() {
    run(async {
        let trio = holding(1030, 5).await;
        let follower = trio.follower().await;
        let replica = trio.replica(follower);
        let bounds = replica.wal().bounds(SHARD);
        let before = EntryId {
            index: esker_types::RaftIndex(bounds.last.index.0 - 1),
            ..bounds.last
        };
        let told = async |previous: EntryId, at: EntryId| {
            let request = AppendRequest {
                vote: bounds.vote.expect("somebody leads"),
                previous,
                entries: vec![(at, Body::new(&[], Vec::new()))],
                committed: EntryId::default(),
            };
            let requests = futures::stream::iter([request]).boxed();
            let mut replies = replica.heard_appends(requests).await;
            replies.next().await.expect("an answer")
        };
        let matched = told(before, bounds.last).await.expect("it has it");
        let is_matched =
            |reply| matches!(reply, AppendReply::Matched { upto, .. } if upto == bounds.last);
        assert!(is_matched(matched), "{matched:?}");
        let next = EntryId {
            index: bounds.last.index.next(),
            ..bounds.last
        };
        let later = EntryId {
            term: Term(bounds.last.term.0 + 1),
            ..bounds.last
        };
        for (previous, at) in [(bounds.last, next), (before, later)] {
            let refused = told(previous, at).await.expect_err("it has no such entry");
            assert!(refused.0.contains("lost"), "{refused}");
        }
        assert_eq!(replica.wal().bounds(SHARD).last, bounds.last);
        assert_eq!(trio.append(5).await, 5);
        trio.converge().await;
    });
}

/// Whoever leads knows, and has somebody lead whose log is whole.
#[test]
fn whose_log_is_damaged_is_known_until_it_is_released() {
    run(async {
        let trio = holding(1040, 10).await;
        let (leader, doomed) = (trio.leader().await, trio.follower().await);
        let whole = other(&trio, &[leader, doomed]);
        let leads = trio.replica(leader);
        assert!(leads.may_lead(doomed));
        assert_eq!(trio.strike(doomed, 3) + trio.strike(doomed, 7), 2);
        for _ in 0..3 {
            // Read as often as it may be, it is counted once.
            for number in [3, 5, 7] {
                let read = trio.read(doomed, number).await;
                assert_eq!(read.is_ok(), number == 5, "{read:?}");
            }
        }
        assert_eq!(trio.replica(doomed).damaged(), 2);
        assert_eq!(leads.damaged(), 0);
        trio.append(10).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!leads.may_lead(doomed), "it is given nothing to lead");
        assert!(leads.may_lead(whole));
        assert_eq!(leads.successor(), Some(whole));

        trio.flush().await;
        trio.converge().await;
        trio.let_go().await;
        trio.append(11).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(trio.replica(doomed).damaged(), 0, "the bucket has it");
        assert!(leads.may_lead(doomed));
    });
}

/// As long as another can lead: asked, it leads as before.
#[test]
fn whose_log_is_damaged_campaigns_last() {
    for seed in 0..20 {
        run(async {
            let mut trio = holding(1100 + seed, 5).await;
            let (leader, first) = (trio.leader().await, trio.follower().await);
            let second = other(&trio, &[leader, first]);
            // One of them comes before the other, in each shard.
            let (doomed, whole) = match seed % 2 {
                0 => (first, second),
                _ => (second, first),
            };
            assert_eq!(trio.strike(doomed, 2), 1);
            trio.read(doomed, 2).await.expect_err("it is damaged");
            trio.crash(leader, Crash::Kill).await;
            trio.append(5).await;
            assert_eq!(trio.leader().await, whole, "seed {seed}");
            trio.start(leader).await;
            trio.converge().await;
            trio.lead(doomed).await;
        });
    }
}
