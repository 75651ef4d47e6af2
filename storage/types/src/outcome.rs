//! The two questions every public error answers: is my data durable, and what should I do?

use std::fmt;

/// What became of an append that did not end with an acknowledgement, or did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// On a quorum of disks and applied.
    Durable,
    /// Certainly not written, now or later.
    NotWritten,
    /// Nobody knows yet. A retry with a producer id resolves it; nothing else does.
    Unknown,
}

/// What the caller should do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send the same again later, with back-off.
    Retry,
    /// Somebody newer took over: stop.
    Fenced,
    /// The request itself is wrong: change it.
    Invalid,
    /// A part of the system is away; a retry may reach another.
    Unavailable,
    /// Stored bytes are damaged: tell an operator.
    Corrupt,
    /// A defect of ours: report it.
    Internal,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durable => "the data is durable",
            Self::NotWritten => "nothing was written",
            Self::Unknown => "it is unknown whether the data was written",
        })
    }
}
