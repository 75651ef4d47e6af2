//! Attempts at one batch, its acknowledgement, its place.

use std::collections::HashMap;

use crate::event::{Append, Call, Reply};
use crate::history::{History, Op, Outcome};
use crate::name::{Nanos, Offset, OpId};

use super::sighting::Sighting;

/// All attempts at one batch of one producer.
#[derive(Debug)]
pub(crate) struct Batch<'h> {
    /// What every attempt asks.
    pub(crate) append: &'h Append,
    /// At least one, in order of invocation.
    pub(crate) attempts: Vec<&'h Op>,
    /// When the earliest attempt began that did not definitely fail; none if all did. From here on
    /// the batch may have been in the log.
    pub(crate) invoked: Option<Nanos>,
    /// The attempt that was acknowledged first.
    pub(crate) acked: Option<Ack<'h>>,
    /// Where it lies: as acknowledged, else where its record was seen lowest.
    pub(crate) base: Option<Offset>,
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack<'h> {
    pub(crate) op: &'h Op,
    pub(crate) base: Offset,
    pub(crate) count: u64,
}

impl<'h> Batch<'h> {
    /// Records, at least one.
    pub(crate) fn len(&self) -> u64 {
        self.append.values.len() as u64
    }

    /// The first attempt.
    pub(crate) fn first(&self) -> &'h Op {
        self.attempts[0]
    }

    /// Every acknowledgement it got.
    pub(crate) fn acks(&self) -> impl Iterator<Item = Ack<'h>> {
        self.attempts.iter().filter_map(|op| acked(op))
    }
}

/// The batches of a log, without places for those that were not acknowledged.
pub(super) fn gather<'h>(history: &'h History, ops: &[&'h Op]) -> Vec<Batch<'h>> {
    let mut batches: Vec<Batch<'h>> = Vec::new();
    let mut known: HashMap<OpId, usize> = HashMap::new();
    for op in ops {
        let Call::Append(append) = &op.call else {
            continue;
        };
        // Every value names the first attempt at its batch, and a batch has at least one.
        let Some(origin) = history.origin(append.values[0]) else {
            continue;
        };
        let at = *known.entry(origin.first).or_insert(batches.len());
        if at == batches.len() {
            batches.push(Batch {
                append,
                attempts: Vec::new(),
                invoked: None,
                acked: None,
                base: None,
            });
        }
        batches[at].attempts.push(op);
    }
    for batch in &mut batches {
        let alive = |op: &&&Op| !matches!(op.outcome, Outcome::Fail(_));
        batch.invoked = batch.attempts.iter().find(alive).map(|op| op.invoked);
        batch.acked = batch.acks().min_by_key(|ack| ack.op.completed);
        batch.base = batch.acked.map(|ack| ack.base);
    }
    batches
}

/// Gives a place to batches that were seen, though nobody was told that they are in.
pub(super) fn place(batches: &mut [Batch<'_>], sightings: &[Sighting<'_>]) {
    for sighting in sightings {
        let Some(owner) = sighting.owner else {
            continue;
        };
        let batch = &mut batches[owner.batch];
        if batch.base.is_none() && batch.invoked.is_some() {
            // Where a record lies too low for its batch, the batch is torn, which I4 sees.
            batch.base = Some(Offset(sighting.offset.0.saturating_sub(owner.index)));
        }
    }
}

fn acked(op: &Op) -> Option<Ack<'_>> {
    match op.outcome {
        Outcome::Ok(Reply::Append { base, count }) => Some(Ack { op, base, count }),
        _ => None,
    }
}
