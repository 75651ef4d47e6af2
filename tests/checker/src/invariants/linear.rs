//! I7: tails and reads are linearizable.
//!
//! Rule: order all calls by the position they show, an append at its end, a tail at the end it saw,
//! right behind the append that made it. The history is linearizable if and only if no call that
//! is later in this order was answered before an earlier one began.
//!
//! Why that is all: a linearization must follow this order, since an append shifts the end for
//! good and a tail fits in one gap only; within a gap, reads commute. And if no pair contradicts
//! real time, giving each call the latest beginning at or before it in the order as its moment is
//! one. So no search: a suffix minimum of answers, O(n log n).
//!
//! A read without a tail, or a stale answer, shows only that the log had reached a position: it can
//! be too early for what lies below, never too late. An append that nobody was told of is never
//! answered if its records were seen, and is left out if they were not. Conditional appends that
//! failed, and reads out of range, saw an end too.
//!
//! Cannot see: what a tail left out if no append was acknowledged there and nobody saw more. Pairs
//! of appends are I5's and I6's, final reads I1's, I4's and I9's: with these it is exact, which the
//! tests hold against a search over all orders.

use crate::check::Options;
use crate::evidence::{Evidence, Kind};
use crate::report::{Invariant, Report};

use super::earliest::{Earliest, Entry};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    let observations = evidence.observations.iter();
    let observations = observations.filter(|seen| seen.kind != Kind::Final);
    let seen = Earliest::new(observations.clone().map(|seen| Entry {
        slot: seen.slot,
        completed: seen.op.completed,
        op: seen.op,
    }));
    let acked = Earliest::new(evidence.batches.iter().filter_map(|batch| {
        batch.acked.map(|ack| Entry {
            slot: ack.base.plus(batch.len()),
            completed: ack.op.completed,
            op: ack.op,
        })
    }));
    for (base, batch) in evidence.placed() {
        let end = base.plus(batch.len());
        let early = seen.at_or_above(end);
        let began = batch.invoked;
        if let Some(early) = early.filter(|early| began.is_some_and(|at| early.completed < at)) {
            let text = format!("the log was seen to reach {end} before the append at {base} began");
            report.add(Invariant::I7, [early.op, batch.first()], text);
        }
    }
    for exact in observations.filter(|seen| seen.kind == Kind::Exact) {
        let before = |later: &Entry<'_>| later.completed < exact.op.invoked;
        let end = exact.slot;
        if let Some(early) = acked.above(end).filter(before) {
            let text = format!("the log was seen to end at {end} after more was acknowledged");
            report.add(Invariant::I7, [early.op, exact.op], text);
        } else if let Some(early) = seen.above(end).filter(before) {
            let text = format!("the log was seen to end at {end} after more had been seen");
            report.add(Invariant::I7, [early.op, exact.op], text);
        }
    }
}
