//! I10: a conditional append lies where it expected the end.
//!
//! Rule: in the log ⇒ its base is the offset it expected; refused because the log ends elsewhere ⇒
//! that end is not the one it expected.
//!
//! Reason: this is compare-and-set for whoever builds a lock or a state machine on the log.
//!
//! Cannot see: whether the end named in a refusal was right; it is judged as a tail (I7, I4, I9).

use crate::check::Options;
use crate::event::{Call, Refusal};
use crate::evidence::Evidence;
use crate::history::Outcome;
use crate::report::{Invariant, Report};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    for (base, batch) in evidence.placed() {
        if let Some(expect) = batch.append.expect.filter(|expect| *expect != base) {
            let text = format!("an append that expected the end at {expect} lies at {base}");
            let op = batch.acked.map_or(batch.first(), |ack| ack.op);
            report.add(Invariant::I10, [op], text);
        }
    }
    for op in &evidence.ops {
        if let (Call::Append(append), Outcome::Fail(Refusal::ExpectedEnd { actual })) =
            (&op.call, &op.outcome)
            && append.expect == Some(*actual)
        {
            let text = format!("refused though the log ended at {actual}, as expected");
            report.add(Invariant::I10, [*op], text);
        }
    }
}
