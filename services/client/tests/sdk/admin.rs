//! The topics of the service in memory.

use std::collections::{BTreeMap, HashMap};

use esker_client::{Code, Durability};
use esker_proto::v1;
use esker_proto::v1::admin_server::{Admin, AdminServer};
use futures::stream;
use tonic::{Request, Response, Status};

use crate::service::{Service, error};

/// Topics, and what is to happen to the next calls.
#[derive(Default)]
pub(crate) struct Topics {
    topics: BTreeMap<String, v1::Topic>,
    created: BTreeMap<Vec<u8>, String>,
    /// Creations that are done, but whose reply is lost.
    pub(crate) lost_replies: usize,
    pub(crate) deletions: usize,
    /// Topics there ever were.
    made: u64,
    /// Truncations whose reply is lost, after which somebody makes the topic anew.
    pub(crate) truncations_overtaken: usize,
    /// Truncations that fail half-way, after which somebody appends.
    pub(crate) truncations_failing: usize,
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<&v1::Topic> {
        self.topics.get(name)
    }

    pub(crate) fn create(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let mut all: HashMap<String, String> = HashMap::new();
        all.insert("max_batch_bytes".to_owned(), (1 << 20).to_string());
        all.insert("compression".to_owned(), "zstd".to_owned());
        for (key, value) in settings {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        self.made += 1;
        let topic = v1::Topic {
            name: name.to_owned(),
            id: self.made,
            version: 1,
            partitions,
            settings: all,
        };
        self.topics.insert(name.to_owned(), topic);
    }
}

impl Service {
    pub(crate) fn admin(&self) -> AdminServer<Self> {
        AdminServer::new(self.clone())
    }

    fn topic(&self, name: &str) -> Result<v1::Topic, Status> {
        let state = self.state();
        let found = state.topics.get(name).cloned();
        found.ok_or_else(|| error(Code::UnknownTopic, Durability::NotWritten).into())
    }
}

#[tonic::async_trait]
impl Admin for Service {
    type VerifyStream = stream::Iter<std::vec::IntoIter<Result<v1::VerifyReply, Status>>>;

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicReply>, Status> {
        let request = request.into_inner();
        let id = request.request_id.to_vec();
        let again = self.state().topics.created.get(&id) == Some(&request.name);
        if !again {
            if self.topic(&request.name).is_ok() {
                return Err(error(Code::TopicExists, Durability::NotWritten).into());
            }
            let mut state = self.state();
            let settings: Vec<_> = request.settings.iter().collect();
            let settings: Vec<_> = settings
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            state
                .topics
                .create(&request.name, request.partitions, &settings);
            state.topics.created.insert(id, request.name.clone());
        }
        let mut state = self.state();
        if state.topics.lost_replies > 0 {
            state.topics.lost_replies -= 1;
            return Err(Status::unavailable("told to lose the reply"));
        }
        drop(state);
        let topic = Some(self.topic(&request.name)?);
        Ok(Response::new(v1::CreateTopicReply { topic }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsReply>, Status> {
        let after = request.into_inner().after;
        let state = self.state();
        let above = state
            .topics
            .topics
            .values()
            .filter(|topic| topic.name > after);
        Ok(Response::new(v1::ListTopicsReply {
            topics: above.cloned().collect(),
            more: false,
        }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicReply>, Status> {
        Ok(Response::new(v1::DescribeTopicReply {
            topic: Some(self.topic(&request.into_inner().name)?),
            partitions: Vec::new(),
        }))
    }

    async fn alter_topic(
        &self,
        _: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicReply>, Status> {
        Err(error(Code::VersionConflict, Durability::NotWritten)
            .with_detail(v1::error::Detail::Version(7))
            .into())
    }

    async fn truncate_topic(
        &self,
        request: Request<v1::TruncateTopicRequest>,
    ) -> Result<Response<v1::TruncateTopicReply>, Status> {
        let request = request.into_inner();
        let topic = self.topic(&request.name)?;
        let mut state = self.state();
        state.truncations.push(request.clone());
        if request.topic_id.is_some_and(|seen| seen != topic.id) {
            return Err(error(Code::UnknownTopic, Durability::NotWritten).into());
        }
        let mut truncated = Vec::new();
        for one in request.truncations {
            let key = (request.name.clone(), one.partition);
            let partition = state.partitions.entry(key).or_default();
            partition.log_start = one.before.unwrap_or(partition.end);
            truncated.push(v1::Truncated {
                partition: one.partition,
                log_start: partition.log_start,
            });
            if state.topics.truncations_failing > 0 {
                state.topics.truncations_failing -= 1;
                state.partitions.values_mut().for_each(|any| any.end += 10);
                return Err(error(Code::Unavailable, Durability::NotWritten).into());
            }
        }
        if state.topics.truncations_overtaken > 0 {
            state.topics.truncations_overtaken -= 1;
            state.make_anew(&request.name);
            return Err(Status::unavailable("told to lose the reply"));
        }
        Ok(Response::new(v1::TruncateTopicReply { truncated }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicReply>, Status> {
        let mut state = self.state();
        state.topics.deletions += 1;
        state.topics.topics.remove(&request.into_inner().name);
        Err(Status::unavailable("told to lose the reply"))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusReply>, Status> {
        Ok(Response::new(v1::ClusterStatusReply::default()))
    }

    async fn accept_time(
        &self,
        _: Request<v1::AcceptTimeRequest>,
    ) -> Result<Response<v1::AcceptTimeReply>, Status> {
        Ok(Response::new(v1::AcceptTimeReply::default()))
    }

    async fn flush(
        &self,
        _: Request<v1::FlushRequest>,
    ) -> Result<Response<v1::FlushReply>, Status> {
        Ok(Response::new(v1::FlushReply::default()))
    }

    async fn verify(
        &self,
        _: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let replies = [false, true].map(|done| {
            Ok(v1::VerifyReply {
                done,
                ..v1::VerifyReply::default()
            })
        });
        Ok(Response::new(stream::iter(Vec::from(replies))))
    }
}
