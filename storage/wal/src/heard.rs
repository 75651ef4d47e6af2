//! What a replica answers its peers.

use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openraft::alias;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest};
use tokio::sync::oneshot;

use crate::disk::Vote;
use crate::peers::{
    AppendReplies, AppendRequest, PeerError, TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use crate::raft::network::{asked, replied};
use crate::raft::types::{Runtime, TypeConfig, entry_id, log_id, raft_vote, vote_of};
use crate::raft::{Snapshot, snapshot_meta};
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
        let requests = requests.scan((), move |(), request| {
            ready(match asked(request) {
                Ok(request) => Some(request),
                Err(error) => {
                    let error = PeerError(error.to_string());
                    tell.take().map(|tell| tell.send(error));
                    None
                }
            })
        });
        // It spawns a task, which draws from this seed.
        let replies = async { self.raft().stream_append(requests) };
        let replies = Runtime::scope(self.seed(), replies).await.boxed();
        stream::unfold(Some((replies, fault)), async |state| {
            let (mut replies, fault) = state?;
            match replies.next().await {
                Some(Ok(reply @ Ok(_))) => Some((Ok(replied(&reply)), Some((replies, fault)))),
                Some(Ok(refusal)) => Some((Ok(replied(&refusal)), None)),
                Some(Err(ended)) => Some((Err(PeerError(ended.to_string())), None)),
                None => Some((Err(fault.await.ok()?), None)),
            }
        })
        .boxed()
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

    /// Takes a leader's snapshot, and returns the vote of this replica once it is on its disk, or
    /// once it is refused for that vote.
    ///
    /// # Errors
    /// If its membership is none, or raft has ended.
    pub async fn heard_snapshot(
        &self,
        leader: Vote,
        snapshot: Snapshot,
    ) -> Result<Vote, PeerError> {
        let meta = snapshot_meta(snapshot.checkpoint());
        let meta = meta.map_err(|error| PeerError(error.to_string()))?;
        let snapshot = alias::SnapshotOf::<TypeConfig, _> { meta, snapshot };
        let installed = self
            .raft()
            .install_full_snapshot(raft_vote(leader), snapshot)
            .await;
        let reply = installed.map_err(|error| PeerError(error.to_string()))?;
        Ok(vote_of(&reply.vote))
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
