//! The other nodes of the cluster: what is said to them, and what they are answered.
//!
//! ```text
//!   wal::Peers ◄── Calling ── one connection per node ──► Answering ──► Replica::heard_*
//!                     └ words ┘   gRPC, metadata: who, whom, which shard   └ words ┘
//! ```
//! Everything is checked for whom it is meant before it is heard: a node that was given another's
//! address must not vote in its place. Where callers show certificates, the guard goes by the names in
//! them: what a call says of itself must be what was proved.

mod answering; // the service
mod calling; // ways to the others
mod credentials; // who calls whom
mod guard; // who calls, looked at before anything else
mod installing; // snapshots, sent
mod names; // in certificates
mod pulse; // that leaders live, of all shards on one stream
mod reach; // who is out of reach
mod rules; // who may call what
mod words; // messages, converted

pub use answering::{Answering, Refusals};
pub use calling::{Calling, Ways};
pub use credentials::Credentials;
pub use guard::{Guard, Guarded, Why};
pub use names::{AGENT, NODE, OPERATOR, Roles, node_name};
