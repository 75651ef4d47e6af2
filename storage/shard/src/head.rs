//! The head: accepted batches that no segment holds yet, by raft index and by offset.
//!
//! ```text
//!   by index    7 ─► [ordinal 0: t1.1/0 [4, 6)], [ordinal 2: t1.2/3 [9, 10)]
//!               9 ─► [ordinal 0: t1.1/0 [6, 7)]         ordinal 1 of entry 7 was rejected
//!   by offset   t1.1/0: 4 ─► (7, 0)   6 ─► (9, 0)       t1.2/3: 9 ─► (7, 2)
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use esker_types::limits::{ENTRY_BATCHES_MAX, SEGMENT_BATCHES_MAX, SEGMENT_RANGES_MAX};
use esker_types::{
    LeaderEpoch, Offset, OffsetRange, PartitionId, PartitionIndex, RaftIndex, RaftRange, ShardTime,
    Term, Timestamp, TopicId,
};
use imbl::OrdMap;

use crate::command::RangeList;

const _: () = assert!(ENTRY_BATCHES_MAX <= SEGMENT_BATCHES_MAX, "one entry fits");

/// Accepted batches that no segment holds yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Head {
    entries: OrdMap<RaftIndex, Arc<HeadEntry>>,
    by_offset: OrdMap<(PartitionId, Offset), Place>,
    bytes: u64,
}

/// The accepted, unflushed batches of one raft entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadEntry {
    /// Term of the entry.
    pub term: Term,
    /// Leader epoch its batches were written in.
    pub epoch: LeaderEpoch,
    /// Shard time at which they were applied.
    pub time: ShardTime,
    /// At least one, ascending by ordinal.
    pub batches: Vec<HeadBatch>,
}

/// One accepted, unflushed batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadBatch {
    /// Its number among all batches of the entry, rejected ones counted, from 0.
    pub ordinal: u32,
    /// Where its bytes begin in the entry's payload.
    pub at: u32,
    /// How many bytes it has.
    pub bytes: u32,
    /// Where it went.
    pub partition: PartitionId,
    /// The offsets it was given.
    pub range: OffsetRange,
    /// The largest timestamp in it.
    pub max_timestamp: Timestamp,
}

/// Where a batch stands: a raft index, and the batch among that entry's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    index: RaftIndex,
    ordinal: u32,
}

/// One batch of the head, and the entry it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadPosition {
    /// The entry.
    pub index: RaftIndex,
    /// Term of the entry.
    pub term: Term,
    /// Leader epoch it was written in.
    pub epoch: LeaderEpoch,
    /// Shard time at which it was applied.
    pub time: ShardTime,
    /// The batch.
    pub batch: HeadBatch,
}

/// How much is unflushed: what admission and flush triggers go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeadSize {
    /// Payload bytes.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
    /// Shard time of the oldest; `None` if there is none.
    pub oldest: Option<ShardTime>,
}

/// What one flush should write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlushPlan {
    /// The entries it covers, from the flush position on.
    pub raft: RaftRange,
    /// What it holds of each partition, in canonical order; never empty.
    pub ranges: RangeList,
    /// Payload bytes.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
}

/// What the head holds of a run of entries.
#[derive(Debug, Default)]
pub(crate) struct Covered {
    /// Of each partition, merged.
    pub(crate) ranges: BTreeMap<PartitionId, OffsetRange>,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// Batches.
    pub(crate) batches: u64,
    /// Shard time of the newest batch.
    pub(crate) newest: Option<ShardTime>,
}

impl Head {
    pub(crate) fn size(&self) -> HeadSize {
        HeadSize {
            bytes: self.bytes,
            batches: self.by_offset.len() as u64,
            oldest: self.entries.get_min().map(|(_, entry)| entry.time),
        }
    }

    /// The first index that holds a batch.
    pub(crate) fn first_index(&self) -> Option<RaftIndex> {
        self.entries.get_min().map(|(index, _)| *index)
    }

    /// The last index that holds a batch.
    pub(crate) fn last_index(&self) -> Option<RaftIndex> {
        self.entries.get_max().map(|(index, _)| *index)
    }

    /// Entries with accepted batches in `raft`, ascending.
    pub(crate) fn entries(&self, raft: RaftRange) -> impl Iterator<Item = (RaftIndex, &HeadEntry)> {
        let bounds = (Bound::Excluded(raft.from), Bound::Included(raft.to));
        // An empty range would panic: its bounds exclude and include the same index.
        let entries = (!raft.is_empty()).then(|| self.entries.range(bounds));
        entries
            .into_iter()
            .flatten()
            .map(|(index, entry)| (*index, &**entry))
    }

