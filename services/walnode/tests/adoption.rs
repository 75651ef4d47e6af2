//! A node is adopted over a simulated network, on a simulated disk: once, for ever, whatever dies.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_env::sim::{Crash, Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_env::{Env, Network};
use esker_proto::internal::raft_server::RaftServer;
use esker_proto::{transport, tuning};
use esker_types::{ClusterId, EntryId, Incarnation, NodeId, RaftIndex, ShardId, Term};
use esker_wal::disk::Vote;
use esker_wal::peers::{Peers as _, VoteRequest};
use esker_walnode::adoption::{
    Answering, CallError, Calling, Founder, Founders, Membership, Standing,
};
use esker_walnode::peers::{self, Credentials};
use esker_walnode::{Directory, DiskId, Identity, IdentityError, NodeError, Slot};
use futures::future::join_all;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

const DATA: &str = "/data";
const ADDRESS: &str = "node:7072";
const NOT_YET: &str = "not adopted yet";

/// What outlives the processes of a node.
struct Machine {
    disk: SimDisk,
    network: SimNetwork,
    lives: u64,
}

/// One life of it.
struct Running {
    standing: Standing,
    serving: AbortHandle,
    _directory: Directory,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self::with(SimDisk::new(seed))
    }

    fn with(disk: SimDisk) -> Self {
        let network = SimNetwork::new();
        let lives = 0;
        Self {
            disk,
            network,
            lives,
        }
    }

    fn env(&mut self) -> Env {
        self.lives += 1;
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(self.network.clone()),
        }
    }

    async fn start(&mut self) -> Result<Running, NodeError> {
        let env = self.env();
        let directory = Directory::take(&env, Path::new(DATA)).await?;
        let standing = Standing::of(&env, &directory)?;
        let raft: Slot<RaftServer<peers::Answering>> = Slot::new(NOT_YET);
        let server = tuning::peer_server()
            .add_service(Answering::new(standing.clone()).service())
            .add_service(raft);
        let listener = env.network.listen(ADDRESS).await.expect("a free address");
        let serving = server.serve_with_incoming(transport::incoming(listener));
        Ok(Running {
            standing,
            serving: tokio::spawn(serving).abort_handle(),
            _directory: directory,
        })
    }

    /// The power goes; whoever is connected hears nothing more.
    async fn cut_power(&self, running: Running) {
        self.network.cut(ADDRESS);
        running.serving.abort();
        // The address is given back by the task that ends.
        while !running.serving.is_finished() {
            tokio::task::yield_now().await;
        }
        drop(running);
        self.disk.crash(Crash::PowerCut);
    }

    fn calling(&self) -> Calling {
        let network: Arc<dyn Network> = Arc::new(self.network.clone());
        Calling::new(&network, ADDRESS).expect("an address")
    }
}

fn membership(cluster: u128, sequence: u64) -> Membership {
    Membership {
        cluster: ClusterId(cluster),
        incarnation: Incarnation::FIRST,
        node: NodeId::new(Incarnation::FIRST, sequence).expect("a small sequence"),
        data_shards: 2,
    }
}

fn founders(all: &[(u64, &str, DiskId)]) -> Founders {
    let all = all.iter().map(|(sequence, address, disk)| {
        let (address, disk) = ((*address).to_owned(), *disk);
        (membership(7, *sequence).node, Founder { address, disk })
    });
    Founders::new(all).expect("distinct")
}

