//! Three nodes that found each other, in a simulated world.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_head::Answering;
use esker_proto::{transport, tuning};
use esker_types::{Incarnation, NodeId};
use esker_wal::KeeperOptions;
use esker_wal::disk::WalOptions;
use esker_walnode::peers::{self, Credentials};
use esker_walnode::{Directory, Identity, Node, NodeOptions};
use tokio::task::AbortHandle;

use crate::site::{CLUSTER, SHARD, SHARDS};

pub(crate) const NODES: [u64; 3] = [1, 2, 3];
fn id(node: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, node).expect("small")
}

fn host(node: u64) -> String {
    format!("n{node}")
}

pub(crate) fn address(node: u64) -> String {
    format!("{}:7072", host(node))
}

pub(crate) struct Trio {
    pub(crate) network: SimNetwork,
    pub(crate) nodes: BTreeMap<u64, (Node, AbortHandle)>,
    seed: u64,
}

impl Trio {
    pub(crate) async fn found(seed: u64) -> Self {
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

    pub(crate) fn env(&self, host: &str) -> Env {
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

    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = self.nodes.iter().filter_map(|(number, (node, _))| {
            let replicas = node.replicas().iter();
            let mut of_shard = replicas.filter(|replica| replica.shard() == SHARD);
            Some((of_shard.next()?.leads_in()?, *number))
        });
        leads.max().map(|(_, node)| node)
    }

    /// Its process is gone.
    pub(crate) async fn kill(&mut self, number: u64) {
        let (node, serving) = self.nodes.remove(&number).expect("it runs");
        serving.abort();
        self.network.cut(&address(number));
        for replica in node.replicas() {
            replica.close().await;
        }
    }

    /// Its machine is gone: nothing comes from it, not even that it is.
    pub(crate) fn sever(&self, number: u64) {
        let others = NODES.map(host);
        for other in others.iter().map(String::as_str).chain(["agent"]) {
            self.network.sever(&host(number), other);
            self.network.sever(other, &host(number));
        }
    }
}
