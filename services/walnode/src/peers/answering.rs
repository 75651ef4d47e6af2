//! What the other nodes are answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use esker_env::Listener;
use esker_proto::internal::install_part::{Beginning, Part};
use esker_proto::internal::raft_server::{Raft, RaftServer};
use esker_proto::internal::{self as wire};
use esker_proto::tuning::PEER_MESSAGE_BYTES_MAX;
use esker_proto::{streams, transport, tuning};
use esker_types::limits::{INSTALL_STALL_MAX, INSTALLS_MAX, SNAPSHOT_STATE_BYTES_MAX};
use esker_types::{EntryId, NodeId, ShardId};
use esker_wal::Replica;
use esker_wal::disk::{Body, Checkpoint};
use esker_wal::peers::PeerError;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::credentials::{Credentials, Disks};
use super::words::{self, Fault};

/// The service of a node for the others.
#[derive(Clone, Debug)]
pub struct Answering {
    credentials: Credentials,
    replicas: Arc<BTreeMap<ShardId, Replica>>,
    /// Bytes of the head that one snapshot may carry.
    head_bytes_max: u64,
    installs: Arc<Semaphore>,
    refusals: Arc<Refusals>,
    disks: Arc<Disks>,
}

/// Calls that were not meant for this node, or not to be understood.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Of another cluster, for another node, about a shard that is not here, from a copy of a node.
    pub misdirected: AtomicU64,
    /// Malformed.
    pub malformed: AtomicU64,
}

type Reply<T> = Result<Response<T>, Status>;

impl Answering {
    /// Answers for `replicas`, as the node that `credentials` are of.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        replicas: impl IntoIterator<Item = Replica>,
        head_bytes_max: u64,
    ) -> Self {
        let replicas = replicas
            .into_iter()
            .map(|replica| (replica.shard(), replica));
        Self {
            credentials,
            replicas: Arc::new(replicas.collect()),
            head_bytes_max,
            installs: Arc::new(Semaphore::new(INSTALLS_MAX)),
            refusals: Arc::default(),
            disks: Arc::default(),
        }
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// The service, for a server that has others beside it.
    #[must_use]
    pub fn service(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    /// Serves on `listener` until it is broken.
    ///
    /// # Errors
    /// What the listener says then.
    pub async fn serve(self, listener: Box<dyn Listener>) -> Result<(), tonic::transport::Error> {
        let server = tuning::peer_server().add_service(self.service());
        server
            .serve_with_incoming(transport::incoming(listener))
            .await
    }

    fn misdirected(&self, what: String) -> Status {
        let refused = 1 + self.refusals.misdirected.fetch_add(1, Ordering::Relaxed);
        // One line tells of many: who is set up wrongly calls ten times a second.
        if refused.is_power_of_two() {
            tracing::warn!(%what, refused, "a call of another node was refused");
        }
        Status::failed_precondition(what)
    }

    /// Who calls, and about which shard.
    fn caller(&self, shown: &MetadataMap) -> Result<(NodeId, ShardId), Status> {
        let shown = self.credentials.check(shown);
        let known = shown.and_then(|(caller, shard)| {
            self.disks.know(&caller)?;
            Ok((caller.node, shard))
        });
        known.map_err(|what| self.misdirected(what))
    }

    fn replica(&self, shown: &MetadataMap) -> Result<Replica, Status> {
        let (from, shard) = self.caller(shown)?;
        let none = || self.misdirected(format!("{from} calls about {shard}, which is not here"));
        self.replicas.get(&shard).cloned().ok_or_else(none)
    }

    fn malformed(&self, fault: Fault) -> Status {
        self.refusals.malformed.fetch_add(1, Ordering::Relaxed);
        Status::invalid_argument(fault)
    }

    /// Reads what comes before the head of a snapshot: its beginning, its state.
    async fn opening(
        &self,
        shard: ShardId,
        parts: &mut Parts,
    ) -> Result<(Beginning, Checkpoint), Status> {
        let beginning = match parts.next().await? {
            Some(Part::Beginning(beginning)) => beginning,
            _ => return Err(self.malformed("a snapshot begins with something else")),
        };
        if beginning.state_bytes > SNAPSHOT_STATE_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the state of {shard} has {} bytes, a snapshot may have {SNAPSHOT_STATE_BYTES_MAX}",
                beginning.state_bytes
            )));
        }
        let (mut state, mut state_bytes): (Vec<Bytes>, u64) = (Vec::new(), 0);
        while state_bytes < beginning.state_bytes {
            match parts.next().await? {
                // Many of these would take memory, and never make it whole.
                Some(Part::State(chunk)) if chunk.is_empty() => {
                    return Err(self.malformed("a piece of the state is empty"));
                }
                Some(Part::State(chunk)) => {
                    state_bytes += chunk.len() as u64;
                    state.push(chunk);
                }
                _ => return Err(self.malformed("the state ends before it is whole")),
            }
        }
        if state_bytes > beginning.state_bytes {
            return Err(self.malformed("the state is longer than was said"));
        }
        let checkpoint = Checkpoint {
            shard,
            last: words::read_id(beginning.last),
            membership: beginning.membership.clone(),
            state,
        };
        Ok((beginning, checkpoint))
    }
}

