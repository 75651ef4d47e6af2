//! What a node answers about who holds its shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_proto::internal as wire;
use esker_proto::internal::members_server::{Members, MembersServer};
use esker_shard::Catalog;
use esker_types::limits::LEARNER_LAG_MAX;
use esker_types::{ClusterId, NodeId, ShardId};
use esker_wal::{ProposeError, Replica};
use tonic::{Request, Response, Status};

use super::calling::{CLUSTER, MESSAGE_BYTES_MAX};
use super::words;
use crate::adoption::is_address;

/// The service of a node about its members.
#[derive(Clone, Debug)]
pub struct Answering {
    cluster: ClusterId,
    replicas: Arc<BTreeMap<ShardId, Replica>>,
    /// Calls of other clusters.
    refused: Arc<AtomicU64>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Answering {
    /// Answers for `replicas`, of a node of `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId, replicas: impl IntoIterator<Item = Replica>) -> Self {
        let replicas = replicas
            .into_iter()
            .map(|replica| (replica.shard(), replica));
        Self {
            cluster,
            replicas: Arc::new(replicas.collect()),
            refused: Arc::default(),
        }
    }

    /// The service, for a server.
    #[must_use]
    pub fn service(self) -> MembersServer<Self> {
        MembersServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn check<T>(&self, request: Request<T>) -> Result<T, Status> {
        let shown = request.metadata().get(CLUSTER);
        let shown = shown.and_then(|shown| shown.to_str().ok());
        if shown == Some(&self.cluster.to_string()) {
            return Ok(request.into_inner());
        }
        let what = format!(
            "this node is of cluster {}, the call is of {}",
            self.cluster,
            shown.unwrap_or("none")
        );
        let refused = 1 + self.refused.fetch_add(1, Ordering::Relaxed);
        // One line tells of many.
        if refused.is_power_of_two() {
            tracing::warn!(%what, refused, "a call about the members was refused");
        }
        Err(Status::failed_precondition(what))
    }

    fn replica(&self, shard: u32) -> Result<&Replica, Status> {
        let none = || Status::failed_precondition(format!("shard {shard} is not here"));
        self.replicas.get(&ShardId(shard)).ok_or_else(none)
    }
}

/// Whether `node` would come to lead the shard at once, however well: that is for who asks for it to know.
fn can_lead(replica: &Replica, node: NodeId) -> bool {
    let lag = replica.hears(node);
    lag.is_some_and(|lag| lag <= LEARNER_LAG_MAX)
}

/// Whether the catalog, if `replica` is of it, gives the id of `node` to nobody any more: founders have
/// theirs before there is one.
fn is_taken(replica: &Replica, node: NodeId) -> bool {
    let state = replica.state();
    let next = state.catalog().map(Catalog::next_node);
    next.is_none_or(|next| next > node.sequence())
}

#[tonic::async_trait]
impl Members for Answering {
    async fn show(
        &self,
        request: Request<wire::ShowMembersRequest>,
    ) -> Reply<wire::ShowMembersReply> {
        self.check(request)?;
        let shards = self.replicas.values().map(words::shown).collect();
        Ok(Response::new(wire::ShowMembersReply { shards }))
    }

    async fn admit(&self, request: Request<wire::AdmitRequest>) -> Reply<wire::MembersReply> {
        let request = self.check(request)?;
        let node = words::read_node(request.node).map_err(Status::invalid_argument)?;
        if !is_address(&request.address) {
            return Err(Status::invalid_argument("its address is none"));
        }
        let replica = self.replica(request.shard)?;
        let admitted = replica.admit(node, &request.address).await;
        Ok(Response::new(words::outcome(admitted)))
    }

    async fn promote(&self, request: Request<wire::PromoteRequest>) -> Reply<wire::MembersReply> {
        let request = self.check(request)?;
        let node = words::read_node(request.node).map_err(Status::invalid_argument)?;
        let promoted = self.replica(request.shard)?.promote(node).await;
        Ok(Response::new(words::outcome(promoted)))
    }

    async fn remove(&self, request: Request<wire::RemoveRequest>) -> Reply<wire::MembersReply> {
        let request = self.check(request)?;
        let node = words::read_node(request.node).map_err(Status::invalid_argument)?;
        let replica = self.replica(request.shard)?;
        let removed = match is_taken(replica, node) {
            true => replica.remove(node).await,
            false => {
                let what = format!(
                    "the id of {node} is not taken yet, and would be given again: it is in a moment"
                );
                let shard = replica.shard();
                Err(ProposeError::Refused { shard, what })
            }
        };
        Ok(Response::new(words::outcome(removed)))
    }

    async fn hand_over(
        &self,
        request: Request<wire::HandOverRequest>,
    ) -> Reply<wire::MembersReply> {
        let request = self.check(request)?;
        let node = words::read_node(request.node).map_err(Status::invalid_argument)?;
        let replica = self.replica(request.shard)?;
        let handed = match replica.leads_in() {
            Some(_) if can_lead(replica, node) => replica.hand_over(node).await,
            // Nobody would lead until others have noticed.
            Some(_) => {
                let what = format!(
                    "{node} gives no answer, or lacks more than {LEARNER_LAG_MAX} entries: it is \
                     not asked to lead"
                );
                let shard = replica.shard();
                Err(ProposeError::Refused { shard, what })
            }
            None => Err(replica.not_leader()),
        };
        Ok(Response::new(words::outcome(handed)))
    }
}
