//! The engine an agent runs: append, flush, read, follow.
//!
//! Promise: what a flush commits is in the bucket, verified, before the head may let go of it; a
//! reader gets every record of its range once, in order, or an error that names the range.
//! Not here: raft, WAL files, gRPC.
//!
//! ```text
//!   append ─► check ─► Head ─► offsets
//!
//!             Head (in process, or over the network)
//!              │ job, accepted batches        ▲ CommitSegment
//!              ▼                              │
//!   flush:  sort ─► blocks ─► seal ─► PUT ─► verify
//!                              └ worker threads
//!
//!   read:   head ◄── splice ──► ahead ─► block cache ─► ranged GETs of segments
//!                       └ manifest: which segments
//! ```

mod engine; // the whole, as an agent holds it
mod head; // the seam between compute and storage
mod topics; // found by name, created, changed, ended
mod append; // batches checked and handed to their shard
mod turn; // jobs shared with other engines
mod schedule; // when a shard is flushed
mod flush; // from the head to the bucket
mod read; // one splice of head, cache and bucket
mod ahead; // blocks on their way before they are asked for
mod manifest; // which segments hold what
mod segments; // segments opened, their pages and blocks
mod verify; // bucket, manifest and head agree
mod claim; // whose bucket it is
mod checkpoint; // the state of a shard, kept in the bucket
mod retention; // what is too old or too much leaves the log
mod collect; // what nothing names leaves the bucket
mod upkeep; // when claim, checkpoints, retention, collection and topics are seen to, and what of it fails
mod error; // what can go wrong

pub use append::{AppendError, Appended, Appends, NewAppend, Ready};
pub use checkpoint::{Checkpointed, Checkpointer};
pub use claim::{Claim, ClaimFault, Owner, claim, confirm, nothing_written};
pub use collect::{Collected, Collector};
pub use engine::{Engine, EngineOptions, FlushedNow};
pub use error::{ClaimError, Ended, Error, HeadError, KeepError, ReadError};
pub use flush::{Flushed, Flusher};
pub use head::{
    AcceptedBatch, AcceptedRun, Answer, Bid, Bounds, BucketCheckpoint, FlushJob, Head, HeadRead,
    HeadRecords, Job, Leader, LeaderClock, Listing, Mark, Place, Progress, ReadFrom, ShardTopic,
    TopicView, WorkerId,
};
pub use read::{Chunk, Damages, FollowerReads, ReadBatch, Reader, Readers};
pub use retention::{Retained, Retention, TimeState};
pub use schedule::FlushTriggers;
pub use topics::{Alteration, TopicError, Topics};
pub use upkeep::{Chore, UpkeepTimes};
pub use verify::{Finding, Verification};
