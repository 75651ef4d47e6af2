//! The raft log on disk, group commit, and its openraft glue: what turns a `shard` into a
//! replicated, durable head.
//!
//! Promise: what was acknowledged is synced on a quorum of disks and applied, and can be read here
//! until the bucket has it and a durable checkpoint says so.
//! Not here: segments, buckets, gRPC.
//!
//! ```text
//!  propose ─► raft ─► queue ─► writer ─► group on disk ─► fdatasync ─► quorum ─► apply ─► ack
//!                                │                                       │
//!                                └ one for all shards of the node        └ shard::State, checkpoints
//! ```

pub mod disk; // the log in files, without raft
mod error; // what can go wrong
pub mod raft; // openraft's log and state machine over it

pub use error::Error;
