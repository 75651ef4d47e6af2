//! Three replicas of a shard and more, each on a disk of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use esker_env::sim::{Crash, SimClock, SimDisk};
use esker_shard::{Command, CommitSegment, ObjectChecksum, Outcome};
use esker_types::limits::GIB;
use esker_types::{NodeId, Offset, RaftIndex, SegmentId, ShardTime};
use esker_wal::disk::WalOptions;
use esker_wal::{AppendRefusal, Appender, Error, Replica, Share};
use tokio::time::{sleep, timeout};

use super::mesh::Mesh;
use super::world::{World, accepted, batch, node_id, partition, payload, put_topic};

pub(crate) const NODES: [u64; 3] = [1, 2, 3];
/// Many elections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Many round trips.
pub(crate) const QUORUM_WAIT: Duration = Duration::from_secs(1);
pub(crate) const BYTES: usize = 1000;

pub(crate) struct Member {
    world: World,
    running: Option<Running>,
}

pub(crate) struct Running {
    pub(crate) replica: Replica,
    pub(crate) appender: Appender,
}

/// Three nodes.
pub(crate) struct Trio {
    pub(crate) mesh: Mesh,
    members: BTreeMap<NodeId, Member>,
}

impl Trio {
    /// Three nodes that have a leader and a topic.
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with(seed, |_, _| {}).await
    }

    /// The same, with what is different about a node's log.
    pub(crate) async fn with(seed: u64, differ: impl Fn(u64, &mut WalOptions)) -> Self {
        let members = NODES.map(|node| {
            let (mut world, running) = (World::new(seed * 8 + node), None);
            differ(node, &mut world.options);
            (node_id(node), Member { world, running })
        });
        let mut trio = Self {
            mesh: Mesh::default(),
            members: members.into(),
        };
        for node in NODES {
            trio.start(node_id(node)).await;
        }
        let voters: BTreeMap<_, _> = NODES
            .map(|node| (node_id(node), format!("n{node}:1")))
            .into();
        let founded = trio.replica(node_id(1)).found(&voters).await;
        founded.expect("nobody has a log");
        let outcome = trio.propose(put_topic()).await;
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
        trio
    }

    /// A node that nobody knows yet, on an empty disk.
    pub(crate) async fn enlist(&mut self, seed: u64, node: NodeId) {
        let (world, running) = (World::new(seed * 8 + node.sequence()), None);
        self.members.insert(node, Member { world, running });
        self.start(node).await;
    }

    pub(crate) async fn start(&mut self, node: NodeId) {
        let member = self.members.get_mut(&node).expect("one of three");
        let env = member.world.env();
        let peers = self.mesh.from(node);
        let (replica, _) = member
            .world
            .replica(&env, node, peers)
            .await
            .expect("it opens");
        self.mesh.join(node, replica.clone());
        let clock = Arc::clone(&env.clock);
        let appender = Appender::start(
            replica.clone(),
            clock,
            Share::of(GIB),
            Arc::new(|| ShardTime::ZERO),
        );
        member.running = Some(Running { replica, appender });
    }

    /// Ends `node` as a crash does, and what its disk loses by it.
    pub(crate) async fn crash(&mut self, node: NodeId, how: Crash) {
        self.mesh.leave(node);
        let member = self.members.get_mut(&node).expect("one of three");
        member.world.disk.crash(how);
        if let Some(running) = member.running.take() {
            running.replica.close().await;
        }
    }

    /// What `node` writes to.
    pub(crate) fn disk(&self, node: NodeId) -> &SimDisk {
        &self.members[&node].world.disk
    }

    /// What `node` takes for the time.
    pub(crate) fn clock(&self, node: NodeId) -> &SimClock {
        self.members[&node].world.clock.as_ref().expect("it is up")
    }

    /// The disk of `node` as it is now.
    pub(crate) fn image(&self, node: NodeId, seed: u64) -> SimDisk {
        self.members[&node].world.disk.fork(seed)
    }

    /// Ends `node`, whose disk is from then on `image`.
    pub(crate) async fn set_back(&mut self, node: NodeId, image: SimDisk) {
        self.crash(node, Crash::Kill).await;
        let member = self.members.get_mut(&node).expect("one of three");
        member.world.disk = image;
    }

    /// Rots a bit of the payload of `number` wherever it stands in the log of `node`. How often that was.
    pub(crate) fn strike(&self, node: NodeId, number: u64) -> usize {
        self.members[&node].world.strike(number, BYTES)
    }

    pub(crate) fn running(&self, node: NodeId) -> &Running {
        let running = self.members[&node].running.as_ref();
        running.expect("it is up")
    }

    pub(crate) fn replica(&self, node: NodeId) -> &Replica {
        &self.running(node).replica
    }

    pub(crate) fn up(&self) -> Vec<NodeId> {
        let up = self
            .members
            .iter()
            .filter(|(_, member)| member.running.is_some());
        up.map(|(node, _)| *node).collect()
    }

    /// Who leads by the word of a quorum.
    pub(crate) async fn leader(&self) -> NodeId {
        let found = timeout(PATIENCE, async {
            loop {
                for node in self.up() {
                    // A leader that was cut off asks for ever.
                    let asked = timeout(QUORUM_WAIT, self.replica(node).read_index());
                    if matches!(asked.await, Ok(Ok(_))) {
                        return node;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        found.await.expect("somebody comes to lead")
    }

    /// Has `node` lead.
    pub(crate) async fn lead(&self, node: NodeId) {
        let led = timeout(PATIENCE, async {
            loop {
                let leader = self.leader().await;
                if leader == node {
                    return;
                }
                let asked = self.replica(leader).hand_over(node).await;
                asked.expect("raft runs");
                sleep(Duration::from_millis(200)).await;
            }
        });
        led.await.expect("it is as good as the others");
    }

    /// Who does not.
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        let mut others = self.up().into_iter().filter(|node| *node != leader);
        others.next().expect("somebody else is up")
    }

    pub(crate) async fn propose(&self, command: Command) -> Outcome {
        let leader = self.leader().await;
        let outcome = self.replica(leader).propose(&command, Vec::new()).await;
        outcome.expect("it leads").await.expect("applied").1
    }

    /// Appends until it is acknowledged, as an idempotent producer does; its offset.
    pub(crate) async fn append(&self, number: u64) -> u64 {
        let acknowledged = timeout(PATIENCE, async {
            loop {
                let leader = self.leader().await;
                if let Ok(offset) = self.append_at(leader, number).await {
                    return offset;
                }
            }
        });
        acknowledged.await.expect("it gets through")
    }

    pub(crate) async fn append_at(&self, node: NodeId, number: u64) -> Result<u64, AppendRefusal> {
        let appender = &self.running(node).appender;
        let queued = appender
            .append(batch(number, BYTES), payload(number, BYTES))
            .await?;
        let answer = queued.await?;
        Ok(accepted(Ok(answer)))
    }

    /// Commits a segment that holds all of the head, as a flusher would once it is in the bucket.
    pub(crate) async fn flush(&self) {
        let flushed = timeout(PATIENCE, async {
            loop {
                let state = self.replica(self.leader().await).state();
                let Some(plan) = state.flush_plan(u64::MAX, RaftIndex(u64::MAX)) else {
                    return;
                };
                let commit = CommitSegment {
                    segment: SegmentId(u128::from(plan.raft.to.0)),
                    length: plan.bytes,
                    checksum: ObjectChecksum(7),
                    raft: plan.raft,
                    ranges: plan.ranges,
                };
                let outcome = self.propose(Command::CommitSegment(commit)).await;
                let committed = matches!(outcome, Outcome::SegmentCommitted { .. });
                assert!(committed, "{outcome:?}");
            }
        });
        flushed.await.expect("the reserve takes it");
    }

    /// Has those that are up let go of what they need no more.
    pub(crate) async fn let_go(&self) {
        for node in self.up() {
            let replica = self.replica(node);
            replica.checkpoint().await.expect("raft runs");
            for _ in 0..10 {
                replica.forget().await.expect("raft runs");
                sleep(Duration::from_millis(20)).await;
            }
            replica.release();
        }
    }

    /// Waits until all that are up have applied the same, and are the same.
    pub(crate) async fn converge(&self) {
        let leader = self.leader().await;
        let upto = self.replica(leader).read_index().await.expect("it leads");
        let mut hashes = Vec::new();
        for node in self.up() {
            let mut states = self.replica(node).watch();
            let reached = timeout(
                PATIENCE,
                states.wait_for(|state| state.applied().index >= upto),
            );
            let state = reached.await.expect("it follows").expect("it runs").clone();
            hashes.push((state.applied(), state.hash()));
        }
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "replicas differ: {hashes:?}");
    }

    /// What a node's own disk has at `offset` of the head: a number.
    pub(crate) async fn read(&self, node: NodeId, offset: u64) -> Result<u64, Error> {
        let replica = self.replica(node);
        let state = replica.state();
        let data = state.data().expect("a data shard");
        let offset = Offset::new(offset).expect("a small one");
        let position = data.head_lookup(partition(), offset);
        let bytes = replica
            .read_batches(&[position.expect("in the head")])
            .await?;
        let bytes = bytes.expect("held while a state names it").remove(0);
        Ok(u64::from_le_bytes(
            bytes[..8].try_into().expect("eight bytes"),
        ))
    }

    /// What a replica's own disk has of the head: number by offset.
    pub(crate) async fn head(&self, node: NodeId) -> Vec<u64> {
        let replica = self.replica(node);
        let state = replica.state();
        let data = state.data().expect("a data shard");
        let known = data.partition(partition()).expect("its only one");
        let mut offset = known.tiered_end().max(known.log_start());
        let mut numbers = Vec::new();
        while let Some(position) = data.head_lookup(partition(), offset) {
            let bytes = replica.read_batches(&[position]).await.expect("readable");
            let bytes = bytes.expect("held while a state names it").remove(0);
            numbers.push(u64::from_le_bytes(
                bytes[..8].try_into().expect("eight bytes"),
            ));
            offset = position.batch.range.end();
        }
        assert_eq!(offset, known.end(), "the head has a gap");
        numbers
    }
}
