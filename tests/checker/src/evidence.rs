//! What the calls on one log prove together: batches with their places, records seen, ends seen,
//! and the log that remains. Gathered once, judged by every invariant.

mod batch; // attempts at one batch, its acknowledgement, its place
mod observation; // an end of the log that somebody saw
mod remains; // the full read of one view after the workload
mod sighting; // a record that somebody read

pub(crate) use batch::{Ack, Batch};
pub(crate) use observation::{Kind, Observation};
pub(crate) use remains::Remains;
pub(crate) use sighting::{Owner, Sighting};

use crate::history::{History, Op};
use crate::name::{Label, Offset};

/// The evidence on one log.
#[derive(Debug)]
pub(crate) struct Evidence<'h> {
    /// Its calls, in order of invocation.
    pub(crate) ops: Vec<&'h Op>,
    /// Its batches, in order of first attempt.
    pub(crate) batches: Vec<Batch<'h>>,
    /// The records read, by offset, tier and value, with the first call that read each.
    pub(crate) sightings: Vec<Sighting<'h>>,
    /// Labels of tiers, sorted; sightings name them by position.
    pub(crate) tiers: Vec<&'h Label>,
    /// The ends seen.
    pub(crate) observations: Vec<Observation<'h>>,
    /// What remains in the end, by view.
    pub(crate) remains: Vec<Remains<'h>>,
    /// Batches that have a place, by base; positions in `batches`.
    placed: Vec<usize>,
}

impl<'h> Evidence<'h> {
    pub(crate) fn gather(history: &'h History, ops: Vec<&'h Op>) -> Self {
        let mut batches = batch::gather(history, &ops);
        let tiers = sighting::tiers(&ops);
        let sightings = sighting::gather(history, &ops, &tiers, &batches);
        batch::place(&mut batches, &sightings);
        let mut placed: Vec<_> = (0..batches.len())
            .filter(|at| batches[*at].base.is_some())
            .collect();
        placed.sort_by_key(|at| batches[*at].base);
        let remains = remains::gather(&ops);
        let mut evidence = Self {
            ops,
            batches,
            sightings,
            tiers,
            observations: Vec::new(),
            remains,
            placed,
        };
        evidence.observations = observation::gather(&evidence);
        evidence
    }

    /// Batches that are known to be part of the log, with their bases, from the lowest up.
    pub(crate) fn placed(&self) -> impl DoubleEndedIterator<Item = (Offset, &Batch<'h>)> {
        let batches = self.placed.iter().map(|at| &self.batches[*at]);
        batches.filter_map(|batch| batch.base.map(|base| (base, batch)))
    }

    /// The placed batch that begins last at or below `offset`, if it reaches beyond it.
    pub(crate) fn batch_over(&self, offset: Offset) -> Option<(Offset, &Batch<'h>)> {
        let base_of = |at: &usize| self.batches[*at].base;
        let above = self
            .placed
            .partition_point(|at| base_of(at) <= Some(offset));
        let batch = &self.batches[self.placed[above.checked_sub(1)?]];
        let base = batch.base?;
        (base.plus(batch.len()) > offset).then_some((base, batch))
    }
}
