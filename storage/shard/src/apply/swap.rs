//! Segments leave the manifest: only as named, with proof of what they hold, and only once nobody
//! may ask for any of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use esker_types::{OffsetRange, PartitionId, RaftIndex};

use super::{Now, check_applied};
use crate::command::{SegmentRemoval, Swap};
use crate::data::Data;
use crate::manifest::{SegmentPlace, ranges_hash};
use crate::outcome::Outcome;
use crate::refusal::{Refusal, SwapRefusal};

const COUNTED: &str = "every range of a segment in the manifest was counted for its topic";

impl Data {
    pub(super) fn swap(&mut self, now: &Now, swap: &Swap) -> Result<Outcome, Refusal> {
        let (plan_index, boundary) = (swap.plan_index, self.gc_boundary());
        check_applied(plan_index, now)?;
        if plan_index <= boundary {
            return Err(SwapRefusal::Collected {
                plan_index,
                boundary,
            }
            .into());
        }
        if swap.removes.is_empty() {
            return Err(SwapRefusal::Empty.into());
        }
        let mut named = BTreeSet::new();
        for removal in &swap.removes {
            if !named.insert(place(removal)) {
                return Err(SwapRefusal::NotThere {
                    segment: removal.segment,
                }
                .into());
            }
            self.check_removal(removal)?;
        }
        for removal in &swap.removes {
            self.manifest
                .remove(&place(removal))
                .expect("it was checked");
            for (partition, _) in &removal.ranges {
                self.uncount_range(now, *partition);
            }
        }
        Ok(Outcome::Swapped)
    }

    pub(super) fn raise_gc_boundary(
        &mut self,
        now: &Now,
        to: RaftIndex,
    ) -> Result<Outcome, Refusal> {
        check_applied(to, now)?;
        self.gc_boundary.raise(to);
        Ok(Outcome::GcBoundary(self.gc_boundary()))
    }

    fn check_removal(&self, removal: &SegmentRemoval) -> Result<(), SwapRefusal> {
        let segment = removal.segment;
        let entry = self.manifest.get(&place(removal));
        let entry = entry
            .filter(|entry| entry.segment == segment && entry.raft == removal.raft)
            .ok_or(SwapRefusal::NotThere { segment })?;
        let same_count = usize::try_from(entry.range_count) == Ok(removal.ranges.len());
        if !same_count || ranges_hash(&removal.ranges) != entry.ranges_hash {
            return Err(SwapRefusal::OtherRanges { segment });
        }
        let read = removal
            .ranges
            .iter()
            .find(|(id, range)| !self.is_dead(*id, *range));
        match read {
            Some(&(partition, range)) => Err(SwapRefusal::StillRead {
                segment,
                partition,
                range,
            }),
            None => Ok(()),
        }
    }

    /// Whether nobody may ask for `range` any more.
    fn is_dead(&self, id: PartitionId, range: OffsetRange) -> bool {
        match self.partitions.get(&id) {
            Some(partition) => range.end() <= partition.log_start(),
            // Absence proves nothing: only a tombstone does.
            None => self.tombstones.contains_key(&id.topic),
        }
    }

    /// One range less of a topic's in the manifest.
    fn uncount_range(&mut self, now: &Now, partition: PartitionId) {
        if let Some(topic) = self.topics.get_mut(&partition.topic) {
            let ranges = &mut Arc::make_mut(topic).mixed_ranges;
            *ranges = ranges.checked_sub(1).expect(COUNTED);
        } else if let Some(tombstone) = self.tombstones.get_mut(&partition.topic) {
            let tombstone = Arc::make_mut(tombstone);
            tombstone.mixed_ranges = tombstone.mixed_ranges.checked_sub(1).expect(COUNTED);
            tombstone.changed = now.entry.index;
        }
    }
}

const fn place(removal: &SegmentRemoval) -> SegmentPlace {
    SegmentPlace {
        incarnation: removal.incarnation,
        from: removal.raft.from,
    }
}
