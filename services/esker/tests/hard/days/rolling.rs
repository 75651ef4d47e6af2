//! One process after the other is asked to stop and is back, as a deployment does it: SIGTERM, a start,
//! and the next once all is well. Appends stand still for a moment; each is done in the end.

use std::time::Duration;

use super::Days;
use crate::TURN;
use crate::cluster::{Cluster, DATA_SHARDS, OLD};
use crate::probe::{Probes, percentile};
use crate::server::{binary, old_binary};

/// How long old and new nodes stand side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);

/// Rounds of a plain run; `ESKER_ROUNDS` says another number.
const ROUNDS: u32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn every_append_is_done_while_all_are_restarted_one_by_one() {
    let _turn = TURN.lock().await;
    let rounds = rounds();
    let mut days = Days::begin(&format!("{rounds} rounds of restarts"), 2).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let (mut of_nodes, mut of_agents) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for at in turns(&days, days.cluster.nodes.len()) {
            days.well().await;
            probes.longest();
            tokio::task::block_in_place(|| days.cluster.stop_node(at));
            days.cluster.start_node(at);
            days.well().await;
            of_nodes.push(probes.longest());
        }
        for at in turns(&days, days.cluster.agents.len()) {
            days.well().await;
            probes.longest();
            tokio::task::block_in_place(|| days.cluster.stop_agent(at));
            days.cluster.start_agent(at);
            days.well().await;
            of_agents.push(probes.longest());
        }
    }
    for (what, gaps) in [("node", &of_nodes), ("agent", &of_agents)] {
        println!(
            "{} restarts of a {what}: appends to some shard stood still for {:?} (p50), {:?} (max)",
            gaps.len(),
            percentile(gaps, 50),
            percentile(gaps, 100),
        );
    }
    probes.end().await;
    let pen = days.pen.clone();
    // Those with an id are settled, whatever the machine does beside.
    days.finish().await;
    let misses = pen.misses();
    println!("what producers were told instead of an offset: {misses:#?}");
    // A process that is not given the time to answer ends all the same: what it left is in doubt.
    if std::env::var_os("ESKER_ROUNDS").is_some() {
        assert!(misses.is_empty(), "{misses:#?}");
    }
}

/// A cluster of an older binary, which becomes one of this: nodes first, one by one.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_cluster_is_upgraded_one_by_one() {
    let Some(old) = old_binary() else {
        println!("left out: ESKER_OLD_BINARY does not name the binary of an older cluster");
        return;
    };
    let _turn = TURN.lock().await;
    let cluster = tokio::task::block_in_place(|| Cluster::found_with(OLD, 2, None));
    let mut days = Days::over(&format!("{} upgraded", old.display()), cluster).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let mut gaps = Vec::new();
    for at in turns(&days, days.cluster.nodes.len()) {
        days.well().await;
        probes.longest();
        tokio::task::block_in_place(|| days.cluster.stop_node(at));
        days.cluster.nodes[at].binary = binary();
        days.cluster.start_node(at);
        days.well().await;
        tokio::time::sleep(SIDE_BY_SIDE).await;
        gaps.push(probes.longest());
        println!(
            "node {at} is upgraded; appends to some shard stood still for {:?}",
            gaps.last()
        );
    }
    for at in turns(&days, days.cluster.agents.len()) {
        days.well().await;
        probes.longest();
        tokio::task::block_in_place(|| days.cluster.stop_agent(at));
        days.cluster.agents[at].binary = binary();
        days.cluster.start_agent(at);
        days.well().await;
        gaps.push(probes.longest());
        println!(
            "agent {at} is upgraded; appends to some shard stood still for {:?}",
            gaps.last()
        );
    }
    probes.end().await;
    println!(
        "what producers were told meanwhile: {:#?}",
        days.pen.misses()
    );
    days.finish().await;
}

/// How often everybody is restarted.
fn rounds() -> u32 {
    let rounds = std::env::var("ESKER_ROUNDS").ok();
    rounds.map_or(ROUNDS, |rounds| {
        rounds.parse().expect("ESKER_ROUNDS is a number")
    })
}

/// The numbers below `count`, from any of them on.
fn turns(days: &Days, count: usize) -> impl Iterator<Item = usize> + use<> {
    let first = usize::try_from(days.below(count as u64)).expect("a few");
    (0..count).map(move |turn| (first + turn) % count)
}
