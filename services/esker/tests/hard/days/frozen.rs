//! SIGSTOP: whoever leads stands still, and so does an agent that goes on to believe in it. Others take
//! over; back in time, the old leader answers nobody with what was.

use std::time::{Duration, Instant};

use esker_checker::Call;

use super::{Days, is_whole, share};
use crate::TURN;
use crate::cluster::DATA_SHARDS;
use crate::probe::{Probes, percentile};

/// Rounds of a whole run.
const ROUNDS: u32 = 4;
/// How long a leader stands still, and in a whole run.
const FROZEN_FOR: Duration = Duration::from_secs(5);
const FROZEN_FOR_WHOLE: Duration = Duration::from_secs(30);
/// How long it is watched once it is back.
const WATCHED_FOR: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_tells_nothing_old() {
    let _turn = TURN.lock().await;
    let rounds = share(ROUNDS);
    let length = if is_whole() {
        FROZEN_FOR_WHOLE
    } else {
        FROZEN_FOR
    };
    let what = format!("{rounds} times a leader frozen for {length:?}");
    let mut days = Days::begin(&what, 2).await;
    // The second agent may stand still, too.
    let awake = &days.cluster.endpoints()[..1];
    let probes = Probes::come(awake, DATA_SHARDS).await;
    let (mut gaps, mut read) = (Vec::new(), 0);
    for round in 0..rounds {
        let standing = days.well().await;
        let most = standing.nodes.iter().max_by_key(|node| node.leads);
        let most = &most.expect("there are some").id;
        let node = days.cluster.node(&standing, most);
        let with_agent = (round + u32::from(days.random.chance(50))) % 2 == 0;
        let began = Instant::now();
        let leader = days.cluster.nodes[node].running();
        let agent = days.cluster.agents[1].running();
        leader.freeze();
        if with_agent {
            agent.freeze();
        }
        let acked = probes.all_acked_since(began);
        let (gap, ()) = tokio::join!(acked, tokio::time::sleep(length));
        let leads_first = days.random.chance(50);
        if leads_first {
            leader.thaw();
        }
        agent.thaw();
        leader.thaw();
        let before = days.pen.history().ops().len();
        tokio::time::sleep(WATCHED_FOR).await;
        let history = days.pen.history();
        let reads = history.ops()[before..]
            .iter()
            .filter(|op| matches!(op.call, Call::Read(_) | Call::CheckTail { .. }));
        read += reads.count();
        println!(
            "frozen with an agent: {with_agent}; every shard took appends again after {gap:?}"
        );
        gaps.push(gap);
    }
    probes.end().await;
    println!(
        "{rounds} leaders frozen for {length:?}: every shard took appends again after {:?} at most; {read} \
         reads and looks in the first {WATCHED_FOR:?} after they were back",
        percentile(&gaps, 100),
    );
    assert!(
        read > 0,
        "who is not asked tells nothing, neither old nor new"
    );
    days.finish().await;
    if is_whole() {
        assert!(
            gaps.iter().all(|gap| *gap < length),
            "others take over: {gaps:?}"
        );
    }
}
