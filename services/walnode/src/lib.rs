//! A WAL node: the head of its shards, alone in a process with an agent, or one of several.
//!
//! ```text
//!   Node ──┬─ lock, identity
//!          ├─ Wal, Checkpoints, Keeper            one of each
//!          └─ Replica, Appender                   one of each per shard
//!                 ▲
//!   log::Head ◄── LocalHead
//!                 └ view: what a state says, in the words of the head
//! ```

mod node; // a node, whole
mod directory; // its data directory, taken by one process
mod hand_over; // what it leads, before it ends or while its disk is slow
mod balance; // what it leads, beside the others
mod alike; // whether others hold the same of what it leads
mod lend; // what its heads may hold
mod identity; // who a data directory belongs to
mod disk_id; // which disk that is
pub mod adoption; // how it comes to belong to a cluster of several
mod local; // the head in this very process
pub mod peers; // the other nodes of the cluster
pub mod members; // who holds the shards, shown and changed
mod slot; // a service that comes later
mod turns; // whose turn at a job it is
mod early; // which heads are flushed before they are due
mod view; // what a shard's state says

pub use alike::Differences;
pub use directory::Directory;
pub use disk_id::DiskId;
pub use identity::{Identity, IdentityError};
pub use local::{Led, LocalHead};
pub use node::{Node, NodeError, NodeOptions};
pub use slot::Slot;
