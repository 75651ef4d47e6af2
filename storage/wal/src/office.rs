//! Leading, term by term: whether this replica does, who does, and the time that a leader tells.
//!
//! ```text
//!   a term begins ─► a quorum is asked once, all of former terms is applied ─► the office is held:
//!                    time is told from here on, and what is proposed is proposed in this term alone
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use esker_env::Clock;
use esker_types::limits::{CLOCK_GAP_MAX, CLOCK_SKEW_MAX, LEARNER_LAG_MAX, READ_INDEX_MAX};
use esker_types::{NodeId, RaftIndex, ShardId, ShardTime, Term};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};

use crate::propose::{Leader, ProposeError, leader_of};
use crate::raft::rooms::Said;
use crate::raft::types::{LogId, entry_id};
use crate::replica::{Raft, Replica, unknown};
use crate::shard_clock::{Behind, ShardClock, Stamp};

impl Replica {
    /// The term in which this replica believes to lead. It may be deposed and not know it yet.
    #[must_use]
    pub fn leads_in(&self) -> Option<Term> {
        let standing = self.standing();
        let standing = standing.borrow_watched();
        let leads = standing.state.is_leader();
        leads.then_some(Term(standing.vote.leader_id.term))
    }

    /// Who leads, as far as this replica knows.
    #[must_use]
    pub fn leader(&self) -> Option<Leader> {
        let standing = self.standing();
        let standing = standing.borrow_watched();
        let node = standing.current_leader?;
        let address = standing.membership_config.membership().get_node(&node)?;
        Some(Leader {
            node: NodeId::from_u64(node)?,
            address: address.addr.clone(),
        })
    }

    /// That this replica does not lead, and who does.
    #[must_use]
    pub fn not_leader(&self) -> ProposeError {
        ProposeError::NotLeader {
            shard: self.shard(),
            leader: self.leader(),
        }
    }

    /// That this replica leads nobody, as far as it hears: somebody else may lead by now.
    pub(crate) fn no_quorum(&self) -> ProposeError {
        ProposeError::NotLeader {
            shard: self.shard(),
            leader: None,
        }
    }

    /// Waits until this replica believes to lead in another term than `known`; `None` once its raft
    /// has ended.
    pub async fn leads_anew(&self, known: Option<Term>) -> Option<Term> {
        let mut standing = self.standing().clone();
        loop {
            let leads = self.leads_in();
            if leads.is_some() && leads != known {
                return leads;
            }
            standing.changed().await.ok()?;
        }
    }

    /// Asks `node` to lead in place of this replica, which stops to at once: an election follows even
    /// if it declines. Does nothing where this replica does not lead.
    ///
    /// # Errors
    /// [`ProposeError::Refused`] for this node itself, or one without a vote: nobody would lead.
    /// [`ProposeError::Unknown`] if raft ended.
    pub async fn hand_over(&self, node: NodeId) -> Result<(), ProposeError> {
        let own = self.standing().borrow_watched().id == node.as_u64();
        if own || !self.members().voters.contains(&node) {
            return Err(self.refused(format!("{node} is no other node with a vote")));
        }
        let asked = self.raft().trigger().transfer_leader(node.as_u64()).await;
        asked.map_err(|error| self.unknown(&error))
    }

