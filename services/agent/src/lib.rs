//! The public API: gRPC in front of the engine.
//!
//! Promise: every request is bounded before it is worked on, and every answer says whether data is
//! durable. Not here: what an append or a read does (`log`), where the head is.
//!
//! ```text
//!   Log.Append   ─► share of the budget ─► check (side by side) ─► submit (in order) ─► replies, in order per partition
//!   Log.Read     ─► Reader ─► batches or records ─► stream
//!   Log.Offsets  ─► bounds, by time
//!   Admin        ─► topics, status, flush
//!   + health, reflection
//! ```

mod server; // the services, composed and served
mod gate; // what every call passes
mod stream; // a stream of replies, and the task that makes them
mod budget; // memory for clients, shared by all of them
mod append; // one stream of appends
mod plain; // plain records into batches, and back
mod read; // one stream of batches or records
mod position; // where a read begins and ends
mod log; // the service Log
mod admin; // the service Admin
mod verifying; // a verification, for as long as somebody listens
mod status; // how the cluster stands
mod traffic; // what went through, counted
mod fault; // errors of the engine, as the wire says them

pub use budget::Budgets;
pub use server::{Agent, Cluster};
pub use status::WalStand;
pub use traffic::Traffic;
