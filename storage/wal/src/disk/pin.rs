//! Entries that are kept for who is being sent a snapshot: those of its head, though the bucket has them by
//! now, and those that follow on it, though raft here needs them no more.

use std::sync::{Arc, Weak};

use esker_env::{Clock, Monotonic};
use esker_types::limits::SNAPSHOT_FOLLOW_MAX;
use esker_types::{RaftIndex, ShardId};

use super::shared::Shared;

/// What a pin keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pinned {
    pub(crate) shard: ShardId,
    /// The first entry of the head that is still to be read, if there is one.
    pub(crate) from: Option<RaftIndex>,
    /// The last entry of the snapshot: raft keeps those behind it.
    pub(crate) last: RaftIndex,
    /// It keeps nothing any more then.
    pub(crate) until: Monotonic,
}

/// Keeps a head while it is sent, and what follows on it a little longer.
pub(crate) struct Pin {
    shared: Weak<Shared>,
    clock: Arc<dyn Clock>,
    number: u64,
    /// What it keeps is sent, or was.
    sent: bool,
}

impl Pin {
    /// The pin that has `number` in the books of `shared`.
    pub(super) const fn new(shared: Weak<Shared>, clock: Arc<dyn Clock>, number: u64) -> Self {
        Self {
            shared,
            clock,
            number,
            sent: false,
        }
    }

    /// What it is called in the books.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// What it keeps is sent from here on.
    pub(crate) const fn leave(&mut self) {
        self.sent = true;
    }

    /// Entries of the head below `from` are needed no more.
    pub(crate) fn advance(&self, from: RaftIndex) {
        self.change(|pinned| pinned.from = Some(from));
    }

    fn change(&self, change: impl FnOnce(&mut Pinned)) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(pinned) = shared.books().pinned(self.number)
        {
            change(pinned);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let now = self.clock.monotonic();
        // Who was sent nothing does not follow.
        let follow = if self.sent {
            now.0.saturating_add(SNAPSHOT_FOLLOW_MAX)
        } else {
            now.0
        };
        self.change(|pinned| {
            pinned.from = None;
            if now < pinned.until {
                pinned.until = Monotonic(follow);
            }
        });
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pin({})", self.number)
    }
}
