//! Three nodes: whoever leads is lost, and appends go on.

use std::time::Duration;

use bytes::Bytes;
use esker_head::Calling;
use esker_log::Head;
use esker_shard::AppendOutcome;
use esker_types::limits::ELECTION_MAX;
use esker_types::{OffsetRange, PartitionId};
use tokio::time::{Instant, sleep};

use crate::site::{CLUSTER, SHARD, SHARDS, batch, make_partition, range, run, stamp};
use crate::trio::{Trio, address};

/// Appended while that happens.
const APPENDS: u32 = 400;
const SEEDS: u64 = 3;

/// Appends until `upto` are answered; the longest time in which none was.
async fn append(head: Calling, partition: PartitionId, upto: u32) -> Duration {
    let (mut under_way, mut next, mut done) = (Vec::new(), 0, 0);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while done < upto {
        while under_way.len() < 5 && next < upto {
            let bytes = Bytes::from(next.to_string());
            let (batch, bytes) = batch(partition, 1, bytes, Some(stamp(1, next)));
            let answer = head.append(SHARD, batch, bytes).await;
            under_way.push(answer.expect("it is queued"));
            next += 1;
            sleep(Duration::from_millis(2)).await;
        }
        let outcome = under_way.remove(0).await;
        let found: OffsetRange = match outcome.expect("somebody comes to lead") {
            AppendOutcome::Accepted { range, .. } | AppendOutcome::Duplicate { range } => range,
            rejected => panic!("{rejected:?}"),
        };
        assert_eq!(found, range(u64::from(done), u64::from(done) + 1));
        done += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

async fn lose_the_leader(seed: u64, machine: bool) -> Duration {
    let mut trio = Trio::found(seed).await;
    // One is enough: the others are named.
    let calling = Calling::new(&trio.env("agent"), CLUSTER, SHARDS, vec![address(2)]);
    let partition = make_partition(&calling).await;
    let appending = tokio::spawn(append(calling.clone(), partition, APPENDS));
    sleep(Duration::from_millis(200 + seed * 37)).await;
    let leader = trio.leader().expect("somebody leads");
    if machine {
        trio.sever(leader);
    } else {
        trio.kill(leader).await;
    }
    let longest = appending.await.expect("all are there, once, in order");
    let bounds = calling.bounds(SHARD, partition).await.expect("it is led");
    assert_eq!(bounds.expect("it is there").end.get(), u64::from(APPENDS));
    longest
}

#[test]
fn appends_go_on_within_three_elections_after_the_leader_was_killed() {
    for seed in 1..=SEEDS {
        let longest = run(lose_the_leader(seed, false));
        assert!(longest <= 3 * ELECTION_MAX, "seed {seed}: {longest:?}");
        assert!(longest > Duration::from_millis(100), "it was not missed");
    }
}

#[test]
fn appends_go_on_within_three_elections_after_the_leaders_machine_is_gone() {
    for seed in 1..=SEEDS {
        let longest = run(lose_the_leader(seed, true));
        assert!(longest <= 3 * ELECTION_MAX, "seed {seed}: {longest:?}");
        assert!(longest > Duration::from_millis(100), "it was not missed");
    }
}
