//! One process after the other is asked to stop and is back, as a deployment does it: SIGTERM, a start,
//! and the next once all is well. Appends stand still for a moment; each is done in the end.

use super::Days;
use crate::TURN;
use crate::cluster::DATA_SHARDS;
use crate::probe::{Probes, percentile};

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
    let (pen, misses) = (days.pen.clone(), days.pen.misses());
    days.finish().await;
    assert!(misses.is_empty(), "{misses:#?}");
    assert!(pen.misses().is_empty(), "{:#?}", pen.misses());
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
