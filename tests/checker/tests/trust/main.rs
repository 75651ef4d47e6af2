//! Why the checker may be believed.
//!
//! ```text
//!   bad ─────── a hand-made history for each way to break a promise, flagged by that id alone,
//!               and beside each its good twin
//!   good ────── a correct log under concurrent clients, never flagged
//!   mutate ──── the same histories with one thing broken, always flagged
//!   differ ──── small histories, against a search over all orders
//!   scale ───── long histories
//!   file ────── bytes of a history, and what is refused
//! ```

#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets of these histories are small, and they index vectors"
)]

mod story; // histories told by hand
mod bad; // one broken promise each
mod world; // a correct log and its clients
mod good; // never flagged
mod mutate; // always flagged
mod search; // all orders of a small history
mod differ; // the checker against the search
mod scale; // long histories
mod file; // bytes of a history
mod dice; // seeded randomness
