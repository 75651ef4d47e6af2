//! What fails of upkeep, for whoever looks, and said once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use esker_types::ShardId;

use crate::error::{ClaimError, Ended, KeepError};

/// What is done beside flushing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Chore {
    /// Whether the bucket is ours is looked at.
    Claim,
    /// States of shards go into the bucket.
    Checkpoint,
    /// What is too old or too much is trimmed.
    Retention,
    /// What nothing names is deleted.
    Collection,
    /// Data shards catch up with the catalog.
    Topics,
}

impl Chore {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Claim,
        Self::Checkpoint,
        Self::Retention,
        Self::Collection,
        Self::Topics,
    ];

    /// Its name, as figures have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Checkpoint => "checkpoint",
            Self::Retention => "retention",
            Self::Collection => "collection",
            Self::Topics => "topics",
        }
    }

    /// What a round of it is, in words.
    const fn said(self) -> &'static str {
        match self {
            Self::Claim => "a look at our claim",
            Self::Checkpoint => "a bucket checkpoint",
            Self::Retention => "retention",
            Self::Collection => "collection",
            Self::Topics => "settling topics",
        }
    }
}

/// What failed in the last round of each chore, by shard: at most one for each. Clones share it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Failing(Arc<Mutex<BTreeMap<(Chore, ShardId), String>>>);

impl Failing {
    /// Says what is new about `done`; fails if this process must end.
    pub(crate) fn settle(
        &self,
        chore: Chore,
        shard: ShardId,
        done: Result<(), KeepError>,
    ) -> Result<(), Ended> {
        match done {
            Err(KeepError::Claim(superseded @ ClaimError::Superseded { .. })) => {
                Err(Ended::Superseded(superseded))
            }
            done => {
                self.note(chore, shard, done.err().map(|error| error.to_string()));
                Ok(())
            }
        }
    }

    /// Says what is new about a round, which failed for `why`, or did not. A trouble that lasts is told
    /// once.
    pub(crate) fn note(&self, chore: Chore, shard: ShardId, why: Option<String>) {
        let Some(error) = why else {
            self.lock().remove(&(chore, shard));
            return;
        };
        let before = self.lock().insert((chore, shard), error.clone());
        if before.as_ref() != Some(&error) {
            let what = chore.said();
            tracing::warn!(%shard, %error, "{what} failed; nothing is lost, and it is tried again");
        }
    }

    /// Shards of which the last round of `chore` failed.
    pub(crate) fn count(&self, chore: Chore) -> u64 {
        let all = self.lock();
        all.keys().filter(|(of, _)| *of == chore).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Chore, ShardId), String>> {
        // One entry goes in or out: it is whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
