//! The head over the wire: it keeps what the head in process keeps, and goes on through what breaks.
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod conformance; // what every head does
mod site; // a node, its servers, its callers
