//! Who holds the shards, shown and changed for an operator.
//!
//! ```text
//!   esker cluster add ─► Changing ─ step by step, shard by shard ─► Calling ── gRPC ──► Answering ─► Replica
//! ```
//! Whoever dies half-way is asked again: each step looks at what is so, and goes on from there.

mod answering; // the service
mod calling; // ways to nodes
mod changing; // until the shards are held as wanted
mod step; // what is next for a shard
mod words; // messages, converted

pub use answering::Answering;
pub use calling::{Calling, Changed};
pub use changing::{Changing, Headway};
pub use step::{Goal, Holder, Step, Stood, next};
