//! The block cache: verified blocks of immutable segments, in memory and on disk.
//!
//! Promise: the only crate that names foyer. It does not know where blocks come from (it is
//! handed a loader), and nothing that goes wrong in it reaches a reader as an error: it is a miss
//! and a count. It is never the only copy of anything.
//!
//! ```text
//!   get_or_load(key, lane, loader)
//!        │
//!        ├─► memory of the lane ─► memory of the other lane            hit
//!        │
//!        └─► one flight per key ─► disk, checked by key and CRC-32C    hit
//!                               └► loader ─► memory of the lane        load
//!
//!   tail lane:      memory ──evicted──► disk        backfill lane:  memory alone
//! ```
//!
//! A backfill reads what the tail left in memory and on disk, but writes to neither.

mod cache; // lookup, lanes, loads
mod flight; // one load per key, shared by everybody who asks
mod memory; // a bounded memory tier
mod disk; // the disk tier, whose every failure is a miss
mod block; // key and value, and how the disk tier stores them
mod counters; // hits, loads, failures
mod settings; // budgets
mod error; // what a configuration may get wrong

pub use block::BlockKey;
pub use cache::BlockCache;
pub use counters::Counters;
pub use error::Error;
pub use settings::{Disk, Settings};
