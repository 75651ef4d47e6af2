//! Ways to nodes that are asked about their members.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use esker_env::Network;
use esker_proto::internal as wire;
use esker_proto::internal::members_client::MembersClient;
use esker_proto::{transport, tuning};
use esker_types::limits::MEMBERS_CHANGE_MAX;
use esker_types::{ClusterId, NodeId, ShardId};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::step::Stood;
use super::words;

/// Bytes of a message: every shard with a few holders.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The metadata that says of which cluster a call is.
pub(super) const CLUSTER: &str = "esker-cluster";
/// How long an answer may take that says what is known.
const SHOW_MAX: Duration = Duration::from_secs(3);

/// The way to one node.
#[derive(Clone)]
pub struct Calling {
    cluster: ClusterId,
    address: String,
    client: MembersClient<Channel>,
}

/// What a change came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// It is so.
    Done,
    /// Who was asked does not lead; nothing was changed.
    NotLeader,
    /// It is refused, and why; nothing was changed.
    Refused(String),
    /// It may have been changed, and what happened.
    Unknown(String),
}

impl Calling {
    /// The way to the node of `cluster` at `address`, `host:port`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(
        network: &Arc<dyn Network>,
        cluster: ClusterId,
        address: &str,
    ) -> Result<Self, String> {
        let endpoint = tuning::peer_endpoint(&format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| format!("`{address}` is no address: {error}"))?;
        let channel = transport::channel(Arc::clone(network), &endpoint);
        let client = MembersClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            cluster,
            address: address.to_owned(),
            client,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Who holds each of its shards, as it knows.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn show(&self) -> Result<Vec<Stood>, String> {
        let request = self.of(wire::ShowMembersRequest {}, SHOW_MAX);
        let shown = self.client.clone().show(request).await;
        let shown = shown.map_err(|status| self.failed(&status))?;
        let read = words::read_shown(shown.into_inner());
        read.map_err(|fault| format!("{}: its answer is none: {fault}", self.address))
    }

    /// Has `node` hold `shard`.
    pub async fn admit(&self, shard: ShardId, node: NodeId, address: &str) -> Changed {
        let request = wire::AdmitRequest {
            shard: shard.0,
            node: node.as_u64(),
            address: address.to_owned(),
        };
        let request = self.of(request, 2 * MEMBERS_CHANGE_MAX);
        self.changed(self.client.clone().admit(request).await)
    }

    /// Has `node`, which holds `shard`, vote on it.
    pub async fn promote(&self, shard: ShardId, node: NodeId) -> Changed {
        let (shard, node) = (shard.0, node.as_u64());
        let request = self.of(wire::PromoteRequest { shard, node }, 2 * MEMBERS_CHANGE_MAX);
        self.changed(self.client.clone().promote(request).await)
    }

    /// Has `node` hold `shard` no more, or takes a step to it.
    pub async fn remove(&self, shard: ShardId, node: NodeId) -> Changed {
        let (shard, node) = (shard.0, node.as_u64());
        let request = self.of(wire::RemoveRequest { shard, node }, 2 * MEMBERS_CHANGE_MAX);
        self.changed(self.client.clone().remove(request).await)
    }

    /// Asks `node` to lead `shard`. Whether it comes to that, an election decides.
    pub async fn hand_over(&self, shard: ShardId, node: NodeId) -> Changed {
        let (shard, node) = (shard.0, node.as_u64());
        let request = self.of(wire::HandOverRequest { shard, node }, SHOW_MAX);
        self.changed(self.client.clone().hand_over(request).await)
    }

    fn of<T>(&self, message: T, time: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(time);
        let cluster = AsciiMetadataValue::try_from(self.cluster.to_string());
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, cluster.expect("digits"));
        request
    }

    fn changed(&self, answer: Result<Response<wire::MembersReply>, Status>) -> Changed {
        match answer {
            Ok(reply) => words::read_outcome(reply.into_inner()),
            // The guard has not let it through.
            Err(status) if is_barred(&status) => Changed::Refused(self.failed(&status)),
            Err(status) => Changed::Unknown(self.failed(&status)),
        }
    }

    fn failed(&self, status: &Status) -> String {
        format!("{}: {}", self.address, status.message())
    }
}

fn is_barred(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated
    )
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calling({})", self.address)
    }
}
