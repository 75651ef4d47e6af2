//! Replicas that were opened again, and whether they have what a quorum has.

use std::time::Duration;

use esker_env::sim::Crash;
use esker_types::{EntryId, RaftIndex, Term};
use esker_wal::Awaits;
use esker_wal::disk::Vote;
use esker_wal::peers::AppendRequest;
use tokio::time::{sleep, timeout};

use super::trio::{PATIENCE, Trio};
use super::world::{SHARD, node_id, run};

async fn until_all_caught_up(trio: &Trio) {
    let all = timeout(PATIENCE, async {
        while (trio.up().into_iter()).any(|node| trio.replica(node).awaits().is_some()) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    all.await.expect("there is a quorum");
}

#[test]
fn who_is_alone_waits_and_who_was_caught_up_once_stays_so() {
    run(async {
        let mut trio = Trio::new(800).await;
        trio.append(0).await;
        let [one, two, three] = [1, 2, 3].map(node_id);
        until_all_caught_up(&trio).await;
        for node in [one, two, three] {
            trio.crash(node, Crash::Kill).await;
        }
        trio.start(one).await;
        sleep(PATIENCE).await;
        assert_eq!(trio.replica(one).awaits(), Some(Awaits::Leader));
        trio.start(two).await;
        until_all_caught_up(&trio).await;
        assert_eq!(trio.append(1).await, 1);
        trio.crash(two, Crash::Kill).await;
        sleep(PATIENCE).await;
        assert_eq!(trio.replica(one).awaits(), None);
        trio.start(three).await;
        until_all_caught_up(&trio).await;
    });
}

/// Back among those who went on without it, under writes that do not end.
#[test]
fn who_was_away_catches_up_while_the_others_go_on() {
    run(async {
        let mut trio = Trio::new(801).await;
        let away = trio.follower().await;
        trio.crash(away, Crash::Kill).await;
        for number in 0..50 {
            trio.append(number).await;
        }
        trio.start(away).await;
        let committed = trio.replica(trio.leader().await).wal().bounds(SHARD).last;
        let mut number = 50;
        while trio.replica(away).awaits().is_some() {
            trio.append(number).await;
            number += 1;
            assert!(number < 1000, "it never catches up");
        }
        assert!(trio.replica(away).wal().bounds(SHARD).last.index >= committed.index);
    });
}

/// What is committed only a leader knows that has committed something itself, and that others follow still.
#[test]
fn only_a_leader_that_knows_what_is_committed_counts() {
    run(async {
        let mut trio = Trio::new(802).await;
        trio.append(0).await;
        trio.converge().await;
        let follower = trio.follower().await;
        let followed = trio.replica(follower).wal().bounds(SHARD).vote;
        let followed = followed.expect("it follows somebody");
        for node in trio.up() {
            trio.crash(node, Crash::Kill).await;
        }
        trio.start(follower).await;
        let replica = trio.replica(follower);
        let last = replica.wal().bounds(SHARD).last;
        let beat = async |leader: Vote, committed: EntryId| {
            let request = AppendRequest {
                vote: leader,
                previous: EntryId::default(),
                entries: Vec::new(),
                committed,
            };
            replica.heard_beat(request).await.expect("an answer");
            replica.awaits()
        };
        // Of an election that this replica took no part in; it cannot know of its beginning.
        let next = Vote {
            term: Term(followed.term.0 + 5),
            ..followed
        };
        let of_next = |index| EntryId {
            term: next.term,
            index: RaftIndex(index),
        };
        let end = last.index.0;
        assert_eq!(
            beat(next, last).await,
            Some(Awaits::Leader),
            "nothing of its term"
        );
        let deposed = Vote {
            term: Term(next.term.0 - 1),
            ..next
        };
        let of_deposed = EntryId {
            term: deposed.term,
            index: last.index,
        };
        assert_eq!(
            beat(deposed, of_deposed).await,
            Some(Awaits::Leader),
            "deposed"
        );
        let lacking = Some(Awaits::Entries { lacking: 3 });
        assert_eq!(beat(next, of_next(end + 3)).await, lacking);
        assert_eq!(beat(next, of_next(end + 9)).await, lacking, "of this round");
    });
}