    /// The batch that holds `offset`.
    pub(crate) fn lookup(&self, partition: PartitionId, offset: Offset) -> Option<HeadPosition> {
        let (_, place) = self
            .by_offset
            .range((partition, Offset::ZERO)..=(partition, offset))
            .next_back()?;
        Some(self.position(*place)).filter(|found| found.batch.range.contains(offset))
    }

    /// Batches of a partition from the one that holds `offset` on, or from the first above it.
    pub(crate) fn batches_from(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Iterator<Item = HeadPosition> {
        let first = self
            .lookup(partition, offset)
            .map_or(offset, |at| at.batch.range.start());
        self.by_offset
            .range((partition, first)..=(partition, Offset::MAX))
            .map(|(_, place)| self.position(*place))
    }

    /// Takes in the accepted batches of an entry, if there are any.
    pub(crate) fn insert(&mut self, index: RaftIndex, entry: HeadEntry) {
        if entry.batches.is_empty() {
            return;
        }
        for batch in &entry.batches {
            let place = Place {
                index,
                ordinal: batch.ordinal,
            };
            self.by_offset
                .insert((batch.partition, batch.range.start()), place);
            self.bytes += u64::from(batch.bytes);
        }
        self.entries.insert(index, Arc::new(entry));
    }

    /// Lets go of every batch up to `to`: a segment holds them.
    pub(crate) fn release(&mut self, to: RaftIndex) {
        while let Some(index) = self.first_index().filter(|&index| index <= to) {
            let entry = self.entries.remove(&index).expect("it is the first");
            for batch in &entry.batches {
                self.by_offset
                    .remove(&(batch.partition, batch.range.start()));
                self.bytes -= u64::from(batch.bytes);
            }
        }
    }

    /// Lets go of every batch of a topic that ended, and says what each entry held of it.
    pub(crate) fn remove_topic(
        &mut self,
        topic: TopicId,
    ) -> OrdMap<(RaftIndex, PartitionId), OffsetRange> {
        let first = PartitionId {
            topic,
            index: PartitionIndex(0),
        };
        let last = PartitionId {
            topic,
            index: PartitionIndex(u32::MAX),
        };
        let of_topic = (first, Offset::ZERO)..=(last, Offset::MAX);
        let places: Vec<_> = self
            .by_offset
            .range(of_topic)
            .map(|(k, p)| (*k, *p))
            .collect();
        let mut held = OrdMap::new();
        for ((partition, start), place) in places {
            self.by_offset.remove(&(partition, start));
            let range = self.remove_batch(place).range;
            let run = held.entry((place.index, partition)).or_insert(range);
            *run = joined(*run, range);
        }
        held
    }

    /// What the head holds of `raft`.
    pub(crate) fn covered(&self, raft: RaftRange) -> Covered {
        let mut covered = Covered::default();
        for (_, entry) in self.entries(raft) {
            covered.add(entry);
        }
        covered
    }

    /// Whole entries from `from` on: at least one, then as long as they stay within `bytes_max`
    /// and within the ranges and batches a segment may have, and up to `to`. `None` if there is no batch.
    pub(crate) fn plan(&self, from: RaftIndex, bytes_max: u64, to: RaftIndex) -> Option<FlushPlan> {
        let mut covered = Covered::default();
        let mut last = None;
        let mut stopped = false;
        for (index, entry) in self.entries(RaftRange::new(from, to)?) {
            let fits = covered.bytes.saturating_add(entry.bytes()) <= bytes_max
                && covered.ranges.len() + entry.batches.len() <= SEGMENT_RANGES_MAX
                && covered.batches + entry.batches.len() as u64 <= SEGMENT_BATCHES_MAX as u64;
            if last.is_some() && !fits {
                stopped = true;
                break;
            }
            covered.add(entry);
            last = Some(index);
        }
        // Entries without a batch behind the last one are covered with it.
        let to = if stopped { last? } else { last.map(|_| to)? };
        Some(FlushPlan {
            raft: RaftRange::new(from, to).expect("what it covers lies above `from`"),
            ranges: covered.ranges.into_iter().collect(),
            bytes: covered.bytes,
            batches: covered.batches,
        })
    }

    /// Ranges the head holds, merged, by partition; `None` if a partition's batches do not chain
    /// in the order of the log, or the two maps or the counts disagree.
    pub(crate) fn audit(&self) -> Option<Covered> {
        let mut covered = Covered::default();
        let mut before: Option<(PartitionId, Place)> = None;
        for (&(partition, start), &place) in &self.by_offset {
            let entry = self.entries.get(&place.index)?;
            let batch = entry
                .batches
                .iter()
                .find(|batch| batch.ordinal == place.ordinal)?;
            if (batch.partition, batch.range.start()) != (partition, start)
                || batch.range.is_empty()
            {
                return None;
            }
            if let Some((_, last)) = before.filter(|(before, _)| *before == partition) {
                let run = covered
                    .ranges
                    .get_mut(&partition)
                    .filter(|run| run.end() == start)?;
                if (last.index, last.ordinal) >= (place.index, place.ordinal) {
                    return None;
                }
                *run = joined(*run, batch.range);
            } else {
                covered.ranges.insert(partition, batch.range);
            }
            before = Some((partition, place));
        }
        for entry in self.entries.values() {
            let ascending = entry
                .batches
                .windows(2)
                .all(|w| w[0].ordinal < w[1].ordinal);
            if entry.batches.is_empty() || !ascending {
                return None;
            }
            covered.batches += entry.batches.len() as u64;
            covered.bytes += entry.bytes();
        }
        let size = self.size();
        ((covered.bytes, covered.batches) == (size.bytes, size.batches)).then_some(covered)
    }

    fn position(&self, place: Place) -> HeadPosition {
        let entry = self
            .entries
            .get(&place.index)
            .expect("both maps name the same batches");
        let at = entry
            .batches
            .binary_search_by_key(&place.ordinal, |batch| batch.ordinal);
        HeadPosition {
            index: place.index,
            term: entry.term,
            epoch: entry.epoch,
            time: entry.time,
            batch: entry.batches[at.expect("both maps name the same batches")],
        }
    }

    fn remove_batch(&mut self, place: Place) -> HeadBatch {
        let entry = self
            .entries
            .get_mut(&place.index)
            .expect("both maps name the same batches");
        let entry = Arc::make_mut(entry);
        let at = entry
            .batches
            .binary_search_by_key(&place.ordinal, |batch| batch.ordinal);
        let batch = entry
            .batches
            .remove(at.expect("both maps name the same batches"));
        self.bytes -= u64::from(batch.bytes);
        if entry.batches.is_empty() {
            self.entries.remove(&place.index);
        }
        batch
    }
}

impl HeadEntry {
    /// Payload bytes of its accepted batches.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| u64::from(batch.bytes))
            .sum()
    }
}

