//! Reads a bucket with no cluster: the history that a cluster has written there, whether it runs,
//! stands still or is gone.
//!
//! ```text
//!   cluster/ ─► the newest life ─► its shards ─┬─ newest checkpoint: topics, log starts, manifest
//!                                              └─ flushed segments above it, chained by raft index
//!   read:  segments in order ─► share ─► index pages ─► blocks ─► batches, each checked
//!                               └──────── read ahead, bounded in bytes ───────┘
//! ```
//! Nothing is written, nothing is locked, no condition is asked of the bucket. What was appended
//! and not flushed is not there, and a trim or a deletion may show only once the shard's next
//! checkpoint does. Offsets go on without a gap or the read ends with [`Code::DataLoss`]: nothing
//! is ever skipped.
//!
//! ```no_run
//! use esker_client::direct::{Direct, StoreOptions};
//! use esker_client::{From, Until};
//! use esker_env::Env;
//!
//! # async fn example() -> Result<(), esker_client::Error> {
//! let (url, options) = ("file:///var/lib/esker/bucket", StoreOptions::default());
//! let direct = Direct::open(url, &options, &Env::real()).await?;
//! for topic in direct.topics() {
//!     let mut reader = direct.read(topic.name, 0, From::Earliest, Until::End).await?;
//!     while let Some(batch) = reader.next().await? {
//!         assert!(batch.records().count() > 0);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod bucket; // objects, read and checked
mod chain; // which segments are the log
mod load; // blocks fetched, batches opened
mod read; // the batches of a partition, ahead of who reads them
mod survey; // what stands in a bucket
mod trimmed; // what is not there any more, and is no loss

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use esker_env::Env;
pub use esker_object::Options as StoreOptions;
use esker_object::Store;
use esker_proto::v1;
use esker_shard::Catalog;
use esker_types::{
    Durability, Incarnation, Offset, PartitionId, PartitionIndex, ShardId, Timestamp, TopicId,
    TopicName,
};

use crate::error::{Code, Detail, Error};
use crate::reader::{From, Until};
use bucket::{Bucket, refused};
pub use read::DirectReader;
use read::{Plan, Wanted};
use survey::{Seen, Shard};

/// What a bucket held when it was opened. Clones share everything.
#[derive(Clone)]
pub struct Direct {
    env: Env,
    bucket: Bucket,
    incarnation: Incarnation,
    shards: Arc<BTreeMap<ShardId, Arc<Shard>>>,
    topics: Arc<BTreeMap<TopicName, Topic>>,
    notes: Arc<[String]>,
}

/// A topic of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its id.
    pub id: TopicId,
    /// Its partitions, as far as the bucket knows of them: from 0 to one less than this.
    pub partitions: u32,
}

/// Where a partition begins and ends in a bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectOffsets {
    /// Which partition.
    pub partition: u32,
    /// Its first offset.
    pub log_start: Offset,
    /// The first offset that is not in the bucket.
    pub end: Offset,
    /// Why there is more than can be read, if there is: what a read up to [`Until::End`] ends with.
    pub broken: Option<String>,
}

#[derive(Clone, Debug)]
struct Topic {
    id: TopicId,
    partitions: u32,
    /// The shard of each, as far as the catalog's checkpoint tells.
    placement: Vec<ShardId>,
}

impl Direct {
    /// Looks through the bucket at `url` (`file:///…`, `s3://…`, `gs://…`, `az://…`). It opens the
    /// segments that no checkpoint names yet; keeps some hundred bytes of each partition and each
    /// segment.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] if the URL or a setting is wrong, the bucket denies it, nothing of a
    /// cluster stands there, or a newer build wrote it; [`Code::BucketUnavailable`].
    pub async fn open(url: &str, options: &StoreOptions, env: &Env) -> Result<Self, Error> {
        let store = Store::open(url, options, env).map_err(|error| refused(&error))?;
        Self::over(store, env).await
    }

    /// The same, of a store that is open.
    ///
    /// # Errors
    /// As [`Direct::open`].
    pub async fn over(store: Store, env: &Env) -> Result<Self, Error> {
        let bucket = Bucket(store);
        let mut notes = Vec::new();
        let incarnation = survey::newest_incarnation(&bucket, &mut notes).await?;
        let mut shards = BTreeMap::new();
        for id in survey::shards(&bucket, incarnation).await? {
            let shard = Shard::survey(&bucket, incarnation, id, &mut notes).await?;
            shards.insert(id, Arc::new(shard));
        }
        let topics = topics(&shards, incarnation);
        Ok(Self {
            env: env.clone(),
            bucket,
            incarnation,
            shards: Arc::new(shards),
            topics: Arc::new(topics),
            notes: notes.into(),
        })
    }

