//! The head over the wire: an agent asks the WAL nodes, whoever of them leads, and followers where a reader lets
//! them.
//!
//! ```text
//!  agent: log::Engine ─ dyn Head ─► Calling ── gRPC, one connection per node ──► Answering ─► dyn Head
//!                                      └ words ┘                                    └ words ┘
//! ```
//! Promise: what was proposed and not answered is unknown, unless nothing of it ever left; what has
//! a producer is sent again until it is answered, in order; no answer is older than one before, a
//! follower's not older than what its reader was told.
//! Not here: raft, the WAL, what any of the questions mean.

mod answering; // the service in front of a head
mod calling; // the head that asks the nodes
mod shown; // the metadata of every call
pub mod words; // messages, converted

pub use answering::{Answering, Refusals};
pub use calling::Calling;
