//! Three nodes that speak gRPC over a simulated network: what one says, the others hear, and who is
//! not meant hears nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork, Sluggish};
use esker_env::{Env, Workers};
use esker_proto::internal::InstallPart;
use esker_proto::internal::install_part::{Beginning, Part};
use esker_proto::internal::raft_client::RaftClient;
use esker_proto::{transport, tuning};
use esker_shard::{Append, AppendBatch, Command, Genesis, Outcome, PutTopic, TopicConfig};
use esker_types::limits::{GIB, INSTALL_STALL_MAX};
use esker_types::{
    ClusterId, ContentHash, EntryId, Incarnation, LeaderEpoch, NodeId, Offset, PartitionId,
    PartitionIndex, RaftIndex, ShardId, ShardTime, Term, Timestamp, TopicId, TopicName,
    TopicVersion,
};
use esker_wal::Replica;
use esker_wal::disk::{Checkpoints, Vote, Wal, WalOptions};
use esker_wal::peers::{AppendReply, AppendRequest, Peers as _, VoteRequest};
use esker_walnode::peers::{Answering, Calling, Credentials, Refusals};
use futures::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

const SHARD: ShardId = ShardId(1);
const SHARDS: u32 = 4;
const NODES: [u64; 3] = [1, 2, 3];
const PATIENCE: Duration = Duration::from_secs(30);
/// A head of twenty MiB.
const BATCHES: u64 = 200;
const BATCH_BYTES: usize = 100 << 10;

fn partition() -> PartitionId {
    let topic = TopicId::new(Incarnation::FIRST, 1).expect("a small sequence");
    let index = PartitionIndex(0);
    PartitionId { topic, index }
}

