//! openraft's network over [`Peers`]: what it says in their words, and what it hears in its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use esker_types::limits::REPLICATION_STALL_MAX;
use esker_types::{EntryId, NodeId, RaftIndex, ShardId, Term};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openraft::base::{BoxFuture, OptionalSend};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
};
use openraft::{AnyError, BasicNode, alias};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Snapshot;
use super::rooms::{Room, Rooms};
use super::types::{
    Entry, Payload, Proposal, RaftVote, TypeConfig, body_of, entry_id, log_id, payload_of,
    raft_vote, vote_of,
};
use crate::disk::Wal;
use crate::peers::{
    AppendReplies, AppendReply, AppendRequest, Peer, PeerError, Peers, TransferReply,
    TransferRequest, VoteReply, VoteRequest,
};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;
type RaftVoteRequest = openraft::raft::VoteRequest<TypeConfig>;
type RaftVoteResponse = openraft::raft::VoteResponse<TypeConfig>;

/// Ways to the peers of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) shard: ShardId,
    pub(crate) peers: Arc<dyn Peers>,
    /// What they say of their room.
    pub(crate) rooms: Rooms,
    /// What they have acknowledged.
    pub(crate) kept: Arc<Mutex<BTreeMap<u64, Kept>>>,
}

/// The way to one of them; none, if its id is no node's.
pub(crate) struct Link {
    peer: Option<Box<dyn Peer>>,
    room: Room,
    /// Only beats go this way, each by itself.
    beats: bool,
    /// When it was answered last.
    answered: Instant,
    kept: Kept,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let id = NodeId::from_u64(target);
        Link {
            peer: id.map(|id| self.peers.peer(self.shard, id, &node.addr)),
            room: self.rooms.of(target),
            beats: false,
            answered: Instant::now(),
            kept: {
                let kept = self.kept.lock();
                let mut kept = kept.expect("nothing panics under this lock");
                let of = kept.entry(target);
                of.or_insert_with(|| Kept::of(self.shard, target)).clone()
            },
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let link = self.new_client(target, node).await;
        Link {
            beats: true,
            ..link
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let request = said(&request);
        let term = request.vote.term;
        let peer = self.peer()?;
        let answered = async {
            if request.entries.is_empty() {
                peer.beat(request).await
            } else {
                first(peer.append(stream::iter([request]).boxed()).await?).await
            }
        };
        let Ok(reply) = tokio::time::timeout(option.hard_ttl(), answered).await else {
            self.room.late(self.answered);
            let what = format!("no answer within {:?}", option.hard_ttl());
            return Err(failed(&PeerError(what)).await);
        };
        match reply {
            Ok(_) => self.answered = Instant::now(),
            Err(_) => self.room.silent(),
        }
        let reply = reply.and_then(|reply| self.kept.held(term, reply));
        self.room.heard(&reply);
        match reply.and_then(heard) {
            Ok(reply) => Ok(AppendEntriesResponse::from(reply)),
            Err(error) => Err(failed(&error).await),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: stream::Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.beats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let asked = Arc::new(Asked::default());
            let (count, end) = (Arc::clone(&asked), Arc::clone(&asked));
            let requests = input.map(move |request| {
                count.requests.fetch_add(1, Ordering::Relaxed);
                let request = said(&request);
                // A stream is one leader's, in one term.
                count.term.store(request.vote.term.0, Ordering::Relaxed);
                request
            });
            let ended = stream::poll_fn(move |_| {
                end.ended.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            });
            let requests = requests.chain(ended);
            let replies = self.peer()?.append(requests.boxed());
            let replies = within(option.soft_ttl(), replies).await;
            let replies = replies.inspect_err(|_| self.room.silent())?;
            let watched = Watched::new(replies, asked, self.room.clone(), self.kept.clone());
            Ok(watched.into_stream().boxed())
        })
    }

