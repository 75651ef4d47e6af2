//! Serves the head of a node's shards. So far: in process, as `dev` and tests use it.
//!
//! ```text
//!   log::Head ◄── LocalHead ──► wal::Replica, one per shard
//! ```

mod local; // the head in this very process

pub use local::LocalHead;
