//! I14: a trim takes what was asked, no more, and for ever.
//!
//! Rule: a trim that was done keeps nothing below what it asked; no start is told above what was
//! asked until then, unless the log has retention; a start that was told never falls back, and
//! linearizable reads that begin later get nothing from below it; an offset is refused as out of
//! range only if it is.
//!
//! Reason: deleting is the one thing that cannot be undone, and what a user deleted must not come
//! back either.
//!
//! Cannot see: whether retention took the right records; stale views, which may still hold what is
//! trimmed; the bytes in the store.

use crate::check::Options;
use crate::event::{Call, Mode, Refusal, Reply};
use crate::evidence::Evidence;
use crate::history::{Op, Outcome};
use crate::name::Offset;
use crate::report::{Invariant, Report};

use super::highest::{Fact, Highest};

pub(super) fn judge(evidence: &Evidence<'_>, options: &Options, report: &mut Report) {
    let asked = asked(evidence);
    let told = Highest::new(evidence.ops.iter().filter_map(|op| {
        told_start(op).map(|value| Fact {
            at: op.completed,
            value,
            op,
        })
    }));
    for op in &evidence.ops {
        judge_answer(op, report);
        let limit = asked.before(op.completed).map(|fact| fact.value);
        let start = told_start(op).filter(|_| !options.retention);
        if let Some(start) = start.filter(|start| *start > limit.unwrap_or_default()) {
            let text = format!("the log was told to begin at {start}, nobody asked for that");
            report.add(Invariant::I14, [*op], text);
        }
        if let Some(known) = told.before(op.invoked)
            && let Some(back) = lowest_shown(op).filter(|shown| *shown < known.value)
        {
            let text = format!("{back} came back after the log began at {}", known.value);
            report.add(Invariant::I14, [known.op, *op], text);
        }
    }
    // Without any trim, a missing front is a loss: I1 and I4 report it.
    for remains in &evidence.remains {
        let Some(limit) = asked.before(remains.completed) else {
            continue;
        };
        if !options.retention && remains.start > limit.value {
            let (view, start) = (remains.view, remains.start);
            let text = format!("{view} begins at {start}, trims asked for {}", limit.value);
            report.add(Invariant::I14, [limit.op, remains.ops[0]], text);
        }
    }
}

/// The highest offset that any trim asked for, by time. A trim that failed asked for nothing.
pub(super) fn asked<'h>(evidence: &Evidence<'h>) -> Highest<'h, Offset> {
    let ops = evidence.ops.iter();
    Highest::new(ops.filter_map(|op| match (&op.call, &op.outcome) {
        (Call::Trim { .. }, Outcome::Fail(_)) => None,
        (Call::Trim { to }, _) => Some(Fact {
            at: op.invoked,
            value: *to,
            op,
        }),
        _ => None,
    }))
}

/// What one answer shows by itself.
fn judge_answer(op: &Op, report: &mut Report) {
    match (&op.call, &op.outcome) {
        (Call::Trim { to }, Outcome::Ok(Reply::Trim { start })) if start < to => {
            let text = format!("a trim to {to} was done, the log begins at {start}");
            report.add(Invariant::I14, [op], text);
        }
        (Call::Read(read), Outcome::Fail(Refusal::OutOfRange { start, end }))
            if (*start..=*end).contains(&read.from) =>
        {
            let from = read.from;
            let text = format!("{from} was refused, which is within [{start}, {end}]");
            report.add(Invariant::I14, [op], text);
        }
        _ => {}
    }
}

/// The start of the log, where an answer tells it.
fn told_start(op: &Op) -> Option<Offset> {
    match op.outcome {
        Outcome::Ok(Reply::Trim { start })
        | Outcome::Ok(Reply::Tail {
            start: Some(start), ..
        })
        | Outcome::Fail(Refusal::OutOfRange { start, .. }) => Some(start),
        _ => None,
    }
}

/// The lowest offset that a call shows to be in the log, if its answer must be fresh.
fn lowest_shown(op: &Op) -> Option<Offset> {
    match (&op.call, &op.outcome) {
        (Call::Read(read), _) if read.mode == Mode::Stale => None,
        (Call::CheckTail { mode: Mode::Stale }, _) => None,
        (_, Outcome::Ok(Reply::Read { records, .. })) => {
            records.iter().map(|(offset, _)| *offset).min()
        }
        _ => told_start(op),
    }
}
