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

mod appender; // the leader's queue, joined into entries
mod office; // leading, term by term
mod rounds; // questions to a quorum, shared by all who ask at one time
mod agreed; // the wall clocks of a quorum
mod shard_clock; // shard time as its leader tells it
mod replica; // one replica of one shard
mod propose; // commands handed to raft, and what becomes of them
mod members; // who holds a shard
mod heard; // what a replica answers its peers
mod succession; // who campaigns once a leader is silent
mod caught_up; // whether a replica has what a quorum has, since it was opened
pub mod peers; // replicas on other nodes: what is said, and the ways it goes
mod alone; // the peers of a single voter
pub mod raft; // openraft's log and state machine over the disk
pub mod disk; // the log in files, without raft
mod keeper; // checkpoints, purges, releases
mod error; // what can go wrong

pub use alone::Alone;
pub use appender::{AppendAnswer, AppendRefusal, Appender, Share};
pub use caught_up::Awaits;
pub use error::Error;
pub use keeper::{Holders, Keeper, KeeperOptions};
pub use members::Members;
pub use office::Elsewhere;
pub use propose::{Leader, ProposeError};
pub use replica::{Accepted, Replica};
pub use shard_clock::{Behind, ShardClock, Stamp};
