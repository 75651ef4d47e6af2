//! Hostile or wrong input, and the answer due: the exact code, a text that names limit and value and
//! repeats nothing of what was sent, whether data is durable, and a connection that goes on unless
//! said otherwise.
//!
//! ```text
//!   world   an agent that is attacked ─ stubs, HTTP/2 by hand, bytes by hand
//!   batch · codec · name · state · message · read     one wrong request
//!   budget                                             too many at once
//!   http2 · socket · mutated                           a wrong peer
//!   object                                             a wrong bucket
//! ```

mod world; // the agent, and three ways to it
mod wire; // HTTP/2 by hand

mod batch; // batches that contradict themselves
mod codec; // compressed records that are none
mod message; // messages that are too large, or none
mod name; // topic names
mod state; // offsets, fences, producers
mod read; // odd reads, and many that are cancelled
mod object; // a bucket that somebody else writes to
mod budget; // more at once than there is memory for
mod http2; // metadata, timeouts, streams, resets
mod socket; // peers that speak something else, or nothing
mod mutated; // frames with bytes changed
