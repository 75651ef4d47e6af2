//! I4: offsets are dense; a batch is contiguous, all of it or nothing.
//!
//! Rule: an acknowledgement counts the records sent; the records of a batch lie side by side in
//! their order, and where one is, all are; the end of the log never lies within a batch; the log
//! that remains has no hole.
//!
//! Reason: a reader tells "nothing more" from "something lost" by density alone, and a torn batch
//! is a torn write.
//!
//! Cannot see: tears that no read and no tail came upon. Holes and cuts that take an acknowledged
//! record are I1's, records in two places I3's or I13's.

use std::collections::BTreeSet;

use crate::check::Options;
use crate::evidence::{Batch, Evidence, Kind, Owner, Remains};
use crate::name::Offset;
use crate::report::{Invariant, Report};

use super::{lost_ack, one_value};

pub(super) fn judge(evidence: &Evidence<'_>, options: &Options, report: &mut Report) {
    judge_counts(evidence, report);
    judge_scattered(evidence, report);
    judge_missing(evidence, report);
    judge_tails(evidence, report);
    for remains in &evidence.remains {
        judge_holes(evidence, options, remains, report);
        judge_cut(evidence, remains, report);
    }
}

/// An acknowledgement counts the records that were sent.
fn judge_counts(evidence: &Evidence<'_>, report: &mut Report) {
    for batch in &evidence.batches {
        for ack in batch.acks().filter(|ack| ack.count != batch.len()) {
            let text = format!(
                "{} records were sent, {} acknowledged",
                batch.len(),
                ack.count
            );
            report.add(Invariant::I4, [ack.op], text);
        }
    }
}

/// Records of one batch lie side by side. An acknowledgement says where, so this is about batches
/// that were only seen.
fn judge_scattered(evidence: &Evidence<'_>, report: &mut Report) {
    let doubles = one_value::doubles(evidence);
    let doubles: BTreeSet<Owner> = doubles.iter().map(|double| double.owner).collect();
    for seen in &evidence.sightings {
        let Some(owner) = seen.owner.filter(|owner| !doubles.contains(owner)) else {
            continue;
        };
        let batch = &evidence.batches[owner.batch];
        let Some(base) = batch.base.filter(|_| batch.acked.is_none()) else {
            continue;
        };
        if base.plus(owner.index) != seen.offset {
            let (index, offset) = (owner.index, seen.offset);
            let text = format!("record {index} of the batch at {base} was read at {offset}");
            report.add(Invariant::I4, [batch.first(), seen.op], text);
        }
    }
}

/// Where one record of a batch was seen, no other batch has the place of the next.
fn judge_missing(evidence: &Evidence<'_>, report: &mut Report) {
    let sightings = &evidence.sightings;
    let owners = sightings.iter().filter_map(|seen| seen.owner);
    let unacked = |owner: &Owner| evidence.batches[owner.batch].acked.is_none();
    let owners: BTreeSet<Owner> = owners.filter(unacked).collect();
    for (at, batch) in evidence.batches.iter().enumerate() {
        let Some(base) = batch.base.filter(|_| batch.acked.is_none()) else {
            continue;
        };
        for index in 0..batch.len() {
            if owners.contains(&Owner { batch: at, index }) {
                continue;
            }
            let offset = base.plus(index);
            let from = sightings.partition_point(|seen| seen.offset < offset);
            let mut there = sightings[from..]
                .iter()
                .take_while(|seen| seen.offset == offset);
            if let Some(other) = there.find(|seen| one_value::is_appended(evidence, seen)) {
                let text = format!("the batch at {base} has another's record at {offset}");
                report.add(Invariant::I4, [batch.first(), other.op], text);
            }
        }
    }
}

/// The end of the log never lies within a batch.
fn judge_tails(evidence: &Evidence<'_>, report: &mut Report) {
    for observation in &evidence.observations {
        let tells = matches!(observation.kind, Kind::Exact | Kind::Stale);
        if let Some((base, batch)) = cut_at(evidence, observation.seen).filter(|_| tells) {
            let (seen, end) = (observation.seen, base.plus(batch.len()));
            let text = format!("the log ended at {seen}, within the batch [{base}, {end})");
            report.add(Invariant::I4, [observation.op, batch.first()], text);
        }
    }
}

/// What remains has no hole, other than those that I1 reports.
fn judge_holes(
    evidence: &Evidence<'_>,
    options: &Options,
    remains: &Remains<'_>,
    report: &mut Report,
) {
    let owed = evidence.placed().filter_map(|(_, batch)| {
        let ack = lost_ack::owed(batch, remains)?;
        Some((ack.base, ack.base.plus(batch.len())))
    });
    let owed: Vec<(Offset, Offset)> = owed.collect();
    let is_owed = |start: Offset, end: Offset| {
        let above = owed.partition_point(|(base, _)| *base < end);
        above > 0 && owed[above - 1].1 > start
    };
    let mut holes = remains.holes.clone();
    if !lost_ack::may_be_trimmed(evidence, options) && remains.start > Offset::ZERO {
        holes.push(Offset::ZERO..remains.start);
    }
    for hole in holes {
        if !is_owed(hole.start, hole.end) {
            let view = remains.view;
            let text = format!("{view} has nothing at [{}, {})", hole.start, hole.end);
            report.add(Invariant::I4, [remains.ops[0]], text);
        }
    }
}

/// What remains does not end within a batch, other than those that I1 reports.
fn judge_cut(evidence: &Evidence<'_>, remains: &Remains<'_>, report: &mut Report) {
    let Some((base, batch)) = cut_at(evidence, remains.end) else {
        return;
    };
    if lost_ack::owed(batch, remains).is_none() {
        let (view, end) = (remains.view, remains.end);
        let text = format!("{view} ends at {end}, within the batch at {base}");
        report.add(Invariant::I4, [remains.ops[0], batch.first()], text);
    }
}

/// The batch that an end at `offset` would tear.
fn cut_at<'e, 'h>(evidence: &'e Evidence<'h>, offset: Offset) -> Option<(Offset, &'e Batch<'h>)> {
    let over = evidence.batch_over(offset);
    over.filter(|(base, _)| *base < offset)
}
