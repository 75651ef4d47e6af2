//! Three nodes: whoever leads is lost, and appends go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_head::{Answering, Calling};
use esker_log::Head;
use esker_proto::{transport, tuning};
use esker_shard::AppendOutcome;
use esker_types::limits::ELECTION_MAX;
use esker_types::{Incarnation, NodeId, OffsetRange, PartitionId};
use esker_wal::KeeperOptions;
use esker_wal::disk::WalOptions;
use esker_walnode::peers::{self, Credentials};
use esker_walnode::{Directory, Identity, Node, NodeOptions};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::site::{CLUSTER, SHARD, SHARDS, batch, make_partition, range, run, stamp};

const NODES: [u64; 3] = [1, 2, 3];
/// Appended while that happens.
const APPENDS: u32 = 400;
const SEEDS: u64 = 3;

fn id(node: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, node).expect("small")
}

fn host(node: u64) -> String {
    format!("n{node}")
}

fn address(node: u64) -> String {
    format!("{}:7072", host(node))
}

struct Trio {
    network: SimNetwork,
    nodes: BTreeMap<u64, (Node, AbortHandle)>,
    seed: u64,
}

impl Trio {
    async fn found(seed: u64) -> Self {
        let (network, nodes) = (SimNetwork::new(), BTreeMap::new());
        let mut trio = Self {
            network,
            nodes,
            seed,
        };
        for node in NODES {
            trio.start(node).await;
        }
        let voters = NODES.map(|node| (id(node), address(node))).into();
        for replica in trio.nodes[&1].0.replicas() {
            replica.found(&voters).await.expect("nobody has a log");
        }
        trio
    }

    fn env(&self, host: &str) -> Env {
        let seed = host
            .bytes()
            .fold(self.seed, |seed, byte| seed << 8 | u64::from(byte));
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            files: Arc::new(SimDisk::new(seed).mount()),
            workers: Arc::new(Inline),
            network: Arc::new(self.network.at(host)),
        }
    }

    async fn start(&mut self, number: u64) {
        let env = self.env(&host(number));
        let directory = Directory::take(&env, Path::new("/data")).await;
        let directory = directory.expect("nobody else has it");
        let (disk, _) = directory.one_of_several(&env).expect("it is empty");
        let node = id(number);
        let identity = Identity {
            cluster: CLUSTER,
            node,
            disk: Some(disk),
            ..Identity::founder(&env, SHARDS)
        };
        directory.belongs_to(&env, &identity).expect("it is empty");
        let credentials = Credentials {
            cluster: CLUSTER,
            node,
            disk: disk.0,
        };
        let options = NodeOptions {
            wal: WalOptions {
                file_bytes: 1 << 20,
                group_bytes: 256 << 10,
                disk_bytes: 64 << 20,
                ..WalOptions::default()
            },
            keeper: KeeperOptions::default(),
            head_bytes: 32 << 20,
        };
        let peers = Arc::new(peers::Calling::new(Arc::clone(&env.network), credentials));
        let node = Node::start(&env, directory, &identity, options, peers).await;
        let node = node.expect("it starts");
        let raft = peers::Answering::new(credentials, node.replicas().to_vec(), 32 << 20);
        let head = Answering::new(CLUSTER, node.head());
        let server = tuning::peer_server()
            .add_service(raft.service())
            .add_service(head.service());
        let listener = env.network.listen(&address(number)).await;
        let incoming = transport::incoming(listener.expect("a free address"));
        let serving = tokio::spawn(server.serve_with_incoming(incoming));
        self.nodes.insert(number, (node, serving.abort_handle()));
    }

    fn leader(&self) -> Option<u64> {
        let leads = self.nodes.iter().filter_map(|(number, (node, _))| {
            let replicas = node.replicas().iter();
            let mut of_shard = replicas.filter(|replica| replica.shard() == SHARD);
            Some((of_shard.next()?.leads_in()?, *number))
        });
        leads.max().map(|(_, node)| node)
    }

    /// Its process is gone.
    async fn kill(&mut self, number: u64) {
        let (node, serving) = self.nodes.remove(&number).expect("it runs");
        serving.abort();
        self.network.cut(&address(number));
        for replica in node.replicas() {
            replica.close().await;
        }
    }

    /// Its machine is gone: nothing comes from it, not even that it is.
    fn sever(&self, number: u64) {
        let others = NODES.map(host);
        for other in others.iter().map(String::as_str).chain(["agent"]) {
            self.network.sever(&host(number), other);
            self.network.sever(other, &host(number));
        }
    }
}

/// Appends until `upto` are answered; the longest time in which none was.
async fn append(head: Calling, partition: PartitionId, upto: u32) -> Duration {
    let (mut under_way, mut next, mut done) = (Vec::new(), 0, 0);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while done < upto {
        while under_way.len() < 5 && next < upto {
            let bytes = Bytes::from(next.to_string());
            let (batch, bytes) = batch(partition, 1, bytes, Some(stamp(1, next)));
            let answer = head.append(SHARD, batch, bytes).await;
            under_way.push(answer.expect("it is queued"));
            next += 1;
            sleep(Duration::from_millis(2)).await;
        }
        let outcome = under_way.remove(0).await;
        let found: OffsetRange = match outcome.expect("somebody comes to lead") {
            AppendOutcome::Accepted { range, .. } | AppendOutcome::Duplicate { range } => range,
            rejected => panic!("{rejected:?}"),
        };
        assert_eq!(found, range(u64::from(done), u64::from(done) + 1));
        done += 1;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

async fn lose_the_leader(seed: u64, machine: bool) -> Duration {
    let mut trio = Trio::found(seed).await;
    // One is enough: the others are named.
    let calling = Calling::new(&trio.env("agent"), CLUSTER, SHARDS, vec![address(2)]);
    let partition = make_partition(&calling).await;
    let appending = tokio::spawn(append(calling.clone(), partition, APPENDS));
    sleep(Duration::from_millis(200 + seed * 37)).await;
    let leader = trio.leader().expect("somebody leads");
    if machine {
        trio.sever(leader);
    } else {
        trio.kill(leader).await;
    }
    let longest = appending.await.expect("all are there, once, in order");
    let bounds = calling.bounds(SHARD, partition).await.expect("it is led");
    assert_eq!(bounds.expect("it is there").end.get(), u64::from(APPENDS));
    longest
}

#[test]
fn appends_go_on_within_three_elections_after_the_leader_was_killed() {
    for seed in 1..=SEEDS {
        let longest = run(lose_the_leader(seed, false));
        assert!(longest <= 3 * ELECTION_MAX, "seed {seed}: {longest:?}");
        assert!(longest > Duration::from_millis(100), "it was not missed");
    }
}

#[test]
fn appends_go_on_within_three_elections_after_the_leaders_machine_is_gone() {
    for seed in 1..=SEEDS {
        let longest = run(lose_the_leader(seed, true));
        assert!(longest <= 3 * ELECTION_MAX, "seed {seed}: {longest:?}");
        assert!(longest > Duration::from_millis(100), "it was not missed");
    }
}
