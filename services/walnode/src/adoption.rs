//! How a node comes to belong to a cluster of several: it says who it is, is adopted, and one of them
//! is told to found the shards.
//!
//! ```text
//!   esker cluster init ─► Calling ── gRPC ──► Answering ─► Standing ──► identity.json
//!   an agent ─ hello ──►                                      │ founding
//!                                                             ▼
//!   waiting ─ adopted ─► opens its log ─ open ─► founded   whoever runs the node
//! ```
//! A node belongs to one cluster for ever: it refuses every other, before and after a restart. One that is
//! adopted to found a cluster is told with whom, and founds it with no others.

mod answering; // the service
mod calling; // ways to nodes
mod founders; // whom a cluster is founded with
mod standing; // how far a node has come
mod words; // messages, converted

pub use answering::Answering;
pub use calling::{CallError, Calling};
pub use founders::{Founder, Founders};
pub use standing::{Founding, Hello, Membership, Refused, Standing};
pub(crate) use words::is_address;
