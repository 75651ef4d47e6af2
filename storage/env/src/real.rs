//! The real twins: the system's clock, entropy, files, threads and TCP.

mod clock;
mod entropy;
mod files;
mod tcp;
mod threads;

pub use clock::SystemClock;
pub use entropy::OsEntropy;
pub use files::SystemFiles;
pub use tcp::Tcp;
pub use threads::Threads;
