//! The vocabulary every other crate speaks: numbers that cannot be confused, ranges with one
//! meaning, and every limit with its name.
//!
//! Promise: no I/O, no async, no dependency on a sibling. A value of a type here is valid.
//!
//! ```text
//!   incarnation ─┬─ topic id ── partition id ── offset ─► [start, end)
//!                ├─ node id
//!                └─ producer id ── epoch ── sequence
//!   shard id ────── raft (term, index) ── segment id
//! ```

mod hash; // content hash of plain records
pub mod id; // incarnation, topic, partition, node, producer, shard, segment
pub mod limits; // every bound of the system, and the relations between them
mod lane; // who reads: the tail's reader or a backfill
mod name; // topic names as people write them
mod offset; // positions of records, half-open ranges
mod outcome; // done, not done, unknown; what the caller should do
mod producer; // epoch and sequence of an idempotent producer
mod raft; // term, index, leader epoch
mod ruler; // watermarks that cannot go back
mod time; // record timestamps, shard time

pub use hash::ContentHash;
pub use id::{
    ClusterId, Incarnation, NodeId, PartitionId, PartitionIndex, ProducerId, SegmentId, ShardId,
    TopicId, TopicVersion,
};
pub use lane::Lane;
pub use name::{NameError, TopicName};
pub use offset::{Offset, OffsetRange};
pub use outcome::{Action, Durability};
pub use producer::{FencingToken, ProducerEpoch, ProducerStamp, Sequence};
pub use raft::{EntryId, LeaderEpoch, RaftIndex, RaftRange, Term};
pub use ruler::Monotone;
pub use time::{ShardTime, Timestamp};
