//! Keeps a node's log small: checkpoints, purges and releases when they are due.
//!
//! The oldest file drives. Shards that hold it are checkpointed out of turn (and to be flushed,
//! which is not this crate's work), and the others sooner than else, since one of them holds the next; what holds
//! it when the log has grown too long is copied to the tail. Runs as one task for all replicas of a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Clock, Monotonic};
use esker_types::limits::{
    CHECKPOINT_AGE, CHECKPOINT_AGE_BYTES, CHECKPOINT_ENTRIES, KEEP_INTERVAL, WAL_FILES_HELD,
    WAL_FILES_MOVED,
};
use esker_types::{RaftIndex, ShardId};
use tokio::sync::watch;

use crate::Error;
use crate::disk::Wal;
use crate::replica::Replica;

/// How many times as often there are checkpoints of what is not the oldest of a log that has grown too long: one
/// of those holds what is the oldest next.
const LONG_LOG_HASTE: u32 = 10;
/// Of many replicas they are rarer: all together make one in this time.
const LONG_LOG_EACH: Duration = Duration::from_millis(50);
/// A log of which less than one part in so many is free is short of room: nothing is put off then that makes some.
const SHORT_SHARE: u64 = 4;

/// When checkpoints and moves are due.
#[derive(Clone, Copy, Debug)]
pub struct KeeperOptions {
    /// How often to look. Default: [`KEEP_INTERVAL`].
    pub interval: Duration,
    /// Entries since the checkpoint. Default: [`CHECKPOINT_ENTRIES`].
    pub entries: u64,
    /// Age of a checkpoint when there is something to release, and again for each
    /// [`CHECKPOINT_AGE_BYTES`] of it; down to a tenth of that once there are more files than `files_held`, and at
    /// once, or after a tenth of what its bytes add while there is room, for who holds the oldest.
    /// Default: [`CHECKPOINT_AGE`].
    pub age: Duration,
    /// Files before their holders are checkpointed. Default: [`WAL_FILES_HELD`].
    pub files_held: usize,
    /// Files before what holds the oldest is moved. Default: [`WAL_FILES_MOVED`].
    pub files_moved: usize,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            interval: KEEP_INTERVAL,
            entries: CHECKPOINT_ENTRIES,
            age: CHECKPOINT_AGE,
            files_held: WAL_FILES_HELD,
            files_moved: WAL_FILES_MOVED,
        }
    }
}

/// Who holds the oldest file, and the last entry of each that lies there.
pub type Holders = BTreeMap<ShardId, RaftIndex>;

/// The replicas of one node, and the log they share.
#[derive(Debug)]
pub struct Keeper {
    wal: Arc<Wal>,
    replicas: Vec<Kept>,
    clock: Arc<dyn Clock>,
    options: KeeperOptions,
    holders: watch::Sender<Arc<Holders>>,
}

/// A replica that is looked after.
#[derive(Debug)]
struct Kept {
    replica: Replica,
    /// When it was last checkpointed, or was to be.
    checkpointed_at: Monotonic,
    /// The disk had no room for it then.
    postponed: bool,
}

impl Keeper {
    /// A keeper of `replicas`, which all write to `wal`.
    #[must_use]
    pub fn new(
        wal: Arc<Wal>,
        replicas: Vec<Replica>,
        clock: Arc<dyn Clock>,
        options: KeeperOptions,
    ) -> Self {
        let now = clock.monotonic();
        let kept = |replica| Kept {
            replica,
            checkpointed_at: now,
            postponed: false,
        };
        let replicas = replicas.into_iter().map(kept).collect();
        Self {
            wal,
            replicas,
            clock,
            options,
            holders: watch::Sender::default(),
        }
    }

    /// Shards that hold the oldest file of a log that has grown too long, as of the last turn: up to what lies
    /// there they are to be flushed out of turn.
    #[must_use]
    pub fn holders(&self) -> watch::Receiver<Arc<Holders>> {
        self.holders.subscribe()
    }

