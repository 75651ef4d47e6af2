//! The replicated state machine of one shard: command in, outcome out.
//!
//! Promise: [`State::apply`] depends on the state and the command alone, under a replicated
//! [`Level`]; a clone is O(1) and never changes, so that checkpoints and readers work from it while
//! apply goes on; no watermark goes back.
//! Not here: raft, clocks, I/O, async, bytes of a batch or of a block.
//!
//! ```text
//!   entry, Command ─► apply ─► Outcome            clone ─► view ─► checkpoint, readers
//!                       │
//!        shard 0        │        shards 1..
//!        Catalog ◄──────┴──────► Data
//!        topics, names           topics ─ partitions: log start, tiered end, end, producers
//!        placement, ids          head: what is accepted and not flushed
//!                                manifest: segments in the bucket
//!
//!   one data shard along its raft log
//!   ── in segments ──────────►│── head ───────────────────────►│
//!                       flush position  ...  flushed        applied
//! ```

mod apply; // a command's effect
mod catalog; // body of shard 0
pub mod checkpoint; // the state as bytes, and back
mod codec; // little-endian bytes in, little-endian bytes out, every count checked first
mod command; // what may be asked of a shard
mod config; // settings of a topic, as text and as values
mod data; // body of a data shard
mod error; // what is wrong with bytes or settings handed in
mod head; // accepted batches that no segment holds yet
mod invariants;
mod level; // which behaviour and which encoding a shard follows
mod manifest; // segments that commands have committed
mod outcome; // what apply answers
mod partition; // watermarks, epochs, fence and producers of one partition
mod producer; // the window that recognises duplicates
mod producers; // those of one partition, by id
mod refusal; // why it refuses a command
mod state; // one shard, whole: what is applied, and the view of it
mod topic; // a data shard's copy of a topic, and the tombstone it leaves // what always holds

pub use catalog::{Catalog, CatalogTopic, RequestId};
pub use command::{
    Append, AppendBatch, Command, CommitSegment, CreateTopic, PutTopic, RangeList, SegmentRemoval,
    Swap, Trim,
};
pub use config::{Compression, ConfigChange, ConfigError, StorageClass, TopicConfig};
pub use data::Data;
pub use error::Error;
pub use head::{FlushPlan, HeadBatch, HeadEntry, HeadPosition, HeadSize};
pub use invariants::Violation;
pub use level::Level;
pub use manifest::{MixedSegment, ObjectChecksum, RangesHash, SegmentPlace, ranges_hash};
pub use outcome::{AppendError, AppendOutcome, Outcome};
pub use partition::{EpochStart, Partition};
pub use producer::{Mark, Producer};
pub use refusal::{
    CatalogRefusal, CommitRefusal, Refusal, SwapRefusal, TombstoneRefusal, TrimRefusal,
};
pub use state::{Genesis, State, StateHash};
pub use topic::{Tombstone, Topic};
