//! The binary over TLS, as people run it: who is let in, who is not, and what both are told.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test of processes and real files fails by panicking"
)]

mod process; // a server, and commands
mod cluster; // nodes, agents and operators
mod public; // the public API
mod certs; // `esker cluster certs`
mod checked; // what a start would do
