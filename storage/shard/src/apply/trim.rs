//! A log start moves; producers that are long silent are forgotten.

use std::ops::Bound;
use std::sync::Arc;

use esker_types::ShardTime;

use crate::command::Trim;
use crate::data::Data;
use crate::outcome::{Outcome, Refusal, TrimRefusal};

/// Partitions that one tick sweeps at most.
const SWEEP_PARTITIONS_MAX: usize = 1024;
/// Producers after which a sweep stops for this tick.
const SWEEP_PRODUCERS_MAX: usize = 8192;

impl Data {
    pub(super) fn trim(&mut self, trim: &Trim) -> Result<Outcome, Refusal> {
        let id = trim.partition;
        if self.has_ended(id.topic) {
            return Err(Refusal::TopicEnded { topic: id.topic });
        }
        let (Some(topic), Some(partition)) = (self.topic(id.topic), self.partition(id)) else {
            return Err(TrimRefusal::UnknownPartition { partition: id }.into());
        };
        let current = topic.version;
        if let Some(planned) = trim.planned_version.filter(|&planned| planned < current) {
            return Err(TrimRefusal::OldVersion { planned, current }.into());
        }
        let (to, end) = (trim.to, partition.end());
        if to > end {
            return Err(TrimRefusal::OutOfRange { to, end }.into());
        }
        let partition = Arc::make_mut(self.partitions.get_mut(&id).expect("it was looked up"));
        partition.trim(to);
        Ok(Outcome::Trimmed {
            log_start: partition.log_start(),
        })
    }

    /// Frees the memory of expired producers, a bounded number of partitions a tick, round and
    /// round. Appends do not depend on it: to them an expired producer is unknown already.
    pub(super) fn sweep_producers(&mut self, now: ShardTime) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let due = self
            .partitions
            .range((from, Bound::Unbounded))
            .take(SWEEP_PARTITIONS_MAX);
        let due: Vec<_> = due
            .map(|(id, partition)| (*id, Arc::clone(partition)))
            .collect();
        let mut looked_at = 0;
        self.swept = None;
        let whole_round = due.len() < SWEEP_PARTITIONS_MAX;
        let last = due.last().map(|(id, _)| *id);
        for (id, partition) in due {
            let expired = partition
                .producers
                .values()
                .any(|producer| producer.is_expired(now));
            looked_at += partition.producers.len();
            drop(partition);
            if expired {
                let partition = self.partitions.get_mut(&id).expect("it was just seen");
                Arc::make_mut(partition).forget_expired(now);
            }
            let stops = looked_at >= SWEEP_PRODUCERS_MAX || !whole_round && Some(id) == last;
            if stops {
                self.swept = Some(id);
                return;
            }
        }
    }
}
