//! The built binary as a person and a script use it: `esker dev` on free ports, and commands that
//! meet nothing but its address.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start real processes on real files"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server; // `esker dev` in a scratch folder, and commands at it

mod round_trip; // what goes in comes out, by every way out
mod streams; // pipes, following, signals, positions
mod signals; // asked to end while somebody else keeps silent
mod observed; // metrics and health
mod refusals; // exit codes, and what is said
mod load; // load, made to measure
