//! I3: one value for each offset, one offset for each value.
//!
//! Rule: all acknowledgements and all reads, by whom and when ever, agree on what lies where.
//!
//! Reason: an offset is a name that consumers store. Two values under one name, or two names of
//! one value, is a fork or a duplicate.
//!
//! Cannot see: nothing at offsets that were neither acknowledged nor read. It leaves values that
//! nobody appended to I2, reads that differ between tiers to I12, and duplicates of a batch that
//! was retried to I13.

use std::collections::BTreeSet;

use crate::check::Options;
use crate::evidence::{Batch, Evidence, Owner, Sighting};
use crate::name::Offset;
use crate::report::{Invariant, Report};

pub(super) fn judge(evidence: &Evidence<'_>, _: &Options, report: &mut Report) {
    let acked = Acked::new(evidence);
    acked.judge_overlaps(report);
    for group in appended_by_offset(evidence) {
        judge_offset(&acked, &group, report);
    }
    for double in doubles(evidence) {
        let batch = &evidence.batches[double.owner.batch];
        if batch.attempts.len() == 1 {
            report.add(
                Invariant::I3,
                [batch.first(), double.seen.op],
                double.text(),
            );
        }
    }
}

/// Sightings of values that were appended and may be there, grouped by offset.
pub(super) fn appended_by_offset<'e, 'h>(
    evidence: &'e Evidence<'h>,
) -> impl Iterator<Item = Vec<&'e Sighting<'h>>> {
    let groups = evidence.sightings.chunk_by(|a, b| a.offset == b.offset);
    groups.map(|group| {
        let group = group.iter();
        group.filter(|seen| is_appended(evidence, seen)).collect()
    })
}

/// Whether a value that was seen belongs to a batch that may be in this log.
pub(super) fn is_appended(evidence: &Evidence<'_>, seen: &Sighting<'_>) -> bool {
    let batch = seen.owner.map(|owner| &evidence.batches[owner.batch]);
    batch.is_some_and(|batch| batch.invoked.is_some())
}

/// A value seen at another offset than where it lies.
#[derive(Debug)]
pub(super) struct Double<'e, 'h> {
    pub(super) owner: Owner,
    /// Where it lies.
    pub(super) place: Offset,
    /// Where else it was seen.
    pub(super) seen: &'e Sighting<'h>,
}

impl Double<'_, '_> {
    pub(super) fn text(&self) -> String {
        let Sighting { value, offset, .. } = self.seen;
        let place = self.place;
        format!("{value} lies at {place} and was read at {offset} too")
    }
}

/// Values that lie at one offset, by their acknowledgement or their lowest sighting, and were seen
/// at another.
pub(super) fn doubles<'e, 'h>(evidence: &'e Evidence<'h>) -> Vec<Double<'e, 'h>> {
    let mut doubles = Vec::new();
    let mut unacked = Vec::new();
    for seen in &evidence.sightings {
        let Some(owner) = seen.owner else { continue };
        let batch = &evidence.batches[owner.batch];
        if let Some(ack) = batch.acked {
            let place = ack.base.plus(owner.index);
            if place != seen.offset {
                doubles.push(Double { owner, place, seen });
            }
        } else if batch.invoked.is_some() {
            unacked.push((owner, seen));
        }
    }
    unacked.sort_by_key(|(owner, seen)| (*owner, seen.offset));
    for same in unacked.chunk_by(|a, b| a.0 == b.0) {
        let place = same[0].1.offset;
        let elsewhere = same.iter().filter(|(_, seen)| seen.offset != place);
        doubles.extend(elsewhere.map(|(owner, seen)| Double {
            owner: *owner,
            place,
            seen,
        }));
    }
    doubles
}

/// Batches that were acknowledged, by base.
struct Acked<'e, 'h>(Vec<(Offset, &'e Batch<'h>)>);

impl<'e, 'h> Acked<'e, 'h> {
    fn new(evidence: &'e Evidence<'h>) -> Self {
        let placed = evidence.placed();
        Self(placed.filter(|(_, batch)| batch.acked.is_some()).collect())
    }

    /// The acknowledged batch that begins last at or below `offset`, if it reaches beyond it.
    fn over(&self, offset: Offset) -> Option<(u64, &'e Batch<'h>)> {
        let above = self.0.partition_point(|(base, _)| *base <= offset);
        let (base, batch) = self.0[above.checked_sub(1)?];
        let index = offset.0 - base.0;
        (index < batch.len()).then_some((index, batch))
    }

    fn judge_overlaps(&self, report: &mut Report) {
        for pair in self.0.windows(2) {
            let [(low, below), (base, above)] = [pair[0], pair[1]];
            if low.plus(below.len()) > base {
                let ops = [below, above].into_iter().filter_map(|batch| batch.acked);
                let text = format!("two batches were acknowledged at {base}");
                report.add(Invariant::I3, ops.map(|ack| ack.op), text);
            }
        }
    }
}

/// Within a tier, reads agree; across tiers, where they agree, the acknowledgement does too.
fn judge_offset(acked: &Acked<'_, '_>, group: &[&Sighting<'_>], report: &mut Report) {
    let Some(first) = group.first() else { return };
    let offset = first.offset;
    let same_tier = group.chunk_by(|a, b| a.tier == b.tier);
    if let Some(tier) = same_tier.clone().find(|tier| tier.len() > 1) {
        let text = format!(
            "{} and {} were both read at {offset}",
            tier[0].value, tier[1].value
        );
        report.add(Invariant::I3, [tier[0].op, tier[1].op], text);
        return;
    }
    let values: BTreeSet<_> = group.iter().map(|seen| seen.value).collect();
    let Some((index, batch)) = acked.over(offset) else {
        return;
    };
    let at = usize::try_from(index).ok();
    let told = at.and_then(|at| batch.append.values.get(at));
    if let (1, Some(told), Some(ack)) = (values.len(), told, batch.acked)
        && *told != first.value
    {
        let text = format!(
            "{told} was acknowledged at {offset}, {} was read there",
            first.value
        );
        report.add(Invariant::I3, [ack.op, first.op], text);
    }
}
