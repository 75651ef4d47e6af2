//! What no single crate can show. The checks themselves are integration tests in `tests/tests`;
//! here is what they share: a node in a simulated world, and a reader that knows only the bucket.

#![expect(
    missing_docs,
    reason = "a test harness explains itself in the tests that use it"
)]

pub mod bucket; // read a segment with nothing but its key
pub mod hooked; // a head that does something else now and then
pub mod node; // one WAL node on a simulated disk
pub mod whole; // a whole engine, everything but the wire
pub mod cluster; // WAL nodes and agents, each a host of its own
pub mod troubles; // a cluster through bad days, from a seed
pub mod clients; // of a log that is being troubled
pub mod simulation; // one node through bad days, from a seed
