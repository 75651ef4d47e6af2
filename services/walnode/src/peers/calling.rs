//! Ways to the other nodes: one connection to each, for all shards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_env::{Network, WallMs};
use esker_proto::internal::raft_client::RaftClient;
use esker_proto::internal::{self as wire};
use esker_proto::streams::{self, Carrying};
use esker_proto::{transport, tuning};
use esker_types::limits::INSTALLS_MAX;
use esker_types::{NodeId, ShardId};
use esker_wal::disk::Vote;
use esker_wal::peers::{
    AppendReplies, AppendReply, AppendRequest, Likeness, Peer, PeerError, Peers, Said,
    TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use esker_wal::raft::Snapshot;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::installing::installed;
use super::pulse::Pulse;
use super::reach::Reach;
use super::words::{self, Fault};

/// The network by which a node is reached: over TLS, one that goes to nobody else.
pub type Ways = Arc<dyn Fn(NodeId) -> Arc<dyn Network> + Send + Sync>;

/// How long a node may take to say what its state was.
const LIKENESS_MAX: Duration = Duration::from_secs(2);

/// Ways to the other nodes. Clones share the connections.
#[derive(Clone)]
pub struct Calling {
    ways: Ways,
    credentials: Credentials,
    lines: Arc<Mutex<BTreeMap<NodeId, Line>>>,
    reach: Reach,
}

impl Calling {
    /// Ways of the node that `credentials` are of.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, credentials: Credentials) -> Self {
        Self::over(Arc::new(move |_| Arc::clone(&network)), credentials)
    }

    /// The same, where each node has a network of its own.
    #[must_use]
    pub fn over(ways: Ways, credentials: Credentials) -> Self {
        let lines = Arc::default();
        Self {
            ways,
            credentials,
            lines,
            reach: Reach::default(),
        }
    }

    /// The connection to `node`, made when it is first used, and the beats that go over it.
    fn line(&self, node: NodeId, address: &str) -> Result<Line, PeerError> {
        let lines = self.lines.lock();
        let mut lines = lines.expect("nothing panics under this lock");
        if let Some(line) = lines.get(&node)
            && line.address == address
        {
            return Ok(line.clone());
        }
        let endpoint = tuning::peer_endpoint(&format!("http://{address}"));
        let none = |error| PeerError(format!("`{address}` of node {node} is no address: {error}"));
        let channel = transport::channel((self.ways)(node), &endpoint.map_err(none)?);
        let (credentials, reach) = (self.credentials, self.reach.clone());
        let pulse = Pulse::start(node, channel.clone(), credentials, reach);
        let line = Line {
            address: address.to_owned(),
            channel,
            pulse,
            snapshots: Arc::new(Semaphore::new(INSTALLS_MAX)),
        };
        lines.insert(node, line.clone());
        Ok(line)
    }
}

/// What is shared by all that is said to a node.
#[derive(Clone)]
struct Line {
    /// Where it was last said to listen.
    address: String,
    channel: Channel,
    pulse: Pulse,
    /// As many as it takes at once: what others had sent already would fill the connection until it is their
    /// turn, and nothing else got through.
    snapshots: Arc<Semaphore>,
}

// One that has sent all that may be sent before it is read leaves room for everything else.
const _: () = assert!(
    (INSTALLS_MAX + 1) * tuning::STREAM_WINDOW_BYTES as usize
        <= tuning::CONNECTION_WINDOW_BYTES as usize
);

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calling(from {})", self.credentials.node)
    }
}

impl Peers for Calling {
    fn peer(&self, shard: ShardId, node: NodeId, address: &str) -> Box<dyn Peer> {
        Box::new(Way {
            calling: self.clone(),
            shard,
            node,
            address: address.to_owned(),
        })
    }
}

/// The way to one replica.
struct Way {
    calling: Calling,
    shard: ShardId,
    node: NodeId,
    address: String,
}