    /// The life of the cluster that is read: the newest one that is whole.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What a person should know of the bucket: objects that were passed over, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = DirectTopic<'_>> {
        self.topics.iter().map(|(name, topic)| DirectTopic {
            name: name.as_str(),
            id: topic.id,
            partitions: topic.partitions,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`]; [`Code::DataLoss`] if what cannot be read may name it.
    pub fn topic<'a>(&self, name: &'a str) -> Result<DirectTopic<'a>, Error> {
        let topic = self.known(name)?;
        Ok(DirectTopic {
            name,
            id: topic.id,
            partitions: topic.partitions,
        })
    }

    /// Where each partition of `topic` begins and ends, from partition 0.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`].
    pub fn offsets(&self, topic: &str) -> Result<Vec<DirectOffsets>, Error> {
        let topic = self.known(topic)?;
        let partitions = 0..topic.partitions;
        let offsets = partitions.map(|partition| {
            let id = PartitionId {
                topic: topic.id,
                index: PartitionIndex(partition),
            };
            let found = self.seen(id);
            DirectOffsets {
                partition,
                log_start: found.map_or(Offset::ZERO, |(_, seen)| seen.log_start),
                end: found.map_or(Offset::ZERO, |(_, seen)| seen.end),
                broken: self.broken(topic, id).cloned(),
            }
        });
        Ok(offsets.collect())
    }

    /// Reads a partition. [`Until::End`] is where it ends in the bucket.
    ///
    /// # Errors
    /// [`Code::UnknownTopic`], [`Code::UnknownPartition`], [`Code::OffsetOutOfRange`] with the
    /// range; by time, what the reader may meet.
    pub async fn read(
        &self,
        topic: &str,
        partition: u32,
        from: From,
        until: Until,
    ) -> Result<DirectReader, Error> {
        let plan = self.plan(topic, partition)?;
        let (log_start, end) = (plan.wanted.from, plan.wanted.to);
        let times = match (from, until) {
            (From::Time(from), Until::Time(until)) => vec![from, until],
            (From::Time(time), _) | (_, Until::Time(time)) => vec![time],
            _ => Vec::new(),
        };
        let found = plan.by_time(&times).await?;
        let at = |time: Timestamp| {
            let mut pairs = times.iter().zip(&found);
            pairs.find_map(|(asked, found)| found.filter(|_| *asked == time))
        };
        let from = match from {
            From::Earliest => log_start,
            From::End => end,
            From::Offset(offset) if offset < log_start || offset > end => {
                return Err(out_of_range(topic, partition, offset, log_start, end));
            }
            From::Offset(offset) => offset,
            From::Time(time) => at(time).unwrap_or(end),
        };
        let (to, whole) = match until {
            Until::End => (end, true),
            Until::Offset(offset) => (offset.min(end), offset > end),
            Until::Time(time) => match at(time) {
                Some(found) => (found, false),
                None => (end, true),
            },
        };
        Ok(plan.start(from, to.max(from), whole))
    }

    fn plan(&self, topic: &str, partition: u32) -> Result<Plan, Error> {
        let found = self.partition(topic, partition)?;
        let id = PartitionId {
            topic: found.id,
            index: PartitionIndex(partition),
        };
        let seen = self.seen(id);
        let wanted = Wanted {
            topic: topic.to_owned(),
            partition: id,
            from: seen.map_or(Offset::ZERO, |(_, seen)| seen.log_start),
            to: seen.map_or(Offset::ZERO, |(_, seen)| seen.end),
            mark: v1::Mark {
                incarnation: self.incarnation.get(),
                index: seen.map_or(0, |(shard, _)| shard.end.0),
            },
        };
        Ok(Plan {
            env: self.env.clone(),
            bucket: self.bucket.clone(),
            incarnation: self.incarnation,
            shard: seen.map(|(shard, _)| Arc::clone(shard)),
            broken: self.broken(found, id).cloned(),
            wanted,
        })
    }

    fn partition(&self, topic: &str, partition: u32) -> Result<&Topic, Error> {
        let found = self.known(topic)?;
        if partition < found.partitions {
            return Ok(found);
        }
        let text = format!(
            "partition {partition} of {topic} is not in the bucket, which knows of {}: 0 to {}",
            found.partitions,
            found.partitions.saturating_sub(1)
        );
        let error = Error::new(Code::UnknownPartition, Durability::NotWritten, text);
        Err(error)
    }

    fn known(&self, name: &str) -> Result<&Topic, Error> {
        let parsed = TopicName::new(name).ok();
        parsed
            .and_then(|name| self.topics.get(&name))
            .ok_or_else(|| {
                let url = self.bucket.0.url();
                let broken = self.shards.values().find_map(|shard| shard.why_more(None));
                let (code, why) = match broken {
                    Some(why) => (Code::DataLoss, format!("as far as it can be read: {why}")),
                    None => (Code::UnknownTopic, "as far as it was flushed".to_owned()),
                };
                let text = format!("no topic `{name}` in {url}, {why}");
                Error::new(code, Durability::Unknown, text)
            })
    }

    /// Why `partition` may go on behind what can be read of it. Of one that nothing shows any
    /// shard may hold more.
    fn broken(&self, topic: &Topic, partition: PartitionId) -> Option<&String> {
        let placed = topic.placement.get(partition.index.0 as usize);
        match (self.seen(partition), placed) {
            (Some((shard, seen)), _) => shard.why_more(Some(seen)),
            (None, Some(shard)) => self.shards.get(shard)?.why_more(None),
            (None, None) => self.shards.values().find_map(|shard| shard.why_more(None)),
        }
    }

    fn seen(&self, partition: PartitionId) -> Option<(&Arc<Shard>, &Seen)> {
        let of = |shard| -> Option<_> {
            let shard: &Arc<Shard> = shard;
            Some((shard, shard.partitions.get(&partition)?))
        };
        self.shards.values().find_map(of)
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct")
            .field("url", &self.bucket.0.url())
            .field("incarnation", &self.incarnation)
            .field("topics", &self.topics.len())
            .finish_non_exhaustive()
    }
}

/// The topics that live, by name: what the catalog's checkpoint says, and what segments show that
/// were written since.
fn topics(
    shards: &BTreeMap<ShardId, Arc<Shard>>,
    incarnation: Incarnation,
) -> BTreeMap<TopicName, Topic> {
    let states = shards.values().filter_map(|shard| shard.state.as_ref());
    let catalog = states.into_iter().find_map(esker_shard::State::catalog);
    let mut topics: BTreeMap<TopicName, Topic> = BTreeMap::new();
    let mut ended: BTreeSet<TopicId> = BTreeSet::new();
    for shard in shards.values() {
        ended.extend(&shard.ended);
    }
    for (id, topic) in catalog.into_iter().flat_map(Catalog::topics) {
        if topic.awaiting().is_some() || ended.contains(&id) {
            ended.insert(id);
            continue;
        }
        let of_catalog = Topic {
            id,
            partitions: topic.partition_count(),
            placement: topic.placement().to_vec(),
        };
        topics.insert(topic.name().clone(), of_catalog);
    }
    let lives = |shard: &Shard, id: TopicId| {
        let data = shard.state.as_ref().and_then(esker_shard::State::data);
        let ended_there = data.is_some_and(|data| data.has_ended(id));
        let unknown = catalog.is_some_and(|catalog| {
            let given = id.incarnation() != incarnation || id.sequence() < catalog.next_topic();
            given && catalog.topic(id).is_none()
        });
        !ended_there && !unknown && !ended.contains(&id)
    };
    for shard in shards.values() {
        for (partition, seen) in &shard.partitions {
            if !lives(shard, partition.topic) {
                continue;
            }
            let fresh = || Topic {
                id: partition.topic,
                partitions: 0,
                placement: Vec::new(),
            };
            let topic = topics.entry(seen.topic.clone()).or_insert_with(fresh);
            if partition.topic > topic.id {
                *topic = fresh(); // of two of one name, the older must have ended
            }
            if partition.topic == topic.id {
                topic.partitions = topic.partitions.max(partition.index.0.saturating_add(1));
            }
        }
    }
    topics
}

fn out_of_range(
    topic: &str,
    partition: u32,
    offset: Offset,
    log_start: Offset,
    end: Offset,
) -> Error {
    let text = format!(
        "offset {offset} of {topic}/{partition} is not in the bucket, which holds [{log_start}, {end})"
    );
    let error = v1::Error::new(Code::OffsetOutOfRange, Durability::NotWritten, text);
    let range = v1::OffsetOutOfRange {
        log_start: log_start.get(),
        end: end.get(),
    };
    error.with_detail(Detail::OutOfRange(range)).into()
}