    /// Which of the other voters that answer, and lack little, has most of the log, and has it whole if one of
    /// them does; `None` where there is none, or this replica does not lead. Whoever lacks an entry that is
    /// damaged here could not get it from here, and nobody would lead.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<_> = metrics.membership_config.voter_ids().collect();
        let needed = self.needed();
        let others = metrics.replication.iter().flatten();
        let others = others.filter(|(node, matched)| {
            voters.contains(node) && **node != metrics.id && has(matched.as_ref(), needed)
        });
        let others = others
            .filter(|(node, _)| NodeId::from_u64(**node).is_some_and(|node| self.answers(node)));
        // Whose log is damaged leads a shard that may not be flushed, and whoever is full one that takes
        // nothing until it is.
        let most = others.max_by_key(|(node, matched)| {
            let is_whole = !self.rooms().is_damaged(**node);
            let has_room = matches!(self.rooms().said(**node), Some(Said::Room));
            (is_whole, has_room, matched.as_ref().map(|id| id.index))
        })?;
        NodeId::from_u64(*most.0)
    }

    /// Whether `node`, another, may be given what this replica leads well: as [`Replica::successor`] has it,
    /// and besides it has said that it has room for appends, and a log that is whole. False where this replica
    /// does not lead.
    #[must_use]
    pub fn may_lead(&self, node: NodeId) -> bool {
        let (rooms, id) = (self.rooms(), node.as_u64());
        if !matches!(rooms.said(id), Some(Said::Room)) || rooms.is_damaged(id) {
            return false;
        }
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.replication.as_ref();
        // Nothing is known of one that never answered.
        let matched = others.and_then(|others| others.get(&id)?.as_ref());
        matched.is_some() && has(matched, self.needed())
    }

    /// Up to where whoever is to lead has the log, at least.
    fn needed(&self) -> Option<RaftIndex> {
        let (shard, wal) = (self.shard(), self.wal());
        needed(wal.bounds(shard).last.index, wal.last_damaged(shard))
    }

    /// Asks a quorum whether this replica still leads, and waits until it has applied what was
    /// committed when it was asked. What [`Replica::state`] says afterwards is not stale. All who ask
    /// at one time share a round that begins after each of them has asked.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`], also if no quorum answers within [`READ_INDEX_MAX`];
    /// [`ProposeError::Unknown`] if raft ended.
    pub async fn read_index(&self) -> Result<RaftIndex, ProposeError> {
        let (shard, raft) = (self.shard(), self.raft().clone());
        let round = self.rounds().join(move || ask_quorum(shard, raft));
        // Two rounds that nobody answers take twice as long.
        let answer = tokio::time::timeout(READ_INDEX_MAX, round).await;
        answer.unwrap_or_else(|_| Err(self.no_quorum()))
    }
}

/// Few entries below the `last`, and not below the last that is `damaged`: nobody would get it from here.
fn needed(last: RaftIndex, damaged: Option<RaftIndex>) -> Option<RaftIndex> {
    let few = last.0.checked_sub(LEARNER_LAG_MAX);
    few.map(RaftIndex).max(damaged)
}

/// Whether who has the log up to `matched` has what is `needed` of it.
fn has(matched: Option<&LogId>, needed: Option<RaftIndex>) -> bool {
    matched.map(|id| entry_id(id).index) >= needed
}

/// One round of ReadIndex.
async fn ask_quorum(shard: ShardId, raft: Raft) -> Result<RaftIndex, ProposeError> {
    let asked = raft.ensure_linearizable(ReadPolicy::ReadIndex);
    // Who is cut off from the others asks them for as long as it takes.
    let Ok(asked) = tokio::time::timeout(READ_INDEX_MAX, asked).await else {
        let leader = None;
        return Err(ProposeError::NotLeader { shard, leader });
    };
    asked
        .map_err(|error| match error {
            RaftError::Fatal(error) => unknown(shard, &error),
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                let leader = leader_of(forward);
                ProposeError::NotLeader { shard, leader }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => {
                let leader = None;
                ProposeError::NotLeader { shard, leader }
            }
        })
        .map(|read| entry_id(read.log_id()).index)
}

/// Tells the latest time of a node's other shards.
pub type Elsewhere = Arc<dyn Fn() -> ShardTime + Send + Sync>;

/// The office of a shard's leader, held term by term. Clones share it.
#[derive(Clone)]
pub(crate) struct Office {
    replica: Replica,
    clock: Arc<dyn Clock>,
    elsewhere: Elsewhere,
    held: Arc<Mutex<Option<Held>>>,
}

#[derive(Clone, Copy)]
struct Held {
    term: Term,
    time: ShardClock,
}

impl Office {
    /// The office of `replica`, which may lead now, later or never. A shard that has no time yet
    /// holds its wall clock against the latest `elsewhere`.
    pub(crate) fn new(replica: Replica, clock: Arc<dyn Clock>, elsewhere: Elsewhere) -> Self {
        Self {
            replica,
            clock,
            elsewhere,
            held: Arc::default(),
        }
    }

    /// The term in which the office is held. A new one begins once a quorum was asked and all of
    /// former terms is applied: then time is told from what the shard has.
    pub(crate) async fn hold(&self) -> Result<Term, ProposeError> {
        let leads = self.replica.leads_in();
        let term = leads.ok_or_else(|| self.replica.not_leader())?;
        if self.lock(|held| held.is_some_and(|held| held.term == term)) {
            return Ok(term);
        }
        self.replica.read_index().await?;
        let (time, tells) = self.time().await;
        if self.replica.leads_in() != Some(term) {
            return Err(self.replica.not_leader());
        }
        self.begin(term, time, tells);
        Ok(term)
    }

