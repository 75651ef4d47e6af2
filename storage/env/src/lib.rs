//! The outside world behind traits, so that a whole node can run under a deterministic simulator.
//!
//! Promise: every clock, random number, file, thread and connection of `storage/` and `services/` comes from
//! here. Knows no sibling crate.
//!
//! ```text
//!              Clock        Entropy      Files                     Workers                 Network
//!   real       the system   the kernel   a file system             threads                 TCP
//!   sim        set by hand  a seed       synced / unsynced bytes   the caller's own task   memory
//! ```

mod clock; // wall and monotonic time
mod entropy; // random bytes
mod files; // files whose durability is explicit
mod network; // connections, listened for and made
mod workers; // named threads, and work that may take long

mod real; // the twins that a release binary uses
#[cfg(feature = "testing")]
pub mod sim; // the twins that tests use

use std::sync::Arc;

pub use clock::{Clock, Monotonic, WallMs};
pub use entropy::Entropy;
pub use files::{
    Aligned, DIRECT_ALIGN, FailedSync, File, Files, Lock, OpenMode, Space, is_out_of_room,
    rename_file, replace_file, write_file,
};
pub use network::{Connection, Duplex, Listener, Network, Pending, passes};
pub use real::{OsEntropy, SystemClock, SystemFiles, Tcp, Threads};
pub use workers::{Job, Waker, Worker, Workers, WorkersExt};

/// All of them, handed to everything that needs the outside world.
#[derive(Clone, Debug)]
pub struct Env {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// Threads.
    pub workers: Arc<dyn Workers>,
    /// Connections.
    pub network: Arc<dyn Network>,
}

impl Env {
    /// The real world.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(OsEntropy),
            files: Arc::new(SystemFiles),
            workers: Arc::new(Threads::new()),
            network: Arc::new(Tcp),
        }
    }
}
