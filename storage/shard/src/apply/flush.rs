//! A segment becomes part of the log: only if it is next, and holds exactly what apply assigned.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_types::limits::MIXED_SEGMENTS_MAX;
use esker_types::{OffsetRange, PartitionId};

use super::{Now, check_applied};
use crate::command::CommitSegment;
use crate::data::Data;
use crate::head::Covered;
use crate::manifest::{MixedSegment, out_of_order, ranges_hash};
use crate::outcome::{CommitRefusal, Outcome, Refusal};

impl Data {
    pub(super) fn commit_segment(
        &mut self,
        now: &Now,
        commit: &CommitSegment,
    ) -> Result<Outcome, Refusal> {
        check_applied(commit.raft.to, now)?;
        let flush_position = self.flush_position();
        if commit.raft.from != flush_position {
            return Err(CommitRefusal::NotNext {
                from: commit.raft.from,
                flush_position,
            }
            .into());
        }
        if commit.ranges.is_empty() {
            return Err(CommitRefusal::Empty.into());
        }
        if let Some(partition) = out_of_order(&commit.ranges) {
            return Err(CommitRefusal::NotCanonical { partition }.into());
        }
        if self.manifest.len() >= MIXED_SEGMENTS_MAX {
            return Err(CommitRefusal::ManifestFull.into());
        }
        let covered = self.head.covered(commit.raft);
        self.compare(&commit.ranges, &covered.ranges)?;
        self.take_in(now, commit, &covered);
        Ok(Outcome::SegmentCommitted {
            flush_position: self.flush_position(),
        })
    }

    /// Whether `given` is, one for one, what apply assigned; both are in canonical order. What was
    /// assigned to a topic that has ended since is in its tombstone alone and may be there or not.
    fn compare(
        &self,
        given: &[(PartitionId, OffsetRange)],
        assigned: &BTreeMap<PartitionId, OffsetRange>,
    ) -> Result<(), CommitRefusal> {
        let mut matched = 0;
        for &(partition, given) in given {
            match assigned.get(&partition) {
                Some(&expected) if expected == given => matched += 1,
                Some(&expected) => {
                    return Err(CommitRefusal::WrongRange {
                        partition,
                        given,
                        expected,
                    });
                }
                None => {
                    let tombstone = self.tombstones.get(&partition.topic);
                    if !tombstone.is_some_and(|stone| stone.had_unflushed(partition, given)) {
                        return Err(CommitRefusal::Extra { partition, given });
                    }
                }
            }
        }
        if matched == assigned.len() {
            return Ok(());
        }
        let given: BTreeMap<_, _> = given.iter().copied().collect();
        let missing = assigned
            .iter()
            .find(|(partition, _)| !given.contains_key(*partition));
        let (&partition, &expected) = missing.expect("fewer matched than were assigned");
        Err(CommitRefusal::Missing {
            partition,
            expected,
        })
    }

    fn take_in(&mut self, now: &Now, commit: &CommitSegment, covered: &Covered) {
        for (id, range) in &covered.ranges {
            let partition = self
                .partitions
                .get_mut(id)
                .expect("the head holds live partitions");
            Arc::make_mut(partition).tiered_end.advance(range.end());
        }
        for (partition, _) in &commit.ranges {
            self.count_range(now, *partition);
        }
        let segment = MixedSegment {
            segment: commit.segment,
            incarnation: now.incarnation,
            raft: commit.raft,
            length: commit.length,
            checksum: commit.checksum,
            range_count: u32::try_from(commit.ranges.len()).expect("at most SEGMENT_RANGES_MAX"),
            ranges_hash: ranges_hash(&commit.ranges),
            // If only ended topics are in it, nothing goes by its time.
            newest: covered.newest.unwrap_or(now.time),
            bytes: covered.bytes,
        };
        self.manifest.insert(segment.place(), Arc::new(segment));
        self.head.release(commit.raft.to);
        self.flush_position.advance(commit.raft.to);
        self.close_ended(commit);
    }

    /// One range more of a topic's in the manifest.
    fn count_range(&mut self, now: &Now, partition: PartitionId) {
        if let Some(topic) = self.topics.get_mut(&partition.topic) {
            Arc::make_mut(topic).mixed_ranges += 1;
        } else if let Some(tombstone) = self.tombstones.get_mut(&partition.topic) {
            let tombstone = Arc::make_mut(tombstone);
            tombstone.mixed_ranges += 1;
            tombstone.changed = now.entry.index;
        }
    }

    /// A range that an ended topic had unflushed is in a segment now: no later one may bring it,
    /// nor what lay below it.
    fn close_ended(&mut self, commit: &CommitSegment) {
        for (partition, range) in &commit.ranges {
            let Some(tombstone) = self.tombstones.get_mut(&partition.topic) else {
                continue;
            };
            let unflushed = &mut Arc::make_mut(tombstone).unflushed;
            let rest = unflushed.get(partition).and_then(|held| {
                OffsetRange::new(range.end(), held.end()).filter(|rest| !rest.is_empty())
            });
            match rest {
                Some(rest) => unflushed.insert(*partition, rest),
                None => unflushed.remove(partition),
            };
        }
    }
}
