//! Positions in a raft log, and the epoch a partition's readers see.

use std::fmt;

/// A raft term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// Index of an entry in a shard's raft log. The first entry has index 1; 0 means "before any".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RaftIndex(pub u64);

impl RaftIndex {
    /// Before any entry.
    pub const ZERO: Self = Self(0);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Name of one raft entry: what was accepted at `index` by the leader of `term`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// The leader's term.
    pub term: Term,
    /// The place in the log.
    pub index: RaftIndex,
}

/// A run of raft entries `(from, to]`: what a flush covers. `from` is excluded, so that runs
/// chain by `next.from == previous.to` and index 0 needs no special case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RaftRange {
    /// The last index not covered.
    pub from: RaftIndex,
    /// The last index covered.
    pub to: RaftIndex,
}

impl RaftRange {
    /// `(from, to]`; `None` if `to` lies before `from`.
    #[must_use]
    pub const fn new(from: RaftIndex, to: RaftIndex) -> Option<Self> {
        if to.0 < from.0 {
            None
        } else {
            Some(Self { from, to })
        }
    }

    /// Whether it covers no entry.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.from.0 == self.to.0
    }

    /// Whether `index` lies in it.
    #[must_use]
    pub const fn contains(self, index: RaftIndex) -> bool {
        self.from.0 < index.0 && index.0 <= self.to.0
    }
}

/// Kafka's leader epoch: the raft term at append, plus a base that recover sets to the highest
/// epoch it found, so that it never goes back. Carried as `i32` on Kafka's wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(pub u32);

impl LeaderEpoch {
    /// The epoch of `term` over `base`, held at the wire's maximum (2^31 − 1 elections away).
    #[must_use]
    pub fn from_term(base: Self, term: Term) -> Self {
        let sum = u64::from(base.0).saturating_add(term.0);
        Self(u32::try_from(sum.min(i32::MAX as u64)).expect("at most i32::MAX"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for RaftIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for RaftRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.from, self.to)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! debug_as_display {
    ($($name:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}
debug_as_display!(Term, RaftIndex, EntryId, RaftRange, LeaderEpoch);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_runs_chain_without_a_gap() {
        let first = RaftRange::new(RaftIndex(0), RaftIndex(4)).unwrap();
        let second = RaftRange::new(first.to, RaftIndex(9)).unwrap();
        for index in 1..=9 {
            let index = RaftIndex(index);
            assert!(first.contains(index) ^ second.contains(index));
        }
        assert!(!first.contains(RaftIndex::ZERO));
        assert_eq!(RaftRange::new(RaftIndex(2), RaftIndex(1)), None);
    }

    #[test]
    fn an_epoch_adds_the_recovered_base_and_stays_on_the_wire() {
        assert_eq!(
            LeaderEpoch::from_term(LeaderEpoch(7), Term(3)),
            LeaderEpoch(10)
        );
        let last = LeaderEpoch::from_term(LeaderEpoch(7), Term(u64::MAX));
        assert_eq!(last, LeaderEpoch(i32::MAX.cast_unsigned()));
    }
}
