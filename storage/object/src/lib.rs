//! The few verbs we use on a bucket, and what stands between them and the network.
//!
//! Promise: the only crate that names `object_store`. No key is written twice, no write depends
//! on a condition, and nothing here decides what an object means.
//!
//! ```text
//!   Store        put · get_range · get_tail · head · list · delete        Key ── Prefix
//!     │
//!     ▼ one request
//!   retry ──► breaker ──► limit ──► deadline ──► counting ──► (faults) ──► backend
//!   attempts  opens on    permits   per          what was     tests        file, s3, gs,
//!   and time  failures    by class  request      paid for     only         az, memory
//! ```

pub mod keys; // where each object lies
mod store; // the handle and its verbs
mod request; // one request, its answer, and the layers it passes
mod retry; // attempts and total time, full jitter
mod breaker; // stops asking a store that is down
mod limit; // permits by class
mod deadline; // how long one request may take
mod counting; // requests and bytes, as billed
#[cfg(feature = "testing")]
pub mod faults; // a store that misbehaves on purpose
mod backend; // the adapter to object_store
mod open; // a store from a URL
mod unfinished; // what puts that never ended left in a folder
mod probe; // does this store do what we rely on
#[cfg(feature = "testing")]
pub mod conformance; // one suite for every kind of store
#[cfg(feature = "testing")]
pub mod minio; // a real S3 server, for tests that have its binary
mod budget; // attempts, times, permits: what an operator may set
mod error; // what failed, on which key, how often, and what to do

pub use budget::Budget;
pub use counting::{Counters, Outcomes};
pub use error::{Cause, Error, Kind};
pub use keys::{Key, Prefix};
pub use open::Options;
#[cfg(feature = "testing")]
pub use open::forget_memory_bucket;
pub use request::{Class, Verb};
pub use store::{Cursor, Foreign, Object, Page, Store};