fn batch_of(number: u64) -> Bytes {
    let bytes = number.to_le_bytes().into_iter().cycle();
    bytes.take(BATCH_BYTES).collect()
}

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
    /// Of the first shard.
    replica: Replica,
    replicas: BTreeMap<ShardId, Replica>,
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
        for replica in cluster.nodes[&id(1)].replicas.values() {
            let founded = replica.found(&voters).await;
            founded.expect("nobody has a log");
        }
        cluster
    }

    /// One where `leads` leads all shards, whose snapshots go over one connection then, and `late` is away.
    async fn led_by(leads: NodeId, late: NodeId) -> Self {
        let cluster = Self::founded().await;
        for shard in (1..=SHARDS).map(ShardId) {
            cluster.lead(shard, leads).await;
        }
        cluster.network.refuse(&address(late), true);
        cluster.network.cut(&address(late));
        cluster
    }

    /// Who leads by the word of a quorum.
    async fn leader(&self) -> &Replica {
        self.leader_of(SHARD).await
    }

    /// The same of any shard.
    async fn leader_of(&self, shard: ShardId) -> &Replica {
        let found = timeout(PATIENCE, async {
            loop {
                for node in self.nodes.values() {
                    let replica = &node.replicas[&shard];
                    let asked = timeout(Duration::from_secs(1), replica.read_index());
                    if matches!(asked.await, Ok(Ok(_))) {
                        return replica;
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

    /// Has `node` lead `shard`.
    async fn lead(&self, shard: ShardId, node: NodeId) {
        let led = timeout(PATIENCE, async {
            while self.nodes[&node].replicas[&shard].leads_in().is_none() {
                let leader = self.leader_of(shard).await;
                // Refused, or not come to pass: the next look tells.
                let _ = leader.hand_over(node).await;
                sleep(Duration::from_millis(200)).await;
            }
        });
        led.await.expect("it is as good as the others");
    }

    async fn put_topic(&self, shard: ShardId) {
        let put = Command::PutTopic(PutTopic {
            topic: partition().topic,
            name: TopicName::new("t").expect("a name"),
            version: TopicVersion(1),
            config: TopicConfig::default(),
            partitions: vec![partition().index],
        });
        let outcome = self.leader_of(shard).await.propose(&put, Vec::new()).await;
        let (_, outcome) = outcome.expect("there is room").await.expect("applied");
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
    }

    /// Appends a batch, the first at offset 0.
    async fn append(&self, shard: ShardId, number: u64) {
        let batch = AppendBatch {
            partition: partition(),
            bytes: u32::try_from(BATCH_BYTES).expect("small"),
            records: 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer: None,
            hash: ContentHash(u128::from(number)),
            expected_end: None,
            fencing: None,
        };
        let (time, batches) = (ShardTime(number), vec![batch]);
        let append = Command::Append(Append { time, batches });
        let leader = self.leader_of(shard).await;
        let outcome = leader.propose(&append, vec![batch_of(number)]).await;
        let (_, outcome) = outcome.expect("there is room").await.expect("applied");
        assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
    }

    /// Somebody who does not lead, once all are the same.
    async fn follower(&self) -> NodeId {
        self.converge().await;
        let mut nodes = self.nodes.iter();
        let follows = nodes.find(|(_, node)| node.replica.leads_in().is_none());
        *follows.expect("two follow").0
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
        // The last has a disk that takes its time.
        let slow = || Arc::new(Sluggish::new(node.as_u64(), Duration::from_millis(50)));
        let workers: Arc<dyn Workers> = match node.sequence() {
            3 => slow(),
            _ => Arc::new(Inline),
        };
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(node.as_u64())),
            files: Arc::new(SimDisk::new(node.as_u64()).mount()),
            workers,
            network: Arc::new(network.clone()),
        };
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints")).expect("a folder");
        let options = WalOptions {
            file_bytes: 2 << 20,
            group_bytes: 512 << 10,
            disk_bytes: 256 << 20,
            shards: SHARDS as usize,
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
        let peers = Arc::new(Calling::new(Arc::clone(&env.network), credentials(node)));
        let mut replicas = BTreeMap::new();
        for shard in (1..=SHARDS).map(ShardId) {
            let genesis = Genesis {
                shard,
                incarnation: Incarnation::FIRST,
                epoch_base: LeaderEpoch(0),
                data_shards: SHARDS,
            };
            let (wal, checkpoints) = (Arc::clone(&wal), checkpoints.clone());
            let peers = Arc::<Calling>::clone(&peers);
            let opened = Replica::open(&env, wal, checkpoints, node, genesis, peers);
            replicas.insert(shard, opened.await.expect("it opens"));
        }
        let answering = Answering::new(credentials(node), replicas.values().cloned(), GIB);
        let refusals = answering.refusals();
        let listener = env
            .network
            .listen(&address(node))
            .await
            .expect("a free address");
        tokio::spawn(answering.serve(listener));
        Self {
            replica: replicas[&SHARD].clone(),
            replicas,
            refusals,
        }
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

/// Many times what either end holds of it.
#[test]
fn a_large_head_goes_over_the_wire_piece_by_piece() {
    run(async {
        let cluster = Cluster::founded().await;
        cluster.put_topic(SHARD).await;
        let late = cluster.follower().await;
        cluster.network.refuse(&address(late), true);
        cluster.network.cut(&address(late));
        for number in 0..BATCHES {
            cluster.append(SHARD, number).await;
        }
        let leader = cluster.leader().await;
        let covered = leader.checkpoint().await.expect("room for it");
        let forgotten = timeout(PATIENCE, async {
            while leader.wal().bounds(SHARD).purged.index < covered {
                leader.forget().await.expect("raft runs");
                sleep(Duration::from_millis(10)).await;
            }
        });
        forgotten.await.expect("the log below a checkpoint goes");
        let replica = &cluster.nodes[&late].replica;
        cluster.network.refuse(&address(late), false);
        cluster.converge().await;
        assert!(replica.checkpointed().0 >= covered, "it came by entries");
        let state = replica.state();
        let data = state.data().expect("a data shard");
        for number in 0..BATCHES {
            let offset = Offset::new(number).expect("small");
            let position = data.head_lookup(partition(), offset);
            let batch = replica
                .read_batches(&[position.expect("in the head")])
                .await;
            let batch = batch.expect("readable").expect("held");
            assert_eq!(batch, [batch_of(number)]);
        }
    });
}

/// A node takes one snapshot at a time. Those that wait must not take up the connection by what they have
/// sent already, or the first would not get through, nor anything else.
#[test]
fn large_heads_of_many_shards_come_one_after_the_other() {
    run(async {
        let (leads, late) = (id(1), id(3));
        let cluster = Cluster::led_by(leads, late).await;
        let shards = || (1..=SHARDS).map(ShardId);
        let mut covered = BTreeMap::new();
        for shard in shards() {
            cluster.put_topic(shard).await;
            for number in 0..BATCHES / 2 {
                cluster.append(shard, number).await;
            }
            let leader = cluster.leader_of(shard).await;
            let last = leader.checkpoint().await.expect("room for it");
            let forgotten = timeout(PATIENCE, async {
                while leader.wal().bounds(shard).purged.index < last {
                    leader.forget().await.expect("raft runs");
                    sleep(Duration::from_millis(10)).await;
                }
            });
            forgotten.await.expect("the log below a checkpoint goes");
            covered.insert(shard, last);
        }
        cluster.network.refuse(&address(late), false);
        let installed = timeout(INSTALL_STALL_MAX, async {
            for (shard, replica) in &cluster.nodes[&late].replicas {
                while replica.checkpointed().0 < covered[shard] {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
        installed.await.expect("nothing of them stands still");
    });
}

/// While one shard's snapshot is sent the others wait in line, and their leaders make newer checkpoints. What they
/// wait with must not be forgotten meanwhile: who takes it could not go on from it, and would get the next one.
#[test]
fn what_waits_in_line_can_be_gone_on_from() {
    run(async {
        let (leads, late) = (id(1), id(3));
        let cluster = Cluster::led_by(leads, late).await;
        let leaders = &cluster.nodes[&leads].replicas;
        for (shard, leader) in leaders {
            cluster.put_topic(*shard).await;
            for number in 0..BATCHES / 4 {
                cluster.append(*shard, number).await;
            }
            let last = leader.checkpoint().await.expect("room for it");
            while leader.wal().bounds(*shard).purged.index < last {
                leader.forget().await.expect("raft runs");
                sleep(Duration::from_millis(10)).await;
            }
        }
        cluster
            .network
            .delay("", "node3", Duration::from_millis(25));
        cluster.network.refuse(&address(late), false);
        // Where it has been given a snapshot, shard by shard.
        let mut given = BTreeMap::<ShardId, BTreeSet<RaftIndex>>::new();
        // What there was when they came to stand in line.
        let mut first = BTreeMap::new();
        let began = tokio::time::Instant::now();
        let mut times = BATCHES..;
        while began.elapsed() < Duration::from_secs(20) {
            let time = times.next().map(ShardTime).expect("it has no end");
            for (shard, leader) in leaders {
                let ticked = leader.propose(&Command::Tick { time }, Vec::new()).await;
                let (_, ticked) = ticked.expect("there is room").await.expect("applied");
                assert_eq!(ticked, Outcome::Ticked);
                // Raft keeps what is on its way to the third: that of the last one has arrived.
                leader.forget().await.expect("raft runs");
                if time.0 % 4 == 0 {
                    leader.checkpoint().await.expect("room for it");
                }
                if began.elapsed() < Duration::from_secs(1) {
                    first.insert(*shard, leader.checkpointed().0);
                }
                let (at, _) = cluster.nodes[&late].replicas[shard].checkpointed();
                given.entry(*shard).or_default().insert(at);
            }
            sleep(Duration::from_millis(100)).await;
        }
        for (shard, given) in given {
            assert_eq!(given.len(), 2, "{shard} had none, then one: {given:?}");
            // What it stood in line with, not one that it was sent later.
            let one = given.last().expect("two");
            assert!(
                *one <= first[&shard],
                "{shard}: {one} is newer than {first:?}"
            );
            let upto = leaders[&shard].state().applied().index;
            let mut states = cluster.nodes[&late].replicas[&shard].watch();
            let goes_on = states.wait_for(|state| state.applied().index >= upto);
            let reached = timeout(PATIENCE, goes_on).await;
            reached.expect("it goes on from it").expect("it runs");
        }
    });
}

#[test]
fn whoever_applied_the_same_says_that_its_state_is_the_same() {
    run(async {
        let cluster = Cluster::founded().await;
        cluster.tick(1).await;
        let leader = cluster.leader().await;
        let peers = Calling::new(Arc::new(cluster.network.clone()), credentials(id(9)));
        let likeness = async |node: NodeId| {
            let peer = peers.peer(SHARD, node, &address(node));
            peer.likeness().await.expect("it answers")
        };
        for node in cluster.nodes.keys() {
            assert_eq!(likeness(*node).await, None, "nobody has asked for it");
        }
        let ours = leader.compare().await.expect("it leads");
        cluster.converge().await;
        for node in cluster.nodes.keys() {
            let same = timeout(PATIENCE, async {
                while likeness(*node).await != Some(ours) {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            same.await.expect("all have applied the same");
        }
    });
}

/// A state that never comes to be whole would be kept for ever.
#[test]
fn a_snapshot_with_an_empty_piece_is_refused() {
    run(async {
        let cluster = Cluster::start().await;
        let heard = &cluster.nodes[&id(2)];
        let endpoint = tuning::peer_endpoint(&format!("http://{}", address(id(2))));
        let channel = transport::channel(
            Arc::new(cluster.network.clone()),
            &endpoint.expect("an address"),
        );
        let beginning = Part::Beginning(Beginning {
            state_bytes: 1,
            ..Beginning::default()
        });
        let empty = stream::repeat(Part::State(Bytes::new())).take(1000);
        let parts = stream::iter([beginning]).chain(empty);
        let parts = parts.map(|part| InstallPart { part: Some(part) });
        let mut request = tonic::Request::new(parts);
        let shown = credentials(id(1));
        for (name, value) in [
            ("esker-cluster", shown.cluster.to_string()),
            ("esker-from", shown.node.as_u64().to_string()),
            ("esker-disk", format!("{:032x}", shown.disk)),
            ("esker-to", id(2).as_u64().to_string()),
            ("esker-shard", SHARD.0.to_string()),
        ] {
            let value = value.parse().expect("ascii");
            request.metadata_mut().insert(name, value);
        }
        let refused = RaftClient::new(channel).install(request).await;
        let refused = refused.expect_err("it is malformed");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("is empty"), "{refused}");
        assert_eq!(heard.refusals.malformed.load(Ordering::Relaxed), 1);
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
        let Some(Ok(AppendReply::Matched {
            upto,
            room,
            damaged,
        })) = reply
        else {
            unreachable!("{reply:?}");
        };
        assert!(!damaged, "its log is whole");
        assert_eq!(upto, EntryId::default());
        assert!(room > 0, "it says what it has room for");
    });
}
