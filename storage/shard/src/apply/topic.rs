//! A data shard gets a topic, ends it, and in the end forgets it.

use std::sync::Arc;

use esker_types::{PartitionId, RaftIndex, TopicId, TopicVersion};

use super::{Now, check_applied};
use crate::command::PutTopic;
use crate::data::Data;
use crate::outcome::Outcome;
use crate::partition::Partition;
use crate::refusal::{Refusal, TombstoneRefusal};
use crate::topic::{Tombstone, Topic};

impl Data {
    pub(super) fn put_topic(&mut self, put: &PutTopic) -> Result<Outcome, Refusal> {
        if self.has_ended(put.topic) {
            return Err(Refusal::TopicEnded { topic: put.topic });
        }
        let mixed_ranges = match self.topic(put.topic) {
            Some(known) if known.version >= put.version => {
                return Ok(Outcome::TopicPut {
                    version: known.version,
                });
            }
            Some(known) => known.mixed_ranges,
            None => 0,
        };
        let topic = Topic {
            name: put.name.clone(),
            version: put.version,
            config: put.config.clone(),
            mixed_ranges,
        };
        self.topics.insert(put.topic, Arc::new(topic));
        for &index in &put.partitions {
            let id = PartitionId {
                topic: put.topic,
                index,
            };
            // A partition left out has not ended: absence proves nothing.
            self.partitions
                .entry(id)
                .or_insert_with(|| Arc::new(Partition::default()));
        }
        Ok(Outcome::TopicPut {
            version: put.version,
        })
    }

    pub(super) fn end_topic(&mut self, now: &Now, id: TopicId, version: TopicVersion) -> Outcome {
        if self.has_ended(id) {
            return Outcome::TopicEnded;
        }
        let Some(topic) = self.topics.remove(&id) else {
            // It was deleted before it came here, so nothing of it is here; but it may come late.
            self.gone.insert(id);
            return Outcome::TopicEnded;
        };
        let partitions: Vec<_> = self.partitions_of(id).map(|(id, _)| id).collect();
        for partition in partitions {
            let removed = self.partitions.remove(&partition);
            self.producers -= removed.map_or(0, |removed| removed.producers.len());
        }
        let tombstone = Tombstone {
            version,
            mixed_ranges: topic.mixed_ranges,
            changed: now.entry.index,
            unflushed: self.head.remove_topic(id),
        };
        self.tombstones.insert(id, Arc::new(tombstone));
        Outcome::TopicEnded
    }

    /// The evidence: no segment of the manifest holds a range of the topic, and the proposer saw
    /// that, so that what it deleted in the bucket was all there was. A flush that is still under
    /// way and brings such a range is refused from then on; the next one goes without.
    pub(super) fn drop_tombstone(
        &mut self,
        now: &Now,
        topic: TopicId,
        plan_index: RaftIndex,
    ) -> Result<Outcome, Refusal> {
        check_applied(plan_index, now)?;
        if self.gone.contains(topic) {
            return Ok(Outcome::TombstoneDropped);
        }
        let tombstone = self
            .tombstones
            .get(&topic)
            .ok_or(Refusal::UnknownTopic { topic })?;
        if tombstone.mixed_ranges > 0 {
            return Err(TombstoneRefusal::StillHeld {
                ranges: tombstone.mixed_ranges,
            }
            .into());
        }
        if plan_index < tombstone.changed {
            let changed = tombstone.changed;
            return Err(TombstoneRefusal::Stale {
                plan_index,
                changed,
            }
            .into());
        }
        self.tombstones.remove(&topic);
        self.gone.insert(topic);
        Ok(Outcome::TombstoneDropped)
    }
}
