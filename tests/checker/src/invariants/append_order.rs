//! I6: an append that began after another was acknowledged lies above it.
//!
//! Rule: a acknowledged before b began ⇒ a lies below b. A batch begins with its earliest attempt
//! that did not fail; without an acknowledgement it never ends. Batches from the highest down, with
//! the earliest acknowledgement above each: O(n log n).
//!
//! Reason: it is what makes the log one log: whoever is told "done" and tells a friend is before
//! that friend.
//!
//! Cannot see: pairs with a read or a tail in them (I7). A producer against its own sequences is
//! left to I5.

use crate::check::Options;
use crate::event::Call;
use crate::evidence::{Batch, Evidence};
use crate::history::Op;
use crate::report::{Invariant, Report};

use super::earliest::{Earliest, Entry};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    let acked = Earliest::new(evidence.batches.iter().filter_map(|batch| {
        batch.acked.map(|ack| Entry {
            slot: ack.base,
            completed: ack.op.completed,
            op: ack.op,
        })
    }));
    for (base, batch) in evidence.placed() {
        let Some(above) = acked.above(base) else {
            continue;
        };
        let late = batch
            .invoked
            .is_some_and(|invoked| above.completed < invoked);
        if late && !is_out_of_sequence(above.op, batch) {
            let text = format!("the append at {base} began after one above it was acknowledged");
            report.add(Invariant::I6, [above.op, batch.first()], text);
        }
    }
}

/// Whether `above` is of the same producer and of a lower sequence than `batch` below it.
fn is_out_of_sequence(above: &Op, batch: &Batch<'_>) -> bool {
    match &above.call {
        Call::Append(above) => {
            above.producer == batch.append.producer && above.sequence < batch.append.sequence
        }
        Call::Read(_) | Call::CheckTail { .. } | Call::Trim { .. } => false,
    }
}
