//! Entries that are kept for who is being sent a snapshot: those of its head, though the bucket has them by
//! now, and those that follow on it, though raft here needs them no more.

use std::sync::{Arc, Weak};

use esker_env::{Clock, Monotonic};
use esker_types::limits::{SNAPSHOT_FOLLOW_MAX, SNAPSHOT_PIN_MAX, SNAPSHOT_PIN_SHARE};
use esker_types::{RaftIndex, ShardId};

use super::shared::Shared;
use super::wal::Wal;

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

/// What a pin keeps that begins `now`.
const fn pinned(
    shard: ShardId,
    from: Option<RaftIndex>,
    last: RaftIndex,
    now: Monotonic,
) -> Pinned {
    Pinned {
        shard,
        from,
        last,
        until: Monotonic(now.0.saturating_add(SNAPSHOT_PIN_MAX)),
    }
}

impl Wal {
    /// Keeps what who is sent the snapshot at `last` needs: its head, which begins at `from`, and the entries
    /// that follow on it, for [`SNAPSHOT_PIN_MAX`] at most and while there is room enough. `None` if the
    /// first of the head is released already, or what follows is purged.
    pub(crate) fn pin(
        &self,
        shard: ShardId,
        from: Option<RaftIndex>,
        last: RaftIndex,
    ) -> Option<Pin> {
        let now = self.env.clock.monotonic();
        let number = self
            .shared
            .books()
            .pin(pinned(shard, from, last, now), now)?;
        let (shared, clock) = (Arc::downgrade(&self.shared), Arc::clone(&self.env.clock));
        Some(Pin::new(shared, clock, number))
    }

    /// Keeps it again for as long. `None` as [`Wal::pin`] has it: the pin may have been over meanwhile.
    pub(crate) fn pin_again(
        &self,
        pin: &Pin,
        shard: ShardId,
        from: Option<RaftIndex>,
        last: RaftIndex,
    ) -> Option<()> {
        let now = self.env.clock.monotonic();
        let pinned = pinned(shard, from, last, now);
        let mut books = self.shared.books();
        books.pin_again(pin.number(), pinned, now).map(drop)
    }

    /// Up to where raft may forget entries of a shard, at most `last`, for all that is kept for others, now and from
    /// here on.
    pub(crate) fn forget_to(&self, shard: ShardId, last: RaftIndex) -> RaftIndex {
        let (now, pins) = (self.env.clock.monotonic(), self.keeps_pinned());
        let mut books = self.shared.books();
        let (_, unpinned) = books.unpinned(shard, now);
        let last = if pins { last.min(unpinned) } else { last };
        books.forget_to(shard, last)
    }

    /// Up to where a shard may be released, and purged, for all that is kept for others.
    pub(crate) fn unpinned(&self, shard: ShardId) -> (RaftIndex, RaftIndex) {
        if !self.keeps_pinned() {
            return (RaftIndex(u64::MAX), RaftIndex(u64::MAX));
        }
        let now = self.env.clock.monotonic();
        self.shared.books().unpinned(shard, now)
    }

    /// Whether there is room to keep anything for others.
    pub(super) fn keeps_pinned(&self) -> bool {
        self.room() >= self.shared.options.disk_bytes / SNAPSHOT_PIN_SHARE
    }
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
