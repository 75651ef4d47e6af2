//! Time. The wall clock says what people call now and may jump; the monotonic clock measures.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch, as the wall clock says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WallMs(pub u64);

/// A reading of the monotonic clock: time since an arbitrary origin of this process. Two readings
/// of one clock may be compared; a reading means nothing to another process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// How long after `earlier` this reading was taken; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Tells the time. Waiting is done with async timers, not here.
pub trait Clock: Send + Sync + fmt::Debug {
    /// What the wall clock says. May go back.
    fn wall(&self) -> WallMs;

    /// What the monotonic clock says. Never goes back.
    fn monotonic(&self) -> Monotonic;
}
