//! The head over the wire: it keeps what the head in process keeps, and goes on through what breaks.
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod appending; // appends through what breaks
mod conformance; // what every head does
mod discovery; // who leads is found
mod failover; // the leader is lost
mod followers; // who does not lead answers, as far as it may
mod posed; // a head that does what a test wants
mod site; // a node, its servers, its callers
mod trio; // three nodes
