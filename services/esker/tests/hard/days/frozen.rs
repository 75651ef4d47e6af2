//! SIGSTOP: whoever leads stands still, and so does an agent that goes on to believe in it. Others take
//! over: whoever calls an agent that does not stand still goes on, meanwhile. Back in time, the old leader
//! answers nobody with what was.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use esker_checker::{Call, Op, Outcome, Refusal, Session};

use super::{Days, LOOK, is_whole, share};
use crate::clients::SOON;
use crate::cluster::DATA_SHARDS;
use crate::probe::{Probes, percentile};
use crate::turn;

/// Rounds of a whole run.
const ROUNDS: u32 = 4;
/// Rounds of any: the leader alone, and with an agent.
const ROUNDS_MIN: u32 = 2;
/// Time for all threads of a process to stand still.
const STANDS_WITHIN: Duration = Duration::from_millis(100);
/// How long a leader stands still, and in a whole run.
const FROZEN_FOR: Duration = Duration::from_secs(5);
const FROZEN_FOR_WHOLE: Duration = Duration::from_secs(30);
/// How long it is watched once it is back.
const WATCHED_FOR: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_tells_nothing_old() {
    let Some(_turn) = turn().await else { return };
    let rounds = share(ROUNDS).max(ROUNDS_MIN);
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
    let first = u32::from(days.random.chance(50));
    for round in 0..rounds {
        let standing = days.well().await;
        let most = standing.nodes.iter().max_by_key(|node| node.leads);
        let most = &most.expect("there are some").id;
        let node = days.cluster.node(&standing, most);
        let with_agent = (round + first) % 2 == 0;
        let leader = days.cluster.nodes[node].running();
        let agent = days.cluster.agents[1].running();
        let struck = Instant::now();
        leader.freeze();
        if with_agent {
            agent.freeze();
        }
        tokio::time::sleep(STANDS_WITHIN).await;
        let (began, since) = (Instant::now(), days.pen.history().ops().len());
        let acked = probes.all_acked_since(began);
        let served = all_served(&days, with_agent, since);
        let (gap, served, ()) = tokio::join!(acked, served, tokio::time::sleep(length));
        let (gap, served) = (gap + (began - struck), served - struck);
        if with_agent {
            let mut ops = days.pen.history().ops()[since..].to_vec();
            // Who reads may have been sent ahead what it asks for now.
            ops.retain(|op| !matches!(op.call, Call::Read(_)));
            let told: Vec<_> = answered(&ops)
                .intersection(&days.clients.of(1))
                .copied()
                .collect();
            assert!(told.is_empty(), "by an agent that stands still: {told:?}");
        }
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
            "frozen with an agent: {with_agent}; every shard took appends again after {gap:?}, everybody at an \
             agent that runs was answered after {served:?}"
        );
        gaps.extend([gap, served]);
    }
    probes.end().await;
    println!(
        "{rounds} leaders frozen for {length:?}: every shard took appends again, and everybody was answered, \
         after {:?} at most; {read} reads and looks in the first {WATCHED_FOR:?} after they were back",
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

/// When everybody who calls an agent that runs was answered something that was called since.
async fn all_served(days: &Days, with_agent: bool, since: usize) -> Instant {
    let mut waiting = days.clients.of(0);
    if !with_agent {
        waiting.append(&mut days.clients.of(1));
    }
    let patience = tokio::time::timeout(SOON, async {
        while !waiting.is_empty() {
            tokio::time::sleep(LOOK).await;
            let answered = answered(&days.pen.history().ops()[since..]);
            waiting.retain(|session| !answered.contains(session));
        }
    });
    let served = patience.await.is_ok();
    assert!(
        served,
        "not answered in {SOON:?}, at an agent that runs: {waiting:?}"
    );
    Instant::now()
}

/// Whose calls among these came to an answer: that another was first is one, too.
fn answered(ops: &[Op]) -> BTreeSet<Session> {
    let answered = ops.iter().filter(|op| {
        matches!(
            op.outcome,
            Outcome::Ok(_) | Outcome::Fail(Refusal::ExpectedEnd { .. })
        )
    });
    answered.map(|op| op.session).collect()
}
