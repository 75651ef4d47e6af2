//! Three nodes that speak gRPC over a simulated network: what one says, the others hear, and who is
//! not meant hears nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_shard::{Command, Genesis, Outcome};
use esker_types::limits::GIB;
use esker_types::{
    ClusterId, EntryId, Incarnation, LeaderEpoch, NodeId, RaftIndex, ShardId, ShardTime, Term,
};
use esker_wal::Replica;
use esker_wal::disk::{Checkpoints, Vote, Wal, WalOptions};
use esker_wal::peers::{AppendReply, AppendRequest, Peers as _, VoteRequest};
use esker_walnode::peers::{Answering, Calling, Credentials, Refusals};
use futures::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

const SHARD: ShardId = ShardId(1);
const NODES: [u64; 3] = [1, 2, 3];
const PATIENCE: Duration = Duration::from_secs(30);

fn id(sequence: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, sequence).expect("a small sequence")
}

fn address(node: NodeId) -> String {
    format!("node{}:7072", node.sequence())
}

fn credentials(node: NodeId) -> Credentials {
    Credentials {
        cluster: ClusterId(42),
        node,
        disk: u128::from(node.as_u64()),
    }
}

struct Node {
    replica: Replica,
    refusals: Arc<Refusals>,
}

struct Cluster {
    network: SimNetwork,
    nodes: BTreeMap<NodeId, Node>,
}

impl Cluster {
    async fn start() -> Self {
        let network = SimNetwork::new();
        let mut nodes = BTreeMap::new();
        for node in NODES.map(id) {
            nodes.insert(node, Node::start(node, &network).await);
        }
        Self { network, nodes }
    }

    async fn founded() -> Self {
        let cluster = Self::start().await;
        let voters: BTreeMap<_, _> = cluster
            .nodes
            .keys()
            .map(|node| (*node, address(*node)))
            .collect();
        let founded = cluster.nodes[&id(1)].replica.found(&voters).await;
        founded.expect("nobody has a log");
        cluster
    }

