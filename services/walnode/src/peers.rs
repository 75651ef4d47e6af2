//! The other nodes of the cluster: what is said to them, and what they are answered.
//!
//! ```text
//!   wal::Peers ◄── Calling ── one connection per node ──► Answering ──► Replica::heard_*
//!                     └ words ┘   gRPC, metadata: who, whom, which shard   └ words ┘
//! ```
//! Everything is checked for whom it is meant before it is heard: a node that was given another's
//! address must not vote in its place.

mod answering; // the service
mod calling; // ways to the others
mod credentials; // who calls whom
mod reach; // who is out of reach
mod words; // messages, converted

pub use answering::{Answering, Refusals};
pub use calling::Calling;
pub use credentials::Credentials;
