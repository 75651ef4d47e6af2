//! `kill -9` of whoever leads most, or leads a shard drawn by lot, again and again: appends stand still
//! until another leads, and no longer.

use std::time::{Duration, Instant};

use esker_types::limits::ELECTION_MAX;

use super::{Days, is_whole, share};
use crate::cluster::DATA_SHARDS;
use crate::probe::{Probes, percentile};
use crate::turn;

/// Kills of a whole run.
const KILLS: u32 = 300;
/// How many of those 99 of 100 kills may take until every shard takes appends again, in a whole run.
const ELECTIONS_MAX: u32 = 3;
/// How many times as much, where others use the machine too.
const SLACK: u32 = 10;
/// Milliseconds until it is started again, at most.
const AWAY_MAX: u64 = 2000;
/// Milliseconds between all being well and the next blow, at most.
const QUIET_MAX: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_soon_after_a_leader_is_killed() {
    let Some(_turn) = turn().await else { return };
    let kills = share(KILLS);
    let mut days = Days::begin(&format!("{kills} leaders killed"), 2).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let (mut gaps, mut led) = (Vec::new(), 0);
    for _ in 0..kills {
        let standing = days.well().await;
        let quiet = Duration::from_millis(days.below(QUIET_MAX));
        tokio::time::sleep(quiet).await;
        let id = if days.random.chance(50) {
            let most = standing.nodes.iter().max_by_key(|node| node.leads);
            most.expect("there are some").id.clone()
        } else {
            let shard = u32::try_from(days.below(u64::from(DATA_SHARDS) + 1)).expect("small");
            standing.leaders[&shard].clone()
        };
        led += standing
            .leaders
            .values()
            .filter(|leader| **leader == id)
            .count();
        let node = days.cluster.node(&standing, &id);
        let away = Duration::from_millis(days.below(AWAY_MAX));
        let began = Instant::now();
        let acked = probes.all_acked_since(began);
        let back = async {
            tokio::task::block_in_place(|| days.cluster.kill(&[node], &[]));
            tokio::time::sleep(away).await;
            days.cluster.start_node(node);
        };
        let (gap, ()) = tokio::join!(acked, back);
        gaps.push(gap);
    }
    probes.end().await;
    let (p50, p99, max) = (
        percentile(&gaps, 50),
        percentile(&gaps, 99),
        percentile(&gaps, 100),
    );
    println!(
        "{kills} kills of a leader, {led} leaderships lost: every shard took appends again after {p50:?} \
         (p50), {p99:?} (p99), {max:?} (max); p99 is {:.1} times the longest election timeout",
        p99.as_secs_f64() / ELECTION_MAX.as_secs_f64(),
    );
    days.finish().await;
    let slack = if is_whole() { 1 } else { SLACK };
    assert!(p99 <= ELECTION_MAX * ELECTIONS_MAX * slack, "{p99:?}");
}
