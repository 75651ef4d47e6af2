//! A network of replicas in one process: what is said is heard at once, unless the way is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use esker_env::WallMs;
use esker_types::{EntryId, NodeId, ShardId};
use esker_wal::Replica;
use esker_wal::disk::{Body, Vote};
use esker_wal::peers::{
    AppendReplies, AppendReply, AppendRequest, Likeness, Peer, PeerError, Peers, Said,
    TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use esker_wal::raft::Snapshot;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::sleep;

/// Who is there, and which ways are cut.
#[derive(Clone, Default)]
pub(crate) struct Mesh(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    replicas: BTreeMap<NodeId, Replica>,
    /// From, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    snapshots: u64,
    appends: u64,
    beats: u64,
    /// What befalls heads of snapshots on their way.
    befalls: Option<Befalls>,
    /// How long snapshots wait in line until they are sent.
    line: Duration,
}

/// The entries of a snapshot's head, as they come.
pub(crate) type Head = BoxStream<'static, Result<(EntryId, Body), PeerError>>;
type Befalls = Arc<dyn Fn(Head) -> Head + Send + Sync>;

/// The ways from one node.
pub(crate) struct From {
    mesh: Mesh,
    node: NodeId,
}

#[derive(Clone)]
struct Way {
    mesh: Mesh,
    from: NodeId,
    to: NodeId,
}

impl Mesh {
    pub(crate) fn from(&self, node: NodeId) -> Arc<From> {
        let mesh = self.clone();
        Arc::new(From { mesh, node })
    }

    pub(crate) fn join(&self, node: NodeId, replica: Replica) {
        self.state().replicas.insert(node, replica);
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.state().replicas.remove(&node);
    }

    /// Nothing gets from `from` to `to` any more.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    pub(crate) fn heal(&self) {
        self.state().cut.clear();
    }

    /// Streams of appends that were begun, and beats that were said by themselves.
    pub(crate) fn said(&self) -> (u64, u64) {
        let state = self.state();
        (state.appends, state.beats)
    }

    /// From here on `how` befalls heads of snapshots on their way.
    pub(crate) fn befall(&self, how: impl Fn(Head) -> Head + Send + Sync + 'static) {
        self.state().befalls = Some(Arc::new(how));
    }

    /// From here on snapshots wait so long until they are sent.
    pub(crate) fn line_up(&self, line: Duration) {
        self.state().line = line;
    }

    /// Snapshots that were handed over.
    pub(crate) fn snapshots(&self) -> u64 {
        self.state().snapshots
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

impl Way {
    /// Who is at the other end; an answer needs the way back as well.
    fn end(&self) -> Result<Replica, PeerError> {
        let state = self.mesh.state();
        let cut = |way| state.cut.contains(&way);
        if cut((self.from, self.to)) || cut((self.to, self.from)) {
            return Err(PeerError("the way is cut".into()));
        }
        let gone = || PeerError("nobody is there".into());
        state.replicas.get(&self.to).cloned().ok_or_else(gone)
    }
}

impl fmt::Debug for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "From({})", self.node)
    }
}

impl Peers for From {
    fn peer(&self, _shard: ShardId, to: NodeId, _address: &str) -> Box<dyn Peer> {
        let (mesh, from) = (self.mesh.clone(), self.node);
        Box::new(Way { mesh, from, to })
    }
}

impl Peer for Way {
    fn append(&self, requests: BoxStream<'static, AppendRequest>) -> Said<'_, AppendReplies> {
        self.mesh.state().appends += 1;
        Box::pin(async move {
            // Once the way is cut, nothing more goes either way.
            let (there, back) = (self.clone(), self.clone());
            let requests = requests.take_while(move |_| {
                let open = there.end().is_ok();
                async move { open }
            });
            let replies = self.end()?.heard_appends(requests.boxed()).await;
            let replies = replies.map(move |reply| back.end().and(reply));
            Ok(replies.boxed())
        })
    }

    fn beat(&self, request: AppendRequest) -> Said<'_, AppendReply> {
        self.mesh.state().beats += 1;
        Box::pin(async move {
            let reply = self.end()?.heard_beat(request).await;
            self.end().and(reply)
        })
    }

    fn vote(&self, request: VoteRequest) -> Said<'_, VoteReply> {
        Box::pin(async move {
            let reply = self.end()?.heard_vote(request).await;
            self.end().and(reply)
        })
    }

    fn install(&self, leader: Vote, snapshot: Snapshot) -> Said<'_, Vote> {
        Box::pin(async move {
            let failed = |error: std::io::Error| PeerError(error.to_string());
            let held = snapshot.hold().map_err(failed)?;
            let line = self.mesh.state().line;
            sleep(line).await;
            let outgoing = held.leave().await.map_err(failed)?;
            let checkpoint = outgoing.checkpoint().clone();
            let bytes = outgoing.head_bytes();
            let head = outgoing.head();
            let head = head.map(move |entry| entry.map_err(failed)).boxed();
            let befalls = self.mesh.state().befalls.clone();
            let head = match befalls {
                Some(befalls) => befalls(head),
                None => head,
            };
            let reply = self
                .end()?
                .heard_snapshot(leader, (checkpoint, bytes), head)
                .await;
            self.mesh.state().snapshots += 1;
            self.end().and(reply)
        })
    }

    fn transfer(&self, request: TransferRequest) -> Said<'_, TransferReply> {
        Box::pin(async move {
            let reply = self.end()?.heard_transfer(request).await;
            self.end().and(reply)
        })
    }

    fn clock(&self) -> Said<'_, WallMs> {
        Box::pin(async move { Ok(self.end()?.wall()) })
    }

    fn likeness(&self) -> Said<'_, Option<Likeness>> {
        Box::pin(async move { Ok(self.end()?.likeness()) })
    }
}
