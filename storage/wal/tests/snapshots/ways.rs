//! From node to node: what is said is heard at once, by whoever is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use esker_env::WallMs;
use esker_types::{NodeId, ShardId};
use esker_wal::Replica;
use esker_wal::disk::Vote;
use esker_wal::peers::{
    AppendReplies, AppendReply, AppendRequest, Likeness, Peer, PeerError, Peers, Said,
    TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use esker_wal::raft::Snapshot;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::Counts;

type Replicas = BTreeMap<(NodeId, ShardId), Replica>;

/// Who is there.
#[derive(Clone)]
pub(crate) struct Ways {
    replicas: Arc<Mutex<Replicas>>,
    counts: Arc<Counts>,
}

impl Ways {
    pub(crate) fn new(counts: &Arc<Counts>) -> Self {
        Self {
            replicas: Arc::default(),
            counts: Arc::clone(counts),
        }
    }

    pub(crate) fn join(&self, node: NodeId, replica: Replica) {
        self.replicas().insert((node, replica.shard()), replica);
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.replicas().retain(|(of, _), _| *of != node);
    }

    /// The replicas of `shard` that are there.
    pub(crate) fn of(&self, shard: ShardId) -> Vec<(NodeId, Replica)> {
        let replicas = self.replicas();
        let of = replicas.iter().filter(|((_, of), _)| *of == shard);
        of.map(|((node, _), replica)| (*node, replica.clone()))
            .collect()
    }

    /// Who says that it leads `shard`.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<(NodeId, Replica)> {
        let replicas = self.of(shard).into_iter();
        let leading = replicas.filter_map(|(node, replica)| {
            let term = replica.leads_in()?;
            Some((term, node, replica))
        });
        // One that does not know yet that it leads no more has an older term.
        let newest = leading.max_by_key(|(term, ..)| *term);
        newest.map(|(_, node, replica)| (node, replica))
    }

    fn replicas(&self) -> MutexGuard<'_, Replicas> {
        self.replicas
            .lock()
            .expect("nothing panics under this lock")
    }
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

impl Peers for Ways {
    fn peer(&self, shard: ShardId, node: NodeId, _address: &str) -> Box<dyn Peer> {
        let ways = self.clone();
        Box::new(Way { ways, shard, node })
    }
}

struct Way {
    ways: Ways,
    shard: ShardId,
    node: NodeId,
}

impl Way {
    fn end(&self) -> Result<Replica, PeerError> {
        let replica = self.ways.replicas().get(&(self.node, self.shard)).cloned();
        replica.ok_or_else(|| PeerError("nobody is there".into()))
    }
}

impl Peer for Way {
    fn append(&self, requests: BoxStream<'static, AppendRequest>) -> Said<'_, AppendReplies> {
        Box::pin(async move { Ok(self.end()?.heard_appends(requests).await) })
    }

    fn beat(&self, request: AppendRequest) -> Said<'_, AppendReply> {
        Box::pin(async move { self.end()?.heard_beat(request).await })
    }

    fn vote(&self, request: VoteRequest) -> Said<'_, VoteReply> {
        Box::pin(async move { self.end()?.heard_vote(request).await })
    }

    fn install(&self, leader: Vote, snapshot: Snapshot) -> Said<'_, Vote> {
        Box::pin(async move {
            let failed = |error: std::io::Error| PeerError(error.to_string());
            let outgoing = snapshot
                .hold()
                .map_err(failed)?
                .leave()
                .await
                .map_err(failed)?;
            let (checkpoint, head) = (outgoing.checkpoint().clone(), outgoing.head());
            let bytes = outgoing.head_bytes();
            let head = head.map(move |entry| entry.map_err(failed)).boxed();
            let vote = self
                .end()?
                .heard_snapshot(leader, (checkpoint, bytes), head)
                .await?;
            Counts::add(&self.ways.counts.installed, u64::from(vote == leader));
            Ok(vote)
        })
    }

    fn transfer(&self, request: TransferRequest) -> Said<'_, TransferReply> {
        Box::pin(async move { self.end()?.heard_transfer(request).await })
    }

    fn clock(&self) -> Said<'_, WallMs> {
        Box::pin(async move { Ok(self.end()?.wall()) })
    }

    fn likeness(&self) -> Said<'_, Option<Likeness>> {
        Box::pin(async move { Ok(self.end()?.likeness()) })
    }
}
