//! When a shard is flushed: by bytes, by age, when its head fills, or when its leader says so early: the WAL's
//! oldest file waits for it, or memory does. Durability never waits for a flush, so the triggers go by what requests cost.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Monotonic};
use esker_types::limits::{
    FLUSH_BACKOFF_MAX, FLUSH_BACKOFF_MIN, FLUSH_LOOK, FLUSH_TURN, FLUSHES_IN_FLIGHT,
};
use esker_types::{RaftIndex, ShardId, ShardTime};
use tokio::sync::{Semaphore, watch};

use crate::claim::Owner;
use crate::error::{ClaimError, Error, HeadError};
use crate::flush::{Flushed, Flusher};
use crate::head::{Head, Job, Progress};
use crate::turn::Worker;

/// When a flush is due.
#[derive(Clone, Copy, Debug)]
pub struct FlushTriggers {
    /// Head bytes of a shard; also what one flush takes. Default: `FLUSH_BYTES`.
    pub bytes: u64,
    /// Age of a shard's oldest batch. Default: `FLUSH_AGE`.
    pub age: Duration,
}

/// Flushes one shard whenever that is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) shard: ShardId,
    pub(crate) head: Arc<dyn Head>,
    pub(crate) flusher: Flusher,
    pub(crate) env: Env,
    pub(crate) triggers: FlushTriggers,
    /// Flushes of all shards at once: each holds its run and its segment in memory.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) worker: Worker,
    /// Whether the bucket is this cluster's: nothing is flushed into another's.
    pub(crate) ours: Arc<watch::Sender<Ours>>,
    /// Why nothing is flushed, if that is so.
    pub(crate) trouble: watch::Sender<Option<String>>,
}

/// What is known of our claim on the bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ours {
    /// Nobody has looked yet.
    Unasked,
    /// It stands, and is this one's.
    Yes(Owner),
    /// It does not, or the bucket did not answer before it was ever seen: why.
    No(String),
}

impl Ours {
    /// Whose the bucket is known to be.
    pub(crate) const fn owner(&self) -> Option<Owner> {
        match self {
            Self::Yes(owner) => Some(*owner),
            Self::Unasked | Self::No(_) => None,
        }
    }

    /// Why nothing is flushed, if that is so.
    pub(crate) fn why_not(&self) -> Option<String> {
        let why = match self {
            Self::Yes(_) => return None,
            Self::Unasked => "nobody has looked at it yet",
            Self::No(why) => why,
        };
        Some(format!(
            "nothing is flushed before our claim on the bucket is confirmed: {why}"
        ))
    }
}

/// The oldest batch of a head, and since when we know of it. Shard time stands still where nothing
/// is appended, or a clock is wrong, so age is measured here.
#[derive(Clone, Copy, Debug)]
struct Oldest {
    time: ShardTime,
    /// What was flushed when it was the oldest: of those behind it others may have its time.
    flushed: RaftIndex,
    since: Monotonic,
}

impl Oldest {
    /// The oldest now, of `time`, with all up to `flushed` flushed: the one that is `known`, or another.
    fn now(time: ShardTime, flushed: RaftIndex, known: Option<Self>, now: Monotonic) -> Self {
        let known = known.filter(|known| (known.time, known.flushed) == (time, flushed));
        known.unwrap_or(Self {
            time,
            flushed,
            since: now,
        })
    }
}

/// What the leader said of whose turn it is.
#[derive(Clone, Copy, Debug)]
struct Turn {
    asked: Monotonic,
    ours: bool,
}

/// Flushes once. A flush that misses our claim says so to all others, who then wait until somebody
/// has seen it again.
pub(crate) async fn flush_once(
    flusher: &Flusher,
    ours: &watch::Sender<Ours>,
    (owner, shard, bytes_max): (Owner, ShardId, u64),
) -> Result<Option<Flushed>, Error> {
    let flushed = flusher.flush(owner, shard, bytes_max).await;
    if let Err(error) = &flushed
        && let Some(key) = error.lost_claim()
    {
        ours.send_replace(Ours::No(ClaimError::Missing { key }.to_string()));
    }
    flushed
}

pub(crate) fn flush_permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(FLUSHES_IN_FLIGHT))
}