impl Covered {
    fn add(&mut self, entry: &HeadEntry) {
        for batch in &entry.batches {
            let run = self.ranges.entry(batch.partition).or_insert(batch.range);
            *run = joined(*run, batch.range);
        }
        self.bytes += entry.bytes();
        self.batches += entry.batches.len() as u64;
        self.newest = self.newest.max(Some(entry.time));
    }
}

/// The range from the start of one to the end of the other, which follows or is the same.
pub(crate) fn joined(first: OffsetRange, then: OffsetRange) -> OffsetRange {
    OffsetRange::new(first.start(), then.end()).expect("offsets of a partition only grow")
}

#[cfg(test)]
mod tests {
    use esker_types::{Incarnation, TopicId};

    use super::*;

    #[test]
    fn a_plan_has_no_more_batches_than_a_segment_may_hold() {
        let topic = TopicId::new(Incarnation::FIRST, 1).expect("small");
        let batch = |ordinal: usize| HeadBatch {
            ordinal: u32::try_from(ordinal).expect("small"),
            at: 0,
            bytes: 70,
            partition: PartitionId {
                topic,
                index: PartitionIndex(0),
            },
            range: OffsetRange::new(Offset::ZERO, Offset::ZERO).expect("empty"),
            max_timestamp: Timestamp(0),
        };
        let entry = Arc::new(HeadEntry {
            term: Term(1),
            epoch: LeaderEpoch(1),
            time: ShardTime(0),
            batches: (0..ENTRY_BATCHES_MAX).map(batch).collect(),
        });
        let most = (SEGMENT_BATCHES_MAX / ENTRY_BATCHES_MAX) as u64;
        let indexes = (1..=most + 1).map(RaftIndex);
        let head = Head {
            entries: indexes.map(|index| (index, Arc::clone(&entry))).collect(),
            ..Head::default()
        };
        let plan = |from, to| head.plan(RaftIndex(from), u64::MAX, RaftIndex(to));
        let first = plan(0, most + 1).expect("a plan");
        assert_eq!(first.batches, SEGMENT_BATCHES_MAX as u64);
        assert_eq!(first.raft.to, RaftIndex(most));
        let rest = plan(most, most + 1).expect("a plan");
        assert_eq!(rest.batches, ENTRY_BATCHES_MAX as u64);
    }
}
