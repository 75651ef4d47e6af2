//! The glue: what openraft asks of a log and of a state machine, answered by [`crate::disk`] and
//! by `esker_shard`. The only place of the project that names openraft.
//!
//! openraft counts entries from 0, everything else here from 1: [`types`] converts, nothing else.

mod log_store; // openraft's log over `disk::Wal`
mod machine; // openraft's state machine over `shard::State`
mod membership; // who votes, as bytes
pub(crate) mod rooms; // what the peers say of theirs
pub(crate) mod network; // openraft's network over `peers`
mod replay; // what is known to be committed, applied once more at a start
pub(crate) mod runtime; // what openraft's tasks run on
mod incoming; // a snapshot on its way in
mod snapshot; // a checkpoint, and the head that must travel with it
pub mod types; // openraft's type parameters, and ids converted

pub use incoming::Incoming;
pub use log_store::LogStore;
pub(crate) use machine::{Durable, snapshot_meta};
pub use machine::{Machine, MachineStart};
pub(crate) use replay::replay;
pub use snapshot::{Held, Outgoing, Snapshot};
