//! I13: a retry adds nothing and is answered alike.
//!
//! Rule: every acknowledgement of one batch names the same base, and a batch that was tried more
//! than once is in the log once.
//!
//! Reason: a timeout is unknown, and only a retry that cannot duplicate resolves it.
//!
//! Cannot see: a second copy that nobody read. A batch that was tried once and is there twice is
//! I3's: no retry is to blame.

use crate::check::Options;
use crate::evidence::Evidence;
use crate::report::{Invariant, Report};

use super::one_value;

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    for batch in &evidence.batches {
        let Some(first) = batch.acked else { continue };
        if let Some(other) = batch.acks().find(|ack| ack.base != first.base) {
            let text = format!(
                "one batch was acknowledged at {} and {}",
                first.base, other.base
            );
            report.add(Invariant::I13, [first.op, other.op], text);
        }
    }
    for double in one_value::doubles(evidence) {
        let batch = &evidence.batches[double.owner.batch];
        if batch.attempts.len() > 1 {
            report.add(
                Invariant::I13,
                [batch.first(), double.seen.op],
                double.text(),
            );
        }
    }
}
