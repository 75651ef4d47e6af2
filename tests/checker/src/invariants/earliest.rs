//! The earliest answer at or above a position: a suffix minimum.

use crate::history::Op;
use crate::name::{Nanos, Offset};

/// One answered call, at the position of the log that it shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'h> {
    pub(super) slot: Offset,
    pub(super) completed: Nanos,
    pub(super) op: &'h Op,
}

/// Entries by position, each replaced by the earliest of itself and those above it.
#[derive(Debug)]
pub(super) struct Earliest<'h>(Vec<Entry<'h>>);

impl<'h> Earliest<'h> {
    pub(super) fn new(entries: impl Iterator<Item = Entry<'h>>) -> Self {
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|entry| entry.slot);
        let mut earliest: Option<Entry<'h>> = None;
        for entry in entries.iter_mut().rev() {
            let best = earliest.filter(|best| best.completed <= entry.completed);
            let best = best.unwrap_or(*entry);
            earliest = Some(best);
            entry.completed = best.completed;
            entry.op = best.op;
        }
        Self(entries)
    }

    /// The call with the earliest answer at or above `slot`.
    pub(super) fn at_or_above(&self, slot: Offset) -> Option<Entry<'h>> {
        let at = self.0.partition_point(|entry| entry.slot < slot);
        self.0.get(at).copied()
    }

    /// The call with the earliest answer above `slot`.
    pub(super) fn above(&self, slot: Offset) -> Option<Entry<'h>> {
        let at = self.0.partition_point(|entry| entry.slot <= slot);
        self.0.get(at).copied()
    }
}
