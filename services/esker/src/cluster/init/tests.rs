//! Three nodes on simulated disks and a simulated network, and a bucket in memory: what founds them, or
//! one of them, dies wherever it may.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use esker_env::sim::{Crash, Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_object::Options;
use esker_types::{Incarnation, NodeId};
use esker_wal::KeeperOptions;
use esker_wal::disk::WalOptions;
use esker_walnode::{Directory, NodeOptions};

use super::*;
use crate::serve::Reaching;
use crate::serve::member::Member;

const SHARDS: Shards = Shards {
    count: 2,
    is_said: false,
};

/// Worlds made in this process so far: buckets in memory are found by name.
static WORLDS: AtomicU64 = AtomicU64::new(0);

/// Three machines and a bucket.
struct World {
    network: SimNetwork,
    machines: Vec<Machine>,
    bucket: String,
    seed: u64,
}

struct Machine {
    address: String,
    disk: SimDisk,
    lives: u64,
    running: Option<Member>,
}

impl World {
    /// With three nodes that wait.
    async fn new(seed: u64) -> Self {
        Self::of(3, seed).await
    }

    /// With so many.
    async fn of(nodes: usize, seed: u64) -> Self {
        let machines = (0..nodes as u64).map(|number| Machine {
            address: format!("wal-{number}:7072"),
            disk: SimDisk::new(seed * 10 + number),
            lives: 0,
            running: None,
        });
        let mut world = Self {
            network: SimNetwork::new(),
            machines: machines.collect(),
            bucket: format!("init-{}", WORLDS.fetch_add(1, Ordering::Relaxed)),
            seed,
        };
        for number in 0..nodes {
            world.start(number).await;
        }
        world
    }

    fn env(&self, entropy: u64, disk: &SimDisk) -> Env {
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(self.seed << 16 | entropy)),
            files: Arc::new(disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(self.network.clone()),
        }
    }

    async fn start(&mut self, number: usize) {
        self.machines[number].lives += 1;
        let machine = &self.machines[number];
        let env = self.env(number as u64 * 100 + machine.lives, &machine.disk);
        let directory = Directory::take(&env, Path::new("/data")).await;
        let listener = env.network.listen(&machine.address).await;
        let wal = WalOptions {
            file_bytes: 1 << 20,
            group_bytes: 256 << 10,
            disk_bytes: 64 << 20,
            memory_bytes: 256 << 10,
            ..WalOptions::default()
        };
        let options = NodeOptions {
            head_bytes: wal.disk_bytes / 2,
            wal,
            keeper: KeeperOptions::default(),
        };
        let listener = listener.expect("a free address");
        let directory = directory.expect("nobody else's");
        let reaching = Reaching::new(&env, None).expect("no TLS");
        let member = Member::start(&env, directory, listener, options, reaching);
        let member = member.expect("it is whole");
        self.machines[number].running = Some(member);
    }

    /// The power of a machine goes, and comes back.
    async fn restart(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        self.network.cut(&machine.address);
        if let Some(member) = machine.running.take() {
            member.kill().await;
            // Its listener goes with the next turn of its task.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.network.cut(&machine.address);
        machine.disk.crash(Crash::PowerCut);
        self.start(number).await;
    }

    fn addresses(&self) -> Vec<String> {
        let machines = self.machines.iter();
        machines.map(|machine| machine.address.clone()).collect()
    }

    fn store(&self, env: &Env) -> Store {
        let url = format!("memory://{}", self.bucket);
        Store::open(&url, &Options::default(), env).expect("a bucket")
    }

    /// Founds it from a process of its own; `number` decides what it draws.
    async fn init(&self, number: u64, nodes: &[String]) -> Result<Founded, InitError> {
        self.init_with(number, nodes, &|_| {}).await
    }

    async fn init_with(
        &self,
        number: u64,
        nodes: &[String],
        tell: &impl Fn(Step),
    ) -> Result<Founded, InitError> {
        let env = self.env(10_000 + number, &SimDisk::new(0));
        init(&env, nodes, SHARDS, &self.store(&env), tell).await
    }

    /// That there is one cluster, of all three, whole, whose bucket is its own, and that founding it
    /// again changes nothing.
    async fn is_founded(&self, founded: &Founded) {
        let env = self.env(20_000, &SimDisk::new(0));
        let mut nodes = BTreeSet::new();
        for machine in &self.machines {
            let calling = Calling::new(&env.network, &machine.address).expect("an address");
            let hello = calling.hello().await.expect("it runs");
            let membership = hello.membership.expect("it is adopted");
            assert_eq!(membership.cluster, founded.cluster);
            assert!(hello.has_begun() && hello.is_led(), "{hello:?}");
            assert_eq!(hello.members, founded.plan.founders.voters(), "{hello:?}");
            nodes.insert(membership.node.sequence());
        }
        assert_eq!(nodes, BTreeSet::from([1, 2, 3]));
        let store = self.store(&env);
        let claimed = confirm(&store, founded.cluster, Incarnation::FIRST);
        claimed.await.expect("the bucket is the cluster's");
        let again = self.init(999, &self.addresses()).await;
        let again = again.expect("it is done");
        assert_eq!(again.plan.stage, Stage::Founded);
        let voters = |of: &Founded| (of.cluster, of.plan.founders.voters());
        assert_eq!(voters(&again), voters(founded));
    }
}

