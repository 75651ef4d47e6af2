//! Whether a replica has caught up with its shard since it was opened: then it counts for a quorum, and
//! another may be stopped.
//!
//! ```text
//!   opened ─► a leader has committed in its term ─► its log has that: at once, or in less than ELECTION_MAX
//!                                         ▲                                │ it took longer
//!                                         └─────────── once more ──────────┘
//!          ─► it leads itself
//! ```
//! What was caught up stays so: who is alone because others have died must not be taken out of service for it.
//! With five voters or more a leader that was deposed and does not know it yet may tell it to one that is cut off
//! beside it; of three, one of those two was asked by whoever deposed it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use esker_types::limits::ELECTION_MAX;
use esker_types::{EntryId, ShardId};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use crate::disk::{Vote, Wal};
use crate::replica::{Replica, Standing};

/// What a replica waits for that has not caught up since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaits {
    /// A leader that has committed something in its term, or its own office.
    Leader,
    /// Entries that a quorum has.
    Entries {
        /// How many it lacks, at least.
        lacking: u64,
    },
}

/// How far it has come. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct CaughtUp(Arc<Mutex<Stage>>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No leader was heard.
    Alone,
    /// It fetches what was committed when this began.
    Round { upto: EntryId, began: Instant },
    /// For as long as it is open.
    Done,
}

impl Stage {
    /// After a leader was heard `now` that has committed up to `committed`; `has` tells what is in the log.
    fn heard(self, committed: EntryId, has: impl Fn(EntryId) -> bool, now: Instant) -> Self {
        match self {
            Self::Done => Self::Done,
            Self::Round { upto, .. } if !has(upto) => self,
            // What was committed meanwhile comes as fast as it is written.
            Self::Round { began, .. } if now.duration_since(began) < ELECTION_MAX => Self::Done,
            Self::Alone | Self::Round { .. } if has(committed) => Self::Done,
            Self::Alone | Self::Round { .. } => Self::Round {
                upto: committed,
                began: now,
            },
        }
    }
}

impl CaughtUp {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Stage::Alone)))
    }

    /// Hears the leader of `leader`, before raft does. One that this replica has not followed yet, or no longer
    /// follows, counts as little as one that has committed nothing in its term: it may not know what is committed.
    pub(crate) fn hear(&self, wal: &Wal, shard: ShardId, leader: Vote, committed: EntryId) {
        let mut stage = self.stage();
        if *stage == Stage::Done || committed.term != leader.term {
            return;
        }
        if wal.bounds(shard).vote != Some(leader) {
            return;
        }
        *stage = stage.heard(committed, |id| wal.keeps(shard, id), Instant::now());
    }

    /// Hears from raft when the replica comes to lead: a quorum has voted for it, and it has all.
    pub(crate) async fn lead(self, mut standing: Standing) {
        while !standing.borrow_watched().state.is_leader() {
            if standing.changed().await.is_err() {
                return;
            }
        }
        *self.stage() = Stage::Done;
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // A stage is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    /// What it waits for before it counts for a quorum; `None` once it has caught up since it was opened, and
    /// if it is known to hold the shard no more.
    #[must_use]
    pub fn awaits(&self) -> Option<Awaits> {
        let awaits = match *self.caught_up().stage() {
            Stage::Done => return None,
            Stage::Alone => Awaits::Leader,
            Stage::Round { upto, .. } => {
                let last = self.wal().bounds(self.shard()).last;
                let lacking = upto.index.0.saturating_sub(last.index.0);
                Awaits::Entries { lacking }
            }
        };
        let standing = self.standing().borrow_watched();
        // It is told of its own office a moment later.
        let leads = standing.state.is_leader();
        let membership = standing.membership_config.membership();
        let mut holders = membership.nodes().map(|(id, _)| *id).peekable();
        let removed = holders.peek().is_some() && !holders.any(|id| id == standing.id);
        (!leads && !removed).then_some(awaits)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use esker_types::{RaftIndex, Term};

    use super::*;

    fn id(index: u64) -> EntryId {
        EntryId {
            term: Term(3),
            index: RaftIndex(index),
        }
    }

    /// Goes through what is heard: after so many milliseconds, committed and in its log so far.
    fn after(heard: &[(u64, u64, u64)]) -> Stage {
        let began = Instant::now();
        heard
            .iter()
            .fold(Stage::Alone, |stage, (ms, committed, last)| {
                let now = began + Duration::from_millis(*ms);
                stage.heard(id(*committed), |id| id.index.0 <= *last, now)
            })
    }

    fn upto(stage: Stage) -> Option<u64> {
        match stage {
            Stage::Round { upto, .. } => Some(upto.index.0),
            Stage::Alone | Stage::Done => None,
        }
    }

    #[test]
    fn who_has_all_is_there_at_once_and_who_lacks_little_when_it_has_that() {
        assert_eq!(after(&[(0, 10, 10)]), Stage::Done);
        assert_eq!(upto(after(&[(0, 10, 9)])), Some(10));
        // Others write on, and their entries are always on their way here.
        assert_eq!(upto(after(&[(0, 10, 4), (100, 20, 9)])), Some(10));
        assert_eq!(
            after(&[(0, 10, 4), (100, 20, 9), (200, 30, 10)]),
            Stage::Done
        );
    }

    #[test]
    fn who_takes_long_is_asked_for_what_came_meanwhile() {
        let long = u64::try_from(ELECTION_MAX.as_millis()).unwrap();
        let slow = [(0, 1000, 0), (long, 1500, 1000)];
        assert_eq!(upto(after(&slow)), Some(1500));
        let next =
            |ms, committed, last| after(&[&slow[..], &[(long + ms, committed, last)]].concat());
        assert_eq!(next(long - 1, 1600, 1500), Stage::Done);
        assert_eq!(upto(next(long, 1600, 1500)), Some(1600));
        assert_eq!(next(long, 1600, 1600), Stage::Done);
    }

    #[test]
    fn what_was_caught_up_stays_so() {
        assert_eq!(after(&[(0, 10, 10), (60_000, 500, 10)]), Stage::Done);
    }
}