    /// Looks after the log until it, or a replica, fails; returns why.
    pub async fn run(mut self) -> Error {
        loop {
            tokio::time::sleep(self.options.interval).await;
            if let Err(error) = self.turn().await {
                return error;
            }
        }
    }

    /// Does once what is due.
    ///
    /// # Errors
    /// What [`Replica::checkpoint`] and [`Wal::move_oldest`] say.
    pub async fn turn(&mut self) -> Result<(), Error> {
        let holders = self.wal.holders_of_oldest(self.options.files_held);
        self.holders.send_replace(Arc::new(holders.clone()));
        let now = self.clock.monotonic();
        let short = self.wal.room() < self.wal.disk_bytes_max() / SHORT_SHARE;
        let rules = Rules {
            options: self.options,
            replicas: self.replicas.len(),
            short,
        };
        for kept in &mut self.replicas {
            // What was purged in the last turn is by now.
            kept.replica.release();
            if is_due(kept, now, &self.wal, &holders, &rules) {
                let shard = kept.replica.shard();
                let wanted = kept.replica.state().applied().index;
                tracing::debug!(%shard, "a checkpoint begins");
                let last = kept.replica.checkpoint().await?;
                (kept.checkpointed_at, kept.postponed) = (now, last < wanted);
                tracing::debug!(%shard, "a checkpoint has ended");
            }
            kept.replica.forget().await?;
        }
        // Of most that was purged in this one, the log knows already.
        for kept in &self.replicas {
            kept.replica.release();
        }
        if !self
            .wal
            .holders_of_oldest(self.options.files_moved)
            .is_empty()
        {
            let entries = self.wal.move_oldest().await?;
            if entries > 0 {
                tracing::info!(entries, "copied what holds the oldest WAL file to the tail");
            }
        }
        Ok(())
    }
}

/// What a look goes by.
#[derive(Clone, Copy, Debug)]
struct Rules {
    options: KeeperOptions,
    replicas: usize,
    /// The log is short of room.
    short: bool,
}

fn is_due(kept: &Kept, now: Monotonic, wal: &Wal, holders: &Holders, rules: &Rules) -> bool {
    let options = &rules.options;
    let (replica, age) = (&kept.replica, now.since(kept.checkpointed_at));
    let age_max = age_max(options.age, replica.checkpoint_bytes());
    // A disk that is full is not filled to the brim again at every look.
    if kept.postponed && age < age_max {
        return false;
    }
    let state = replica.state();
    let (last, flushed) = replica.checkpointed();
    // An installed checkpoint is current a moment before its state is shown.
    let since = state.applied().index.0.saturating_sub(last.0);
    // A checkpoint lets go of something only if more is flushed now than it says.
    let helps = state.flushed() > flushed;
    let shard = replica.shard();
    let kept = wal.unpinned(shard);
    let hurries = |upto: &RaftIndex| rules.short || frees(*upto, state.flushed(), kept);
    let age_max = match (holders.is_empty(), holders.get(&shard).is_some_and(hurries)) {
        (true, _) => age_max,
        (false, false) => hasty(age_max, rules.replicas),
        (false, true) => holding(options.age, age_max, rules.short),
    };
    since >= options.entries || (helps && age >= age_max)
}

/// Whether a checkpoint lets go of the oldest file, where entries up to `upto` lie: all of them are flushed, and none is
/// kept for others, who have some from being released and some from being purged.
fn frees(upto: RaftIndex, flushed: RaftIndex, (release, purge): (RaftIndex, RaftIndex)) -> bool {
    flushed.min(release).min(purge) >= upto
}

/// How old a checkpoint of `bytes` may become: a state is written whole, and a large one seldom.
fn age_max(age: Duration, bytes: u64) -> Duration {
    let times = u32::try_from(bytes / CHECKPOINT_AGE_BYTES).unwrap_or(u32::MAX);
    age.saturating_mul(times.saturating_add(1))
}

