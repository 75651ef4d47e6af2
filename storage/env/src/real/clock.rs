//! The system's clocks.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam the ban points to"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Clock, Monotonic, WallMs};

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that reads a clock would surprise"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> WallMs {
        // A clock set before 1970 reads as 1970: shard time never goes back anyway.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        WallMs(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.origin.elapsed())
    }
}
