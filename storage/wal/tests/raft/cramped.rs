//! Some of three replicas have no room: nobody dies, nothing is lost, and it drains unaided once what is
//! there is flushed.

use std::time::Duration;

use esker_types::Durability;
use esker_wal::{AppendRefusal, ProposeError};
use tokio::time::{sleep, timeout};

use super::trio::{NODES, PATIENCE, Trio};
use super::world::{node_id, run};

/// Appends that are more than a small log takes, and less than a large one.
const MANY: u64 = 2000;

/// Nodes with small logs.
async fn trio(seed: u64, small: &[u64]) -> Trio {
    Trio::with(seed, |node, options| {
        options.disk_bytes = if small.contains(&node) {
            options.file_bytes * 8
        } else {
            options.file_bytes * 256
        };
    })
    .await
}

/// Has a node lead that is not small.
async fn lead(trio: &Trio, node: u64) {
    trio.lead(node_id(node)).await;
}

/// Appends `numbers` at the leader until one is refused; how many were acknowledged.
async fn fill(trio: &Trio, from: u64, many: u64) -> (u64, Option<AppendRefusal>) {
    for number in from..from + many {
        let leader = trio.leader().await;
        let appended = timeout(PATIENCE, trio.append_at(leader, number)).await;
        match appended.expect("it is answered") {
            Ok(offset) => assert_eq!(offset, number),
            Err(refusal) => return (number - from, Some(refusal)),
        }
    }
    (many, None)
}

#[test]
fn one_follower_that_is_full_lives_and_a_snapshot_heals_it() {
    run(async {
        let trio = trio(900, &[3]).await;
        lead(&trio, 1).await;
        let (acked, refused) = fill(&trio, 0, MANY).await;
        assert_eq!((acked, refused), (MANY, None), "two of three have room");
        let behind = trio.replica(node_id(3)).state().applied().index;
        let ahead = trio.replica(node_id(1)).state().applied().index;
        assert!(behind < ahead, "it had room for all of it");
        trio.flush().await;
        for _ in 0..20 {
            trio.let_go().await;
            sleep(Duration::from_secs(1)).await;
        }
        trio.converge().await;
        assert_eq!(trio.up().len(), 3);
        assert_eq!(fill(&trio, MANY, 10).await, (10, None));
        trio.converge().await;
        assert_eq!(trio.head(node_id(3)).await.len(), 10);
    });
}

#[test]
fn two_followers_that_are_full_stop_appends_and_let_the_flush_through() {
    run(async {
        let trio = trio(901, &[2, 3]).await;
        lead(&trio, 1).await;
        let (acked, refused) = fill(&trio, 0, MANY).await;
        let refused = refused.expect("two of three have no room for all of it");
        let full = matches!(refused, AppendRefusal::QuorumFull { voters: 3, .. });
        assert!(full, "{refused:?}");
        assert_eq!(refused.durability(), Durability::NotWritten);
        assert!(acked > 0);
        trio.converge().await;
        trio.flush().await;
        for _ in 0..20 {
            trio.let_go().await;
            sleep(Duration::from_secs(1)).await;
        }
        let (more, refused) = fill(&trio, acked, 10).await;
        assert_eq!((more, refused), (10, None), "it drains unaided");
        trio.converge().await;
        for node in NODES {
            assert_eq!(trio.head(node_id(node)).await.len(), 10);
        }
    });
}

#[test]
fn a_leader_whose_followers_are_silent_takes_nothing_and_says_that_somebody_else_may_lead() {
    run(async {
        let trio = trio(902, &[]).await;
        lead(&trio, 1).await;
        trio.append(0).await;
        for node in [2, 3] {
            trio.mesh.cut(node_id(1), node_id(node));
        }
        sleep(Duration::from_secs(5)).await;
        let refused = trio.append_at(node_id(1), 1).await;
        let away = matches!(
            refused,
            Err(AppendRefusal::Proposal(ProposeError::NotLeader {
                leader: None,
                ..
            }))
        );
        assert!(away, "{refused:?}");
    });
}
