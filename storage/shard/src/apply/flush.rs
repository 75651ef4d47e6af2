//! A segment becomes part of the log: only if it is next, and holds exactly what apply assigned.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_types::limits::MIXED_SEGMENTS_MAX;
use esker_types::{OffsetRange, PartitionId, RaftIndex, RaftRange};

use super::{Now, check_applied};
use crate::command::CommitSegment;
use crate::data::Data;
use crate::head::{Covered, joined};
use crate::manifest::{MixedSegment, out_of_order, ranges_hash};
use crate::outcome::Outcome;
use crate::refusal::{CommitRefusal, Refusal};

/// Ranges by partition, in canonical order.
type Ranges = BTreeMap<PartitionId, OffsetRange>;

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
        let ended = self.ended_since(commit.raft);
        compare(&commit.ranges, &covered.ranges, &ended)?;
        self.take_in(now, commit, &covered);
        Ok(Outcome::SegmentCommitted {
            flush_position: self.flush_position(),
        })
    }

    /// What apply assigned in `raft` to topics that have ended since.
    fn ended_since(&self, raft: RaftRange) -> Ranges {
        let mut ended = Ranges::new();
        for (partition, range) in self.tombstones.values().flat_map(|t| t.unflushed_in(raft)) {
            let run = ended.entry(partition).or_insert(range);
            *run = joined(*run, range);
        }
        ended
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
        self.release_ended(commit.raft.to);
    }

    /// What ended topics had unflushed up to `to` is in this segment or in none.
    fn release_ended(&mut self, to: RaftIndex) {
        let open = self
            .tombstones
            .iter()
            .filter(|(_, tombstone)| !tombstone.unflushed.is_empty());
        let open: Vec<_> = open.map(|(id, _)| *id).collect();
        for id in open {
            let tombstone = self.tombstones.get_mut(&id).expect("it was just seen");
            Arc::make_mut(tombstone).release(to);
        }
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
}

/// Whether `given` is, one for one, what apply assigned; what it assigned to topics that have
/// ended since may be there or not.
fn compare(
    given: &[(PartitionId, OffsetRange)],
    assigned: &Ranges,
    ended: &Ranges,
) -> Result<(), CommitRefusal> {
    let mut matched = 0;
    for &(partition, given) in given {
        match assigned.get(&partition).or(ended.get(&partition)) {
            Some(&expected) if expected != given => {
                return Err(CommitRefusal::WrongRange {
                    partition,
                    given,
                    expected,
                });
            }
            Some(_) => matched += usize::from(assigned.contains_key(&partition)),
            None => return Err(CommitRefusal::Extra { partition, given }),
        }
    }
    if matched == assigned.len() {
        return Ok(());
    }
    let given: Ranges = given.iter().copied().collect();
    let missing = assigned
        .iter()
        .find(|(partition, _)| !given.contains_key(*partition));
    let (&partition, &expected) = missing.expect("fewer matched than were assigned");
    Err(CommitRefusal::Missing {
        partition,
        expected,
    })
}
