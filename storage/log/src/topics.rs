//! Topics: found by name, created, changed, ended.
//!
//! ```text
//!   catalog ──1. decides──► version ──2. pushed──► data shard, data shard, …   answered when all have it
//! ```
//! Whoever dies between 1 and 2 leaves a data shard behind the catalog. Anybody may push what is
//! missing: whoever finds a topic for the first time, and [`Topics::settle_all`] from time to time.

mod error; // why a topic was not found or not changed
mod settle; // data shards catch up with the catalog

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use esker_env::{Clock, Monotonic};
use esker_shard::{
    Command, ConfigChange, CreateTopic, Outcome, Refusal, RequestId, TopicConfig, Trim, TrimRefusal,
};
use esker_types::limits::{TOPIC_PAGE, TOPIC_VIEW_AGE, TOPICS_MAX};
use esker_types::{
    Offset, PartitionId, PartitionIndex, ProducerId, ShardId, TopicId, TopicName, TopicVersion,
};

use crate::error::HeadError;
use crate::head::{Head, TopicView};
pub use error::TopicError;
use error::{ADDED, CREATED, DELETED, SET, SET_AND_ADDED, partly, refused};

/// Topics of the cluster, as this agent knows them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Topics {
    head: Arc<dyn Head>,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<BTreeMap<TopicName, Known>>>,
}

/// A topic, and when it was looked up.
#[derive(Clone, Debug)]
struct Known {
    view: Arc<TopicView>,
    at: Monotonic,
    /// Shards that have it in this version, as far as that was looked at here.
    settled: BTreeSet<ShardId>,
}

/// What to change of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Alteration {
    /// Settings, in order.
    pub changes: Vec<ConfigChange>,
    /// How many partitions it is to have.
    pub partitions: Option<u32>,
    /// Refuse unless this is its version.
    pub expected: Option<TopicVersion>,
}

impl Topics {
    pub(crate) fn new(head: Arc<dyn Head>, clock: Arc<dyn Clock>) -> Self {
        Self {
            head,
            clock,
            known: Arc::default(),
        }
    }

    /// The topic of this name; every data shard that holds a part of it has it by then.
    ///
    /// # Errors
    /// [`TopicError::Unknown`], by the word of a quorum; [`TopicError::Head`].
    pub async fn find(&self, name: &TopicName) -> Result<Arc<TopicView>, TopicError> {
        let view = self.look(name).await?;
        self.settle_at(&view, view.shards()).await?;
        Ok(view)
    }

    /// The topic of this name, as the catalog has it, or had it a moment ago.
    async fn look(&self, name: &TopicName) -> Result<Arc<TopicView>, TopicError> {
        let now = self.clock.monotonic();
        let known = self.lock().get(name).cloned();
        if let Some(known) = &known
            && now.since(known.at) < TOPIC_VIEW_AGE
        {
            return Ok(Arc::clone(&known.view));
        }
        let Some(view) = self.head.topic(name).await? else {
            self.forget(name);
            return Err(TopicError::Unknown { name: name.clone() });
        };
        let same = known.filter(|known| *known.view == view);
        let settled = same.map(|known| known.settled).unwrap_or_default();
        Ok(self.remember(view, now, settled))
    }

    async fn find_seen(
        &self,
        name: &TopicName,
        seen: Option<TopicId>,
    ) -> Result<Arc<TopicView>, TopicError> {
        let other = |view: &TopicView| seen.is_some_and(|seen| seen != view.id);
        let mut view = self.look(name).await?;
        if other(&view) {
            // What is known here may be older than what was seen.
            self.forget(name);
            view = self.look(name).await?;
        }
        if other(&view) {
            return Err(TopicError::MadeAnew { name: name.clone() });
        }
        Ok(view)
    }

    /// The topic and the shard of one of its partitions.
    ///
    /// # Errors
    /// [`TopicError::UnknownPartition`]; as [`Topics::find`].
    pub async fn partition(
        &self,
        name: &TopicName,
        index: PartitionIndex,
    ) -> Result<(Arc<TopicView>, ShardId, PartitionId), TopicError> {
        self.partition_of(name, None, index).await
    }

    /// The same, if the topic is the one that was `seen`: a name may be given to another.
    ///
    /// # Errors
    /// [`TopicError::MadeAnew`]; as [`Topics::partition`].
    pub async fn partition_of(
        &self,
        name: &TopicName,
        seen: Option<TopicId>,
        index: PartitionIndex,
    ) -> Result<(Arc<TopicView>, ShardId, PartitionId), TopicError> {
        let mut view = self.find_seen(name, seen).await?;
        if view.shard_of(index).is_none() {
            // It may have been given more since.
            self.forget(name);
            view = self.find_seen(name, seen).await?;
        }
        let shard = view
            .shard_of(index)
            .ok_or_else(|| TopicError::UnknownPartition {
                name: name.clone(),
                partitions: view.partitions(),
                asked: index,
            })?;
        // Whatever becomes of the topic's other shards.
        if !self.is_settled(&view, shard) {
            self.settle_at(&view, [shard].into()).await?;
        }
        let topic = view.id;
        Ok((view, shard, PartitionId { topic, index }))
    }

