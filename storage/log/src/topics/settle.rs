//! Data shards catch up with the catalog: whatever it has decided and they have not is pushed.

use std::collections::{BTreeMap, BTreeSet};

use esker_shard::{Command, PutTopic};
use esker_types::limits::TOPIC_PAGE;
use esker_types::{PartitionIndex, ShardId, TopicId, TopicName, TopicVersion};
use futures::future::try_join_all;

use super::{TopicError, Topics};
use crate::error::HeadError;
use crate::head::TopicView;

impl Topics {
    /// Pushes to the data shards whatever the catalog has and they have not. Returns how many
    /// commands that took.
    ///
    /// # Errors
    /// [`TopicError`], the first; what could be pushed was, and stays.
    pub async fn settle_all(&self) -> Result<usize, TopicError> {
        let mut versions: BTreeMap<(ShardId, TopicId), TopicVersion> = BTreeMap::new();
        for shard in self.head.shards() {
            let mut after = None;
            loop {
                let page = self.head.shard_topics(shard, after, TOPIC_PAGE).await?;
                let topics = page.items.iter();
                versions.extend(topics.map(|topic| ((shard, topic.id), topic.version)));
                after = page.items.last().map(|topic| topic.id);
                if !page.more {
                    break;
                }
            }
        }
        let (mut pushed, mut first) = (0, Ok(()));
        let (ending, live): (Vec<_>, Vec<_>) =
            (self.all().await?.into_iter()).partition(|topic| topic.ending.is_some());
        // What ends makes room, and is written where nothing else is. No shard holds up the others.
        for topic in ending {
            pushed += topic.ending.iter().flatten().count();
            first = first.and(self.end(&topic).await);
        }
        for topic in live {
            for shard in topic.shards() {
                let current = versions.get(&(shard, topic.id));
                if current.is_none_or(|version| *version < topic.version) {
                    pushed += 1;
                    first = first.and(self.put(&topic, shard).await);
                }
            }
        }
        first.map(|()| pushed)
    }

    /// Ends what had this name before everywhere: who knew it a moment ago would else append to what is about
    /// to go, and be told that it is done.
    pub(super) async fn end_former(&self, name: &TopicName) -> Result<(), TopicError> {
        let mut after = None;
        loop {
            let page = self.head.ending(name, after, TOPIC_PAGE).await?;
            after = page.items.last().map(|topic| topic.id);
            for topic in page.items {
                if topic.name == *name && topic.ending.is_some() {
                    self.end(&topic).await?;
                }
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Makes sure that every shard of the topic has it, in this version or a newer one.
    pub(super) async fn settle(&self, topic: &TopicView) -> Result<(), TopicError> {
        self.settle_at(topic, topic.shards()).await
    }

    /// The same for some of its shards, those that are known to have it left out. Only what has not is
    /// written to: a log that is full can still be read.
    pub(super) async fn settle_at(
        &self,
        topic: &TopicView,
        shards: BTreeSet<ShardId>,
    ) -> Result<(), TopicError> {
        let mut missing = shards;
        if let Some(known) = self.lock().get(&topic.name)
            && *known.view == *topic
        {
            missing.retain(|shard| !known.settled.contains(shard));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let settled = missing.iter().map(async |shard| {
            if self.version_at(topic.id, *shard).await? < Some(topic.version) {
                self.put(topic, *shard).await?;
            }
            Ok::<_, TopicError>(())
        });
        try_join_all(settled).await?;
        if let Some(known) = self.lock().get_mut(&topic.name)
            && *known.view == *topic
        {
            known.settled.extend(missing);
        }
        Ok(())
    }

    /// The version of the topic that `shard` has, if it has it.
    async fn version_at(
        &self,
        topic: TopicId,
        shard: ShardId,
    ) -> Result<Option<TopicVersion>, HeadError> {
        let page = self.head.shard_topics(shard, topic.before(), 1).await?;
        let found = page.items.into_iter().find(|found| found.id == topic);
        Ok(found.map(|found| found.version))
    }

    async fn put(&self, topic: &TopicView, shard: ShardId) -> Result<(), TopicError> {
        let placed = (0..).zip(&topic.placement);
        let here = placed.filter(|(_, placed)| **placed == shard);
        let put = Command::PutTopic(PutTopic {
            topic: topic.id,
            version: topic.version,
            name: topic.name.clone(),
            config: topic.config.clone(),
            partitions: here.map(|(index, _)| PartitionIndex(index)).collect(),
        });
        self.ask(&topic.name, shard, put).await.map(drop)
    }

    /// Ends a topic that the catalog is deleting, shard by shard; where one cannot, the others do all the same.
    pub(super) async fn end(&self, topic: &TopicView) -> Result<(), TopicError> {
        let mut first = Ok(());
        for shard in topic.ending.iter().flatten().copied() {
            first = first.and(self.end_at(topic, shard).await);
        }
        first
    }

    async fn end_at(&self, topic: &TopicView, shard: ShardId) -> Result<(), TopicError> {
        let end = Command::EndTopic {
            topic: topic.id,
            version: topic.version,
        };
        self.ask(&topic.name, shard, end).await.map(drop)?;
        let ended = Command::TopicEnded {
            topic: topic.id,
            shard,
        };
        let told = self.ask(&topic.name, ShardId::CATALOG, ended).await;
        told.map(drop)
    }
}
