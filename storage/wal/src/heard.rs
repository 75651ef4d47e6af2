//! What a replica answers its peers.

use std::io;
use std::sync::Arc;

use esker_types::{EntryId, ShardId};
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openraft::alias;
use openraft::raft::{AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest};
use tokio::sync::oneshot;

use crate::Error;
use crate::disk::{Body, Checkpoint, Purpose, Vote, Wal};
use crate::peers::{
    AppendReplies, AppendReply, AppendRequest, PeerError, TransferReply, TransferRequest,
    VoteReply, VoteRequest,
};
use crate::raft::network::{asked, matched, replied};
use crate::raft::types::{Runtime, TypeConfig, entry_id, log_id, raft_vote, vote_of};
use crate::raft::{Incoming, snapshot_meta};
use crate::replica::Replica;

impl Replica {
    /// Takes what a leader appends, in order. Ends with the requests, or after the first that this
    /// replica does not go along with, or that is malformed.
    pub async fn heard_appends(
        &self,
        requests: BoxStream<'static, AppendRequest>,
    ) -> AppendReplies {
        let (tell, fault) = oneshot::channel();
        let mut tell = Some(tell);
        let (door, own, heard) = (Arc::clone(self.wal()), self.id(), self.heard().clone());
        let (shard, caught_up) = (self.shard(), self.caught_up().clone());
        let requests = requests.then(move |request| {
            let (door, heard, caught_up) = (Arc::clone(&door), heard.clone(), caught_up.clone());
            async move {
                of_another(own, request.vote)?;
                caught_up.hear(&door, shard, request.vote, request.committed);
                let request = let_in(door, shard, request).await?;
                heard.hear();
                Ok(request)
            }
        });
        let requests = requests.scan((), move |(), request| {
            let unread = |error: io::Error| PeerError(error.to_string());
            ready(
                match request.and_then(|request| asked(request).map_err(unread)) {
                    Ok(request) => Some(request),
                    Err(error) => {
                        tell.take().map(|tell| tell.send(error));
                        None
                    }
                },
            )
        });
        // It spawns a task, which draws from this seed.
        let replies = async { self.raft().stream_append(requests) };
        let replies = Runtime::scope(self.seed(), replies).await.boxed();
        let log = (Arc::clone(self.wal()), shard);
        stream::unfold(Some((replies, fault, log)), async |state| {
            let (mut replies, fault, log) = state?;
            match replies.next().await {
                Some(Ok(reply @ Ok(_))) => {
                    let replied = replied(&reply, &log.0, log.1);
                    Some((Ok(replied), Some((replies, fault, log))))
                }
                Some(Ok(refusal)) => Some((Ok(replied(&refusal, &log.0, log.1)), None)),
                Some(Err(ended)) => Some((Err(PeerError(ended.to_string())), None)),
                None => Some((Err(fault.await.ok()?), None)),
            }
        })
        .boxed()
    }

    /// Hears that a leader lives.
    ///
    /// # Errors
    /// If it comes with entries or with a vote that no other leader has, or raft has ended.
    pub async fn heard_beat(&self, request: AppendRequest) -> Result<AppendReply, PeerError> {
        if !request.entries.is_empty() {
            return Err(PeerError("a beat comes with entries".into()));
        }
        of_another(self.id(), request.vote)?;
        self.heard().hear();
        let (leader, committed) = (request.vote, request.committed);
        (self.caught_up()).hear(self.wal(), self.shard(), leader, committed);
        let previous = request.previous;
        let request = asked(request).map_err(|error| PeerError(error.to_string()))?;
        let reply = self.raft().append_entries(request).await;
        let reply = reply.map_err(|error| PeerError(error.to_string()))?;
        let matched = |upto| matched(upto, self.wal(), self.shard());
        Ok(match reply {
            AppendEntriesResponse::Success => matched(previous),
            AppendEntriesResponse::PartialSuccess(at) => {
                matched(at.as_ref().map(entry_id).unwrap_or_default())
            }
            AppendEntriesResponse::Conflict => AppendReply::Conflict(previous),
            AppendEntriesResponse::HigherVote(vote) => AppendReply::HigherVote(vote_of(&vote)),
        })
    }

    /// Answers a candidate.
    ///
    /// # Errors
    /// If raft has ended.
    pub async fn heard_vote(&self, request: VoteRequest) -> Result<VoteReply, PeerError> {
        let mut asked = openraft::raft::VoteRequest::<TypeConfig>::new(
            raft_vote(request.vote),
            log_id(request.last),
        );
        asked.leadership_transfer = request.transfer;
        let reply = match request.beforehand {
            true => self.raft().pre_vote(asked).await,
            false => self.raft().vote(asked).await,
        };
        let reply = reply.map_err(|error| PeerError(error.to_string()))?;
        Ok(VoteReply {
            vote: vote_of(&reply.vote),
            granted: reply.vote_granted,
            last: reply.last_log_id.as_ref().map(entry_id).unwrap_or_default(),
        })
    }