    /// Looks the topic up again when it is asked for next.
    pub fn forget(&self, name: &TopicName) {
        self.lock().remove(name);
    }

    /// Topics that are not being deleted, by name, above `after`; at most `count`, and whether
    /// there are more.
    ///
    /// # Errors
    /// [`TopicError::Head`].
    pub async fn list(
        &self,
        after: Option<&TopicName>,
        count: usize,
    ) -> Result<(Vec<TopicView>, bool), TopicError> {
        let all = self.all().await?.into_iter();
        let live = all.filter(|topic| topic.ending.is_none());
        let mut above: Vec<_> = live
            .filter(|topic| after.is_none_or(|after| topic.name > *after))
            .collect();
        above.sort_by(|a, b| a.name.cmp(&b.name));
        let more = above.len() > count;
        above.truncate(count);
        Ok((above, more))
    }

    /// Creates a topic. The same request asked again is answered alike.
    ///
    /// # Errors
    /// [`TopicError::Exists`], [`TopicError::Refused`], [`TopicError::Head`];
    /// [`TopicError::Partly`] once the catalog has it.
    pub async fn create(
        &self,
        request: RequestId,
        name: &TopicName,
        partitions: u32,
        config: TopicConfig,
    ) -> Result<Arc<TopicView>, TopicError> {
        let create = Command::CreateTopic(CreateTopic {
            request,
            name: name.clone(),
            partitions,
            config: config.clone(),
        });
        match self.ask(name, ShardId::CATALOG, create).await? {
            Outcome::TopicCreated { topic, .. } => {
                // Settled as it stands: it may have been changed since the first try.
                let settled = async {
                    self.end_former(name).await?;
                    let view = self.by_id(topic).await?;
                    let view = view.ok_or_else(|| TopicError::Unknown { name: name.clone() })?;
                    self.settle(&view).await?;
                    Ok(view)
                };
                let view = settled.await.map_err(partly(name, CREATED))?;
                let shards = view.shards();
                Ok(self.remember(view, self.clock.monotonic(), shards))
            }
            other => unreachable!("a creation was answered with {other:?}"),
        }
    }

    /// Changes settings and the number of partitions.
    ///
    /// # Errors
    /// [`TopicError::Unknown`], [`TopicError::Refused`], [`TopicError::Head`];
    /// [`TopicError::Partly`] once the catalog has a part of it.
    pub async fn alter(
        &self,
        name: &TopicName,
        alteration: Alteration,
    ) -> Result<Arc<TopicView>, TopicError> {
        self.forget(name);
        let topic = self.find(name).await?.id;
        let Alteration {
            changes,
            partitions,
            mut expected,
        } = alteration;
        let mut done = None;
        if !changes.is_empty() {
            let alter = Command::AlterTopic {
                topic,
                expected,
                changes,
            };
            if let Outcome::TopicAltered { version } =
                self.ask(name, ShardId::CATALOG, alter).await?
            {
                expected = expected.map(|_| version);
            }
            done = Some(SET);
        }
        if let Some(total) = partitions {
            let add = Command::AddPartitions {
                topic,
                expected,
                total,
            };
            let added = self.ask(name, ShardId::CATALOG, add).await.map(drop);
            self.forget(name);
            added.map_err(|error| match done {
                Some(done) => partly(name, done)(error),
                None => error,
            })?;
            done = Some(done.map_or(ADDED, |_| SET_AND_ADDED));
        }
        self.forget(name);
        let found = self.find(name).await;
        found.map_err(|error| match done {
            Some(done) => partly(name, done)(error),
            None => error,
        })
    }

    /// Ends a topic: its name is free when this returns, and every data shard has ended it.
    ///
    /// # Errors
    /// [`TopicError::Unknown`], [`TopicError::Head`]; [`TopicError::Partly`] once the catalog has
    /// ended it.
    pub async fn delete(&self, name: &TopicName) -> Result<(), TopicError> {
        self.forget(name);
        // Shards need not have it to end it: what is put there takes room, which deleting makes.
        let view = self.head.topic(name).await?;
        let topic = view
            .ok_or_else(|| TopicError::Unknown { name: name.clone() })?
            .id;
        let delete = Command::DeleteTopic { topic };
        self.ask(name, ShardId::CATALOG, delete).await.map(drop)?;
        let ended = async {
            match self.by_id(topic).await? {
                Some(view) => self.end(&view).await,
                None => Ok(()),
            }
        };
        ended.await.map_err(partly(name, DELETED))
    }

