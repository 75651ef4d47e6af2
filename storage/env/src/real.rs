//! The real twins: the system's clock, entropy, files and threads.

mod clock;
mod entropy;
mod files;
mod threads;

pub use clock::SystemClock;
pub use entropy::OsEntropy;
pub use files::SystemFiles;
pub use threads::Threads;
