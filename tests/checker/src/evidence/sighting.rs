//! A record that somebody read.

use crate::event::{Call, Reply};
use crate::history::{History, Op, Outcome};
use crate::name::{Label, Offset};
use crate::value::ValueHash;

use super::batch::Batch;

/// One value at one offset on one tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting<'h> {
    pub(crate) offset: Offset,
    /// Position in [`super::Evidence::tiers`].
    pub(crate) tier: usize,
    pub(crate) value: ValueHash,
    /// The first call that read it.
    pub(crate) op: &'h Op,
    /// Whose it is; none if nobody appended it to this log.
    pub(crate) owner: Option<Owner>,
}

/// Where a value belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Owner {
    /// Position in [`super::Evidence::batches`].
    pub(crate) batch: usize,
    /// Position in the batch.
    pub(crate) index: u64,
}

/// The labels of tiers that were read from, sorted.
pub(super) fn tiers<'h>(ops: &[&'h Op]) -> Vec<&'h Label> {
    let mut tiers: Vec<_> = reads(ops).map(|(_, tier, _)| tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers
}

/// What was read, each value at each offset and tier once.
pub(super) fn gather<'h>(
    history: &'h History,
    ops: &[&'h Op],
    tiers: &[&'h Label],
    batches: &[Batch<'h>],
) -> Vec<Sighting<'h>> {
    let mut sightings = Vec::new();
    for (op, tier, records) in reads(ops) {
        let tier = tiers.partition_point(|known| *known < tier);
        let records = records.iter();
        sightings.extend(records.map(|(offset, value)| Sighting {
            offset: *offset,
            tier,
            value: *value,
            op,
            owner: None,
        }));
    }
    sightings.sort_unstable_by_key(|seen| (seen.offset, seen.tier, seen.value, seen.op.id));
    sightings.dedup_by_key(|seen| (seen.offset, seen.tier, seen.value));
    for sighting in &mut sightings {
        sighting.owner = history.origin(sighting.value).and_then(|origin| {
            let first = |batch: &Batch<'_>| batch.first().id;
            let batch = batches.binary_search_by_key(&origin.first, first).ok()?;
            let index = origin.index;
            Some(Owner { batch, index })
        });
    }
    sightings
}

type Records<'h> = &'h [(Offset, ValueHash)];

fn reads<'h>(ops: &[&'h Op]) -> impl Iterator<Item = (&'h Op, &'h Label, Records<'h>)> {
    ops.iter().filter_map(|op| match (&op.call, &op.outcome) {
        (Call::Read(read), Outcome::Ok(Reply::Read { records, .. })) => {
            Some((*op, &read.view.tier, &records[..]))
        }
        _ => None,
    })
}
