//! What of the log is in memory as well, and what leaves it first once that is more than the budget.
//!
//! ```text
//!   flushed  as soon as it is, and on this disk
//!   followed ▓▓▓▓ oldest first, down to a quarter of the budget
//!   led      ▓▓▓▓▓▓▓▓▓▓▓▓▓▓ then these, oldest first
//! ```
//! What a shard's leader has in memory its readers and its flush need not fetch from a disk. Of what a follower
//! has only the last is asked for again, when it is applied; all of it only if it comes to lead. What is followed and
//! on its way at once is less than its part, as a rule; where it is more, it is read from the disk to be applied.

use std::collections::VecDeque;

use esker_types::{RaftIndex, ShardId, Term};

/// Notes of one kind that are kept without a sweep.
const NOTES_MIN: usize = 4096;
/// What is followed keeps this part of the budget.
const FOLLOWED_PART: usize = 4;

/// Whether a shard is led here. It is not until somebody says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Side {
    Led,
    #[default]
    Followed,
}

/// An entry that is on disk and still in memory, when the note was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    pub(super) shard: ShardId,
    pub(super) index: RaftIndex,
    pub(super) term: Term,
}

/// Of one side.
#[derive(Debug)]
struct Part {
    bytes: usize,
    /// Oldest first. Stale ones are harmless.
    notes: VecDeque<Note>,
    /// How many notes there are before the stale ones are swept.
    notes_max: usize,
}

/// The budget.
#[derive(Debug)]
pub(super) struct Memory {
    led: Part,
    followed: Part,
    bytes_max: usize,
}

impl Memory {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            led: Part::new(),
            followed: Part::new(),
            bytes_max,
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.led.bytes + self.followed.bytes
    }

    /// Of `bytes_max`, what is left for what is led, however much is followed.
    pub(super) const fn of_led(bytes_max: usize) -> usize {
        bytes_max - bytes_max / FOLLOWED_PART
    }

    /// An entry of `bytes` is in memory.
    pub(super) fn add(&mut self, side: Side, bytes: usize) {
        self.part(side).bytes += bytes;
    }

    /// It is not any more.
    pub(super) fn take(&mut self, side: Side, bytes: usize) {
        self.part(side).bytes -= bytes;
    }

    /// An entry is on disk, and may leave.
    pub(super) fn note(&mut self, side: Side, note: Note) {
        self.part(side).notes.push_back(note);
    }

    /// What leaves next, and how it is noted, while there is more than the budget; nothing if all that is left
    /// is not on disk yet.
    pub(super) fn next(&mut self) -> Option<Note> {
        if self.bytes() <= self.bytes_max {
            return None;
        }
        let followed_first = self.followed.bytes > self.bytes_max / FOLLOWED_PART;
        let (first, then) = if followed_first {
            (&mut self.followed, &mut self.led)
        } else {
            (&mut self.led, &mut self.followed)
        };
        first.notes.pop_front().or_else(|| then.notes.pop_front())
    }

    /// `shard`, of which `bytes` are in memory, changes over to `side`, with the notes of it, which are the
    /// newest there from now on.
    pub(super) fn change(&mut self, shard: ShardId, bytes: usize, side: Side) {
        let from = match side {
            Side::Led => &mut self.followed,
            Side::Followed => &mut self.led,
        };
        from.bytes -= bytes;
        let (its, others): (VecDeque<_>, _) =
            from.notes.drain(..).partition(|note| note.shard == shard);
        from.notes = others;
        let to = self.part(side);
        to.bytes += bytes;
        to.notes.extend(its);
    }

    /// Sweeps notes of `side` for which `is_stale`, once there are many.
    pub(super) fn sweep(&mut self, side: Side, mut is_stale: impl FnMut(&Note) -> bool) {
        let part = self.part(side);
        if part.notes.len() > part.notes_max {
            part.notes.retain(|note| !is_stale(note));
            part.notes_max = NOTES_MIN.max(2 * part.notes.len());
        }
    }

    fn part(&mut self, side: Side) -> &mut Part {
        match side {
            Side::Led => &mut self.led,
            Side::Followed => &mut self.followed,
        }
    }
}

impl Part {
    const fn new() -> Self {
        Self {
            bytes: 0,
            notes: VecDeque::new(),
            notes_max: NOTES_MIN,
        }
    }
}
