//! The service Admin.

use std::collections::HashMap;
use std::sync::Arc;

use esker_env::Env;
use esker_log::{Alteration, Engine, TopicError, TopicView};
use esker_proto::v1;
use esker_proto::v1::admin_server::Admin;
use esker_segment::Depth;
use esker_shard::{ConfigChange, RequestId, TopicConfig};
use esker_types::limits::{
    PARTITIONS_PER_TOPIC_MAX, READ_REPLIES_WAITING, TOPIC_PAGE, VERIFICATIONS_MAX,
};
use esker_types::{
    Durability, Offset, PartitionId, PartitionIndex, ShardId, TopicId, TopicName, TopicVersion,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::fault;
use crate::position;
use crate::server::Cluster;
use crate::status::{accept_time, status};
use crate::stream::{Replies, replies};
use crate::verifying::{Verifying, no_place};

/// Where a partition is to start.
struct Start {
    shard: ShardId,
    partition: PartitionId,
    to: Offset,
}

/// Serves topics and the cluster. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct AdminService {
    engine: Engine,
    env: Env,
    cluster: Cluster,
    verifications: Arc<Semaphore>,
}

impl AdminService {
    pub(crate) fn new(engine: Engine, env: Env, cluster: Cluster) -> Self {
        Self {
            engine,
            env,
            cluster,
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
        }
    }

    /// Where a partition is to start, of the topic that was `seen`, if one was.
    async fn start(
        &self,
        topic: &TopicName,
        seen: Option<TopicId>,
        truncation: v1::Truncation,
    ) -> Result<Start, v1::Error> {
        let before = truncation.before;
        let before = before.map(|before| esker_proto::offset("before", before));
        let before = before.transpose()?;
        let index = PartitionIndex(truncation.partition);
        let found = self.engine.topics().partition_of(topic, seen, index).await;
        let (_, shard, partition) = found.map_err(not_trimmed)?;
        let start = |to| Start {
            shard,
            partition,
            to,
        };
        if let Some(before) = before {
            return Ok(start(before));
        }
        let bounds = self.engine.readers().bounds(shard, partition).await;
        let bounds = bounds.map_err(|error| v1::Error {
            // Nothing is truncated yet.
            durability: v1::Durability::from(Durability::NotWritten).into(),
            ..fault::of_read(&error, topic)
        })?;
        Ok(start(bounds.end))
    }

