//! I9: a read is a contiguous slice of the log that remains.
//!
//! Rule: a read begins at the offset asked for, goes up by one, holds no more than was asked for
//! and nothing at or beyond the end it tells; and what was seen before the final read of a view
//! began still reaches as far in it.
//!
//! Reason: a reader continues behind the last record it got. What an answer leaves out, it never
//! comes back for. And what was read once, others act on: it must not vanish, acknowledged or not.
//!
//! Cannot see: whether values are right (I2, I3, I12); an end that fell back over acknowledged
//! records, and holes between final reads, are I1's and I4's.

use crate::check::Options;
use crate::event::{Call, Mode, Read, Reply};
use crate::evidence::{Evidence, Remains};
use crate::history::{Op, Outcome};
use crate::name::Offset;
use crate::report::{Invariant, Report};
use crate::value::ValueHash;

use super::highest::{Fact, Highest};
use super::lost_ack;

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    for op in &evidence.ops {
        if let (Call::Read(read), Outcome::Ok(Reply::Read { records, tail })) =
            (&op.call, &op.outcome)
            && let Some(text) = misshapen(read, records, *tail)
        {
            report.add(Invariant::I9, [*op], text);
        }
    }
    let seen = evidence.observations.iter().map(|seen| Fact {
        at: seen.op.completed,
        value: seen.seen,
        op: seen.op,
    });
    let seen = Highest::new(seen);
    for remains in &evidence.remains {
        if let Some(known) = seen.before(remains.invoked) {
            judge_end(evidence, remains, (known.value, known.op), report);
        }
    }
}

/// What is wrong with the shape of an answer.
fn misshapen(read: &Read, records: &[(Offset, ValueHash)], tail: Option<Offset>) -> Option<String> {
    let from = read.from;
    let ((first, _), (last, _)) = records.first().zip(records.last())?;
    if records.len() as u64 > read.max {
        return Some(format!(
            "{} records came, {} were asked for",
            records.len(),
            read.max
        ));
    }
    if tail.is_some_and(|tail| *last >= tail) {
        return Some(format!(
            "{last} was read from a log that was said to end below"
        ));
    }
    // A hole in what remains is a loss: I1 or I4 reports it, with what was lost.
    let skips = |low: Offset, high: Offset| high != low.plus(1);
    let wrong = |low: Offset, high: Offset| match read.mode {
        Mode::Final => high <= low,
        Mode::Linearizable | Mode::Stale => skips(low, high),
    };
    let begins = match read.mode {
        Mode::Final => *first >= from,
        Mode::Linearizable | Mode::Stale => *first == from,
    };
    if !begins {
        return Some(format!("{first} came first, {from} was asked for"));
    }
    let mut pairs = records.windows(2).map(|pair| (pair[0].0, pair[1].0));
    let (low, high) = pairs.find(|(low, high)| wrong(*low, *high))?;
    Some(format!("{high} came behind {low}"))
}

/// What was seen before the final read reaches as far in it.
fn judge_end(
    evidence: &Evidence<'_>,
    remains: &Remains<'_>,
    (known, op): (Offset, &Op),
    report: &mut Report,
) {
    let owed = evidence.batches.iter().filter_map(|batch| {
        let ack = lost_ack::owed(batch, remains)?;
        Some(ack.base.plus(batch.len()))
    });
    // The part that was acknowledged is I1's to report.
    let explained = owed.max().unwrap_or_default().max(remains.end);
    if known > explained {
        let (view, end) = (remains.view, remains.end);
        let text = format!("the log had reached {known}, {view} ends at {end}");
        report.add(Invariant::I9, [op, remains.ops[0]], text);
    }
}