    async fn vote(&mut self, request: RaftVoteRequest, option: RPCOption) -> Rpc<RaftVoteResponse> {
        self.ask(&request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: RaftVoteRequest,
        option: RPCOption,
    ) -> Rpc<RaftVoteResponse> {
        self.ask(&request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: alias::SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        // How long it may take depends on its size, which who carries it knows.
        let peer = self.peer().map_err(StreamingError::from)?;
        let sent = peer.install(vote_of(&vote), snapshot.snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sent => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(raft_vote(vote))),
                Err(error) => Err(StreamingError::from(failed(&error).await)),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let expected = *request.from_leader();
        let last = request.last_log_id().copied();
        let request = TransferRequest {
            from: vote_of(&expected),
            to: *request.to_node_id(),
            last: id(last.as_ref()),
        };
        let reply = within(option.soft_ttl(), self.peer()?.transfer(request)).await?;
        Ok(match reply {
            TransferReply::Taken => Ok(()),
            TransferReply::VoteChanged(vote) => Err(TransferLeaderError::VoteChanged {
                expected,
                actual: raft_vote(vote),
            }),
            TransferReply::Behind(at) => Err(TransferLeaderError::LogNotFlushed {
                expected: last,
                actual: log_id(at),
            }),
        })
    }

    fn backoff(&self) -> Option<Backoff> {
        let rests = iter::successors(Some(REST_MIN), |rest| Some((*rest * 2).min(REST_MAX)));
        Some(Backoff::new(rests))
    }
}

/// Rests after a peer gave no answer, doubled from one to the next.
const REST_MIN: Duration = Duration::from_millis(10);
const REST_MAX: Duration = Duration::from_millis(200);

impl Link {
    fn peer(&self) -> Rpc<&dyn Peer> {
        let none = || RPCError::Unreachable(Unreachable::from_string("its id is no node's"));
        self.peer.as_deref().ok_or_else(none)
    }

    async fn ask(
        &self,
        request: &RaftVoteRequest,
        beforehand: bool,
        option: RPCOption,
    ) -> Rpc<RaftVoteResponse> {
        let request = VoteRequest {
            vote: vote_of(&request.vote),
            last: id(request.last_log_id.as_ref()),
            transfer: request.leadership_transfer,
            beforehand,
        };
        let VoteReply {
            vote,
            granted,
            last,
        } = within(option.soft_ttl(), self.peer()?.vote(request)).await?;
        Ok(RaftVoteResponse::new(
            raft_vote(vote),
            log_id(last),
            granted,
        ))
    }
}

/// What a follower has acknowledged to this leader, held against what it says later: openraft takes for
/// granted that it keeps it, and would go on asking from where it does not. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    shard: ShardId,
    node: u64,
    acknowledged: Arc<Mutex<Acknowledged>>,
}

/// In a term: by the next leader's log some of it may be cut off.
#[derive(Clone, Copy, Default, Debug)]
struct Acknowledged {
    term: Term,
    upto: RaftIndex,
    /// That it lacks some of it was said.
    told: bool,
}

impl Kept {
    fn of(shard: ShardId, node: u64) -> Self {
        let acknowledged = Arc::default();
        Self {
            shard,
            node,
            acknowledged,
        }
    }

    /// The reply to a leader of `term`; an error in its place if it lacks what was acknowledged then.
    fn held(&self, term: Term, reply: AppendReply) -> Result<AppendReply, PeerError> {
        let known = self.acknowledged.lock();
        let mut known = known.expect("nothing panics under this lock");
        if term < known.term {
            // Of a stream that a former term has left behind.
            return Ok(reply);
        }
        if term > known.term {
            *known = Acknowledged {
                term,
                ..Acknowledged::default()
            };
        }
        match reply {
            AppendReply::Matched { upto, .. } => known.upto = known.upto.max(upto.index),
            AppendReply::Conflict(at) if at.index <= known.upto => {
                if !std::mem::replace(&mut known.told, true) {
                    let (shard, node) = (self.shard, NodeId::from_u64(self.node));
                    tracing::error!(%shard, ?node, %at, "a node lacks an entry that it had acknowledged: its disk was set back, or does not keep what it says it does. Its acknowledgements count no more until another leads; remove it from the cluster, and add it with another disk");
                }
                let what = format!("it lacks entry {at}, which it had acknowledged");
                return Err(PeerError(what));
            }
            AppendReply::Conflict(_) | AppendReply::HigherVote(_) => {}
        }
        Ok(reply)
    }
}

/// What was asked on a stream of appends.
#[derive(Debug, Default)]
struct Asked {
    requests: AtomicU64,
    term: AtomicU64,
    ended: AtomicBool,
}

/// The replies to a stream of appends, watched: a follower that leaves a request without a reply
/// for [`REPLICATION_STALL_MAX`] is to be connected to anew.
struct Watched {
    room: Room,
    kept: Kept,
    replies: AppendReplies,
    answered: u64,
    asked: Arc<Asked>,
    /// What was asked a while ago.
    owed: u64,
    looks: Interval,
}

impl Watched {
    fn new(replies: AppendReplies, asked: Arc<Asked>, room: Room, kept: Kept) -> Self {
        let mut looks = tokio::time::interval(REPLICATION_STALL_MAX);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            room,
            kept,
            replies,
            answered: 0,
            asked,
            owed: 0,
            looks,
        }
    }

    /// Ends after an error.
    fn into_stream(self) -> impl stream::Stream<Item = Rpc<StreamAppendResult<TypeConfig>>> + Send {
        stream::unfold(Some(self), async |watched| {
            let mut watched = watched?;
            let reply = watched.next().await?;
            let term = Term(watched.asked.term.load(Ordering::Relaxed));
            let reply = reply.and_then(|reply| watched.kept.held(term, reply));
            watched.room.heard(&reply);
            let reply = match reply.and_then(heard) {
                Ok(reply) => Ok(reply),
                Err(error) => Err(failed(&error).await),
            };
            let next = reply.is_ok().then_some(watched);
            Some((reply, next))
        })
    }

