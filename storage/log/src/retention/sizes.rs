//! Trims by bytes. A directory does not say how many bytes a partition has in a segment, so each
//! segment's index is read once, for partitions with a limit alone, and the sums are remembered.
//! Reading goes from the oldest segment on: as long as the newest are not read, too little is
//! counted, and too little is trimmed.

use std::collections::{BTreeMap, VecDeque};

use esker_shard::{MixedSegment, SegmentPlace};
use esker_types::limits::{MANIFEST_PAGE, RETENTION_RANGES_MAX, RETENTION_SEGMENTS};
use esker_types::{Offset, PartitionId};

use super::{LANE, Round, Trims, View};
use crate::error::KeepError;

/// Bytes of each segment's range of each partition that has a limit.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The last segment that was read.
    read_to: Option<SegmentPlace>,
    /// Ranges in offset order.
    partitions: BTreeMap<PartitionId, VecDeque<Held>>,
    ranges: usize,
}

/// The range of one segment, or of several that lie side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    end: Offset,
    bytes: u64,
}

impl Sizes {
    /// Reads the next segments, as far as a round goes.
    pub(super) async fn read(&mut self, round: &mut Round<'_>) -> Result<(), KeepError> {
        let limited = |view: &View| view.topics.values().any(|kept| kept.bytes.is_some());
        if !limited(&round.view) {
            *self = Self::default();
            return Ok(());
        }
        let mut opened = 0;
        loop {
            let after = self.read_to;
            let page = round
                .head
                .manifest(round.shard, after, MANIFEST_PAGE)
                .await?;
            for segment in &page.items {
                if opened == RETENTION_SEGMENTS || !round.view.covers(segment) {
                    return Ok(());
                }
                opened += 1;
                for (partition, held) in of_segment(round, segment).await? {
                    self.push(partition, held, RETENTION_RANGES_MAX);
                }
                self.read_to = Some(segment.place());
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    fn push(&mut self, partition: PartitionId, held: Held, ranges_max: usize) {
        self.partitions
            .entry(partition)
            .or_default()
            .push_back(held);
        self.ranges += 1;
        if self.ranges >= ranges_max {
            self.join_neighbours();
        }
    }

    /// Half as many ranges, each of twice as much: what is trimmed gets coarser, and no more.
    fn join_neighbours(&mut self) {
        self.ranges = 0;
        for held in self.partitions.values_mut() {
            let pairs = held.make_contiguous().chunks(2).map(|pair| Held {
                end: pair[pair.len() - 1].end,
                bytes: pair.iter().map(|held| held.bytes).sum(),
            });
            *held = pairs.collect();
            self.ranges += held.len();
        }
    }

    /// Adds to `trims` what lies below enough bytes.
    pub(super) fn plan(&mut self, view: &View, trims: &mut Trims) {
        self.partitions.retain(|id, held| {
            let limit = view.topics.get(&id.topic).and_then(|kept| kept.bytes);
            let (Some(limit), Some(bounds)) = (limit, view.partitions.get(id)) else {
                return false;
            };
            while held
                .front()
                .is_some_and(|held| held.end <= bounds.log_start)
            {
                held.pop_front();
            }
            if let Some(end) = cut(held, limit) {
                let to = trims.entry(*id).or_insert(end);
                *to = end.max(*to);
            }
            !held.is_empty()
        });
        self.ranges = self.partitions.values().map(VecDeque::len).sum();
    }
}

/// Where the newest ranges that have `limit` bytes together begin, if there is anything below.
fn cut(held: &VecDeque<Held>, limit: u64) -> Option<Offset> {
    let mut kept = 0_u64;
    for held in held.iter().rev() {
        if kept >= limit {
            return Some(held.end);
        }
        kept = kept.saturating_add(held.bytes);
    }
    None
}

/// Bytes of the batches that a segment holds of each partition with a limit.
async fn of_segment(
    round: &mut Round<'_>,
    segment: &MixedSegment,
) -> Result<Vec<(PartitionId, Held)>, KeepError> {
    let mut sizes = Vec::new();
    let Some((opened, pages)) = round.open(segment).await? else {
        return Ok(sizes);
    };
    for partition in pages.iter().flat_map(|page| page.partitions()) {
        let topic = round.view.topics.get(&partition.id.topic);
        let bounds = round.view.partitions.get(&partition.id);
        let is_kept = bounds.is_some_and(|bounds| partition.range.end() > bounds.log_start);
        if topic.is_none_or(|kept| kept.bytes.is_none()) || !is_kept {
            continue;
        }
        let read = async {
            let share = round.segments.share(&opened, partition.id, LANE).await?;
            let share = share.expect("the directory lists it");
            let mut bytes = 0;
            for place in &partition.pages {
                let page = round.segments.index_page(&share, place, LANE).await?;
                let entries = page.entries().iter();
                bytes += entries.map(|entry| u64::from(entry.bytes)).sum::<u64>();
            }
            Ok(bytes)
        };
        match read.await {
            Ok(bytes) => {
                let end = partition.range.end();
                sizes.push((partition.id, Held { end, bytes }));
            }
            Err(error) => round.pass_over(segment, error)?,
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::{Incarnation, PartitionIndex, TopicId};

    fn held(end: u64, bytes: u64) -> Held {
        Held {
            end: Offset::new(end).unwrap(),
            bytes,
        }
    }

    fn partition(index: u32) -> PartitionId {
        PartitionId {
            topic: TopicId::new(Incarnation::FIRST, 1).unwrap(),
            index: PartitionIndex(index),
        }
    }

    #[test]
    fn the_newest_ranges_that_are_enough_are_kept() {
        let ranges: VecDeque<_> = [held(10, 5), held(20, 5), held(30, 5)].into();
        for (limit, kept_from) in [(0, 30), (1, 20), (5, 20), (6, 10), (10, 10)] {
            let cut = cut(&ranges, limit).map(Offset::get);
            assert_eq!(cut, Some(kept_from), "{limit}");
        }
        for limit in [11, 15, 16, u64::MAX] {
            assert_eq!(cut(&ranges, limit), None, "{limit}");
        }
    }

    #[test]
    fn ranges_beyond_the_bound_are_joined_and_no_byte_is_forgotten() {
        let mut sizes = Sizes::default();
        for number in 1..=100 {
            for index in 0..3 {
                sizes.push(partition(index), held(number * 10, number), 64);
                assert!(sizes.ranges < 64);
            }
        }
        assert_eq!(sizes.partitions.len(), 3);
        for ranges in sizes.partitions.values() {
            assert_eq!(ranges.iter().map(|held| held.bytes).sum::<u64>(), 5050);
            assert_eq!(ranges.back().unwrap().end.get(), 1000);
            assert!(ranges.iter().is_sorted_by(|a, b| a.end < b.end));
            // Coarser, but what is kept is still enough.
            let cut = cut(ranges, 1000).unwrap().get();
            let kept: u64 = (1..=100).filter(|number| number * 10 > cut).sum();
            assert!(kept >= 1000, "{kept}");
        }
    }
}