/// A future that is dropped like a process that is killed.
struct Killed<F> {
    work: Option<Pin<Box<F>>>,
    polls: usize,
    /// At once after the last poll; else when it would be polled again, with the answer there.
    at_once: bool,
}

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let left = self.polls.checked_sub(1);
        let polled = match (left, self.work.as_mut()) {
            (Some(_), Some(work)) => work.as_mut().poll(context),
            _ => Poll::Pending,
        };
        self.polls = left.unwrap_or(0);
        match polled {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if left.is_none() || (self.at_once && self.polls == 0) => {
                self.work = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn killed<F: Future>(polls: usize, at_once: bool, work: F) -> Option<F::Output> {
    let work = Some(Box::pin(work));
    let killed = Killed {
        work,
        polls,
        at_once,
    };
    killed.await
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

#[test]
fn three_nodes_are_founded_once() {
    run(async {
        let world = World::new(1).await;
        let steps = std::cell::RefCell::new(Vec::new());
        let tell = |step| steps.borrow_mut().push(step);
        let founded = world.init_with(1, &world.addresses(), &tell).await;
        let founded = founded.expect("they all wait");
        assert_eq!(founded.plan.stage, Stage::Anew);
        world.is_founded(&founded).await;
        let mut steps = steps.into_inner();
        steps.dedup_by_key(|step| std::mem::discriminant(step));
        let [asking, adopting, claiming, founding, waiting @ ..] = &steps[..] else {
            unreachable!("{steps:?}");
        };
        assert_eq!(*asking, Step::Asking);
        assert!(matches!(adopting, Step::Adopting(_)), "{adopting:?}");
        assert_eq!(*claiming, Step::Claiming);
        assert_eq!(*founding, Step::Founding("wal-0:7072".to_owned()));
        assert!(waiting.len() <= 1, "{waiting:?}");
    });
}

/// Killed after any number of polls, with and without the answer that it waits for, and one of the nodes
/// with it, or none: run again, it is done.
#[test]
fn killed_anywhere_it_goes_on_when_it_is_run_again() {
    let mut stages = BTreeSet::new();
    let ways = [
        (None, false),
        (None, true),
        (Some(0), true),
        (Some(1), false),
        (Some(2), true),
    ];
    for (way, (dies, at_once)) in ways.into_iter().enumerate() {
        let mut polls = 0;
        while !run(async {
            let mut world = World::new((100 * way + polls + 10) as u64).await;
            let nodes = world.addresses();
            let done = killed(polls, at_once, world.init(1, &nodes)).await;
            if let Some(number) = dies {
                world.restart(number).await;
            }
            let founded = world.init(2, &nodes).await;
            let founded = founded.unwrap_or_else(|error| unreachable!("{polls} polls: {error}"));
            let adopted = founded.plan.members.iter().filter(|of| of.is_adopted);
            stages.insert((adopted.count(), founded.plan.stage as u8));
            world.is_founded(&founded).await;
            done.is_some()
        }) {
            polls += 1;
        }
        assert!(polls > 7, "it was killed only {polls} times");
    }
    for adopted in 0..=3 {
        let anew = (adopted, Stage::Anew as u8);
        assert!(stages.contains(&anew), "{adopted}: {stages:?}");
    }
    let founded = (3, Stage::Founded as u8);
    assert!(stages.contains(&founded), "{stages:?}");
}

/// Killed with the list of nodes that it had, and run again with another one: whatever was begun, no id
/// and no shard is given twice; with the first list it goes on.
#[test]
fn run_again_with_other_nodes_it_gives_no_id_twice() {
    let (mut refused, mut went_on) = (0, 0);
    let mut polls = 0;
    while !run(async {
        let world = World::of(4, 3000 + polls as u64).await;
        let nodes = world.addresses();
        let (first, other) = (
            &nodes[..3],
            [&nodes[3], &nodes[0], &nodes[1]].map(String::clone),
        );
        let done = killed(polls, true, world.init(1, first)).await;
        let founded = match world.init(2, &other).await {
            Ok(founded) => {
                went_on += 1;
                let late = world.init(3, first).await.expect_err("another cluster");
                assert!(matches!(late, InitError::Refused(_)), "{late}");
                founded
            }
            Err(InitError::Refused(_)) => {
                refused += 1;
                world.init(3, first).await.expect("it goes on")
            }
            Err(error) => unreachable!("{polls} polls: {error}"),
        };
        let env = world.env(20_000, &SimDisk::new(0));
        let mut ids = BTreeSet::new();
        for address in &nodes {
            let node = Calling::new(&env.network, address).expect("an address");
            if let Some(of) = node.hello().await.expect("it runs").membership {
                assert_eq!(of.cluster, founded.cluster, "{polls} polls");
                assert!(ids.insert(of.node), "{polls} polls: {} twice", of.node);
            }
        }
        assert_eq!(ids.len(), 3, "{polls} polls");
        done.is_some()
    }) {
        polls += 1;
    }
    assert!(refused > 3 && went_on > 0, "{refused} {went_on}");
}

/// The first node dies while it writes down the voters of its shards: some have begun.
#[test]
fn a_founding_that_died_half_way_is_finished() {
    let mut stages = BTreeSet::new();
    for calls in [1, 3, 5, 8] {
        run(async {
            let mut world = World::new(2000 + calls).await;
            let (nodes, disk) = (world.addresses(), world.machines[0].disk.clone());
            let tell = |step| {
                if matches!(step, Step::Founding(_)) {
                    disk.kill_before(calls);
                }
            };
            let _ = world.init_with(1, &nodes, &tell).await;
            world.restart(0).await;
            let founded = world.init(2, &nodes).await.expect("it goes on");
            stages.insert(founded.plan.stage as u8);
            world.is_founded(&founded).await;
        });
    }
    let half = Stage::HalfFounded as u8;
    assert!(stages.contains(&half), "{stages:?}");
}

/// Of two at the same time, whatever the order in which they name the nodes and however they
/// interleave, one wins, and the other has adopted nobody into another cluster.
#[test]
fn two_at_the_same_time_make_one_cluster() {
    let mut outcomes = BTreeSet::new();
    for late in 0..60_usize {
        let won = run(async {
            let world = World::new(1000 + late as u64).await;
            let (nodes, mut turned) = (world.addresses(), world.addresses());
            turned.rotate_left(1 + late % 2);
            let second = async {
                for _ in 0..late {
                    tokio::task::yield_now().await;
                }
                world.init(2, &turned).await
            };
            let (one, two) = tokio::join!(world.init(1, &nodes), second);
            let refused = |outcome: &Result<Founded, InitError>| {
                matches!(
                    outcome,
                    Ok(_) | Err(InitError::Rejected(_) | InitError::Refused(_))
                )
            };
            assert!(refused(&one) && refused(&two), "{late}: {one:?} {two:?}");
            let won = (one.is_ok(), two.is_ok());
            let founded = one.or(two).expect("one of them wins");
            world.is_founded(&founded).await;
            won
        });
        outcomes.insert(won);
    }
    assert!(outcomes.len() > 1, "{outcomes:?}");
}

#[test]
fn a_node_that_comes_late_is_waited_for() {
    run(async {
        let mut world = World::new(3).await;
        world.network.refuse("wal-1:7072", true);
        let nodes = world.addresses();
        let away = world.init(1, &nodes).await.expect_err("one is away");
        let said = away.to_string();
        assert!(
            said.contains("wal-1:7072") && said.contains("start `esker serve`"),
            "{said}"
        );
        let network = world.network.clone();
        let comes = async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            network.refuse("wal-1:7072", false);
        };
        let (founded, ()) = tokio::join!(world.init(2, &nodes), comes);
        let founded = founded.expect("it came");
        world.is_founded(&founded).await;
        // Every node goes on by itself.
        for number in 0..3 {
            world.restart(number).await;
        }
        let again = world.init(3, &nodes).await.expect("they are");
        assert_eq!(again.plan.stage, Stage::Founded);
        world.is_founded(&founded).await;
    });
}

#[test]
fn a_node_of_another_cluster_is_refused_and_nothing_is_changed() {
    run(async {
        let mut world = World::new(4).await;
        let nodes = world.addresses();
        let other = world
            .init(1, &nodes[2..])
            .await
            .expect("a cluster of its own");
        let elsewhere = other.plan.members[0].node;
        assert_eq!(NodeId::new(Incarnation::FIRST, 1), Some(elsewhere));
        let begun = world.init(2, &nodes).await.expect_err("one has begun");
        assert!(
            matches!(&begun, InitError::Refused(Refusal::Begun { address, .. }) if *address == nodes[0]),
            "{begun}"
        );
        // The bucket is that cluster's; who founds another in it hears so, and goes on in another.
        let taken = world.init(3, &nodes[..2]).await.expect_err("it is taken");
        let InitError::Claim(ClaimError::Taken { by, .. }) = &taken else {
            unreachable!("{taken}");
        };
        assert_eq!(*by, other.cluster);
        world.bucket.push_str("-two");
        let two = world.init(4, &nodes[..2]).await.expect("another bucket");
        assert_eq!((two.plan.stage, two.plan.members.len()), (Stage::Anew, 2));
        let mixed = world.init(5, &nodes).await.expect_err("two clusters");
        assert!(
            matches!(mixed, InitError::Refused(Refusal::TwoClusters { .. })),
            "{mixed}"
        );
    });
}

#[test]
fn a_copied_data_directory_is_refused() {
    run(async {
        let mut world = World::new(5).await;
        world.restart(0).await;
        world.machines[1].disk = world.machines[0].disk.fork(77);
        world.restart(1).await;
        let nodes = world.addresses();
        let error = world.init(1, &nodes).await.expect_err("a copy");
        assert!(
            matches!(&error, InitError::Refused(Refusal::SameDisk { one, other, .. })
                if (one, other) == (&nodes[0], &nodes[1])),
            "{error}"
        );
        let founded = world.init(2, &nodes[1..]).await.expect("no copies");
        assert_eq!(founded.plan.members.len(), 2);
    });
}

#[test]
fn a_bucket_that_is_away_is_told_of_before_anybody_is_adopted() {
    run(async {
        let world = World::new(6).await;
        let env = world.env(1, &SimDisk::new(0));
        let url = format!("memory://{}", world.bucket);
        let opened = Store::open_with_faults(&url, &Options::default(), &env);
        let (store, faults) = opened.expect("a bucket");
        faults.away(true);
        let nodes = world.addresses();
        let away = init(&env, &nodes, SHARDS, &store, &|_| {}).await;
        let away = away.expect_err("no bucket");
        assert!(matches!(away, InitError::Bucket(_)), "{away}");
        for node in &nodes {
            let calling = Calling::new(&env.network, node).expect("an address");
            assert_eq!(calling.hello().await.expect("it runs").membership, None);
        }
    });
}
