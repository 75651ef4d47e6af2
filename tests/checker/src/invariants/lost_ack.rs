//! I1: no acknowledged record is lost.
//!
//! Rule: what was acknowledged before the full read of a view began has its offsets in that read,
//! unless a trim was asked for that covers them; and every view that the options name was read.
//!
//! Reason: an acknowledgement is the one thing a writer builds on.
//!
//! Cannot see: losses of a log without a final read, or of a view that the options do not name;
//! whether the offset holds the right value (I3); losses below a trim or retention.

use crate::check::Options;
use crate::evidence::{Ack, Batch, Evidence, Remains};
use crate::name::Offset;
use crate::report::{Invariant, Report};

pub(super) fn judge(evidence: &Evidence<'_>, options: &Options, report: &mut Report) {
    let trimmed = may_be_trimmed(evidence, options);
    for remains in &evidence.remains {
        for batch in &evidence.batches {
            let Some(ack) = owed(batch, remains) else {
                continue;
            };
            if let Some(text) = lost(ack, batch.len(), remains, trimmed) {
                report.add(Invariant::I1, [ack.op, remains.ops[0]], text);
            }
        }
    }
    let Some(ack) = evidence.batches.iter().find_map(|batch| batch.acked) else {
        return;
    };
    for view in &options.final_views {
        if !evidence.remains.iter().any(|remains| remains.view == view) {
            let text =
                format!("{view} was never read in the end, though appends were acknowledged");
            report.add(Invariant::I1, [ack.op], text);
        }
    }
}

/// The acknowledgement of `batch`, if `remains` must honour it.
pub(super) fn owed<'h>(batch: &Batch<'h>, remains: &Remains<'_>) -> Option<Ack<'h>> {
    let in_time = |ack: &Ack<'_>| ack.op.completed < remains.invoked;
    batch.acked.filter(in_time)
}

/// Whether a log may begin above zero.
pub(super) fn may_be_trimmed(evidence: &Evidence<'_>, options: &Options) -> bool {
    options.retention || super::trim::asked(evidence).last().is_some()
}

/// What `remains` lacks of an acknowledged batch of `len` records.
fn lost(ack: Ack<'_>, len: u64, remains: &Remains<'_>, trimmed: bool) -> Option<String> {
    let (base, end) = (ack.base, ack.base.plus(len));
    let what = if end > remains.end {
        format!("ends at {}", remains.end)
    } else if let Some(hole) = hole_in(remains, base, end) {
        format!("has nothing at {}", base.max(hole))
    } else if base < remains.start && !trimmed {
        format!("begins at {}", remains.start)
    } else {
        return None;
    };
    let view = remains.view;
    Some(format!("[{base}, {end}) was acknowledged, {view} {what}"))
}

/// Where the hole begins that takes something of `[base, end)`.
fn hole_in(remains: &Remains<'_>, base: Offset, end: Offset) -> Option<Offset> {
    let above = remains.holes.partition_point(|hole| hole.start < end);
    let hole = &remains.holes[above.checked_sub(1)?];
    (hole.end > base).then_some(hole.start)
}
