//! Serves the head of a node's shards. So far: in process, as `dev` and tests use it.
//!
//! ```text
//!   log::Head ◄── LocalHead ──► wal::Replica, wal::Appender, one of each per shard
//!                     └ view: what a state says, in the words of the head
//! ```

mod local; // the head in this very process
mod view; // what a shard's state says

pub use local::{Led, LocalHead};
