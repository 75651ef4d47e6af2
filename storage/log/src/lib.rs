//! The engine an agent runs. So far: the seam to the head, and flushing.
//!
//! Promise: what a flush commits is in the bucket, verified, before the head may let go of it.
//! Not here: raft, WAL files, gRPC.
//!
//! ```text
//!             Head (in process, or over the network)
//!              │ job, accepted batches        ▲ CommitSegment
//!              ▼                              │
//!   flush:  sort ─► blocks ─► seal ─► PUT ─► verify
//!                              └ worker threads
//! ```

mod head; // the seam between compute and storage
mod flush; // from the head to the bucket
mod error; // what can go wrong

pub use error::{Error, HeadError};
pub use flush::{Flushed, Flusher};
pub use head::{
    AcceptedBatch, AcceptedRun, Answer, Bounds, BucketCheckpoint, FlushJob, Head, HeadRead,
    HeadRecords, Listing, Mark, Place, Progress, ShardTopic, TopicView,
};
