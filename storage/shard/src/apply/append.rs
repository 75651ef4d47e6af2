//! Batches get offsets, or not. Each is decided on its own and sees what those before it did.

use std::sync::Arc;

use super::Now;
use crate::command::AppendBatch;
use crate::data::Data;
use crate::head::{HeadBatch, HeadEntry};
use crate::outcome::{AppendError, AppendOutcome};
use crate::partition::Verdict;

impl Data {
    pub(super) fn append(&mut self, now: &Now, batches: &[AppendBatch]) -> Vec<AppendOutcome> {
        let mut accepted = Vec::new();
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut at: u32 = 0;
        for (ordinal, batch) in (0u32..).zip(batches) {
            let outcome = match self.decide(now, batch) {
                Ok(Verdict::Duplicate(range)) => AppendOutcome::Duplicate { range },
                Ok(Verdict::Accept(range)) => {
                    self.accept(now, batch, range);
                    accepted.push(HeadBatch {
                        ordinal,
                        at,
                        bytes: batch.bytes,
                        partition: batch.partition,
                        range,
                        max_timestamp: batch.max_timestamp,
                    });
                    AppendOutcome::Accepted {
                        range,
                        leader_epoch: now.leader_epoch,
                    }
                }
                Err(error) => AppendOutcome::Rejected(error),
            };
            outcomes.push(outcome);
            // Entries are held to ENTRY_PAYLOAD_BYTES_MAX where they are encoded and decoded.
            at = at.saturating_add(batch.bytes);
        }
        let entry = HeadEntry {
            term: now.entry.term,
            epoch: now.leader_epoch,
            time: now.time,
            batches: accepted,
        };
        self.head.insert(now.entry.index, entry);
        outcomes
    }

    fn decide(&self, now: &Now, batch: &AppendBatch) -> Result<Verdict, AppendError> {
        let Some(partition) = self.partitions.get(&batch.partition) else {
            return Err(if self.has_ended(batch.partition.topic) {
                AppendError::PartitionEnded
            } else {
                AppendError::UnknownPartition
            });
        };
        let topic = self.topics.get(&batch.partition.topic);
        let topic = topic.expect("a partition's topic is there as long as the partition");
        partition.decide(batch, topic.config.max_batch_bytes(), now.time)
    }

    fn accept(&mut self, now: &Now, batch: &AppendBatch, range: esker_types::OffsetRange) {
        let partition = self
            .partitions
            .get_mut(&batch.partition)
            .expect("it was decided on");
        let partition = Arc::make_mut(partition);
        self.producers -= partition.producers.len();
        partition.accept(batch, range, now.leader_epoch, now.time);
        self.producers += partition.producers.len();
    }
}