impl Schedule {
    /// Runs until the head is gone.
    pub(crate) async fn run(self) -> HeadError {
        let (mut seen, mut patience) = (RaftIndex::ZERO, Duration::ZERO);
        let mut oldest: Option<Oldest> = None;
        let mut turn: Option<Turn> = None;
        let mut backoff = FLUSH_BACKOFF_MIN;
        loop {
            let progress = self.head.progress_past(self.shard, seen, patience).await;
            let progress = match progress {
                Ok(progress) => progress,
                Err(error @ HeadError::NoShard { .. }) => return error,
                Err(_) => {
                    tokio::time::sleep(self.jittered(backoff)).await;
                    backoff = (backoff * 2).min(FLUSH_BACKOFF_MAX);
                    continue;
                }
            };
            seen = progress.mark.index;
            let now = self.env.clock.monotonic();
            let flushed = progress.flush_position;
            let first = progress.head.oldest;
            oldest = first.map(|time| Oldest::now(time, flushed, oldest, now));
            let age = oldest.map(|oldest| now.since(oldest.since));
            if age.is_none() {
                // What could not be flushed is flushed by somebody else, or deleted.
                self.calm();
            }
            let is_due = self.is_due(&progress, age);
            // One that may not flush yet would only keep others from it.
            let may = self.may(is_due);
            if !may {
                turn = None;
            } else if age.is_some() && turn.is_none_or(|turn| now.since(turn.asked) >= FLUSH_TURN) {
                // Who leads by now is asked the next time.
                let ours = self.worker.has(self.shard, Job::Flush, FLUSH_TURN).await;
                let (asked, ours) = (now, ours.unwrap_or(false));
                turn = Some(Turn { asked, ours });
            }
            if !is_due {
                let left = age.map(|age| self.triggers.age.saturating_sub(age));
                // While there is something to flush, everybody asks for it.
                let most = age.map_or(FLUSH_BACKOFF_MAX, |_| FLUSH_TURN);
                patience = left.unwrap_or(most).clamp(FLUSH_LOOK, most);
                // A busy shard moves with every entry: looking now and then is enough.
                tokio::time::sleep(FLUSH_LOOK).await;
                continue;
            }
            patience = Duration::ZERO;
            if !turn.is_some_and(|turn| turn.ours) {
                // Another one is at it, or will be.
                if may {
                    self.calm();
                }
                tokio::time::sleep(FLUSH_TURN / 4).await;
                continue;
            }
            let flush = self.flush();
            let flushed = self.worker.at(self.shard, Job::Flush, FLUSH_TURN, flush);
            let flushed = flushed.await;
            self.worker.note(self.shard, Job::Flush, flushed.is_err());
            match flushed {
                Ok(()) => backoff = FLUSH_BACKOFF_MIN,
                Err(error) => {
                    self.complain(error.to_string());
                    tokio::time::sleep(self.jittered(backoff)).await;
                    backoff = (backoff * 2).min(FLUSH_BACKOFF_MAX);
                }
            }
        }
    }

    fn is_due(&self, progress: &Progress, age: Option<Duration>) -> bool {
        let head = &progress.head;
        let Some(age) = age else { return false };
        let share = progress.head_bytes_max / 2;
        head.bytes >= self.triggers.bytes.min(share).max(1)
            || head.batches >= (progress.head_batches_max / 2).max(1)
            || age >= self.triggers.age
            || progress.flush_early
    }

    async fn flush(&self) -> Result<(), Error> {
        let owner = self.confirmed().await;
        let permit = self.permits.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let what = (owner, self.shard, self.triggers.bytes);
        match flush_once(&self.flusher, &self.ours, what).await {
            // Somebody else flushed first: that is what was wanted.
            Err(error) if !error.is_overtaken() => Err(error),
            Ok(_) | Err(_) => {
                self.calm();
                Ok(())
            }
        }
    }

    /// Whether the bucket is known to be ours. Says why not where a flush `is_due`.
    fn may(&self, is_due: bool) -> bool {
        let ours = self.ours.borrow().clone();
        if is_due {
            self.say(&ours);
        }
        ours.owner().is_some()
    }

    /// What is waited for, if the bucket is not known to be ours.
    fn say(&self, ours: &Ours) {
        match (ours, ours.why_not()) {
            (Ours::Yes(_), _) => {}
            // It is being asked: nothing to warn of yet.
            (Ours::Unasked, why) => _ = self.trouble.send_replace(why),
            (Ours::No(_), why) => self.complain(why.unwrap_or_default()),
        }
    }

    /// Waits until the bucket is known to be ours, and says meanwhile what it waits for.
    async fn confirmed(&self) -> Owner {
        let mut ours = self.ours.subscribe();
        loop {
            let now = ours.borrow_and_update().clone();
            if let Some(owner) = now.owner() {
                return owner;
            }
            self.say(&now);
            if ours.changed().await.is_err() {
                // Nobody will ever say so: the engine is gone.
                std::future::pending::<()>().await;
            }
        }
    }

    fn calm(&self) {
        self.trouble
            .send_if_modified(|trouble| trouble.take().is_some());
    }

    fn complain(&self, said: String) {
        let shard = self.shard;
        let news = self.trouble.borrow().as_deref() != Some(&said);
        if news {
            tracing::warn!(%shard, error = %said, "a flush failed; the head keeps everything, and it is tried again");
        }
        self.trouble.send_replace(Some(said));
    }

    /// Somewhere in the upper half of `time`.
    fn jittered(&self, time: Duration) -> Duration {
        let half = time / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(self.env.entropy.next_u64() % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_oldest_is_another_though_time_stands() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let (time, flushed) = (ShardTime(7), RaftIndex(3));
        let first = Oldest::now(time, flushed, None, at(1));
        let same = Oldest::now(time, flushed, Some(first), at(2));
        assert_eq!(same.since, at(1));
        let next = Oldest::now(time, RaftIndex(4), Some(same), at(3));
        assert_eq!(next.since, at(3), "it would be flushed at once");
        let younger = Oldest::now(ShardTime(8), RaftIndex(4), Some(next), at(4));
        assert_eq!(younger.since, at(4));
    }
}
