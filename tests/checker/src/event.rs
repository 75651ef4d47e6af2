//! What a driver writes down: one event when a call begins, one when its answer comes.

use serde::{Deserialize, Serialize};

use crate::name::{Nanos, Offset, OpId, Producer, Sequence, Session, Stream, Token, View};
use crate::value::ValueHash;

/// One line of a history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Which call.
    pub op: OpId,
    /// When: taken before the call is sent, and after its answer is received. Never the other way
    /// round, or the checker would call good histories bad.
    pub at: Nanos,
    /// What happened to it.
    pub step: Step,
}

/// Beginning or end of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The call is about to be sent.
    Invoke(Invoke),
    /// It was done.
    Ok(Reply),
    /// It was definitely not done, neither now nor later.
    Fail(Refusal),
    /// Nobody knows: it may have been done, or be done later. The same as no answer at all.
    Unknown,
}

/// A call and who makes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// The client.
    pub session: Session,
    /// The log.
    pub stream: Stream,
    /// What is asked.
    pub call: Call,
}

/// What is asked of a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Add a batch at the end.
    Append(Append),
    /// Records from an offset on.
    Read(Read),
    /// Where does the log end?
    CheckTail {
        /// How fresh the answer must be.
        mode: Mode,
    },
    /// Forget what lies below `to`. A driver names no offset above an end that it has seen.
    Trim {
        /// The first offset to keep.
        to: Offset,
    },
}

/// One batch. Another attempt at it repeats the whole call, word for word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// Who writes.
    pub producer: Producer,
    /// The how many-th batch of this producer in this log. A producer does not come back to a
    /// sequence after it has gone on to the next.
    pub sequence: Sequence,
    /// One hash for each record, 1 to [`BATCH_VALUES_MAX`](crate::limits::BATCH_VALUES_MAX).
    pub values: Vec<ValueHash>,
    /// Only if the log ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Offset>,
    /// Only if nobody with a higher token has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// Sent once, without a producer id: nothing keeps it in its place once its answer is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
}

/// A bounded read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The first offset wanted.
    pub from: Offset,
    /// At most so many records; the answer may hold fewer.
    pub max: u64,
    /// How fresh the answer must be.
    pub mode: Mode,
    /// Where it is served from.
    pub view: View,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It reflects all that was acknowledged before the call.
    Linearizable,
    /// It reflects some moment up to now, never before what the session has seen.
    Stale,
    /// Part of the full read of a view after the workload. Linearizable, and judged as the log that
    /// remains.
    Final,
}

/// The answer to a call that was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The batch lies at `[base, base + count)`.
    Append {
        /// Offset of its first record.
        base: Offset,
        /// How many records it has.
        count: u64,
    },
    /// Records with their offsets.
    Read {
        /// In the order in which they came.
        records: Vec<(Offset, ValueHash)>,
        /// The end of the log at that moment, where the answer tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tail: Option<Offset>,
    },
    /// The bounds of the log.
    Tail {
        /// The first offset kept, where the answer tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<Offset>,
        /// The first unwritten offset.
        tail: Offset,
    },
    /// What lies below is forgotten.
    Trim {
        /// The first offset kept.
        start: Offset,
    },
}

/// Why a call was definitely not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// The log does not end where the append expects.
    ExpectedEnd {
        /// Where it ends.
        actual: Offset,
    },
    /// Somebody with a higher token has written.
    Fenced {
        /// That token.
        current: Token,
    },
    /// The offset asked for is outside `[start, end]`.
    OutOfRange {
        /// The first offset kept.
        start: Offset,
        /// The first unwritten offset.
        end: Offset,
    },
    /// Any other reason; it says nothing about the log.
    Other,
}
