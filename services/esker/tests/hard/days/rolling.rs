//! One process after the other is asked to stop and is back, as a deployment does it: SIGTERM, a start,
//! and the next once all is well. Appends stand still for a moment; each is done in the end.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::Days;
use crate::cluster::{Cluster, DATA_SHARDS, OLD, Standing};
use crate::probe::{Probes, percentile};
use crate::server::{OLD_CLUSTER, binary, old_binary};
use crate::turn;

/// How long old and new nodes stand side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);

/// What a node says that stops, of each shard that it led.
const ASKED: &str = "asked to lead in place of this node";
const SEEN: &str = "another leads in place of this node";
/// What one says that leads more than others, and gives a shard away.
const GIVEN: &str = "asked to lead, for it leads less";

/// Rounds of a plain run; `ESKER_ROUNDS` says another number.
const ROUNDS: u32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn every_append_is_done_while_all_are_restarted_one_by_one() {
    let Some(_turn) = turn().await else { return };
    let rounds = rounds();
    let mut days = Days::begin(&format!("{rounds} rounds of restarts"), 2).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let (mut of_nodes, mut of_agents) = (Vec::new(), Vec::new());
    let mut handed = Handed::default();
    for _ in 0..rounds {
        for at in turns(&days, days.cluster.nodes.len()) {
            let before = days.well().await;
            probes.longest();
            tokio::task::block_in_place(|| days.cluster.stop_node(at));
            handed.add(&days.cluster, at, &before);
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
    println!("of what a stopped node led: {handed:?}");
    assert!(handed.led > 0, "who leads nothing hands over nothing");
    // On a machine that is busy some moves by itself, and some takes longer than a node that stops waits. Where
    // nothing is handed over nothing is seen: an election that nobody asks for begins later than that.
    assert!(handed.asked * 2 > handed.led, "{handed:?}");
    assert!(handed.seen * 4 > handed.led, "{handed:?}");
    probes.end().await;
    all_ended_done(days, of_agents.len()).await;
}

/// Shards that stopped nodes led.
#[derive(Default, Debug)]
struct Handed {
    led: usize,
    /// Of those, which another was asked to lead by the node that stopped.
    asked: usize,
    /// Of those, which the node saw another lead before it ended.
    seen: usize,
}

impl Handed {
    /// Node `at` has stopped. `before`, all was well.
    fn add(&mut self, cluster: &Cluster, at: usize, before: &Standing) {
        let log = cluster.nodes[at].log(&cluster.path(""));
        let log = fs::read_to_string(log).expect("it is ours");
        let said = |what: &str| -> BTreeSet<String> {
            let lines = log.lines().filter(|line| line.contains(what));
            let shard = |line| {
                let said: Value = serde_json::from_str(line).expect("it is a line");
                said["fields"]["shard"]
                    .as_str()
                    .expect("a shard")
                    .to_owned()
            };
            lines.map(shard).collect()
        };
        let led = before.leaders.iter();
        let mut led: BTreeSet<_> = led
            .filter(|(_, id)| cluster.node(before, id) == at)
            .map(|(shard, _)| format!("s{shard}"))
            .collect();
        // What it gave away at the last moment, for another led less, it leads no more.
        let (asked, given) = (said(ASKED), said(GIVEN));
        led.retain(|shard| asked.contains(shard) || !given.contains(shard));
        self.led += led.len();
        self.asked += led.intersection(&asked).count();
        self.seen += led.intersection(&said(SEEN)).count();
    }
}

/// A cluster of an older binary, which becomes one of this: nodes first, one by one.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_cluster_is_upgraded_one_by_one() {
    let Some(old) = old_binary(OLD_CLUSTER) else {
        println!("left out: {OLD_CLUSTER} does not name the binary of an older cluster");
        return;
    };
    let Some(_turn) = turn().await else { return };
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
    let agents = days.cluster.agents.len();
    all_ended_done(days, agents).await;
}

/// Every append ended done, though `agents` of them were restarted, and all nodes.
async fn all_ended_done(days: Days, agents: usize) {
    let pen = days.pen.clone();
    // Those with an id are settled, whatever the machine does beside.
    days.finish().await;
    // No restart of a node is a reason.
    pen.missed_nothing(agents);
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
