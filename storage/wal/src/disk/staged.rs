//! What came with a snapshot that is not whole yet: on disk, beside its shard's log and no part of it.
//!
//! Whoever lets go of it takes it back: its frames count at no start before a checkpoint covers them, and
//! what no checkpoint named is the same in every log that has it, since a snapshot holds committed entries
//! only.

use std::sync::{Mutex, MutexGuard};

use esker_types::{EntryId, ShardId};

use super::file::Place;

/// Entries of a snapshot's head that are on disk, by [`super::Wal::stage`].
#[derive(Debug)]
pub struct Staged {
    shard: ShardId,
    places: Mutex<Vec<(EntryId, Place)>>,
}

impl Staged {
    /// None yet.
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        let places = Mutex::default();
        Self { shard, places }
    }

    pub(crate) const fn shard(&self) -> ShardId {
        self.shard
    }

    /// An entry is on disk at `place`.
    pub(crate) fn placed(&self, id: EntryId, place: Place) {
        self.places().push((id, place));
    }

    /// Where they lie, in the order they came.
    pub(crate) fn take(&self) -> Vec<(EntryId, Place)> {
        std::mem::take(&mut *self.places())
    }

    fn places(&self) -> MutexGuard<'_, Vec<(EntryId, Place)>> {
        self.places.lock().expect("nothing panics under this lock")
    }
}
