//! Nodes are stopped until entries will not do, and come back; or are replaced.

use std::time::Duration;

use esker_types::{NodeId, RaftIndex, ShardId};
use esker_wal::Replica;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use crate::node::{Cluster, LOOK, address};
use crate::ways::Ways;
use crate::{Counts, PATIENCE, shards};

/// One round of so many replaces a node.
const REPLACED_ONE_IN: u64 = 4;
/// How long all is well between two rounds.
const REST: Duration = Duration::from_millis(500);
/// Entries that a node may lack and count as one that follows.
const LAG_MAX: u64 = 500;

/// One node is stopped and comes back, or another in its place; it follows when this returns.
pub(crate) async fn round(cluster: &mut Cluster, counts: &Counts, number: u64) {
    let node = idlest(cluster, number);
    join_all(shards().map(|shard| give_away(&cluster.ways, shard, node))).await;
    let had: Vec<_> = shards()
        .map(|shard| held(&cluster.ways, shard, node))
        .collect();
    cluster.stop(node).await;
    if number % REPLACED_ONE_IN == 1 {
        cluster.forget(node).await;
        let new = cluster.enlist().await;
        join_all(shards().map(|shard| replace(&cluster.ways, shard, node, new))).await;
        Counts::add(&counts.replaced, 1);
        join_all(shards().map(|shard| follows(&cluster.ways, shard, new))).await;
    } else {
        let purged = shards().zip(had);
        join_all(purged.map(|(shard, had)| purged_past(&cluster.ways, shard, had))).await;
        cluster.start(node).await;
        join_all(shards().map(|shard| follows(&cluster.ways, shard, node))).await;
        Counts::add(&counts.returned, 1);
    }
    sleep(REST).await;
}

/// Who leads least, another each time where several do.
fn idlest(cluster: &Cluster, number: u64) -> NodeId {
    let leaders: Vec<_> = shards()
        .filter_map(|shard| cluster.ways.leader(shard))
        .collect();
    let leads = |node: NodeId| leaders.iter().filter(|(leader, _)| *leader == node).count();
    // All shards come to be led by the one that is left alone.
    let mut nodes: Vec<_> = cluster.nodes.keys().copied().collect();
    nodes.sort_by_key(|node| leads(*node));
    nodes[usize::try_from(number % 2).expect("two")]
}

/// Has another lead, so that nothing waits for an election.
async fn give_away(ways: &Ways, shard: ShardId, node: NodeId) {
    let given = timeout(PATIENCE, async {
        while let Some((leader, replica)) = ways.leader(shard)
            && leader == node
        {
            if let Some(to) = replica.successor() {
                // Refused, or not come to pass: the next look tells.
                let _ = replica.hand_over(to).await;
            }
            sleep(10 * LOOK).await;
        }
    });
    given.await.expect("somebody else leads");
}

/// What `node` has of `shard`.
fn held(ways: &Ways, shard: ShardId, node: NodeId) -> RaftIndex {
    let mut replicas = ways.of(shard).into_iter();
    let of = replicas.find(|(of, _)| *of == node);
    of.map_or(RaftIndex::ZERO, |(_, replica)| {
        replica.wal().bounds(shard).last.index
    })
}

/// Waits until whoever leads `shard` has forgotten what follows on `had`.
async fn purged_past(ways: &Ways, shard: ShardId, had: RaftIndex) {
    let purged = timeout(PATIENCE, async {
        loop {
            if let Some((_, leader)) = ways.leader(shard)
                && leader.wal().bounds(shard).purged.index > had
            {
                return;
            }
            sleep(LOOK).await;
        }
    });
    purged.await.expect("checkpoints are made");
}

/// Waits until `node` has nearly all of `shard`.
async fn follows(ways: &Ways, shard: ShardId, node: NodeId) {
    until(ways, shard, async |leader| {
        leader.lag(node).is_some_and(|lag| lag <= LAG_MAX)
    })
    .await;
}

/// `new` takes the place of `old`, as an operator's commands have it.
async fn replace(ways: &Ways, shard: ShardId, old: NodeId, new: NodeId) {
    until(ways, shard, async |leader| {
        let admitted = leader.admit(new, &address(new)).await.is_ok();
        admitted && leader.lag(new).is_some_and(|lag| lag <= LAG_MAX)
    })
    .await;
    until(ways, shard, async |leader| {
        let members = leader.members();
        let votes = members.voters.contains(&new) && !members.changing;
        if !votes {
            // Refused or unknown, the next look tells.
            let _ = leader.promote(new).await;
        }
        votes
    })
    .await;
    until(ways, shard, async |leader| {
        let members = leader.members();
        let gone = !members.all.contains_key(&old) && !members.changing;
        if !gone {
            let _ = leader.remove(old).await;
        }
        gone
    })
    .await;
}

/// Asks the leader of the moment until it says that it is done.
async fn until(ways: &Ways, shard: ShardId, is_done: impl AsyncFn(&Replica) -> bool) {
    let done = timeout(PATIENCE, async {
        loop {
            if let Some((_, leader)) = ways.leader(shard)
                && is_done(&leader).await
            {
                return;
            }
            sleep(LOOK).await;
        }
    });
    let lag = |_| {
        let (leader, replica) = ways.leader(shard)?;
        Some((leader, replica.members()))
    };
    let done = done.await.map_err(lag);
    assert!(done.is_ok(), "{shard}: {done:?}");
}