/// Who is adopted to found a cluster is among its founders, on the disk that it shows. Who joins founds
/// none.
#[test]
fn a_founder_knows_itself_among_the_others() {
    run(async {
        let mut machine = Machine::new(11);
        let node = machine.start().await.expect("an empty disk");
        let (calling, disk) = (machine.calling(), node.standing.disk());
        let ours = membership(7, 1);
        let elsewhere = DiskId(disk.0 ^ 1);
        for strange in [
            founders(&[(2, ADDRESS, disk), (3, "other:7072", DiskId(2))]),
            founders(&[(1, ADDRESS, elsewhere), (2, "other:7072", disk)]),
        ] {
            let said = refusal(calling.adopt(disk, ours, &strange).await);
            assert!(said.contains("is not among the founders"), "{said}");
        }
        let joined = calling.adopt(disk, ours, &Founders::default()).await;
        joined.expect("it joins");
        let identity = node.standing.adopted().await.expect("it was");
        let _foundings = node.standing.open(identity, &[]);
        let alone = BTreeMap::from([(ours.node, ADDRESS.to_owned())]);
        let said = refusal(calling.found(ours.cluster, &alone).await);
        assert!(said.contains("joins a cluster that stands"), "{said}");
    });
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, CallError>) -> String {
    let error = answer.expect_err("it refuses");
    assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_node_belongs_to_one_cluster_for_ever() {
    run(async {
        let mut machine = Machine::new(1);
        let node = machine.start().await.expect("an empty disk");
        let calling = machine.calling();
        let hello = calling.hello().await.expect("it listens");
        assert_eq!((hello.disk, hello.membership), (node.standing.disk(), None));
        assert!(!hello.open && !hello.has_begun());

        let ours = membership(7, 2);
        let elsewhere = DiskId(hello.disk.0 ^ 1);
        let said = refusal(calling.adopt(elsewhere, ours, &Founders::default()).await);
        assert!(said.contains("leads to another machine"), "{said}");
        assert_eq!(calling.hello().await, Ok(hello.clone()), "it was adopted");

        let waiting = tokio::spawn({
            let standing = node.standing.clone();
            async move { standing.adopted().await }
        });
        for _ in 0..2 {
            calling
                .adopt(hello.disk, ours, &Founders::default())
                .await
                .expect("adopted");
        }
        let identity = waiting.await.expect("no panic").expect("written");
        assert_eq!(identity.membership(), ours);
        assert_eq!(identity.disk, Some(hello.disk));
        assert!(!identity.claimed && !identity.begun);
        for other in [
            membership(8, 2),
            membership(7, 3),
            Membership {
                data_shards: 3,
                ..ours
            },
        ] {
            let said = refusal(calling.adopt(hello.disk, other, &Founders::default()).await);
            assert!(said.contains("this node is n1.2 of cluster"), "{said}");
        }

        machine.cut_power(node).await;
        let node = machine.start().await.expect("it is ours");
        let again = calling.hello().await.expect("it listens");
        assert_eq!((again.disk, again.membership), (hello.disk, Some(ours)));
        let said = refusal(
            calling
                .adopt(hello.disk, membership(8, 2), &Founders::default())
                .await,
        );
        assert!(said.contains("this node is n1.2 of cluster"), "{said}");
        calling
            .adopt(hello.disk, ours, &Founders::default())
            .await
            .expect("it was");
        assert_eq!(node.standing.adopted().await.expect("it was"), identity);
    });
}

/// Killed before every write, sync and change of names of an adoption: what was answered is so after a
/// power cut; what was not is so or is not, and can be done again.
#[test]
fn an_adoption_that_was_answered_is_on_the_disk() {
    let mut seen = BTreeMap::new();
    for before in 1..12 {
        let answered = run(async {
            let mut machine = Machine::new(before);
            let node = machine.start().await.expect("an empty disk");
            let calling = machine.calling();
            let disk = calling.hello().await.expect("it listens").disk;
            machine.disk.kill_before(before);
            let answered = calling
                .adopt(disk, membership(7, 1), &Founders::default())
                .await
                .is_ok();
            if !answered {
                let told = node.standing.adopted().await;
                told.expect_err("whoever runs it hears of it");
                let again = calling
                    .adopt(disk, membership(7, 1), &Founders::default())
                    .await;
                assert!(matches!(again, Err(CallError::Away { .. })), "{again:?}");
            }
            machine.cut_power(node).await;
            let _node = machine.start().await.expect("a whole file, or none");
            let hello = calling.hello().await.expect("it listens");
            assert_eq!(hello.disk, disk, "killed before call {before}");
            if answered {
                assert_eq!(hello.membership, Some(membership(7, 1)));
            }
            let whole = hello.membership.is_none_or(|of| of == membership(7, 1));
            assert!(whole, "{hello:?}");
            calling
                .adopt(disk, membership(7, 1), &Founders::default())
                .await
                .expect("again");
            answered
        });
        *seen.entry(answered).or_insert(0) += 1;
    }
    assert!(seen[&true] > 0 && seen[&false] > 2, "{seen:?}");
}

#[test]
fn before_it_is_adopted_only_its_own_service_answers() {
    run(async {
        let mut machine = Machine::new(3);
        let _node = machine.start().await.expect("an empty disk");
        let network: Arc<dyn Network> = Arc::new(machine.network.clone());
        let credentials = Credentials {
            cluster: ClusterId(7),
            node: membership(7, 1).node,
            disk: 1,
        };
        let peers = peers::Calling::new(network, credentials);
        let peer = peers.peer(ShardId(1), membership(7, 2).node, ADDRESS);
        let vote = VoteRequest {
            vote: Vote {
                term: Term(9),
                node: 1,
                committed: false,
            },
            last: EntryId {
                term: Term(9),
                index: RaftIndex(9),
            },
            transfer: false,
            beforehand: false,
        };
        let answer = peer.vote(vote).await.expect_err("nobody is there to vote");
        assert!(answer.0.contains(NOT_YET), "{answer}");
        let voters = BTreeMap::from([(membership(7, 1).node, ADDRESS.to_owned())]);
        let said = refusal(machine.calling().found(ClusterId(7), &voters).await);
        assert!(said.contains("this node is not adopted yet"), "{said}");
    });
}

#[test]
fn a_founding_reaches_whoever_runs_the_node() {
    run(async {
        let mut machine = Machine::new(4);
        let node = machine.start().await.expect("an empty disk");
        let (calling, ours) = (machine.calling(), membership(7, 1));
        let founders = founders(&[
            (1, ADDRESS, node.standing.disk()),
            (2, "other:7072", DiskId(2)),
        ]);
        let disk = node.standing.disk();
        for _ in 0..2 {
            let adopted = calling.adopt(disk, ours, &founders).await;
            adopted.expect("adopted");
        }
        let others = refusal(calling.adopt(disk, ours, &Founders::default()).await);
        assert!(others.contains("n1.2 at other:7072: found it"), "{others}");
        let voters = founders.voters();
        let early = calling.found(ours.cluster, &voters).await;
        assert!(matches!(early, Err(CallError::Away { .. })), "{early:?}");

        let identity = node.standing.adopted().await.expect("it was");
        let mut foundings = node.standing.open(identity, &[]);
        assert!(calling.hello().await.expect("it listens").open);
        let told = voters.clone();
        let runs = tokio::spawn(async move {
            for answer in [Err("no room".to_owned()), Ok(())] {
                let founding = foundings.recv().await.expect("somebody founds");
                assert_eq!(founding.voters, told);
                founding.done.send(answer).expect("somebody waits");
            }
        });
        let failed = calling.found(ours.cluster, &voters).await;
        let failed = failed.expect_err("no room");
        assert!(failed.to_string().contains("no room"), "{failed}");
        calling.found(ours.cluster, &voters).await.expect("founded");
        runs.await.expect("no panic");

        let said = refusal(calling.found(ClusterId(8), &voters).await);
        assert!(said.contains("and cluster 0000"), "{said}");
        let other = |node| (membership(7, node).node, "other:7072".to_owned());
        let own = (ours.node, ADDRESS.to_owned());
        for others in [vec![other(2)], vec![own.clone()], vec![own, other(3)]] {
            let others = others.into_iter().collect();
            let said = refusal(calling.found(ours.cluster, &others).await);
            assert!(said.contains("those it was adopted with"), "{said}");
        }
        let twice = BTreeMap::from([
            (ours.node, ADDRESS.to_owned()),
            (membership(7, 2).node, ADDRESS.to_owned()),
        ]);
        let said = refusal(calling.found(ours.cluster, &twice).await);
        assert!(said.contains("at the same address"), "{said}");
        let ended = calling.found(ours.cluster, &voters).await;
        assert!(matches!(ended, Err(CallError::Away { .. })), "{ended:?}");
    });
}

/// Of a directory that is copied whole, both show the same disk. An identity that is copied alone is
/// known for a copy at once.
#[test]
fn a_copy_of_a_directory_shows_the_same_disk_and_a_copied_identity_is_refused() {
    run(async {
        let mut machine = Machine::new(5);
        let node = machine.start().await.expect("an empty disk");
        let disk = node.standing.disk();
        let calling = machine.calling();
        calling
            .adopt(disk, membership(7, 1), &Founders::default())
            .await
            .expect("ours");
        machine.cut_power(node).await;
        let mut copy = Machine::with(machine.disk.fork(6));
        let node = copy.start().await.expect("a copy");
        assert_eq!(node.standing.disk(), disk);
        copy.cut_power(node).await;

        let env = copy.env();
        let path = Path::new(DATA).join("disk.json");
        env.files.remove(&path).expect("it was there");
        let refused = copy.start().await.err().expect("a copied identity");
        let NodeError::Identity(IdentityError::Copied { adopted, .. }) = refused else {
            unreachable!("{refused}");
        };
        assert_eq!(adopted, disk);
    });
}

#[test]
fn a_cluster_of_one_and_a_node_of_several_are_not_taken_for_each_other() {
    run(async {
        let mut machine = Machine::new(8);
        let env = machine.env();
        let directory = Directory::take(&env, Path::new(DATA)).await;
        let directory = directory.expect("an empty disk");
        assert_eq!(directory.alone(&env).expect("empty"), None);
        let founder = Identity::founder(&env, 2);
        directory.belongs_to(&env, &founder).expect("written");
        assert_eq!(
            directory.alone(&env).expect("alone").as_ref(),
            Some(&founder)
        );
        let refused = directory.one_of_several(&env).expect_err("alone");
        assert!(
            matches!(refused, IdentityError::OneAlone { cluster, .. } if cluster == founder.cluster)
        );
        drop(directory);

        let mut machine = Machine::new(9);
        let node = machine.start().await.expect("an empty disk");
        let adopted =
            node.standing
                .adopt(node.standing.disk(), membership(7, 3), Founders::default());
        adopted.await.expect("ours");
        machine.cut_power(node).await;
        let env = machine.env();
        let directory = Directory::take(&env, Path::new(DATA)).await;
        let refused = directory
            .expect("free")
            .alone(&env)
            .expect_err("of several");
        let said = refused.to_string();
        assert!(said.contains("belongs to node n1.3 of cluster"), "{said}");
    });
}

/// Calls of many shards that are given up on while nothing arrives, such as votes, reach the node together
/// with that: it must not take that for an attack, and end the connection that all shards share.
#[test]
fn calls_given_up_on_in_numbers_do_not_end_the_connection() {
    run(async {
        let mut machine = Machine::new(10);
        let _node = machine.start().await.expect("an empty disk");
        let agent = machine.network.at("agent");
        let network: Arc<dyn Network> = Arc::new(agent.clone());
        let calling = Calling::new(&network, ADDRESS).expect("an address");
        calling.hello().await.expect("it listens");
        let connections = agent.connections();
        agent.sever("agent", "node");
        let calls = (0..200).map(|_| calling.hello());
        let given_up = timeout(Duration::from_millis(50), join_all(calls)).await;
        assert!(given_up.is_err(), "{given_up:?}");
        sleep(Duration::from_millis(50)).await;
        agent.heal_all();
        sleep(Duration::from_millis(50)).await;
        calling.hello().await.expect("it still listens");
        assert_eq!(agent.connections(), connections, "it was connected to anew");
    });
}
