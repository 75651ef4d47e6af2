//! Watermarks that cannot go back.

use std::fmt;

/// A value that only grows. A watermark that went back would un-promise what somebody was told,
/// so the process ends instead (a shard that is half right is worse than one that is down).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotone<T>(T);

impl<T: Ord + Copy + fmt::Debug> Monotone<T> {
    /// A watermark that stands at `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Where it stands.
    #[must_use]
    pub const fn get(&self) -> T {
        self.0
    }

    /// Moves it to `to`.
    ///
    /// # Panics
    /// If `to` lies below where it stands.
    pub fn advance(&mut self, to: T) {
        assert!(
            to >= self.0,
            "a watermark went back: from {:?} to {to:?}",
            self.0
        );
        self.0 = to;
    }

    /// Moves it to `to` if that lies above, and says whether it moved.
    pub fn raise(&mut self, to: T) -> bool {
        let moves = to > self.0;
        if moves {
            self.0 = to;
        }
        moves
    }
}

impl<T: fmt::Display> fmt::Display for Monotone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T: fmt::Debug> fmt::Debug for Monotone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_below_does_nothing() {
        let mut mark = Monotone::new(5);
        assert!(!mark.raise(5) && !mark.raise(4) && mark.raise(6));
        assert_eq!(mark.get(), 6);
        mark.advance(6);
    }

    #[test]
    fn an_advance_that_goes_back_ends_the_process() {
        let gone_back = std::panic::catch_unwind(|| Monotone::new(5).advance(4));
        assert!(gone_back.is_err());
    }
}
