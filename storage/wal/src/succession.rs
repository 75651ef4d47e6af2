//! Who campaigns once a leader is silent: its followers, one after the other, as soon as its lease is over.
//!
//! ```text
//!   heard last ─────── ELECTION_MAX, the lease ───────┤ first │ second │ first │ second │ … a rest, and again
//! ```
//! Raft by itself waits for another [`ELECTION_MIN`](esker_types::limits::ELECTION_MIN) to [`ELECTION_MAX`]
//! on top of the lease, so that followers do not campaign together and divide the votes. Taking turns does
//! the same, sooner. A campaign asks beforehand: where the leader is heard by somebody else, or has only been
//! heard again, nothing comes of it. Each shard has an order of its own, so that what a dead node led is not
//! left to one of the others. Whose log is damaged waits until the others had [`TURNS_AHEAD`] each.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_types::ShardId;
use esker_types::limits::{ELECTION_MAX, ELECTION_MIN, SUCCESSION_TURN};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use tokio::time::{Instant, sleep, sleep_until};

use crate::disk::Wal;
use crate::raft::types::{TypeConfig, vote_of};
use crate::replica::{Raft, Standing};

/// A leader's request is heard here a moment before raft knows of it, which renews the lease then.
const MARGIN: Duration = Duration::from_millis(20);
/// Turns of a follower before it rests for [`ELECTION_MIN`] while nobody is heard. Raft's own timers go on
/// beside them.
const TURNS_MAX: u32 = 4;

/// Turns that a follower whose log is damaged leaves to each of the others first.
const TURNS_AHEAD: u32 = 2;

/// When a leader was heard last. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<(Instant, AtomicU64)>);

impl Heard {
    /// Now.
    pub(crate) fn new() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }

    /// A leader is heard.
    pub(crate) fn hear(&self) {
        let (began, micros) = &*self.0;
        let now = u64::try_from(began.elapsed().as_micros()).expect("no process lives so long");
        micros.fetch_max(now, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        let (began, micros) = &*self.0;
        *began + Duration::from_micros(micros.load(Ordering::Relaxed))
    }
}

/// Campaigns in its turn whenever the leader of a shard is silent, until raft ends. The shard has its log in
/// that of a node, which hears of it, too, whether it leads.
pub(crate) async fn succeed(
    (wal, shard): (Arc<Wal>, ShardId),
    raft: Raft,
    mut standing: Standing,
    heard: Heard,
) {
    loop {
        let leads = standing.borrow_watched().state.is_leader();
        wal.lead(shard, leads);
        let turn = turn(shard, &standing.borrow_watched());
        let Some(turn) = turn else {
            if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        let last = heard.last();
        let mut rank = turn.rank;
        if wal.damaged(shard) > 0 {
            rank += TURNS_AHEAD * turn.of;
        }
        sleep_until(last + ELECTION_MAX + MARGIN + SUCCESSION_TURN * rank).await;
        for _ in 0..TURNS_MAX {
            if heard.last() != last || !follows(&standing.borrow_watched()) {
                break;
            }
            tracing::debug!(%shard, silent = ?last.elapsed(), "nobody leads: it campaigns");
            if raft.trigger().elect(true).await.is_err() {
                return;
            }
            sleep(SUCCESSION_TURN * turn.of).await;
        }
        if heard.last() == last {
            // Raft's own timers have their turn, or somebody was elected and is heard soon.
            sleep(ELECTION_MIN).await;
        }
    }
}

/// When it is a follower's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Turn {
    rank: u32,
    of: u32,
}

/// The turn of a follower that votes.
fn turn(shard: ShardId, standing: &RaftServerMetrics<TypeConfig>) -> Option<Turn> {
    if !follows(standing) {
        return None;
    }
    let voters = standing.membership_config.membership().voter_ids();
    turn_of(shard, standing.id, vote_of(&standing.vote).node, voters)
}

/// The turn of `own` among `voters` without their leader.
fn turn_of(
    shard: ShardId,
    own: u64,
    leader: u64,
    voters: impl Iterator<Item = u64>,
) -> Option<Turn> {
    let mut others: Vec<_> = voters.filter(|node| *node != leader).collect();
    others.sort_unstable_by_key(|node| Reverse((scattered(shard, *node), *node)));
    let rank = others.iter().position(|node| *node == own)?;
    Some(Turn {
        rank: u32::try_from(rank).ok()?,
        of: u32::try_from(others.len()).ok()?,
    })
}

/// There was a leader, and it was another.
fn follows(standing: &RaftServerMetrics<TypeConfig>) -> bool {
    let vote = vote_of(&standing.vote);
    vote.committed && vote.node != standing.id
}

/// The finalizer of MurmurHash3 (Appleby 2011), of both.
fn scattered(shard: ShardId, node: u64) -> u64 {
    let mut mixed = node ^ (u64::from(shard.0) << 48);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_follower_has_a_turn_of_its_own_and_each_is_first_somewhere() {
        let mut first = BTreeMap::new();
        for shard in (0..64).map(ShardId) {
            let turns = [1, 2, 3, 4, 5].map(|own| turn_of(shard, own, 3, 1..=5));
            assert_eq!(turns[2], None, "the leader itself has none");
            let mut ranks: Vec<_> = turns.iter().flatten().map(|turn| turn.rank).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2, 3]);
            let winner = turns
                .iter()
                .position(|turn| turn.is_some_and(|turn| turn.rank == 0));
            *first.entry(winner.expect("one of them")).or_insert(0) += 1;
        }
        assert_eq!(first.len(), 4, "{first:?}");
        assert!(first.values().all(|shards| *shards >= 8), "{first:?}");
        assert_eq!(turn_of(ShardId(0), 9, 3, 1..=5), None, "no voter");
    }
}
