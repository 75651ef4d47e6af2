//! The simulated twins. Same seed, same world.

mod clock;
mod disk;
mod entropy;
mod inline;
mod network;

pub use clock::SimClock;
pub use disk::{Crash, SimDisk};
pub use entropy::SeededEntropy;
pub use inline::{Inline, Sluggish};
pub use network::{BACKLOG_MAX, PIPE_BYTES, SimNetwork};

use std::sync::Arc;

use crate::Env;

impl Env {
    /// A simulated world from `seed`, with its parts to drive it by. Workers run on the current
    /// tokio runtime; its network is its own (share one by the field `network`).
    #[must_use]
    pub fn simulated(seed: u64) -> (Self, Arc<SimClock>, SimDisk) {
        let clock = Arc::new(SimClock::new());
        let disk = SimDisk::new(seed);
        let env = Self {
            clock: Arc::<SimClock>::clone(&clock),
            entropy: Arc::new(SeededEntropy::new(seed)),
            files: Arc::new(disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        };
        (env, clock, disk)
    }
}