    /// Takes a leader's snapshot and its head, of so many bytes, entry by entry as they come, and returns the vote of this
    /// replica once it is on its disk, or once it is refused for that vote: before the head is read if the
    /// vote is of a later term already.
    ///
    /// # Errors
    /// If its state or its membership is none, if the head is not the one that the state names, or fails on
    /// its way, if the log has no room for it, or the disk none for its state, or raft has ended. Nothing of it counts then.
    pub async fn heard_snapshot(
        &self,
        leader: Vote,
        (checkpoint, head_bytes): (Checkpoint, u64),
        mut head: BoxStream<'_, Result<(EntryId, Body), PeerError>>,
    ) -> Result<Vote, PeerError> {
        let failed = |error: io::Error| PeerError(error.to_string());
        of_another(self.id(), leader)?;
        self.heard().hear();
        let shard = self.shard();
        if checkpoint.shard != shard {
            let what = format!("a snapshot for {shard} is of {}", checkpoint.shard);
            return Err(PeerError(what));
        }
        let vote = self.wal().bounds(shard).vote;
        if let Some(vote) = vote.filter(|vote| vote.term > leader.term) {
            return Ok(vote);
        }
        let (meta, last) = (snapshot_meta(&checkpoint).map_err(failed)?, checkpoint.last);
        let (wal, checkpoints) = (Arc::clone(self.wal()), self.checkpoints().clone());
        let incoming = Incoming::begin(wal, checkpoints, checkpoint, head_bytes).await;
        let mut incoming = incoming.map_err(failed)?;
        let (mut entries, mut bytes) = (0u64, 0u64);
        while let Some(entry) = head.next().await {
            let (id, body) = entry?;
            (entries, bytes) = (entries + 1, bytes + body.payload_bytes() as u64);
            incoming.take(id, body).await.map_err(failed)?;
        }
        let snapshot = incoming.finish().await.map_err(failed)?;
        let snapshot = alias::SnapshotOf::<TypeConfig, _> { meta, snapshot };
        let installed = self
            .raft()
            .install_full_snapshot(raft_vote(leader), snapshot)
            .await;
        let reply = installed.map_err(|error| PeerError(error.to_string()))?;
        let vote = vote_of(&reply.vote);
        if vote == leader {
            tracing::info!(
                %shard, %last, head_entries = entries, head_bytes = bytes,
                "a snapshot of another node is installed"
            );
        }
        Ok(vote)
    }

    /// Hears who is to lead; campaigns if it is this node.
    ///
    /// # Errors
    /// If raft has ended.
    pub async fn heard_transfer(
        &self,
        request: TransferRequest,
    ) -> Result<TransferReply, PeerError> {
        let last = log_id(request.last);
        let asked =
            TransferLeaderRequest::<TypeConfig>::new(raft_vote(request.from), request.to, last);
        let taken = self.raft().handle_transfer_leader(asked).await;
        let taken = taken.map_err(|error| PeerError(error.to_string()))?;
        Ok(match taken {
            Ok(()) => TransferReply::Taken,
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                TransferReply::VoteChanged(vote_of(&actual))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                let at = actual.as_ref().map(entry_id);
                TransferReply::Behind(at.unwrap_or_default())
            }
        })
    }
}

/// Makes sure that `leader` is the vote of a leader, and of another node: told of its own by somebody else, as
/// by a copy of it, raft would lead without an election.
fn of_another(own: u64, leader: Vote) -> Result<(), PeerError> {
    if leader.committed && leader.node != own {
        return Ok(());
    }
    let what = format!("node {own} was told of the vote {leader:?}, which no other leader has");
    Err(PeerError(what))
}

/// Lets entries in for which the WAL has room, with that room, and those that their leader has lost if they
/// are here: raft takes an entry that its log refuses for a broken disk.
async fn let_in(
    wal: Arc<Wal>,
    shard: ShardId,
    mut request: AppendRequest,
) -> Result<AppendRequest, PeerError> {
    for (id, body) in &mut request.entries {
        if body.is_lost() {
            if wal.has(shard, *id) {
                continue;
            }
            return Err(PeerError(Error::Lost { shard, id: *id }.to_string()));
        }
        let (bytes, bytes_max) = (body.weight(), wal.entry_bytes_max());
        if bytes > bytes_max {
            let what = format!(
                "entry {id} has {bytes} bytes, the limit of this WAL is {bytes_max}: it needs as \
                 large files as the leader's"
            );
            return Err(PeerError(what));
        }
        let needed = wal.entry_disk_bytes(bytes);
        let promise = wal.promise(Purpose::Replicated, needed).await;
        let promise = promise.map_err(|full| {
            let room = full.room;
            PeerError(format!(
                "the WAL has {room} bytes of room for entry {id}, which needs {needed}; a snapshot \
                 makes room once the bucket has taken some"
            ))
        })?;
        body.hold(promise);
    }
    Ok(request)
}