    /// Watermarks of all partitions, with one question to each shard.
    async fn partitions(&self, topic: &TopicView) -> Result<Vec<v1::PartitionStatus>, v1::Error> {
        let found = position::partitions(&self.engine, topic).await?;
        let partitions = found.into_iter().map(|found| v1::PartitionStatus {
            partition: found.partition.index.0,
            shard: found.shard.0,
            log_start: found.bounds.log_start.get(),
            tiered_end: found.bounds.tiered_end.get(),
            end: found.bounds.end.get(),
        });
        Ok(partitions.collect())
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicReply>, Status> {
        let request = request.into_inner();
        let name = fault::topic_name(&request.name)?;
        let partitions = request.partitions;
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
            let text =
                format!("a topic has 1 to {PARTITIONS_PER_TOPIC_MAX} partitions, not {partitions}");
            let error = fault::invalid(text);
            let limit = u64::from(PARTITIONS_PER_TOPIC_MAX);
            return Err(error.with_limit(limit, partitions.into()).into());
        }
        let config = config(&request.settings)?;
        let id = request_id(&request.request_id, &self.env)?;
        let created = self
            .engine
            .topics()
            .create(id, &name, partitions, config)
            .await;
        let created = created.map_err(fault::of_topic)?;
        Ok(Response::new(v1::CreateTopicReply {
            topic: Some(topic(&created)),
        }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsReply>, Status> {
        let v1::ListTopicsRequest { after, limit } = request.into_inner();
        let after = (!after.is_empty()).then(|| fault::topic_name(&after));
        let count = match limit {
            0 => TOPIC_PAGE,
            limit => TOPIC_PAGE.min(limit as usize),
        };
        let listed = self
            .engine
            .topics()
            .list(after.transpose()?.as_ref(), count)
            .await;
        let (topics, more) = listed.map_err(fault::of_topic)?;
        Ok(Response::new(v1::ListTopicsReply {
            topics: topics.iter().map(topic).collect(),
            more,
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicReply>, Status> {
        let name = fault::topic_name(&request.into_inner().name)?;
        let found = self.engine.topics().find(&name).await;
        let found = found.map_err(fault::of_topic)?;
        Ok(Response::new(v1::DescribeTopicReply {
            topic: Some(topic(&found)),
            partitions: self.partitions(&found).await?,
        }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicReply>, Status> {
        let request = request.into_inner();
        let name = fault::topic_name(&request.name)?;
        let alteration = Alteration {
            changes: changes(&request.settings)?,
            partitions: request.partitions,
            expected: request.expected_version.map(TopicVersion),
        };
        let altered = self.engine.topics().alter(&name, alteration).await;
        let altered = altered.map_err(fault::of_topic)?;
        Ok(Response::new(v1::AlterTopicReply {
            topic: Some(topic(&altered)),
        }))
    }

    async fn truncate_topic(
        &self,
        request: Request<v1::TruncateTopicRequest>,
    ) -> Result<Response<v1::TruncateTopicReply>, Status> {
        let request = request.into_inner();
        let name = fault::topic_name(&request.name)?;
        let (limit, value) = (PARTITIONS_PER_TOPIC_MAX, request.truncations.len());
        if value > limit as usize {
            let text = format!("the request names {value} partitions, the limit is {limit}");
            let error = fault::invalid(text).with_limit(limit.into(), value as u64);
            return Err(error.into());
        }
        // All is looked up before anything is done: what is wrong stops it whole, and an end is the
        // end of now, whatever the others take. From the first on it is one topic: the name may be
        // given to another at any time.
        let mut seen = fault::topic_id(request.topic_id)?;
        let mut planned = Vec::with_capacity(request.truncations.len());
        for truncation in request.truncations {
            let start = self.start(&name, seen, truncation).await?;
            seen = Some(start.partition.topic);
            planned.push(start);
        }
        let mut truncated = Vec::with_capacity(planned.len());
        for start in planned {
            let topics = self.engine.topics();
            let trimmed = topics.trim(&name, start.shard, start.partition, start.to);
            let trimmed = trimmed.await.map_err(not_trimmed);
            let partition = start.partition.index.0;
            let log_start = trimmed.map_err(|error| halfway(error, partition, &truncated))?;
            truncated.push(v1::Truncated {
                partition,
                log_start: log_start.get(),
            });
        }
        Ok(Response::new(v1::TruncateTopicReply { truncated }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicReply>, Status> {
        let name = fault::topic_name(&request.into_inner().name)?;
        let deleted = self.engine.topics().delete(&name).await;
        deleted.map_err(fault::of_topic)?;
        Ok(Response::new(v1::DeleteTopicReply {}))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusReply>, Status> {
        let stand = status(&self.engine, &self.cluster).await;
        Ok(Response::new(stand.map_err(fault::of_head)?))
    }

    type VerifyStream = Replies<v1::VerifyReply>;

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let depth = match v1::VerifyDepth::try_from(request.into_inner().depth) {
            Ok(v1::VerifyDepth::Objects) => Depth::Checksums,
            Ok(v1::VerifyDepth::Content) => Depth::Content,
            Err(_) => {
                let text = "the depth is unknown; 0 is OBJECTS, 1 is CONTENT";
                return Err(fault::invalid(text).into());
            }
        };
        let place = Arc::clone(&self.verifications).try_acquire_owned();
        let verifying = Verifying {
            engine: self.engine.clone(),
            depth,
            _place: place.map_err(|_| no_place())?,
        };
        let stream = replies(READ_REPLIES_WAITING, |replies| verifying.run(replies));
        Ok(Response::new(stream))
    }

    async fn accept_time(
        &self,
        request: Request<v1::AcceptTimeRequest>,
    ) -> Result<Response<v1::AcceptTimeReply>, Status> {
        let there = self.engine.head().shards();
        let mut shards: Vec<_> = request.into_inner().shards;
        shards.sort_unstable();
        shards.dedup();
        let shards: Vec<_> = shards.into_iter().map(ShardId).collect();
        if let Some(unknown) = shards.iter().find(|shard| !there.contains(shard)) {
            let count = there.len();
            let text = format!(
                "there is no data shard {}: they are 1 to {count}; no time was accepted",
                unknown.0
            );
            return Err(fault::invalid(text).into());
        }
        let shards = accept_time(&self.engine, shards).await;
        let shards = shards.map_err(fault::of_head)?;
        Ok(Response::new(v1::AcceptTimeReply { shards }))
    }

    async fn flush(
        &self,
        _: Request<v1::FlushRequest>,
    ) -> Result<Response<v1::FlushReply>, Status> {
        let flushed = self.engine.flush_now().await.map_err(fault::of_flush)?;
        Ok(Response::new(v1::FlushReply {
            segments: flushed.segments,
            bytes: flushed.bytes,
        }))
    }
}

/// Why a partition was not truncated.
fn not_trimmed(error: TopicError) -> v1::Error {
    let anew = matches!(error, TopicError::MadeAnew { .. });
    let mut told = fault::of_topic(error);
    if anew {
        told.message
            .push_str("; nothing was trimmed of the new one");
    }
    told
}

/// What the failure of a partition means when others are truncated already.
fn halfway(error: v1::Error, partition: u32, truncated: &[v1::Truncated]) -> v1::Error {
    if truncated.is_empty() {
        return error;
    }
    let done = truncated.iter().map(|one| {
        let v1::Truncated {
            partition,
            log_start,
        } = one;
        format!("partition {partition} starts at {log_start} now")
    });
    let done: Vec<_> = done.collect();
    v1::Error {
        durability: v1::Durability::from(Durability::Unknown).into(),
        message: format!(
            "partition {partition} and those behind it are not known to be truncated: {}; {}",
            error.message,
            done.join(", ")
        ),
        ..error
    }
}

fn topic(view: &TopicView) -> v1::Topic {
    let settings = view.config.settings();
    let settings = settings
        .iter()
        .map(|change| (change.key().to_owned(), change.to_string()));
    v1::Topic {
        name: view.name.as_str().to_owned(),
        id: view.id.as_u64(),
        version: view.version.0,
        partitions: view.partitions(),
        settings: settings.collect(),
    }
}

/// Settings as a list of changes; an empty value stands for the default.
fn changes(settings: &HashMap<String, String>) -> Result<Vec<ConfigChange>, v1::Error> {
    let default = TopicConfig::default().settings();
    let mut changes = Vec::with_capacity(settings.len());
    for (key, value) in settings {
        let known = default.iter().find(|change| change.key() == key);
        let change = match known {
            Some(known) if value.is_empty() => Ok(known.clone()),
            _ => ConfigChange::parse(key, value),
        };
        // A status is cut to what it may carry, so the key may be of any length.
        let refused = |error| fault::invalid(format!("the setting {key:?}: {error}"));
        changes.push(change.map_err(refused)?);
    }
    // A map has no order, and a command must not depend on one.
    changes.sort_by_key(ConfigChange::key);
    Ok(changes)
}

fn config(settings: &HashMap<String, String>) -> Result<TopicConfig, v1::Error> {
    let changes = changes(settings)?;
    let config = changes
        .iter()
        .try_fold(TopicConfig::default(), TopicConfig::with);
    config.map_err(|error| fault::invalid(error.to_string()))
}

fn request_id(bytes: &[u8], env: &Env) -> Result<RequestId, v1::Error> {
    if bytes.is_empty() {
        return Ok(RequestId(env.entropy.next_u128()));
    }
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        fault::invalid(format!(
            "`request_id` has {} bytes, it needs 16 or none",
            bytes.len()
        ))
    })?;
    Ok(RequestId(u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_partition_is_truncated_a_failure_is_not_nothing() {
        let refused = || v1::Error::new(v1::Code::Unavailable, Durability::NotWritten, "no leader");
        assert_eq!(halfway(refused(), 0, &[]), refused());
        let truncated = [(0, 70), (2, 9)].map(|(partition, log_start)| v1::Truncated {
            partition,
            log_start,
        });
        let error = halfway(refused(), 3, &truncated);
        assert_eq!(error.durability(), v1::Durability::Unknown);
        assert_eq!(error.code(), v1::Code::Unavailable);
        for word in [
            "partition 3",
            "no leader",
            "partition 0 starts at 70",
            "partition 2 starts at 9",
        ] {
            assert!(error.message.contains(word), "{word}: {}", error.message);
        }
    }
}
