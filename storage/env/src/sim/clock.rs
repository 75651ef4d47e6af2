//! Clocks set by hand.

use std::sync::Mutex;
use std::time::Duration;

use crate::{Clock, Monotonic, WallMs};

/// The wall clock of a fresh simulation: 2026-01-01T00:00:00Z.
const WALL_ORIGIN_MS: u64 = 1_767_225_600_000;

/// Clocks that move when a test says so, or with tokio's own (paused or simulated) time.
#[derive(Debug)]
pub struct SimClock {
    follows: Option<tokio::time::Instant>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    advanced: Duration,
    wall_skew_ms: i64,
}

impl SimClock {
    /// Stands still until [`SimClock::advance`].
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "reads better where a world is made"
    )]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Moves with tokio's time. Call it within the simulation's runtime.
    #[must_use]
    pub fn following_tokio() -> Self {
        Self::with(Some(tokio::time::Instant::now()))
    }

    /// The clock of another machine: it shows the same, and jumps by itself.
    #[must_use]
    pub fn beside(&self) -> Self {
        let advanced = self.state.lock().expect("no holder panics").advanced;
        let beside = Self::with(self.follows);
        beside.advance(advanced);
        beside
    }

    fn with(follows: Option<tokio::time::Instant>) -> Self {
        let state = State {
            advanced: Duration::ZERO,
            wall_skew_ms: 0,
        };
        Self {
            follows,
            state: Mutex::new(state),
        }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        self.state.lock().expect("no holder panics").advanced += by;
    }

    /// Makes the wall clock jump, forward or back; the monotonic clock does not notice.
    pub fn jump_wall(&self, by_ms: i64) {
        self.state.lock().expect("no holder panics").wall_skew_ms += by_ms;
    }
}

impl Clock for SimClock {
    fn wall(&self) -> WallMs {
        let elapsed = u64::try_from(self.monotonic().0.as_millis()).unwrap_or(u64::MAX);
        let skew = self.state.lock().expect("no holder panics").wall_skew_ms;
        WallMs(
            WALL_ORIGIN_MS
                .saturating_add(elapsed)
                .saturating_add_signed(skew),
        )
    }

    fn monotonic(&self) -> Monotonic {
        let followed = self
            .follows
            .map_or(Duration::ZERO, |origin| origin.elapsed());
        Monotonic(followed + self.state.lock().expect("no holder panics").advanced)
    }
}
