//! A history that cannot be judged: the driver is at fault, not the log.

use crate::limits::{BATCH_VALUES_MAX, LINE_BYTES_MAX, OPS_MAX};
use crate::name::{Nanos, OpId};
use crate::value::ValueHash;

/// Why a history is malformed, or could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The clock went back: it is not one monotonic clock.
    #[error("op {op} is stamped {at} ns, after an event at {last} ns")]
    ClockBack {
        /// The call.
        op: OpId,
        /// Its stamp.
        at: Nanos,
        /// The stamp before.
        last: Nanos,
    },
    /// Ids of calls must rise, which also keeps them unique.
    #[error("op {op} is invoked after op {last}: ids must rise")]
    OpOrder {
        /// The call.
        op: OpId,
        /// The call invoked before.
        last: OpId,
    },
    /// An answer without a call, or the second one.
    #[error("op {op} has an answer but is not open")]
    NotOpen {
        /// The call.
        op: OpId,
    },
    /// A tail for an append, and the like.
    #[error("op {op} has an answer of another kind than its call")]
    WrongAnswer {
        /// The call.
        op: OpId,
    },
    /// No records, or too many.
    #[error("op {op} appends {values} records, it may have 1 to {BATCH_VALUES_MAX}")]
    BatchSize {
        /// The call.
        op: OpId,
        /// How many it has.
        values: usize,
    },
    /// The same sequence with other content.
    #[error("op {op} repeats the sequence of op {first} with another call")]
    RetryDiffers {
        /// The call.
        op: OpId,
        /// The first attempt.
        first: OpId,
    },
    /// A value that is not unique proves nothing.
    #[error("op {op} appends {value}, which was appended before")]
    ValueReused {
        /// The call.
        op: OpId,
        /// The value.
        value: ValueHash,
    },
    /// More calls than a history may have.
    #[error("the history has more than {OPS_MAX} ops")]
    TooManyOps,
    /// A line that is no event.
    #[error("line {number} is not an event")]
    Line {
        /// From 1.
        number: u64,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// A line that is too long to read.
    #[error("line {number} is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong {
        /// From 1.
        number: u64,
    },
    /// An event that does not fit the ones before it.
    #[error("line {number} does not fit the history")]
    Event {
        /// From 1.
        number: u64,
        /// In what way.
        source: Box<Error>,
    },
    /// The file behind the history.
    #[error("the history could not be read or written")]
    Io(#[from] std::io::Error),
}
