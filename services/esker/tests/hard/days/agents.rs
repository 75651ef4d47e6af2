//! Agents are killed, one a second: clients see retries and nothing else, and what half-done flushes
//! leave in the bucket is collected.

use std::sync::Arc;
use std::time::Duration;

use super::{Days, is_short, is_whole};
use crate::claimant::{BROKEN, ENDED, UNANSWERED};
use crate::saying::{Moment, Stage};
use crate::turn;

/// Agents: of those the clients have, each has a third.
const AGENTS: usize = 3;
/// Seconds, each with a kill, and of a plain run.
const SECONDS: u64 = 10;
const SECONDS_SHORT: u64 = 5;
/// Milliseconds until a killed agent is started again, at most.
const AWAY_MAX: u64 = 700;

/// What a call may be refused with that is tried again.
const RETRIES: [&str; 3] = ["(UNAVAILABLE;", "(BUCKET_UNAVAILABLE;", "(OVERLOADED;"];
/// What an append may end with, too, that is tried once, or that nobody could tell from another by its id.
const IN_DOUBT: [&str; 5] = [
    "(OUTCOME_UNKNOWN;",
    "h2 protocol error",
    BROKEN,
    ENDED,
    UNANSWERED,
];
/// Kills from which on some flush must have been cut behind its put.
const ORPHANS_FROM: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn clients_ride_out_the_deaths_of_agents() {
    let Some(_turn) = turn().await else { return };
    let seconds = std::env::var("ESKER_AGENT_SECONDS").ok();
    let unsaid = if is_short() { SECONDS_SHORT } else { SECONDS };
    let seconds = seconds.map_or(unsaid, |seconds| {
        seconds.parse().expect("ESKER_AGENT_SECONDS is a number")
    });
    let mut days = Days::begin(&format!("an agent killed in each of {seconds} s"), AGENTS).await;
    days.well().await;
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    let (mut in_flight, mut orphans) = (0, 0);
    for _ in 0..seconds {
        beat.tick().await;
        let within = Duration::from_millis(days.below(1000 - AWAY_MAX));
        let at = usize::try_from(days.below(AGENTS as u64)).expect("a few");
        let saying = Arc::clone(days.cluster.agents[at].running().saying());
        if days.random.chance(50) {
            // Its object is in the bucket, and nothing names it yet.
            let put = saying.next(Moment::Flush(Stage::Verifying));
            let most = Duration::from_millis(1000 - AWAY_MAX);
            let _ = tokio::time::timeout(most, put).await;
        } else {
            tokio::time::sleep(within).await;
        }
        let open = days.pen.in_flight();
        in_flight += u32::from(!open.is_empty());
        tokio::task::block_in_place(|| days.cluster.kill(&[], &[at]));
        let flushes = saying.under_way().flushes.into_iter();
        orphans += flushes.filter(|stage| *stage == Stage::Verifying).count();
        let away = days.below(AWAY_MAX);
        tokio::time::sleep(Duration::from_millis(away)).await;
        days.cluster.start_agent(at);
        days.cluster.all_live();
    }
    println!(
        "{seconds} kills of an agent, an append in flight at {in_flight}; {orphans} objects were put that \
         nothing names"
    );
    if is_whole() || seconds >= ORPHANS_FROM {
        assert!(orphans > 0, "no flush was cut behind its put");
    }
    days.collected = true;
    let pen = days.pen.clone();
    days.finish().await;
    for refusal in pen.refusals().keys() {
        let is_retry = RETRIES.iter().any(|code| refusal.contains(code));
        assert!(is_retry, "a read ended with {refusal}");
    }
    // Those with an id were settled, every one.
    for told in pen.misses().keys() {
        let mut fit = RETRIES.iter().chain(&IN_DOUBT);
        assert!(
            fit.any(|fit| told.contains(fit)),
            "an append ended with {told}"
        );
    }
}