/// What is left of a snapshot that comes in.
struct Parts {
    parts: Streaming<wire::InstallPart>,
    /// Why there was no next one.
    ended: Option<Status>,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<Part>, Status> {
        next(&mut self.parts).await
    }

    /// The next entry of the head, of which `bytes` may still come.
    async fn entry(&mut self, bytes: &mut u64) -> Option<Result<(EntryId, Body), PeerError>> {
        let read = match self.next().await {
            Ok(None) => return None,
            Ok(Some(Part::Entry(entry))) => {
                let (id, body) = words::read_entry(entry);
                let left = bytes.checked_sub(body.payload_bytes() as u64);
                *bytes = left.unwrap_or_default();
                let too_long = || Status::invalid_argument("the head is longer than may be");
                left.map(|_| (id, body)).ok_or_else(too_long)
            }
            Ok(Some(_)) => Err(Status::invalid_argument("a head has something else in it")),
            Err(status) => Err(status),
        };
        Some(read.map_err(|status| {
            let what = status.message().to_owned();
            self.ended = Some(status);
            PeerError(what)
        }))
    }
}

async fn next(parts: &mut Streaming<wire::InstallPart>) -> Result<Option<Part>, Status> {
    let next = tokio::time::timeout(INSTALL_STALL_MAX, parts.message()).await;
    let silent =
        |_| Status::deadline_exceeded(format!("nothing of it came for {INSTALL_STALL_MAX:?}"));
    match next.map_err(silent)?? {
        None => Ok(None),
        Some(part) => {
            let empty = || Status::invalid_argument("a part of a snapshot is empty");
            part.part.ok_or_else(empty).map(Some)
        }
    }
}

/// What a replica, if it is here, answers to a beat.
async fn heard(
    replica: Option<Replica>,
    beat: wire::Beat,
    refusals: Arc<Refusals>,
) -> wire::BeatReply {
    let (number, shard) = (beat.number, beat.shard);
    let heard = async {
        let request = beat
            .append
            .ok_or("it is empty")
            .and_then(words::read_append);
        let request = request.map_err(|fault| {
            refusals.malformed.fetch_add(1, Ordering::Relaxed);
            fault.to_owned()
        })?;
        let none = || {
            refusals.misdirected.fetch_add(1, Ordering::Relaxed);
            format!("shard {shard} is not here")
        };
        let replica = replica.ok_or_else(none)?;
        let reply = replica.heard_beat(request).await;
        reply.map_err(|error| error.0)
    };
    let reply = match heard.await {
        Ok(reply) => wire::beat_reply::Reply::Append(words::append_reply(reply)),
        Err(what) => wire::beat_reply::Reply::Failed(what),
    };
    wire::BeatReply {
        number,
        reply: Some(reply),
    }
}

/// Beats of one stream that wait for an answer, at most: those behind them are read later.
const BEATS_AT_ONCE: usize = 4096;

fn ended(error: PeerError) -> Status {
    Status::unavailable(error.0)
}

#[tonic::async_trait]
impl Raft for Answering {
    type AppendStream = BoxStream<'static, Result<wire::AppendReply, Status>>;
    type BeatStream = BoxStream<'static, Result<wire::BeatReplies, Status>>;

