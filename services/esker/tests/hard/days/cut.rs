//! Ways between processes are cut: a leader alone, a leader with one agent that goes on to believe in
//! it, one direction only, now and then. Whoever has a quorum goes on, and nobody else.

use std::time::{Duration, Instant};

use esker_checker::{Call, Op, Outcome};

use super::replaced::within;
use super::{Days, share};
use crate::blocking_turn;
use crate::clients::SOON;
use crate::cluster::DATA_SHARDS;
use crate::net::{self, Net};
use crate::probe::{Probes, percentile};

/// Rounds of a whole run.
const ROUNDS: u32 = 50;
/// How long ways stay cut at least.
const CUT_FOR: Duration = Duration::from_secs(3);
/// Milliseconds between two changes of a way that flaps, at most.
const FLAP_MAX: u64 = 700;
/// Time for what came before its ways were cut to be applied by a node.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);
/// Looks in a row, a quarter of that apart, that find nothing more applied: longer than a disk takes to sync.
const ALIKE: u32 = 8;
/// How long it is watched once all ways are open.
const WATCHED_FOR: Duration = Duration::from_secs(1);

/// Which ways are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// All of a leader's, with nodes and agents.
    Alone,
    /// All of a leader's and an agent's, but the one between them.
    WithAgent,
    /// What a leader says to nodes.
    Mute,
    /// What nodes say to a leader.
    Deaf,
    /// Those between two nodes, now and then.
    Flaps,
}

const CUTS: [Cut; 5] = [Cut::Alone, Cut::WithAgent, Cut::Mute, Cut::Deaf, Cut::Flaps];

#[test]
fn what_was_acknowledged_survives_cut_ways() {
    let Some(_turn) = blocking_turn() else {
        return;
    };
    match net::inside("days::cut::ways_are_cut") {
        Ok(passed) => assert!(passed, "what it said stands above"),
        Err(why) if std::env::var_os("ESKER_NAMESPACES").is_some() => panic!("{why}"),
        Err(why) => eprintln!("cut ways are not run here: {why}"),
    }
}

