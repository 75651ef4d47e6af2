//! What comes damaged is read once more, past the cache, before a reader is told of a loss: an
//! answer may be damaged on its way, and what is cached may rot in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What readers met that was not as written, since the engine began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Damages {
    /// Reads made again, past the cache, because something came damaged.
    pub again: u64,
    /// Losses that readers were told of: a segment is missing, or was damaged twice.
    pub lost: u64,
}

/// Counts them. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    again: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Tally {
    pub(super) fn again(&self) {
        self.again.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn damages(&self) -> Damages {
        Damages {
            again: self.again.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}
