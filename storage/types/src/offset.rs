//! Positions of records in a partition.

use std::fmt;

/// Position of a record: assigned densely, from 0, per partition.
///
/// Bounded by [`Offset::MAX`], since Kafka's wire carries offsets as `i64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

impl Offset {
    /// The first record of every partition.
    pub const ZERO: Self = Self(0);
    /// 2^63 − 1: a partition ends here for good.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// An offset from its number; `None` above [`Offset::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As Kafka's wire carries it.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// The offset `count` records on; `None` past [`Offset::MAX`].
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(sum) => Self::new(sum),
            None => None,
        }
    }

    /// How many positions `self` lies after `earlier`; 0 if it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Half-open range of offsets, `[start, end)`. It promises coverage, not a count of records:
/// compaction may thin out what lies inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OffsetRange {
    start: Offset,
    end: Offset,
}

impl OffsetRange {
    /// `[start, end)`; `None` if `end` lies before `start`.
    #[must_use]
    pub const fn new(start: Offset, end: Offset) -> Option<Self> {
        if end.0 < start.0 {
            None
        } else {
            Some(Self { start, end })
        }
    }

    /// `[start, start + count)`; `None` past [`Offset::MAX`].
    #[must_use]
    pub const fn from_count(start: Offset, count: u64) -> Option<Self> {
        match start.checked_add(count) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first offset covered, if any is.
    #[must_use]
    pub const fn start(self) -> Offset {
        self.start
    }

    /// The first offset no longer covered.
    #[must_use]
    pub const fn end(self) -> Offset {
        self.end
    }

    /// Positions covered.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it covers nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `offset` lies in it.
    #[must_use]
    pub const fn contains(self, offset: Offset) -> bool {
        self.start.0 <= offset.0 && offset.0 < self.end.0
    }

    /// The part that both cover; `None` if there is none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(Self { start, end })
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Debug for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> OffsetRange {
        OffsetRange::new(Offset::new(start).unwrap(), Offset::new(end).unwrap()).unwrap()
    }

    #[test]
    fn an_offset_never_leaves_the_kafka_wire() {
        assert_eq!(Offset::new(u64::MAX), None);
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset::MAX.as_i64(), i64::MAX);
        assert_eq!(Offset::ZERO.since(Offset::MAX), 0);
    }

    #[test]
    fn a_range_is_half_open() {
        let r = range(3, 5);
        assert!(r.contains(Offset(3)) && r.contains(Offset(4)) && !r.contains(Offset(5)));
        assert_eq!(r.len(), 2);
        assert_eq!(OffsetRange::new(Offset(5), Offset(3)), None);
        assert_eq!(OffsetRange::from_count(Offset::MAX, 1), None);
    }

    #[test]
    fn ranges_that_only_touch_share_nothing() {
        assert_eq!(range(0, 3).intersect(range(3, 6)), None);
        assert_eq!(range(0, 4).intersect(range(3, 6)), Some(range(3, 4)));
    }
}
