//! The peers of a single voter: none. Whoever asks for one has a membership that says otherwise.

use esker_env::WallMs;
use esker_types::{NodeId, ShardId};
use futures::future::{BoxFuture, FutureExt as _, ready};
use futures::stream::BoxStream;

use crate::disk::Vote;
use crate::peers::{
    AppendReplies, AppendReply, AppendRequest, Likeness, Peer, PeerError, Peers, Said,
    TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use crate::raft::Snapshot;

/// No peers.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Peers for Alone {
    fn peer(&self, _shard: ShardId, _node: NodeId, _address: &str) -> Box<dyn Peer> {
        Box::new(Self)
    }
}

fn nobody<T: Send + 'static>() -> BoxFuture<'static, Result<T, PeerError>> {
    let what = "a node that was started alone has no peers";
    ready(Err(PeerError(what.into()))).boxed()
}

impl Peer for Alone {
    fn append(&self, _requests: BoxStream<'static, AppendRequest>) -> Said<'_, AppendReplies> {
        nobody()
    }

    fn beat(&self, _request: AppendRequest) -> Said<'_, AppendReply> {
        nobody()
    }

    fn vote(&self, _request: VoteRequest) -> Said<'_, VoteReply> {
        nobody()
    }

    fn install(&self, _leader: Vote, _snapshot: Snapshot) -> Said<'_, Vote> {
        nobody()
    }

    fn transfer(&self, _request: TransferRequest) -> Said<'_, TransferReply> {
        nobody()
    }

    fn clock(&self) -> Said<'_, WallMs> {
        nobody()
    }

    fn likeness(&self) -> Said<'_, Option<Likeness>> {
        nobody()
    }
}