    /// Who leads by the word of a quorum.
    async fn leader(&self) -> &Replica {
        let found = timeout(PATIENCE, async {
            loop {
                for node in self.nodes.values() {
                    let asked = timeout(Duration::from_secs(1), node.replica.read_index());
                    if matches!(asked.await, Ok(Ok(_))) {
                        return &node.replica;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        found.await.expect("somebody comes to lead")
    }

    async fn tick(&self, time: u64) {
        let tick = Command::Tick {
            time: ShardTime(time),
        };
        let proposed = self
            .leader()
            .await
            .propose(&tick, vec![vec![7; 100_000].into()])
            .await;
        let (_, outcome) = proposed
            .expect("there is room")
            .await
            .expect("it is applied");
        assert_eq!(outcome, Outcome::Ticked);
    }

    /// Waits until all have the same state.
    async fn converge(&self) {
        let upto = self.leader().await.read_index().await.expect("it leads");
        let mut hashes = Vec::new();
        for node in self.nodes.values() {
            let mut states = node.replica.watch();
            let reached = timeout(
                PATIENCE,
                states.wait_for(|state| state.applied().index >= upto),
            );
            let state = reached.await.expect("it follows").expect("it runs").clone();
            hashes.push((state.applied(), state.hash()));
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "they differ: {hashes:?}");
    }
}

impl Node {
    async fn start(node: NodeId, network: &SimNetwork) -> Self {
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(node.as_u64())),
            files: Arc::new(SimDisk::new(node.as_u64()).mount()),
            workers: Arc::new(Inline),
            network: Arc::new(network.clone()),
        };
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints")).expect("a folder");
        let options = WalOptions {
            file_bytes: 2 << 20,
            group_bytes: 512 << 10,
            disk_bytes: 64 << 20,
            ..WalOptions::default()
        };
        let opened = Wal::open(
            &env,
            Path::new("/wal"),
            options,
            BTreeMap::new(),
            Arc::new(|_: &_| {}),
        );
        let (wal, _) = opened.await.expect("an empty disk");
        let genesis = Genesis {
            shard: SHARD,
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        };
        let peers = Arc::new(Calling::new(Arc::clone(&env.network), credentials(node)));
        let replica = Replica::open(&env, wal, checkpoints, node, genesis, peers)
            .await
            .expect("it opens");
        let answering = Answering::new(credentials(node), [replica.clone()], GIB);
        let refusals = answering.refusals();
        let listener = env
            .network
            .listen(&address(node))
            .await
            .expect("a free address");
        tokio::spawn(answering.serve(listener));
        Self { replica, refusals }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

#[test]
fn entries_reach_all_and_go_on_after_every_connection_was_cut() {
    run(async {
        let cluster = Cluster::founded().await;
        for time in 1..=20 {
            cluster.tick(time).await;
            if time % 5 == 0 {
                for node in cluster.nodes.keys() {
                    cluster.network.cut(&address(*node));
                }
            }
        }
        cluster.converge().await;
    });
}

#[test]
fn who_was_away_gets_a_snapshot_over_the_wire() {
    run(async {
        let cluster = Cluster::founded().await;
        cluster.tick(1).await;
        cluster.converge().await;
        let leader = cluster.leader().await;
        let late = cluster
            .nodes
            .iter()
            .find(|(_, node)| node.replica.leads_in().is_none());
        let (late, away) = late.expect("two follow");
        cluster.network.refuse(&address(*late), true);
        cluster.network.cut(&address(*late));
        for time in 2..=10 {
            cluster.tick(time).await;
        }
        let covered = leader.checkpoint().await.expect("room for it");
        let forgotten = timeout(PATIENCE, async {
            while leader.wal().bounds(SHARD).purged.index < covered {
                leader.forget().await.expect("raft runs");
                sleep(Duration::from_millis(10)).await;
            }
        });
        forgotten.await.expect("the log below a checkpoint goes");
        assert!(away.replica.state().applied().index < covered);
        cluster.network.refuse(&address(*late), false);
        cluster.converge().await;
        // It has a checkpoint that it did not make.
        assert!(away.replica.checkpointed().0 >= covered);
    });
}

#[test]
fn who_is_not_meant_hears_nothing() {
    run(async {
        let cluster = Cluster::start().await;
        let heard = &cluster.nodes[&id(2)];
        let refused = || heard.refusals.misdirected.load(Ordering::Relaxed);
        let vote = VoteRequest {
            vote: Vote {
                term: Term(9),
                node: id(1).as_u64(),
                committed: false,
            },
            last: EntryId {
                term: Term(9),
                index: RaftIndex(9),
            },
            transfer: false,
            beforehand: false,
        };
        let good = credentials(id(1));
        let elsewhere = Credentials {
            cluster: ClusterId(43),
            ..good
        };
        let forged = Credentials {
            node: id(2),
            ..good
        };
        let cases = [
            (elsewhere, id(2), SHARD, "is of cluster"),
            (forged, id(2), SHARD, "and so is this node"),
            (good, id(3), SHARD, "the call is for"),
            (good, id(2), ShardId(7), "is not here"),
        ];
        for (number, (shown, to, shard, text)) in (1..).zip(cases) {
            let calling = Calling::new(Arc::new(cluster.network.clone()), shown);
            // Whoever it is for, it goes to the second node's address.
            let peer = calling.peer(shard, to, &address(id(2)));
            let answer = peer.vote(vote).await.expect_err("it is not meant");
            assert!(answer.0.contains(text), "{answer}");
            assert_eq!(refused(), number);
        }
        let append = AppendRequest {
            vote: Vote {
                term: Term(9),
                node: id(1).as_u64(),
                committed: true,
            },
            previous: EntryId::default(),
            entries: Vec::new(),
            committed: EntryId::default(),
        };
        let calling = Calling::new(Arc::new(cluster.network.clone()), elsewhere);
        let peer = calling.peer(SHARD, id(2), &address(id(2)));
        let answer = peer.append(stream::iter([append.clone()]).boxed()).await;
        assert!(answer.is_err(), "a stranger's append was heard");
        assert_eq!(heard.replica.wal().bounds(SHARD).vote, None, "it has voted");

        // The same from who is meant.
        let calling = Calling::new(Arc::new(cluster.network.clone()), good);
        let peer = calling.peer(SHARD, id(2), &address(id(2)));
        let answer = peer.append(stream::iter([append]).boxed()).await;
        let reply = answer.expect("it is taken").next().await;
        let Some(Ok(AppendReply::Matched { upto, room })) = reply else {
            unreachable!("{reply:?}");
        };
        assert_eq!(upto, EntryId::default());
        assert!(room > 0, "it says what it has room for");
    });
}