    /// Moves a partition's log start up to `to`, or to its end. Returns where it starts now.
    ///
    /// # Errors
    /// [`TopicError::Unknown`], [`TopicError::UnknownPartition`], [`TopicError::Refused`],
    /// [`TopicError::Head`].
    pub async fn truncate(
        &self,
        name: &TopicName,
        index: PartitionIndex,
        to: Option<Offset>,
    ) -> Result<Offset, TopicError> {
        let (_, shard, partition) = self.partition(name, index).await?;
        let to = match to {
            Some(to) => to,
            None => {
                let bounds = self.head.bounds(shard, partition).await?;
                let bounds = bounds.ok_or_else(|| TopicError::Unknown { name: name.clone() })?;
                bounds.end
            }
        };
        self.trim(name, shard, partition, to).await
    }

    /// Moves the log start of `partition`, which [`Topics::partition`] found on `shard`, up to `to`,
    /// whatever has the name by now. Returns where it starts now.
    ///
    /// # Errors
    /// [`TopicError::Unknown`], [`TopicError::MadeAnew`], [`TopicError::Refused`],
    /// [`TopicError::Head`].
    pub async fn trim(
        &self,
        name: &TopicName,
        shard: ShardId,
        partition: PartitionId,
        to: Offset,
    ) -> Result<Offset, TopicError> {
        let trim = Command::Trim(Trim {
            partition,
            to,
            planned_version: None,
        });
        match self.head.propose(shard, trim).await? {
            Outcome::Trimmed { log_start } => Ok(log_start),
            Outcome::Refused(
                Refusal::TopicEnded { .. } | Refusal::Trim(TrimRefusal::UnknownPartition { .. }),
            ) => {
                self.forget(name);
                self.find_seen(name, Some(partition.topic)).await?;
                Err(TopicError::Unknown { name: name.clone() })
            }
            Outcome::Refused(refusal) => Err(refused(name, refusal)),
            other => unreachable!("a trim was answered with {other:?}"),
        }
    }

    /// Takes a block of `count` producer ids; the first of them.
    ///
    /// # Errors
    /// [`HeadError`].
    pub async fn allocate_producers(&self, count: u32) -> Result<ProducerId, HeadError> {
        let shard = ShardId::CATALOG;
        let allocate = Command::AllocateProducers { count };
        match self.head.propose(shard, allocate).await? {
            Outcome::Producers { first, .. } => Ok(first),
            Outcome::Refused(refusal) => Err(HeadError::Refused {
                shard,
                what: refusal.to_string(),
            }),
            other => unreachable!("an allocation was answered with {other:?}"),
        }
    }

    async fn by_id(&self, topic: TopicId) -> Result<Option<TopicView>, HeadError> {
        let page = self.head.topics(topic.before(), 1).await?;
        Ok(page.items.into_iter().find(|view| view.id == topic))
    }

    async fn all(&self) -> Result<Vec<TopicView>, HeadError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|topic: &TopicView| topic.id);
            let page = self.head.topics(after, TOPIC_PAGE).await?;
            all.extend(page.items);
            if !page.more {
                return Ok(all);
            }
        }
    }

    async fn ask(
        &self,
        name: &TopicName,
        shard: ShardId,
        command: Command,
    ) -> Result<Outcome, TopicError> {
        match self.head.propose(shard, command).await? {
            Outcome::Refused(refusal) => Err(refused(name, refusal)),
            outcome => Ok(outcome),
        }
    }

    fn is_settled(&self, view: &Arc<TopicView>, shard: ShardId) -> bool {
        let known = self.lock();
        let known = known.get(&view.name);
        let known = known.filter(|known| Arc::ptr_eq(&known.view, view));
        known.is_some_and(|known| known.settled.contains(&shard))
    }

    fn remember(
        &self,
        view: TopicView,
        at: Monotonic,
        settled: BTreeSet<ShardId>,
    ) -> Arc<TopicView> {
        let view = Arc::new(view);
        let mut known = self.lock();
        // Topics are bounded by the catalog; names of deleted ones are forgotten when they pile up.
        if known.len() >= TOPICS_MAX {
            known.clear();
        }
        let entry = Known {
            view: Arc::clone(&view),
            at,
            settled,
        };
        known.insert(view.name.clone(), entry);
        view
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TopicName, Known>> {
        // Whole views go in and out; whoever panicked left whole ones.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicView {
    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.placement.len()).expect("at most PARTITIONS_PER_TOPIC_MAX")
    }

    /// The data shard of a partition; `None` if it has fewer.
    #[must_use]
    pub fn shard_of(&self, index: PartitionIndex) -> Option<ShardId> {
        self.placement.get(index.0 as usize).copied()
    }

    fn shards(&self) -> BTreeSet<ShardId> {
        self.placement.iter().copied().collect()
    }
}
