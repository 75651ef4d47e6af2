//! The simulated twins. Same seed, same world.

mod clock;
mod disk;
mod entropy;
mod inline;

pub use clock::SimClock;
pub use disk::{Crash, SimDisk};
pub use entropy::SeededEntropy;
pub use inline::Inline;

use std::sync::Arc;

use crate::Env;

impl Env {
    /// A simulated world from `seed`, with its parts to drive it by. Workers run on the current
    /// tokio runtime.
    #[must_use]
    pub fn simulated(seed: u64) -> (Self, Arc<SimClock>, SimDisk) {
        let clock = Arc::new(SimClock::new());
        let disk = SimDisk::new(seed);
        let env = Self {
            clock: Arc::<SimClock>::clone(&clock),
            entropy: Arc::new(SeededEntropy::new(seed)),
            files: Arc::new(disk.mount()),
            workers: Arc::new(Inline),
        };
        (env, clock, disk)
    }
}