    async fn beat(&self, request: Request<Streaming<wire::Beats>>) -> Reply<Self::BeatStream> {
        self.caller(request.metadata())?;
        let (replicas, refusals) = (Arc::clone(&self.replicas), self.refusals());
        let messages = request.into_inner();
        // What cannot be read ends the stream; the caller begins another.
        let beats = messages.take_while(|message| std::future::ready(message.is_ok()));
        let beats = beats.filter_map(|message| std::future::ready(message.ok()));
        let beats = beats.flat_map(|message| stream::iter(message.beats));
        let replies = beats.map(move |beat| {
            let replica = replicas.get(&ShardId(beat.shard)).cloned();
            heard(replica, beat, Arc::clone(&refusals))
        });
        let replies = replies.buffer_unordered(BEATS_AT_ONCE);
        let replies = replies.ready_chunks(BEATS_AT_ONCE);
        let replies = replies.map(|replies| Ok(wire::BeatReplies { replies }));
        Ok(Response::new(replies.boxed()))
    }

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Reply<Self::AppendStream> {
        let replica = self.replica(request.metadata())?;
        let requests = streams::came(request, PEER_MESSAGE_BYTES_MAX);
        let refusals = self.refusals();
        // What cannot be read ends the stream; the leader begins another.
        let requests = requests.scan((), move |(), request| {
            let request = request.ok().and_then(|request| {
                let read = words::read_append(request);
                read.inspect_err(|_| _ = refusals.malformed.fetch_add(1, Ordering::Relaxed))
                    .ok()
            });
            std::future::ready(request)
        });
        let replies = replica.heard_appends(requests.boxed()).await;
        let replies = replies.map(|reply| reply.map(words::append_reply).map_err(ended));
        Ok(Response::new(replies.boxed()))
    }

    async fn vote(&self, request: Request<wire::VoteRequest>) -> Reply<wire::VoteReply> {
        let replica = self.replica(request.metadata())?;
        let request = words::read_ballot(request.into_inner());
        let request = request.map_err(|fault| self.malformed(fault))?;
        let reply = replica.heard_vote(request).await.map_err(ended)?;
        Ok(Response::new(words::vote_reply(reply)))
    }

    async fn transfer(
        &self,
        request: Request<wire::TransferRequest>,
    ) -> Reply<wire::TransferReply> {
        let replica = self.replica(request.metadata())?;
        let request = words::read_transfer(request.into_inner());
        let request = request.map_err(|fault| self.malformed(fault))?;
        let reply = replica.heard_transfer(request).await.map_err(ended)?;
        Ok(Response::new(words::transfer_reply(reply)))
    }

    async fn compare(&self, request: Request<wire::CompareRequest>) -> Reply<wire::CompareReply> {
        let replica = self.replica(request.metadata())?;
        Ok(Response::new(words::likeness(replica.likeness())))
    }

    async fn clock(&self, request: Request<wire::ClockRequest>) -> Reply<wire::ClockReply> {
        let unix_ms = self.replica(request.metadata())?.wall().0;
        Ok(Response::new(wire::ClockReply { unix_ms }))
    }

    async fn install(
        &self,
        request: Request<Streaming<wire::InstallPart>>,
    ) -> Reply<wire::InstallReply> {
        let replica = self.replica(request.metadata())?;
        let _turn = self.installs.acquire().await.expect("nobody closes it");
        let mut parts = Parts {
            parts: request.into_inner(),
            ended: None,
        };
        let (beginning, checkpoint) = self.opening(replica.shard(), &mut parts).await?;
        let leader = words::read_vote(beginning.leader).map_err(|fault| self.malformed(fault))?;
        // A head that comes too short or too long is not the one that the state names.
        let (head, bytes) = (&mut parts, self.head_bytes_max);
        let head = stream::unfold((head, bytes), async |(parts, mut bytes)| {
            let entry = parts.entry(&mut bytes).await?;
            Some((entry, (parts, bytes)))
        });
        let heard = replica
            .heard_snapshot(leader, (checkpoint, beginning.head_bytes), Box::pin(head))
            .await;
        let vote = heard.map_err(|error| match parts.ended {
            Some(status) if status.code() == Code::InvalidArgument => {
                self.refusals.malformed.fetch_add(1, Ordering::Relaxed);
                status
            }
            Some(status) => status,
            None => ended(error),
        })?;
        Ok(Response::new(wire::InstallReply {
            vote: words::vote(vote),
        }))
    }
}
