//! Topics are made, changed and deleted; ids are given.

use std::sync::Arc;

use esker_types::limits::{
    PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, PRODUCER_ID_BLOCK, TOPICS_MAX,
};
use esker_types::{NodeId, ProducerId, ShardId, TopicId, TopicVersion};
use xxhash_rust::xxh3::xxh3_128;

use super::Now;
use crate::catalog::{Catalog, CatalogTopic};
use crate::codec::Writer;
use crate::command::CreateTopic;
use crate::config::ConfigChange;
use crate::outcome::Outcome;
use crate::refusal::{CatalogRefusal, Refusal};

impl Catalog {
    pub(super) fn create_topic(
        &mut self,
        now: &Now,
        create: &CreateTopic,
    ) -> Result<Outcome, Refusal> {
        let asked = hash_of_request(create);
        if let Some((id, known)) = self.find(create.name.as_str()) {
            if known.request == create.request && known.asked == asked {
                return Ok(created(id, known));
            }
            return Err(CatalogRefusal::NameTaken { topic: id }.into());
        }
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&create.partitions) {
            return Err(CatalogRefusal::PartitionCount {
                partitions: create.partitions,
            }
            .into());
        }
        if self.topics.len() >= TOPICS_MAX {
            return Err(CatalogRefusal::TooManyTopics.into());
        }
        self.check_room(create.partitions)?;
        let id = TopicId::new(now.incarnation, self.next_topic)
            .ok_or(CatalogRefusal::NoIdsLeft { what: "topic" })?;
        self.next_topic += 1;
        let topic = CatalogTopic {
            name: create.name.clone(),
            version: TopicVersion::FIRST,
            config: create.config.clone(),
            placement: self.place(create.partitions),
            request: create.request,
            asked,
            ending: None,
        };
        let outcome = created(id, &topic);
        self.names.insert(create.name.clone(), id);
        self.topics.insert(id, Arc::new(topic));
        Ok(outcome)
    }

    pub(super) fn alter_topic(
        &mut self,
        id: TopicId,
        expected: Option<TopicVersion>,
        changes: &[ConfigChange],
    ) -> Result<Outcome, Refusal> {
        let topic = self.live(id, expected)?;
        let before = topic.config.clone();
        let after = changes
            .iter()
            .try_fold(before, |config, change| config.with(change));
        let after = after.map_err(CatalogRefusal::from)?;
        if after != topic.config {
            topic.config = after;
            topic.version = topic.version.next();
        }
        Ok(Outcome::TopicAltered {
            version: topic.version,
        })
    }

    pub(super) fn add_partitions(
        &mut self,
        id: TopicId,
        expected: Option<TopicVersion>,
        total: u32,
    ) -> Result<Outcome, Refusal> {
        let current = self.live(id, expected)?.partition_count();
        if total > PARTITIONS_PER_TOPIC_MAX {
            return Err(CatalogRefusal::PartitionCount { partitions: total }.into());
        }
        let more = total
            .checked_sub(current)
            .ok_or(CatalogRefusal::FewerPartitions {
                current,
                asked: total,
            })?;
        self.check_room(more)?;
        let placed = self.place(more);
        let topic = self.live(id, expected)?;
        if more > 0 {
            topic.placement.extend(placed);
            topic.version = topic.version.next();
        }
        let placement = topic.placement.clone();
        Ok(Outcome::PartitionsAdded {
            version: topic.version,
            placement,
        })
    }

    pub(super) fn delete_topic(&mut self, id: TopicId, now: &Now) -> Result<Outcome, Refusal> {
        if let Some(awaiting) = self.topic(id).and_then(CatalogTopic::awaiting) {
            return Ok(Outcome::TopicDeleted { awaiting });
        }
        if self.topic(id).is_none() && self.was_given(id, now) {
            return Ok(Outcome::TopicDeleted {
                awaiting: Vec::new(),
            });
        }
        let topic = self.live(id, None)?;
        topic.version = topic.version.next();
        topic.ending = Some(topic.shards());
        let (name, awaiting) = (topic.name.clone(), topic.awaiting().unwrap_or_default());
        self.names.remove(&name);
        Ok(Outcome::TopicDeleted { awaiting })
    }

    pub(super) fn topic_ended(
        &mut self,
        id: TopicId,
        shard: ShardId,
        now: &Now,
    ) -> Result<Outcome, Refusal> {
        let Some(topic) = self.topics.get_mut(&id) else {
            // The last shard's word may come twice.
            return if self.was_given(id, now) {
                Ok(Outcome::TopicDeleted {
                    awaiting: Vec::new(),
                })
            } else {
                Err(Refusal::UnknownTopic { topic: id })
            };
        };
        let topic = Arc::make_mut(topic);
        let placed = topic.shards().contains(&shard);
        // A topic that is not being deleted has ended nowhere; and no word of a shard that never
        // had it counts.
        let Some(ending) = topic.ending.as_mut().filter(|_| placed) else {
            return Err(CatalogRefusal::NotPlaced { topic: id, shard }.into());
        };
        ending.remove(&shard);
        let awaiting: Vec<_> = ending.iter().copied().collect();
        if awaiting.is_empty() {
            let topic = self.topics.remove(&id).expect("it was just changed");
            self.displace(&topic.placement);
        }
        Ok(Outcome::TopicDeleted { awaiting })
    }

    pub(super) fn allocate_producers(&mut self, now: &Now, count: u32) -> Result<Outcome, Refusal> {
        if !(1..=PRODUCER_ID_BLOCK).contains(&u64::from(count)) {
            return Err(CatalogRefusal::ProducerCount { count }.into());
        }
        let none_left = CatalogRefusal::NoIdsLeft { what: "producer" };
        let next = self.next_producer + u64::from(count);
        let last = ProducerId::new(now.incarnation, next - 1);
        let first = ProducerId::new(now.incarnation, self.next_producer);
        let (Some(first), Some(_)) = (first, last) else {
            return Err(none_left.into());
        };
        self.next_producer = next;
        Ok(Outcome::Producers { first, count })
    }

    pub(super) fn allocate_node(&mut self, now: &Now) -> Result<Outcome, Refusal> {
        let node = NodeId::new(now.incarnation, self.next_node)
            .ok_or(CatalogRefusal::NoIdsLeft { what: "node" })?;
        self.next_node += 1;
        Ok(Outcome::Node(node))
    }

    /// A topic that is not being deleted, to be changed.
    fn live(
        &mut self,
        id: TopicId,
        expected: Option<TopicVersion>,
    ) -> Result<&mut CatalogTopic, Refusal> {
        let topic = self
            .topics
            .get_mut(&id)
            .ok_or(Refusal::UnknownTopic { topic: id })?;
        if topic.ending.is_some() {
            return Err(Refusal::TopicEnded { topic: id });
        }
        let current = topic.version;
        if let Some(expected) = expected.filter(|&expected| expected != current) {
            return Err(CatalogRefusal::OtherVersion { current, expected }.into());
        }
        Ok(Arc::make_mut(topic))
    }

    fn check_room(&self, asked: u32) -> Result<(), CatalogRefusal> {
        let current = self.partition_count();
        if current.saturating_add(asked) > PARTITIONS_MAX {
            return Err(CatalogRefusal::TooManyPartitions { current, asked });
        }
        Ok(())
    }

    /// Whether the id was given to a topic, now or in an earlier life of the cluster.
    fn was_given(&self, id: TopicId, now: &Now) -> bool {
        let next = TopicId::new(now.incarnation, self.next_topic);
        id.sequence() > 0 && next.is_none_or(|next| id < next)
    }
}

fn created(topic: TopicId, known: &CatalogTopic) -> Outcome {
    Outcome::TopicCreated {
        topic,
        version: known.version,
        placement: known.placement.clone(),
    }
}

/// What was asked for, apart from who asked and the name.
fn hash_of_request(create: &CreateTopic) -> u128 {
    let mut asked = Writer::default();
    asked.u32(create.partitions);
    asked.config(&create.config);
    xxh3_128(&asked.into_inner())
}
