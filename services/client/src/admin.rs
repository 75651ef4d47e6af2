//! Topics and the cluster.

use std::collections::BTreeMap;

use esker_proto::v1;
use esker_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::client::{Again, Client};
use crate::error::Error;

/// What may be done to topics and to the cluster. The messages are those of `admin.proto`.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a topic. Settings that are not named take their defaults.
    ///
    /// # Errors
    /// `TOPIC_EXISTS` if somebody else made it; a retry of this call is recognised.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &BTreeMap<String, String>,
    ) -> Result<v1::Topic, Error> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            settings: settings.clone().into_iter().collect(),
            request_id: self
                .client
                .env
                .entropy
                .next_u128()
                .to_be_bytes()
                .to_vec()
                .into(),
        };
        let reply = self.call(Again::Yes, request, async |mut stub, request| {
            stub.create_topic(request).await
        });
        reply.await?.topic.ok_or_else(no_topic)
    }

    /// Topics by name, at most 1000 of those above `after`, and whether there are more.
    ///
    /// # Errors
    /// What a call may meet.
    pub async fn list_topics(&self, after: &str) -> Result<(Vec<v1::Topic>, bool), Error> {
        let request = v1::ListTopicsRequest {
            after: after.to_owned(),
            limit: 0,
        };
        let reply = self.call(Again::Reading, request, async |mut stub, request| {
            stub.list_topics(request).await
        });
        let reply = reply.await?;
        Ok((reply.topics, reply.more))
    }

    /// A topic and its partitions.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`.
    pub async fn describe_topic(
        &self,
        name: &str,
    ) -> Result<(v1::Topic, Vec<v1::PartitionStatus>), Error> {
        let request = v1::DescribeTopicRequest {
            name: name.to_owned(),
        };
        let reply = self.call(Again::Reading, request, async |mut stub, request| {
            stub.describe_topic(request).await
        });
        let reply = reply.await?;
        Ok((reply.topic.ok_or_else(no_topic)?, reply.partitions))
    }

    /// Changes settings, or the number of partitions.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `VERSION_CONFLICT`, `INVALID_REQUEST`.
    pub async fn alter_topic(&self, request: v1::AlterTopicRequest) -> Result<v1::Topic, Error> {
        // With a version, a second one that was done already would be a conflict.
        let reply = self.call(Again::IfNotWritten, request, async |mut stub, request| {
            stub.alter_topic(request).await
        });
        reply.await?.topic.ok_or_else(no_topic)
    }

    /// Moves log starts up. The end of a partition, where one is asked for, is settled first, once:
    /// what comes in after that stays, however often the call is made again. So does what is in a
    /// topic of this name that was made meanwhile: the topic is the one with the id `seen`, as
    /// [`Client::offsets`] and [`Admin::describe_topic`] tell it, or else the one of now.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`, `UNKNOWN_PARTITION`, `OFFSET_OUT_OF_RANGE`. Partitions may be truncated
    /// already unless nothing was written.
    pub async fn truncate_topic(
        &self,
        name: &str,
        mut seen: Option<u64>,
        mut truncations: Vec<v1::Truncation>,
    ) -> Result<Vec<v1::Truncated>, Error> {
        let asked = |one: &&v1::Truncation| seen.is_none() || one.before.is_none();
        let asked: Vec<u32> = truncations
            .iter()
            .filter(asked)
            .map(|one| one.partition)
            .collect();
        if !asked.is_empty() {
            let found = self.client.offsets(name, &asked, None).await?;
            seen = seen.or_else(|| found.first()?.topic_id);
            let ends: BTreeMap<u32, u64> = found.iter().map(|of| (of.partition, of.end)).collect();
            for one in truncations.iter_mut().filter(|one| one.before.is_none()) {
                let end = ends.get(&one.partition);
                let missing = || Error::odd_reply("it lacks the end of a partition");
                one.before = Some(*end.ok_or_else(missing)?);
            }
        }
        let request = v1::TruncateTopicRequest {
            name: name.to_owned(),
            truncations,
            topic_id: seen,
        };
        let reply = self.call(Again::Yes, request, async |mut stub, request| {
            stub.truncate_topic(request).await
        });
        Ok(reply.await?.truncated)
    }

    /// Deletes a topic: its name is free at once.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC`.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
        };
        // Asked again, it might take a namesake that was made meanwhile.
        let reply = self.call(Again::IfNotWritten, request, async |mut stub, request| {
            stub.delete_topic(request).await
        });
        reply.await.map(|_| ())
    }

    /// How the cluster fares, as the agent that answers sees it.
    ///
    /// # Errors
    /// What a call may meet.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatusReply, Error> {
        let request = v1::ClusterStatusRequest {};
        let reply = self.call(Again::Reading, request, async |mut stub, request| {
            stub.cluster_status(request).await
        });
        reply.await
    }

    /// Moves what is in the head now to the bucket.
    ///
    /// # Errors
    /// `BUCKET_UNAVAILABLE`, and what a call may meet.
    pub async fn flush(&self) -> Result<v1::FlushReply, Error> {
        let request = v1::FlushRequest {};
        let reply = self.call(Again::Yes, request, async |mut stub, request| {
            stub.flush(request).await
        });
        reply.await
    }

    /// Accepts the wall clocks of the leaders of `shards` as they are, of all if none is named, after a jump
    /// that made time stand still; how many shards that was.
    ///
    /// # Errors
    /// What a call may meet.
    pub async fn accept_time(&self, shards: &[u32]) -> Result<u32, Error> {
        let shards = shards.to_vec();
        let request = v1::AcceptTimeRequest { shards };
        let reply = self.call(Again::Yes, request, async |mut stub, request| {
            stub.accept_time(request).await
        });
        Ok(reply.await?.shards)
    }

    /// Proves that bucket, manifest and head agree. A stream that breaks begins anew with another
    /// call.
    ///
    /// # Errors
    /// What a call may meet.
    pub async fn verify(&self, depth: v1::VerifyDepth) -> Result<Verification, Error> {
        let request = v1::VerifyRequest {
            depth: depth.into(),
        };
        let reply = self.call(Again::Reading, request, async |mut stub, request| {
            stub.verify(request).await
        });
        Ok(Verification(reply.await?))
    }

    async fn call<Q: Clone, T>(
        &self,
        again: Again,
        request: Q,
        attempt: impl AsyncFn(AdminClient<Channel>, Q) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let stub = self.client.admin_stub();
        self.client
            .call(again, || attempt(stub.clone(), request.clone()))
            .await
    }
}

/// How far a verification has come.
#[derive(Debug)]
pub struct Verification(Streaming<v1::VerifyReply>);

impl Verification {
    /// The next report; `None` after the last.
    ///
    /// # Errors
    /// What a call may meet; verifying has ended then.
    pub async fn next(&mut self) -> Result<Option<v1::VerifyReply>, Error> {
        self.0
            .message()
            .await
            .map_err(|status| Error::from(status).of_a_read())
    }
}

fn no_topic() -> Error {
    Error::odd_reply("it names no topic")
}
