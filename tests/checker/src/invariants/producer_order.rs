//! I5: a producer's batches lie in the order of their sequences.
//!
//! Rule: of two batches of one producer that are in the log, the one with the higher sequence lies
//! higher.
//!
//! Reason: pipelined appends overlap in time, so that real time (I6) orders nothing between them;
//! the producer's own order is what its consumers rely on.
//!
//! Cannot see: order between producers. Gaps in sequences are allowed: a batch may have failed. One that was
//! sent without a producer id, and whose answer was lost, may stand in the log behind what was sent later:
//! nothing tells the log that it comes too late.

use crate::check::Options;
use crate::evidence::Evidence;
use crate::report::{Invariant, Report};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    let placed = evidence.placed();
    let mut placed: Vec<_> = placed
        .filter(|(_, batch)| !batch.append.plain || batch.acked.is_some())
        .collect();
    placed.sort_by_key(|(_, batch)| (batch.append.producer, batch.append.sequence));
    for of_one in placed.chunk_by(|a, b| a.1.append.producer == b.1.append.producer) {
        let mut highest = of_one[0];
        for (base, batch) in of_one {
            if *base < highest.0 {
                let (high, before) = highest;
                let producer = batch.append.producer;
                let (low_sequence, sequence) = (before.append.sequence, batch.append.sequence);
                let text = format!(
                    "producer {producer} has sequence {low_sequence} at {high}, \
                     {sequence} at {base}"
                );
                report.add(Invariant::I5, [before.first(), batch.first()], text);
            } else {
                highest = (*base, batch);
            }
        }
    }
}