    /// The clock of an office that begins now, and whether it tells time: a gap that a single voter
    /// would not close, or that is more than the clocks of nodes may be apart, is closed if those of a
    /// quorum agree.
    async fn time(&self) -> (ShardClock, bool) {
        let time = self.replica.state().time();
        let elsewhere = (self.elsewhere)();
        let (alone, gap_max) = (self.replica.votes_alone(), self.gap_max());
        let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let mut clock = ShardClock::take_office(wall, monotonic, time, elsewhere, gap_max);
        if clock.waits() && !alone && self.replica.clocks_agree().await {
            // One that is far behind is not accepted: told below.
            let _ = clock.accept(self.clock.wall(), self.clock.monotonic());
        }
        let tells = !clock.waits();
        (clock, tells)
    }

    /// The largest gap that is closed by nobody's word but this node's.
    fn gap_max(&self) -> Duration {
        match self.replica.votes_alone() {
            true => CLOCK_GAP_MAX,
            false => CLOCK_SKEW_MAX,
        }
    }

    /// Asks the clocks of the others once more, if time stands still since the office began. Does nothing
    /// for who votes alone.
    pub(crate) async fn ask_again(&self) {
        let waits = |held: &mut Option<Held>| held.filter(|held| held.time.waits());
        let Some(Held { term, .. }) = self.lock(waits) else {
            return;
        };
        let leads = self.replica.leads_in() == Some(term);
        if !leads || self.replica.votes_alone() || !self.replica.clocks_agree().await {
            return;
        }
        let accepted = self.lock(|held| {
            let held = held.as_mut().filter(|held| held.term == term)?;
            let (wall, monotonic) = (self.clock.wall(), self.clock.monotonic());
            held.time.accept(wall, monotonic).ok()
        });
        if accepted.is_some() {
            let shard = self.replica.shard();
            tracing::info!(%shard, "the wall clocks of a quorum agree: time goes on");
        }
    }

    /// The time that an entry would be stamped with now; `None` before the office was ever held.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.lock(|held| {
            let held = held.as_mut()?;
            Some(held.time.stamp(self.clock.wall(), self.clock.monotonic()))
        })
    }

    /// Accepts the wall clock as it is; does nothing before the office was ever held.
    pub(crate) fn accept(&self) -> Result<(), Behind> {
        self.lock(|held| match held {
            Some(held) => held.time.accept(self.clock.wall(), self.clock.monotonic()),
            None => Ok(()),
        })
    }

    fn begin(&self, term: Term, time: ShardClock, tells: bool) {
        let begun = self.lock(|held| {
            let newer = held.is_none_or(|held| held.term < term);
            if newer {
                *held = Some(Held { term, time });
            }
            newer
        });
        if begun
            && !tells
            && let Some(Stamp::Stopped { skew, .. }) = self.stamp()
        {
            let shard = self.replica.shard();
            tracing::error!(%shard, ?skew, limit = ?self.gap_max(), "the wall clock is far ahead of the last entry, or behind it, and no clocks of other voters agree with it: expiry and retention stand still, appends go on; set the clock right or, after a long standstill, `esker cluster time --accept SHARD`");
        }
    }

    fn lock<T>(&self, then: impl FnOnce(&mut Option<Held>) -> T) -> T {
        then(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use esker_types::EntryId;

    use super::*;
    use crate::raft::types::log_id;

    #[test]
    fn who_lacks_many_entries_or_one_that_is_damaged_is_not_to_lead() {
        let last = 2 * LEARNER_LAG_MAX;
        let may = |matched: u64, last: u64, damaged: Option<u64>| {
            let index = RaftIndex(matched);
            let term = Term(1);
            let matched = log_id(EntryId { term, index });
            has(
                matched.as_ref(),
                needed(RaftIndex(last), damaged.map(RaftIndex)),
            )
        };
        assert!(may(last - LEARNER_LAG_MAX, last, None));
        assert!(!may(last - LEARNER_LAG_MAX - 1, last, None));
        assert!(may(last - 3, last, Some(last - 3)));
        assert!(!may(last - 4, last, Some(last - 3)));
        assert!(!may(last - LEARNER_LAG_MAX - 1, last, Some(1)));
        assert!(may(1, LEARNER_LAG_MAX, None) && !may(1, LEARNER_LAG_MAX, Some(2)));
    }
}
