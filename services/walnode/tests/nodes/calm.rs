//! What nodes say to each other while nothing happens, and over what.

use std::time::Duration;

use esker_env::sim::SimDisk;
use tokio::time::sleep;

use super::trio::{NODES, SHARDS, Trio, World, run};

/// Raft terms of all replicas: none moves while beats arrive in time.
fn terms(trio: &Trio) -> Vec<u64> {
    let replicas = trio.nodes.values().flat_map(|node| node.replicas());
    let votes = replicas.map(|replica| replica.wal().bounds(replica.shard()).vote);
    votes.map(|vote| vote.expect("all voted").term.0).collect()
}

#[test]
fn all_shards_of_a_node_speak_to_another_over_one_connection() {
    run(async {
        let trio =
            Trio::found(|node, network| World::simulated(node, &SimDisk::new(node), network)).await;
        for number in 0..20 {
            trio.append(number).await;
        }
        let calm = Duration::from_secs(60);
        trio.settled(calm).await;
        let before = terms(&trio);
        sleep(calm).await;
        assert_eq!(terms(&trio), before, "somebody was not heard");
        assert!(before.len() > NODES.len() && SHARDS > 1);
        let ways = NODES.len() * (NODES.len() - 1);
        assert_eq!(trio.network.connections(), ways as u64);
    });
}