impl Way {
    fn client(&self) -> Result<RaftClient<Channel>, PeerError> {
        let line = self.calling.line(self.node, &self.address)?;
        Ok(RaftClient::new(line.channel)
            .max_decoding_message_size(tuning::PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(tuning::PEER_MESSAGE_BYTES_MAX))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let credentials = &self.calling.credentials;
        credentials.show(self.node, self.shard, request.metadata_mut());
        request
    }

    /// What the node answers to a call.
    fn answer<T>(&self, replied: Result<Response<T>, Status>) -> Result<T, PeerError> {
        answer(&self.calling.reach, self.node, replied)
    }
}

pub(super) fn answer<T>(
    reach: &Reach,
    node: NodeId,
    replied: Result<Response<T>, Status>,
) -> Result<T, PeerError> {
    let reply = replied.map_err(|status| reach.failed(node, &status))?;
    reach.answered(node);
    Ok(reply.into_inner())
}

pub(super) fn unread(node: NodeId, fault: Fault) -> PeerError {
    PeerError(format!("node {node} gave an answer that is none: {fault}"))
}

impl Peer for Way {
    fn append(&self, requests: BoxStream<'static, AppendRequest>) -> Said<'_, AppendReplies> {
        let line = self.calling.line(self.node, &self.address);
        let request = self.request(stream::empty());
        let to = (self.node, self.calling.reach.clone());
        Box::pin(async move {
            let carrying = streams::carrying(line?.channel, requests.map(words::append));
            appended(to, RaftClient::new(carrying), request).await
        })
    }

    fn beat(&self, request: AppendRequest) -> Said<'_, AppendReply> {
        Box::pin(async move {
            let line = self.calling.line(self.node, &self.address)?;
            line.pulse.beat(self.shard, request).await
        })
    }

    fn vote(&self, request: VoteRequest) -> Said<'_, VoteReply> {
        Box::pin(async move {
            let reply = self
                .client()?
                .vote(self.request(words::ballot(request)))
                .await;
            let reply = self.answer(reply)?;
            words::read_vote_reply(reply).map_err(|fault| unread(self.node, fault))
        })
    }

    fn install(&self, leader: Vote, snapshot: Snapshot) -> Said<'_, Vote> {
        let line = self.calling.line(self.node, &self.address);
        let client = self.client();
        let request = self.request(());
        let to = (self.node, self.calling.reach.clone());
        Box::pin(async move {
            let snapshots = line?.snapshots;
            let unsent = |error: std::io::Error| PeerError(error.to_string());
            // What it needs is kept from here on, also while others are sent first. Only then is it decoded.
            let held = snapshot.hold().map_err(unsent)?;
            let _turn = snapshots.acquire().await.expect("nobody closes it");
            let outgoing = held.leave().await.map_err(unsent)?;
            installed(to, client, request, leader, outgoing).await
        })
    }

    fn transfer(&self, request: TransferRequest) -> Said<'_, TransferReply> {
        Box::pin(async move {
            let request = self.request(words::transfer(request));
            let reply = self.client()?.transfer(request).await;
            let reply = self.answer(reply)?;
            words::read_transfer_reply(reply).map_err(|fault| unread(self.node, fault))
        })
    }

    fn clock(&self) -> Said<'_, WallMs> {
        Box::pin(async move {
            let request = self.request(wire::ClockRequest {});
            let reply = self.client()?.clock(request).await;
            // An older binary does not know the call; whether it is there, others tell.
            let none = |status: Status| PeerError(status.message().to_owned());
            Ok(WallMs(reply.map_err(none)?.into_inner().unix_ms))
        })
    }

    fn likeness(&self) -> Said<'_, Option<Likeness>> {
        Box::pin(async move {
            let mut request = self.request(wire::CompareRequest {});
            request.set_timeout(LIKENESS_MAX);
            let reply = tokio::time::timeout(LIKENESS_MAX, self.client()?.compare(request)).await;
            let late = |_| PeerError(format!("no answer within {LIKENESS_MAX:?}"));
            // An older binary does not know the call; whether it is there, others tell.
            let none = |status: Status| PeerError(status.message().to_owned());
            let reply = reply.map_err(late)?.map_err(none)?.into_inner();
            words::read_likeness(&reply).map_err(|fault| unread(self.node, fault))
        })
    }
}

async fn appended(
    (node, reach): (NodeId, Reach),
    mut client: RaftClient<Carrying>,
    request: Request<stream::Empty<wire::AppendRequest>>,
) -> Result<AppendReplies, PeerError> {
    client = client.max_decoding_message_size(tuning::PEER_MESSAGE_BYTES_MAX);
    let replies = client.append(request).await;
    let replies = answer(&reach, node, replies)?;
    let replies = replies.map(move |reply| {
        let reply = reply.map_err(|status| reach.failed(node, &status))?;
        words::read_append_reply(reply).map_err(|fault| unread(node, fault))
    });
    Ok(replies.boxed())
}
