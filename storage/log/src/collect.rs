//! The collector: what nothing names leaves the bucket. Deletion needs positive evidence.
//!
//! ```text
//!   claim confirmed ─► newest checkpoint read, older ones deleted
//!     └► page of a listing ─► ReadIndex ─► what the state names of that page ─► verdict
//!          named by the state or the checkpoint            stays
//!          a command may name it yet                       stays; a gathered one is forbidden first
//!          neither                                         remembered, and deleted after the grace
//! ```
//! The listing comes before the state: what is listed was written before, and what the state does
//! not name then, and forbids to name, is named by nothing later. The checkpoint must forbid it as
//! well: it is a state of the past, so all states and checkpoints after it forbid it too.

mod partitions; // objects of single partitions
mod shard; // objects of a shard
mod sights; // what was seen unnamed, and since when
mod tombstones; // topics of which nothing is left
mod verdict; // whether an object may go

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Monotonic};
use esker_object::{Cursor, Key, Prefix, Store};
use esker_shard::{Command, Level, Outcome, Refusal};
use esker_types::limits::{COLLECT_ROUND_MAX, OBJECT_DELETES_IN_FLIGHT, READ_GRACE};
use esker_types::{RaftIndex, ShardId};

use crate::claim::{self, Owner};
use crate::error::KeepError;
use crate::head::Head;
use sights::Sights;
use tombstones::Emptied;
use verdict::Marks;

// At level 1 a `Swap` adds nothing, so no state names a gathered segment, one of a partition, or a
// page. A level that changes this must teach `verdict` and `shard` what its states name.
const _: () = assert!(Level::NEWEST.get() == 1);

/// Stands for the shard of objects whose keys name none.
const ELSEWHERE: ShardId = ShardId::CATALOG;

/// Deletes what nothing names. It runs no timer: call [`Collector::round`] every `COLLECT_PERIOD`.
#[derive(Debug)]
pub struct Collector {
    head: Arc<dyn Head>,
    store: Store,
    env: Env,
    owner: Owner,
    grace: Duration,
    round_max: Duration,
    /// Sweeps begun, of whatever.
    sweeps: u64,
    /// Sweeps that ran out of time: the next round goes on with them.
    halted: BTreeMap<ShardId, Sweep>,
    /// The shard that ran out of time last, or if it was swept by then the one behind it: the next
    /// round begins with it.
    first: Option<ShardId>,
    sights: Sights,
    emptied: Emptied,
}

/// What a round has done.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Objects deleted.
    pub deleted: usize,
    /// Objects whose deletion failed; the next round tries again.
    pub failed: usize,
    /// Objects that nothing names, within the grace.
    pub waiting: usize,
    /// Bucket checkpoints deleted because a newer one was verified.
    pub older: usize,
    /// Topics of which nothing is left, and whose tombstones were dropped.
    pub tombstones: usize,
    /// Objects of partitions that no shard knows; they stay.
    pub unplaced: usize,
    /// The round ran out of time; it deleted nothing after that.
    pub out_of_time: bool,
    /// What went wrong, at most one error for each shard and kind of object. What was wrong stays
    /// until the next round.
    pub troubles: Vec<KeepError>,
}

/// One round.
#[derive(Debug)]
struct Round {
    deadline: Monotonic,
    /// What the checkpoint of each shard says; shards without one are not here, and keep
    /// everything.
    kept: BTreeMap<ShardId, Marks>,
    done: Collected,
}

/// One listing of everything that a shard has, over one round or several.
#[derive(Clone, Debug)]
struct Sweep {
    number: u64,
    /// Which kind of object comes next, and from where on.
    next: (usize, Option<Cursor>),
}

impl Collector {
    /// A collector of what `owner` wrote to `store`.
    #[must_use]
    pub fn new(head: Arc<dyn Head>, store: Store, env: Env, owner: Owner) -> Self {
        Self {
            head,
            store,
            env,
            owner,
            grace: READ_GRACE,
            round_max: COLLECT_ROUND_MAX,
            sweeps: 0,
            halted: BTreeMap::new(),
            first: None,
            sights: Sights::default(),
            emptied: Emptied::default(),
        }
    }

    /// How long objects that nothing names are kept, and how long a round may go on. Default:
    /// `READ_GRACE` and `COLLECT_ROUND_MAX`.
    #[must_use]
    pub fn with_times(mut self, grace: Duration, round_max: Duration) -> Self {
        (self.grace, self.round_max) = (grace, round_max);
        self
    }