#[test]
fn a_test_that_is_not_there_has_not_passed() {
    let Some(_turn) = blocking_turn() else {
        return;
    };
    let passed = net::inside("days::cut::nobody_has_written_this");
    assert_ne!(passed, Ok(true), "it has not run");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it, in a network of its own"]
async fn ways_are_cut() {
    if !net::is_inside() {
        eprintln!(
            "not run: it needs a network of its own, which what_was_acknowledged_survives_cut_ways makes"
        );
        return;
    }
    let rounds = share(ROUNDS);
    let network = Some(Net::new());
    let mut days = Days::begin_on(&format!("{rounds} times ways cut"), 2, network).await;
    let awake = &days.cluster.endpoints()[..1];
    let probes = Probes::come(awake, DATA_SHARDS).await;
    let first = usize::try_from(days.below(CUTS.len() as u64)).expect("a few");
    let (mut gaps, mut with_agent, mut believed) = (Vec::new(), 0, 0);
    for round in 0..rounds as usize {
        let cut = CUTS[(first + round) % CUTS.len()];
        let standing = days.well().await;
        let most = standing.nodes.iter().max_by_key(|node| node.leads);
        let leader = days
            .cluster
            .node(&standing, &most.expect("there are some").id);
        if cut == Cut::Flaps {
            flap(&mut days).await;
        } else {
            tokio::task::block_in_place(|| sever(&mut days, cut, leader));
            // What began while the ways were being cut may have passed.
            let acked = probes.all_acked_since(Instant::now());
            let before = days.pen.history().ops().len();
            let still = stands_still(&days, cut, leader);
            let (gap, ()) = tokio::join!(acked, still);
            if cut == Cut::WithAgent {
                with_agent += 1;
                believed += appends_in_vain(&days, &days.pen.history().ops()[before..]);
            }
            println!("{cut:?}: every shard took appends again after {gap:?}");
            gaps.push(gap);
        }
        let network = days.cluster.network();
        tokio::task::block_in_place(|| network.heal());
        let acked = probes.all_acked_since(Instant::now());
        let (healed, ()) = tokio::join!(acked, tokio::time::sleep(WATCHED_FOR));
        println!("{cut:?}: healed, every shard takes appends after {healed:?}");
    }
    probes.end().await;
    println!(
        "{rounds} times ways cut: where a quorum was left, every shard took appends again after {:?} \
         (p50), {:?} (max)",
        percentile(&gaps, 50),
        percentile(&gaps, 100),
    );
    println!(
        "{believed} appends at the agent that {with_agent} times was left with a leader alone"
    );
    assert!(
        with_agent == 0 || believed > 0,
        "nobody has appended at that agent"
    );
    days.finish().await;
    net::ended();
}

/// Watches for as long as ways are cut: what a leader that hears nobody has not applied by then it does not
/// apply, so that it has nothing to acknowledge.
async fn stands_still(days: &Days, cut: Cut, leader: usize) {
    tokio::time::sleep(APPLIED_WITHIN).await;
    let applied = || {
        let leader = days.cluster.nodes[leader].running();
        let of = |shard| format!("esker_replica_applied_index{{shard=\"{shard}\"}}");
        let shards = 0..=DATA_SHARDS;
        let applied = || {
            shards
                .map(|shard| leader.figure(&of(shard)))
                .collect::<Vec<_>>()
        };
        tokio::task::block_in_place(applied)
    };
    // What followers had acknowledged before is applied once the leader's own disk has it, which may be slow.
    let mut before = applied();
    let mut alike = 0;
    within(SOON, "nothing more is applied", async || {
        tokio::time::sleep(APPLIED_WITHIN / 4).await;
        let last = std::mem::replace(&mut before, applied());
        alike = if before == last { alike + 1 } else { 0 };
        alike == ALIKE || !matches!(cut, Cut::Alone | Cut::WithAgent)
    })
    .await;
    tokio::time::sleep(CUT_FOR.saturating_sub(APPLIED_WITHIN)).await;
    if matches!(cut, Cut::Alone | Cut::WithAgent) {
        assert_eq!(applied(), before, "by a leader without a quorum, by shard");
    }
}

/// How many appends among these calls, which began after that, were made at the agent that is left with a leader
/// alone. Of these none is acknowledged.
fn appends_in_vain(days: &Days, ops: &[Op]) -> usize {
    let callers = days.clients.of(1);
    let appends = ops
        .iter()
        .filter(|op| callers.contains(&op.session) && matches!(op.call, Call::Append(_)));
    let acked = |op: &&Op| matches!(op.outcome, Outcome::Ok(_));
    let acked: Vec<_> = appends.clone().filter(acked).collect();
    assert!(acked.is_empty(), "acknowledged without a quorum: {acked:?}");
    appends.count()
}

/// Cuts ways of node `leader`, and perhaps of the second agent.
fn sever(days: &mut Days, cut: Cut, leader: usize) {
    let host = |process: &crate::cluster::Process| process.host.clone();
    let mut nodes: Vec<_> = days.cluster.nodes.iter().map(host).collect();
    let agents: Vec<_> = days.cluster.agents.iter().map(host).collect();
    let leader = nodes.swap_remove(leader);
    let network = days.cluster.network();
    for node in &nodes {
        match cut {
            Cut::Alone => network.part(&leader, node),
            Cut::WithAgent => {
                network.part(&leader, node);
                network.part(&agents[1], node);
            }
            Cut::Mute => network.cut(&leader, node),
            Cut::Deaf => network.cut(node, &leader),
            Cut::Flaps => {}
        }
    }
    match cut {
        Cut::Alone => agents.iter().for_each(|agent| network.part(&leader, agent)),
        Cut::WithAgent => network.part(&leader, &agents[0]),
        Cut::Mute | Cut::Deaf | Cut::Flaps => {}
    }
}

/// Cuts the ways of two nodes, and opens all, at random.
async fn flap(days: &mut Days) {
    let began = Instant::now();
    while began.elapsed() < CUT_FOR {
        let count = days.cluster.nodes.len() as u64;
        let (one, further) = (days.below(count), 1 + days.below(count - 1));
        let host = |at: u64| {
            let at = usize::try_from(at % count).expect("a few");
            days.cluster.nodes[at].host.clone()
        };
        let (one, other) = (host(one), host(one + further));
        let heals = days.below(3) > 0;
        let pause = Duration::from_millis(days.below(FLAP_MAX));
        let network = days.cluster.network();
        tokio::task::block_in_place(|| network.part(&one, &other));
        tokio::time::sleep(pause).await;
        if heals {
            tokio::task::block_in_place(|| network.heal());
        }
    }
}