/// The same while the log is too long, for one of so many `replicas`.
fn hasty(age_max: Duration, replicas: usize) -> Duration {
    let all = LONG_LOG_EACH.saturating_mul(u32::try_from(replicas).unwrap_or(u32::MAX));
    age_max.min(all.max(age_max / LONG_LOG_HASTE))
}

/// The same of who holds the oldest file: at once while its state is small, or the log short of room. Else large ones
/// would take the disk from the log.
fn holding(age: Duration, age_max: Duration, short: bool) -> Duration {
    match short {
        true => Duration::ZERO,
        false => age_max.saturating_sub(age) / LONG_LOG_HASTE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any disk should be given to write at once.
    const HUGE: u64 = 4 << 30;

    #[test]
    fn what_checkpoints_write_is_bounded_however_large_they_are() {
        for bytes in [0, 1, CHECKPOINT_AGE_BYTES - 1] {
            assert_eq!(age_max(CHECKPOINT_AGE, bytes), CHECKPOINT_AGE);
        }
        let a_second = CHECKPOINT_AGE_BYTES / CHECKPOINT_AGE.as_secs();
        for bytes in [CHECKPOINT_AGE_BYTES, 100_000_000, HUGE] {
            let age = age_max(CHECKPOINT_AGE, bytes);
            assert!(bytes / age.as_secs() <= a_second, "{bytes} each {age:?}");
            assert!(age.as_secs() <= CHECKPOINT_AGE.as_secs() + bytes.div_ceil(a_second));
        }
        assert_eq!(age_max(Duration::ZERO, HUGE), Duration::ZERO);
    }

    #[test]
    fn a_long_log_has_checkpoints_more_often_and_never_many_a_second() {
        for bytes in [0, 100_000_000] {
            let age = age_max(CHECKPOINT_AGE, bytes);
            assert_eq!(hasty(age, 1), age / LONG_LOG_HASTE);
            for replicas in [1, 17, 65, 1025, usize::MAX] {
                let each = hasty(age, replicas);
                assert!(each <= age && each >= age / LONG_LOG_HASTE);
                let rare =
                    LONG_LOG_EACH.saturating_mul(u32::try_from(replicas).unwrap_or(u32::MAX));
                assert!(each >= rare.min(age), "{replicas} replicas each {each:?}");
            }
        }
        assert_eq!(hasty(Duration::ZERO, 17), Duration::ZERO);
    }

    #[test]
    fn a_checkpoint_frees_the_oldest_file_once_nothing_in_it_is_needed() {
        let all = (RaftIndex(u64::MAX), RaftIndex(u64::MAX));
        let upto = RaftIndex(7);
        assert!(frees(upto, upto, all));
        assert!(!frees(upto, RaftIndex(6), all));
        assert!(!frees(upto, upto, (RaftIndex(6), all.1)));
        assert!(!frees(upto, upto, (all.0, RaftIndex(6))));
    }

    #[test]
    fn who_holds_the_oldest_file_waits_for_nothing_or_for_its_size() {
        let age = |bytes| holding(CHECKPOINT_AGE, age_max(CHECKPOINT_AGE, bytes), false);
        for bytes in [0, 1, CHECKPOINT_AGE_BYTES - 1] {
            assert_eq!(age(bytes), Duration::ZERO);
        }
        let a_second = u64::from(LONG_LOG_HASTE) * CHECKPOINT_AGE_BYTES / CHECKPOINT_AGE.as_secs();
        for bytes in [CHECKPOINT_AGE_BYTES, 47_000_000, 100_000_000, HUGE] {
            let each = age(bytes);
            assert!(
                bytes <= 2 * a_second * each.as_secs(),
                "{bytes} each {each:?}"
            );
            assert!(each.as_secs() <= bytes / a_second, "{bytes} each {each:?}");
            let age_max = age_max(CHECKPOINT_AGE, bytes);
            assert_eq!(holding(CHECKPOINT_AGE, age_max, true), Duration::ZERO);
        }
    }
}
