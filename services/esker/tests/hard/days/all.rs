//! `kill -9` of all nodes at once, at any moment, agents with them at times: what was acknowledged is on
//! their disks.

use std::time::Duration;

use super::{Days, is_whole, share};
use crate::turn;

/// Kills of a whole run.
const KILLS: u32 = 100;
/// Milliseconds from all being well to the blow, at most.
const CALM_MAX: u64 = 1500;
/// The same, where it is not waited until all is well.
const HASTE_MAX: u64 = 1000;
/// Milliseconds until each is started again, at most.
const AWAY_MAX: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_all_nodes() {
    let Some(_turn) = turn().await else { return };
    let kills = share(KILLS);
    let mut days = Days::begin(&format!("{kills} times all nodes killed"), 2).await;
    let (mut in_flight, mut with_agents, mut in_haste) = (0, 0, 0);
    for _ in 0..kills {
        let most = if days.random.chance(25) {
            in_haste += 1;
            HASTE_MAX
        } else {
            days.well().await;
            CALM_MAX
        };
        let delay = days.below(most);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let agents: &[usize] = match days.below(10) {
            0 => &[0, 1],
            1 => &[0],
            2 => &[1],
            _ => &[],
        };
        with_agents += u32::from(!agents.is_empty());
        let open = days.pen.in_flight();
        in_flight += u32::from(!open.is_empty());
        tokio::task::block_in_place(|| days.cluster.kill(&[0, 1, 2], agents));
        let first = usize::try_from(days.below(3)).expect("three");
        for at in [0, 1, 2].map(|turn| (first + turn) % 3) {
            let away = days.below(AWAY_MAX);
            tokio::time::sleep(Duration::from_millis(away)).await;
            days.cluster.start_node(at);
        }
        for at in agents {
            days.cluster.start_agent(*at);
        }
    }
    println!(
        "{kills} times all nodes killed, an append in flight at {in_flight}; {with_agents} times with \
         agents, {in_haste} times before all was well again"
    );
    if is_whole() {
        assert!(in_flight * 2 > kills, "too few appends were in flight");
    }
    days.finish().await;
}
