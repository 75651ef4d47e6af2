//! I2: nothing is read that nobody appended, or whose append failed.
//!
//! Rule: every value read belongs to a batch of this log of which at least one attempt did not
//! definitely fail.
//!
//! Reason: a phantom is corruption or another log's record; an aborted read means that "failed" was
//! told too early, and a writer that tries again writes twice.
//!
//! Cannot see: values read before their append began, which is an error of order (I7).

use crate::check::Options;
use crate::evidence::Evidence;
use crate::report::{Invariant, Report};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    for seen in &evidence.sightings {
        let (offset, value) = (seen.offset, seen.value);
        let Some(owner) = seen.owner else {
            let text = format!("{value} was read at {offset}, nobody appended it here");
            report.add(Invariant::I2, [seen.op], text);
            continue;
        };
        let batch = &evidence.batches[owner.batch];
        if batch.invoked.is_none() {
            let text = format!("{value} was read at {offset}, its append had failed");
            report.add(Invariant::I2, [seen.op, batch.first()], text);
        }
    }
}
