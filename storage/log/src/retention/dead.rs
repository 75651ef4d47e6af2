//! Takes segments out of the manifest of which nothing is read any more: every range trimmed, or of
//! a topic that ended. The walk goes round and round, oldest first, and remembers of each segment
//! one range that keeps it alive: as long as that one does, the segment is not opened again.

use std::collections::BTreeMap;

use esker_shard::{
    Command, MixedSegment, Outcome, RangeList, Refusal, SegmentPlace, SegmentRemoval, Swap,
    SwapRefusal,
};
use esker_types::limits::{
    MANIFEST_PAGE, RETENTION_ALIVE_MAX, RETENTION_SEGMENTS, RETENTION_SEGMENTS_PASSED,
    SEGMENT_RANGES_MAX, SWAP_SEGMENTS_MAX,
};
use esker_types::{OffsetRange, PartitionId, RaftIndex};

use super::{Round, View, ranges};
use crate::error::KeepError;

/// The walk over one shard.
#[derive(Debug, Default)]
pub(super) struct Dead {
    /// The last segment that was passed; `None` begins at the oldest.
    passed: Option<SegmentPlace>,
    /// A range of each that is still read.
    alive: BTreeMap<SegmentPlace, (PartitionId, OffsetRange)>,
}

impl Dead {
    /// Removes what is dead, as far as a round goes.
    pub(super) async fn round(&mut self, round: &mut Round<'_>) -> Result<(), KeepError> {
        let (mut passed, mut opened) = (0, 0);
        loop {
            let page = round
                .head
                .manifest(round.shard, self.passed, MANIFEST_PAGE)
                .await?;
            let mut swap = Removals::planned_at(page.mark.index);
            for segment in &page.items {
                let place = segment.place();
                let room = opened < RETENTION_SEGMENTS && passed < RETENTION_SEGMENTS_PASSED;
                if !room || !round.view.covers(segment) {
                    return swap.propose(round).await;
                }
                passed += 1;
                let known = self.alive.get(&place);
                if known.is_none_or(|(id, range)| is_dead(&round.view, *id, *range)) {
                    self.alive.remove(&place);
                    opened += 1;
                    if let Some(ranges) = self.dead_ranges(round, segment).await? {
                        if !swap.has_room(ranges.len()) {
                            swap.propose(round).await?;
                            swap = Removals::planned_at(page.mark.index);
                        }
                        swap.push(segment, ranges);
                    }
                }
                self.passed = Some(place);
            }
            swap.propose(round).await?;
            if !page.more {
                self.passed = None;
                if self.alive.len() >= RETENTION_ALIVE_MAX {
                    self.alive.clear();
                }
                return Ok(());
            }
        }
    }

    /// All ranges of a segment, if none of them is read any more.
    async fn dead_ranges(
        &mut self,
        round: &mut Round<'_>,
        segment: &MixedSegment,
    ) -> Result<Option<RangeList>, KeepError> {
        let Some((_, pages)) = round.open(segment).await? else {
            return Ok(None);
        };
        let ranges = ranges(&pages);
        let mut read = ranges.iter();
        let Some(read) = read.find(|(id, range)| !is_dead(&round.view, *id, *range)) else {
            return Ok(Some(ranges));
        };
        if self.alive.len() < RETENTION_ALIVE_MAX {
            self.alive.insert(segment.place(), *read);
        }
        Ok(None)
    }
}

/// Whether nobody may ask for `range` any more. Absence proves nothing: only a tombstone does.
fn is_dead(view: &View, id: PartitionId, range: OffsetRange) -> bool {
    match view.partitions.get(&id) {
        Some(bounds) => range.end() <= bounds.log_start,
        None => view.ended.contains(&id.topic),
    }
}

/// Segments that one `Swap` takes out.
struct Removals {
    swap: Swap,
    ranges: usize,
}

impl Removals {
    fn planned_at(plan_index: RaftIndex) -> Self {
        let removes = Vec::new();
        Self {
            swap: Swap {
                plan_index,
                removes,
            },
            ranges: 0,
        }
    }

    fn has_room(&self, ranges: usize) -> bool {
        self.swap.removes.len() < SWAP_SEGMENTS_MAX && self.ranges + ranges <= SEGMENT_RANGES_MAX
    }

    fn push(&mut self, segment: &MixedSegment, ranges: RangeList) {
        self.ranges += ranges.len();
        self.swap.removes.push(SegmentRemoval {
            incarnation: segment.incarnation,
            segment: segment.segment,
            raft: segment.raft,
            ranges,
        });
    }

    async fn propose(self, round: &mut Round<'_>) -> Result<(), KeepError> {
        let removed = self.swap.removes.len();
        if removed == 0 {
            return Ok(());
        }
        let shard = round.shard;
        match round.head.propose(shard, Command::Swap(self.swap)).await? {
            Outcome::Swapped => round.done.removed += removed,
            // Another agent was faster, or the collector was: the next time round begins anew.
            Outcome::Refused(Refusal::Swap(
                SwapRefusal::NotThere { .. } | SwapRefusal::Collected { .. },
            )) => {}
            Outcome::Refused(refusal) => return Err(KeepError::Refused { shard, refusal }),
            other => unreachable!("a swap was answered with {other:?}"),
        }
        Ok(())
    }
}