    /// Looks through everything that this incarnation wrote, and deletes what may go.
    ///
    /// # Errors
    /// [`KeepError::Claim`]: nothing was looked at. All else is in [`Collected::troubles`], and
    /// stops only the shard that it is about.
    pub async fn round(&mut self) -> Result<Collected, KeepError> {
        let began = self.env.clock.monotonic();
        let mut round = Round {
            deadline: Monotonic(began.0.saturating_add(self.round_max)),
            kept: BTreeMap::new(),
            done: Collected::default(),
        };
        claim::confirm(&self.store, self.owner.cluster, self.owner.incarnation).await?;
        let sweep = self.begin();
        let mut whole = true;
        if let Err(error) = self.probes(sweep, &mut round).await {
            whole = false;
            round.done.troubles.push(error);
        }
        self.shards(&mut round).await;
        match self.partitions(sweep, &mut round).await {
            Ok(all) => whole &= all,
            Err(error) => {
                whole = false;
                round.done.troubles.push(error);
            }
        }
        if whole {
            self.sights.forget_unseen(ELSEWHERE, sweep);
        }
        Ok(round.done)
    }

    /// Shard by shard, from the one on that the last round did not finish.
    async fn shards(&mut self, round: &mut Round) {
        let mut shards = self.head.shards();
        let first = self.first.take();
        let at = shards.iter().position(|shard| first == Some(*shard));
        shards.rotate_left(at.unwrap_or(0));
        for (at, shard) in shards.iter().copied().enumerate() {
            if let Err(error) = self.shard(shard, round).await {
                round.done.troubles.push(error);
            }
            if self.time_left(round).is_zero() {
                round.done.out_of_time = true;
                // One with many tombstones is swept, and lets the others go first.
                let swept = !self.halted.contains_key(&shard);
                let next = shards[(at + usize::from(swept)) % shards.len()];
                self.first = Some(next);
                return;
            }
        }
    }

    /// The number of a new sweep.
    fn begin(&mut self) -> u64 {
        self.sweeps += 1;
        self.sweeps
    }

    /// What a probe that was killed has left behind.
    async fn probes(&mut self, sweep: u64, round: &mut Round) -> Result<(), KeepError> {
        let shard = ELSEWHERE;
        let mut after = None;
        loop {
            let page = self.store.list(Prefix::Probes, after.as_ref()).await;
            let page = page.map_err(|source| KeepError::Bucket { shard, source })?;
            let mut due = Vec::new();
            for object in &page.objects {
                if matches!(object.key, Key::Probe(_)) {
                    self.unnamed(object.key, shard, sweep, round, &mut due);
                }
            }
            self.delete(&due, round).await;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Nothing names `key`, and nothing can: it is due once the grace has passed.
    fn unnamed(
        &mut self,
        key: Key,
        shard: ShardId,
        sweep: u64,
        round: &mut Round,
        due: &mut Vec<Key>,
    ) {
        let now = self.env.clock.monotonic();
        let since = self.sights.unnamed(key, shard, sweep, now);
        if since.is_some_and(|since| now.since(since) >= self.grace) {
            due.push(key);
        } else {
            round.done.waiting += 1;
        }
    }

    /// Deletes `due`, as long as there is time.
    async fn delete(&mut self, due: &[Key], round: &mut Round) {
        for batch in due.chunks(OBJECT_DELETES_IN_FLIGHT) {
            let left = self.time_left(round);
            if left.is_zero() {
                round.done.out_of_time = true;
                return;
            }
            // When time is up, no further attempt is begun; what one under way does, the next
            // round sees.
            let Ok(results) = tokio::time::timeout(left, self.store.delete(batch)).await else {
                round.done.out_of_time = true;
                return;
            };
            for (key, result) in batch.iter().zip(results) {
                match result {
                    Ok(()) => {
                        tracing::debug!(%key, "deleted: nothing names it");
                        self.sights.forget(key);
                        round.done.deleted += 1;
                    }
                    Err(error) => {
                        tracing::warn!(%key, %error, "not deleted; the next round tries again");
                        round.done.failed += 1;
                    }
                }
            }
        }
    }

    fn time_left(&self, round: &Round) -> Duration {
        round.deadline.since(self.env.clock.monotonic())
    }

    /// How a shard stands by ReadIndex: the marks, and the index at which they were read.
    async fn live(&self, shard: ShardId) -> Result<(Marks, RaftIndex), KeepError> {
        let stale = |what: String| KeepError::Stale { shard, what };
        let mark = self.head.read_index(shard).await?;
        let progress = self.head.progress(shard).await?;
        if mark.incarnation != self.owner.incarnation || progress.mark < mark {
            return Err(stale(format!(
                "with {:?} after {mark:?}, this is incarnation {}",
                progress.mark, self.owner.incarnation
            )));
        }
        let marks = Marks {
            flush_position: progress.flush_position,
            gc_boundary: progress.gc_boundary,
        };
        Ok((marks, mark.index))
    }

    /// Forbids every `Swap` planned at or below `to`.
    async fn raise(&self, shard: ShardId, to: RaftIndex) -> Result<(), KeepError> {
        match self
            .head
            .propose(shard, Command::RaiseGcBoundary { to })
            .await?
        {
            // An index that was never applied is no plan of this shard's: the object stays.
            Outcome::GcBoundary(_) | Outcome::Refused(Refusal::NotApplied { .. }) => Ok(()),
            Outcome::Refused(refusal) => Err(KeepError::Refused { shard, refusal }),
            other => unreachable!("a boundary was answered with {other:?}"),
        }
    }
}
