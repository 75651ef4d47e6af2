//! An end of the log that somebody saw.

use crate::event::{Call, Mode, Refusal, Reply};
use crate::history::{Op, Outcome};
use crate::name::Offset;

use super::Evidence;

/// One call that shows how far the log reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation<'h> {
    pub(crate) op: &'h Op,
    pub(crate) kind: Kind,
    /// The end as it was seen.
    pub(crate) seen: Offset,
    /// The same, moved up to the end of the batch that it cuts, where a read stopped within one:
    /// batches enter the log whole, so all of that batch was there.
    pub(crate) slot: Offset,
}

/// What the end that was seen says about the moment of the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The log ended exactly here.
    Exact,
    /// A stale answer: the log ended exactly here, now or before.
    Stale,
    /// The log reached at least here.
    AtLeast,
    /// The end of a final read.
    Final,
}

/// All ends seen in a log, in order of invocation.
pub(super) fn gather<'h>(evidence: &Evidence<'h>) -> Vec<Observation<'h>> {
    let ops = evidence.ops.iter();
    ops.filter_map(|op| observe(evidence, op)).collect()
}

fn observe<'h>(evidence: &Evidence<'h>, op: &'h Op) -> Option<Observation<'h>> {
    let (mode, tail, last) = match (&op.call, &op.outcome) {
        (Call::Read(read), Outcome::Ok(Reply::Read { records, tail })) => {
            let last = records.iter().map(|(offset, _)| *offset).max();
            (read.mode, *tail, last)
        }
        (Call::Read(read), Outcome::Fail(Refusal::OutOfRange { end, .. })) => {
            (read.mode, Some(*end), None)
        }
        (Call::CheckTail { mode }, Outcome::Ok(Reply::Tail { tail, .. })) => {
            (*mode, Some(*tail), None)
        }
        (Call::Append(_), Outcome::Fail(Refusal::ExpectedEnd { actual })) => {
            (Mode::Linearizable, Some(*actual), None)
        }
        _ => return None,
    };
    let (kind, seen) = match (mode, tail) {
        (Mode::Final, tail) => (Kind::Final, tail.max(last.map(|last| last.plus(1)))?),
        (Mode::Linearizable, Some(tail)) => (Kind::Exact, tail),
        (Mode::Stale, Some(tail)) => (Kind::Stale, tail),
        (_, None) => (Kind::AtLeast, last?.plus(1)),
    };
    let cut = (kind == Kind::AtLeast)
        .then(|| evidence.batch_over(last?))
        .flatten();
    let slot = cut.map_or(seen, |(base, batch)| base.plus(batch.len()));
    Some(Observation {
        op,
        kind,
        seen,
        slot,
    })
}