    async fn next(&mut self) -> Option<Result<AppendReply, PeerError>> {
        loop {
            tokio::select! {
                biased;
                reply = self.replies.next() => {
                    self.answered += 1;
                    // openraft would begin anew at once, for ever.
                    let early = || (!self.asked.ended.load(Ordering::Relaxed))
                        .then(|| Err(PeerError("it ended the stream of appends".into())));
                    return reply.or_else(early);
                }
                _ = self.looks.tick() => {
                    if self.answered < self.owed {
                        let what = format!("no answer to an append for {REPLICATION_STALL_MAX:?}");
                        return Some(Err(PeerError(what)));
                    }
                    self.owed = self.asked.requests.load(Ordering::Relaxed);
                }
            }
        }
    }
}

async fn first(mut replies: AppendReplies) -> Result<AppendReply, PeerError> {
    let none = || Err(PeerError("an append was not answered".into()));
    replies.next().await.unwrap_or_else(none)
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, PeerError>>,
) -> Rpc<T> {
    let late = || Err(PeerError(format!("no answer within {patience:?}")));
    let answer = tokio::time::timeout(patience, answer).await;
    match answer.unwrap_or_else(|_| late()) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(failed(&error).await),
    }
}

/// Told after a rest: a peer that refuses at once is asked again at once by openraft's heartbeats for
/// a read, for ever.
async fn failed(error: &PeerError) -> RPCError<TypeConfig> {
    tokio::time::sleep(REST_MIN).await;
    RPCError::Unreachable(Unreachable::new(&AnyError::error(error.to_string())))
}

fn id(id: Option<&super::types::LogId>) -> EntryId {
    id.map(entry_id).unwrap_or_default()
}

fn said(request: &AppendEntriesRequest<TypeConfig>) -> AppendRequest {
    let entries = request.entries.iter();
    AppendRequest {
        vote: vote_of(&request.vote),
        previous: id(request.prev_log_id.as_ref()),
        entries: entries
            .map(|entry| (entry_id(&entry.log_id), body_of(&entry.payload)))
            .collect(),
        committed: id(request.leader_commit.as_ref()),
    }
}

/// openraft's request; an error if an entry is none, or does not follow on the one before it.
pub(crate) fn asked(request: AppendRequest) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut before = request.previous;
    for (at, body) in request.entries {
        if Some(at.index.0) != before.index.0.checked_add(1) || at.term < before.term {
            return Err(invalid(format!("entry {at} does not follow on {before}")));
        }
        let payload = match body.is_lost() {
            // Who has it skips it, and who has not was not to let it in.
            true => Payload::Normal(Proposal::lost()),
            false => payload_of(body).ok_or_else(|| invalid(format!("entry {at} is none")))?,
        };
        let log_id = log_id(at).ok_or_else(|| invalid("an entry without an index".into()))?;
        entries.push(Entry { log_id, payload });
        before = at;
    }
    Ok(AppendEntriesRequest {
        vote: raft_vote(request.vote),
        prev_log_id: log_id(request.previous),
        entries,
        leader_commit: log_id(request.committed),
    })
}

/// openraft's reply.
fn heard(reply: AppendReply) -> Result<StreamAppendResult<TypeConfig>, PeerError> {
    Ok(match reply {
        AppendReply::Matched { upto, .. } => Ok(log_id(upto)),
        AppendReply::Conflict(at) => {
            let none = || PeerError("nothing conflicts with a beginning".into());
            Err(StreamAppendError::Conflict(log_id(at).ok_or_else(none)?))
        }
        AppendReply::HigherVote(vote) => Err(StreamAppendError::HigherVote(raft_vote(vote))),
    })
}

/// Our reply of openraft's, from the replica of `shard` that writes to `wal`.
pub(crate) fn replied(
    reply: &StreamAppendResult<TypeConfig>,
    wal: &Wal,
    shard: ShardId,
) -> AppendReply {
    match reply {
        Ok(at) => matched(id(at.as_ref()), wal, shard),
        Err(StreamAppendError::Conflict(at)) => AppendReply::Conflict(entry_id(at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendReply::HigherVote(vote_of(vote)),
    }
}

/// That the log of `shard` in `wal` is the leader's up to `upto`.
pub(crate) fn matched(upto: EntryId, wal: &Wal, shard: ShardId) -> AppendReply {
    AppendReply::Matched {
        upto,
        room: wal.room(),
        damaged: wal.damaged(shard) > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Body, Vote};

    fn request(previous: u64, entries: &[u64]) -> AppendRequest {
        let id = |index| EntryId {
            term: Term(1),
            index: RaftIndex(index),
        };
        let blank = || Body::new(&[0], Vec::new());
        AppendRequest {
            vote: Vote::default(),
            previous: id(previous),
            entries: entries.iter().map(|at| (id(*at), blank())).collect(),
            committed: EntryId::default(),
        }
    }

    #[test]
    fn entries_that_do_not_follow_on_each_other_are_refused() {
        for good in [
            request(0, &[1, 2]),
            request(7, &[8]),
            request(u64::MAX, &[]),
        ] {
            assert!(asked(good).is_ok());
        }
        for bad in [
            request(0, &[2]),
            request(3, &[4, 6]),
            request(3, &[3]),
            request(u64::MAX, &[0]),
            request(u64::MAX, &[u64::MAX]),
        ] {
            assert!(asked(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
