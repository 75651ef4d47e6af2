//! The log on disk: one ordered stream of frames for all shards of a node, one writer, one sync
//! for all that queued up.
//!
//! ```text
//!  wal/<sequence>-<uuid>.wal        prewritten, recycled; the oldest goes first
//!  ┌──────────┬─────────┬───────┬────────┬───┬─────────────┐
//!  │ preamble │ group   │ group │ seal   │ … │ old bytes   │
//!  └──────────┴─────────┴───────┴────────┴───┴─────────────┘
//!   │          │ header (mark, lengths, crc) · frame · frame · … · zeroes to 4 KiB
//!   │          └ mark: all before this point was synced when I was written
//!   └ uuid, where the file before ends, and each shard's vote and log bounds
//! ```
//!
//! Every checksum is seeded with the file's uuid, so that neither payload nor recycled bytes can
//! pose as framing.

mod body; // what an entry carries
mod book; // what is in the log, in memory
mod damage; // entries whose bytes have rotted
mod checkpoint; // a shard's state, in a file of its own
mod file; // one WAL file
mod frame; // one item of the stream
mod group; // what one write and one sync carry
mod inspect; // a look inside one file
mod memory; // what of it is in memory as well
mod open; // reading it back, settling the tail, starting the writer
mod preamble; // how a file begins
mod options; // how it is laid out, and what it tells of itself
mod queue; // what waits for the writer
mod room; // what may still be written, and who may count on it
mod scan; // reading it all back at start
mod shared; // what the writer and everybody else share
mod pin; // what is kept for who is being sent it
mod staged; // what came with a snapshot that is not whole yet
mod spare; // files prewritten ahead of need
mod moving; // what holds the oldest file, copied to the tail
mod wal; // the whole
mod watch; // an idle tail sealed, a hanging disk ended
mod writer; // the one writer

pub use body::Body;
pub use book::{LogBounds, Vote};
pub use checkpoint::{Checkpoint, Checkpoints, Prepared};
pub use inspect::{FileReport, FrameReport, GroupReport};
pub use options::{Fatal, OnFatal, Stats, WalOptions};
pub(crate) use pin::Pin;
pub(crate) use room::{Full, Promise, Purpose};
pub use scan::{Recovery, Torn};
pub use staged::Staged;
pub use wal::Wal;
