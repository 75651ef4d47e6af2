//! A cluster through bad days: its nodes killed, cut off from each other and slowed, its agents killed,
//! its bucket failing, all from one seed, under producers and readers at two agents; every call and
//! answer goes into a history.

mod kinds; // which there are

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use esker_checker::View;
use esker_env::sim::Crash;
use esker_object::faults::Fault;
use esker_shard::{RequestId, TopicConfig};
use esker_types::{ShardId, Term};
use esker_wal::KeeperOptions;
use tokio::task::JoinSet;

pub use kinds::KINDS;
use kinds::{Trouble, kind};

use crate::clients::{Driver, PARTITIONS, TOPIC, stop};
use crate::cluster::{Agent, Cluster, host};
use crate::simulation::Run;
use crate::whole::topic;

const NODES: u64 = 3;
/// Hosts of the agents; every other client is with each.
const AGENTS: [&str; 2] = ["a0", "a1"];
/// How long everything may take to be well again once nothing ails it.
const WELL_IN: Duration = Duration::from_secs(30);

/// By how much the term of a shard may grow in a day on which nodes do not hear one another: who hears no leader
/// asks beforehand, and is told by those who hear one that there is no need of another. An election or two, and
/// what is handed over meanwhile.
const TERMS_MAX: u64 = 3;

/// Views that a run ends with.
#[must_use]
pub fn final_views() -> Vec<View> {
    let tiers = ["live", "restarted", "bucket"];
    let views = tiers
        .iter()
        .flat_map(|tier| AGENTS.map(|agent| View::new(agent, tier)));
    views.collect()
}

struct World {
    cluster: Cluster,
    driver: Driver,
    agents: Vec<(Agent, JoinSet<()>)>,
    told: String,
    bucket_faults: u64,
    followed: u64,
    befell: BTreeSet<u64>,
}

/// Runs `days` days from `seed`, then heals everything and reads all there is at both agents, three
/// times.
pub async fn simulate_cluster(seed: u64, days: u32) -> Run {
    // Logs so short that who was away for a day gets a snapshot.
    let keeper = KeeperOptions {
        entries: 100,
        ..KeeperOptions::default()
    };
    let cluster = Cluster::found(seed, NODES, keeper).await;
    let mut world = World {
        cluster,
        driver: Driver::new(seed, 200),
        agents: Vec::new(),
        told: String::new(),
        bucket_faults: 0,
        followed: 0,
        befell: BTreeSet::new(),
    };
    let creating = world.cluster.agent("init");
    let topics = creating.engine.topics();
    let (name, config) = (topic(TOPIC), TopicConfig::default());
    let created = topics.create(RequestId(1), &name, PARTITIONS, config);
    created.await.expect("created");
    world.driver.name_producers(&creating.engine).await;
    creating.kill();
    for number in 0..AGENTS.len() {
        world.start_agent(number);
    }
    for day in 0..days {
        let kind = kind(seed, days, day);
        world.befell.insert(kind);
        let trouble = Trouble::of(kind, &world.driver.random);
        let length = world.length(trouble);
        let _ = write!(world.told, "{trouble:?} for {length:?}; ");
        world.trouble_the_bucket(day);
        let before = world.cluster.terms();
        world.befall(trouble, length).await;
        if matches!(trouble, Trouble::Alone { .. } | Trouble::Bridge) {
            world.assert_calm(&before, seed);
        }
        world.recover(trouble).await;
        let quiet = world.below(2000);
        tokio::time::sleep(Duration::from_millis(quiet)).await;
    }
    world.finish().await
}

impl World {
    fn below(&self, bound: u64) -> u64 {
        self.driver.random.below(bound)
    }

    fn start_agent(&mut self, number: usize) {
        let agent = self.cluster.agent(AGENTS[number]);
        let clients = self
            .driver
            .start(&agent.engine, AGENTS[number], turn(number));
        self.agents.insert(number, (agent, clients));
    }

    async fn kill_agent(&mut self, number: usize) {
        let (agent, mut clients) = self.agents.remove(number);
        self.bucket_faults += agent.faults.injected();
        self.followed += agent.engine.readers().follower_reads().answered;
        stop(&mut clients).await;
        self.driver.forget_tries(turn(number));
        agent.kill();
    }

    /// Makes sure that no term has run away since `before`.
    fn assert_calm(&mut self, before: &BTreeMap<ShardId, Term>, seed: u64) {
        for (shard, now) in self.cluster.terms() {
            let grew = now.0 - before.get(&shard).map_or(0, |term| term.0);
            let _ = write!(self.told, "{shard} is {grew} terms on; ");
            let told = &self.told;
            assert!(
                grew <= TERMS_MAX,
                "seed {seed}: {shard} is {grew} terms on: {told}"
            );
        }
    }

    /// How long it lasts. Who died may be back before anybody has missed him.
    fn length(&self, trouble: Trouble) -> Duration {
        let dies = matches!(trouble, Trouble::Dies { .. } | Trouble::AllDie { .. });
        Duration::from_millis(if dies && self.below(2) == 0 {
            self.below(300)
        } else {
            300 + self.below(5000)
        })
    }

    /// A quiet bucket, one that fails at times, or none at all.
    fn trouble_the_bucket(&self, day: u32) {
        let often = [
            (Fault::FailBefore, 60),
            (Fault::ApplyThenFail, 60),
            (Fault::ApplyLate, 30),
            (Fault::Lose, 30),
            (Fault::CorruptBody, 20),
            (Fault::Slow(Duration::from_millis(700)), 60),
        ];
        let kind = self.below(4);
        for (agent, _) in &self.agents {
            agent.faults.away(kind == 0);
            if kind > 1 {
                agent.faults.random(u64::from(day) + 1, &often);
            }
        }
    }

    /// Who leads a shard, any of them; any node if nobody does.
    fn a_leader(&self) -> u64 {
        let shard = u32::try_from(self.below(3)).expect("three");
        let any = self.any();
        self.cluster.leader(ShardId(shard)).unwrap_or(any)
    }

    fn any(&self) -> u64 {
        let nodes = self.cluster.nodes();
        let place = self.below(nodes.len() as u64);
        nodes[usize::try_from(place).expect("a few")]
    }

    /// Another than `node`.
    fn other(&self, node: u64) -> u64 {
        let nodes = self.cluster.nodes();
        let place = nodes.iter().position(|other| *other == node);
        nodes[(place.expect("one of them") + 1) % nodes.len()]
    }

    async fn befall(&mut self, trouble: Trouble, length: Duration) {
        let leader = self.a_leader();
        let network = self.cluster.network.clone();
        let nodes = self.cluster.nodes();
        let others = nodes.iter().copied().filter(|node| *node != leader);
        match trouble {
            Trouble::Quiet => {}
            Trouble::Dies { leads, how } => {
                let node = if leads { leader } else { self.other(leader) };
                self.cluster.crash(node, how).await;
            }
            Trouble::AllDie { how } => {
                for node in nodes {
                    self.cluster.crash(node, how).await;
                }
            }
            Trouble::Alone { with } => {
                for node in others {
                    network.sever(&host(leader), &host(node));
                    network.sever(&host(node), &host(leader));
                }
                for agent in (0..AGENTS.len()).filter(|agent| with == Some(1 - agent)) {
                    network.sever(AGENTS[agent], &host(leader));
                    network.sever(&host(leader), AGENTS[agent]);
                }
            }
            Trouble::OneWay { mute } => {
                for node in others {
                    let (leader, node) = (host(leader), host(node));
                    if mute {
                        network.sever(&leader, &node);
                    } else {
                        network.sever(&node, &leader);
                    }
                }
            }
            Trouble::Flaps => return self.flap(length).await,
            Trouble::Bridge => {
                let other = self.other(leader);
                network.sever(&host(leader), &host(other));
                network.sever(&host(other), &host(leader));
            }
            Trouble::Breaks => return self.break_connections(length).await,
            Trouble::Paused { leads } => {
                let node = if leads { leader } else { self.other(leader) };
                network.pause(&host(node));
            }
            Trouble::ClockJumps { by_ms } => {
                self.cluster.jump_wall(leader, by_ms);
                tokio::time::sleep(length).await;
                self.cluster.jump_wall(leader, -by_ms);
            }
            Trouble::PowerCutWhileOthersPaused => {
                others.for_each(|node| network.pause(&host(node)));
                self.cluster.crash(leader, Crash::PowerCut).await;
                tokio::time::sleep(length / 2).await;
                self.cluster.start(leader).await;
            }
            Trouble::Slow { delay } => {
                let other = host(self.other(leader));
                network.delay(&host(leader), &other, delay);
                network.delay(&other, &host(leader), delay);
            }
            Trouble::Replaced => {
                self.cluster.replace(leader).await;
            }
            Trouble::AgentDies => {
                let number = usize::try_from(self.below(2)).expect("two");
                self.kill_agent(number).await;
                tokio::time::sleep(length / 2).await;
                self.start_agent(number);
            }
        }
        tokio::time::sleep(length).await;
    }

    async fn flap(&self, length: Duration) {
        let network = &self.cluster.network;
        let began = tokio::time::Instant::now();
        while began.elapsed() < length {
            let (one, other) = (self.any(), self.any());
            network.sever(&host(one), &host(other));
            let pause = Duration::from_millis(self.below(700));
            tokio::time::sleep(pause).await;
            if self.below(3) > 0 {
                network.heal_all();
            }
        }
    }

    async fn break_connections(&self, length: Duration) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < length {
            self.cluster.network.break_one(self.below(u64::MAX));
            let pause = Duration::from_millis(self.below(200));
            tokio::time::sleep(pause).await;
        }
    }

    async fn recover(&mut self, _: Trouble) {
        self.cluster.network.heal_all();
        for node in self.cluster.down() {
            self.cluster.start(node).await;
        }
    }

    /// Heals the bucket, settles what is open, and reads everything at both agents: as it is, after all
    /// power was cut, and with everything in the bucket.
    async fn finish(mut self) -> Run {
        for number in 0..AGENTS.len() {
            self.kill_agent(number).await;
            self.start_agent(number);
        }
        for (_, clients) in &mut self.agents {
            stop(clients).await;
        }
        for number in 0..AGENTS.len() {
            self.driver.forget_tries(turn(number));
        }
        // Heads may be full, and their flushers are at work.
        let settled = tokio::time::timeout(WELL_IN, async {
            while !self.driver.settle(&self.agents[0].0.engine).await {}
        });
        settled
            .await
            .expect("a healthy cluster settles every batch");
        self.read_all("live").await;
        self.cluster.converge().await;
        for node in self.cluster.nodes() {
            self.cluster.crash(node, Crash::PowerCut).await;
        }
        for node in self.cluster.nodes() {
            self.cluster.start(node).await;
        }
        self.read_all("restarted").await;
        let flushed = self.agents[1].0.engine.flush_now().await;
        flushed.expect("the bucket is well");
        self.read_all("bucket").await;
        self.cluster.converge().await;
        for (agent, _) in self.agents.drain(..) {
            self.followed += agent.engine.readers().follower_reads().answered;
            agent.kill();
        }
        for node in self.cluster.nodes() {
            self.cluster.close(node).await;
        }
        let (history, lines) = self.driver.written();
        Run {
            lines,
            history,
            bucket_faults: self.bucket_faults,
            followed: self.followed,
            troubles: self.befell,
            lives: self.told,
        }
    }

    async fn read_all(&self, tier: &str) {
        for (number, (agent, _)) in self.agents.iter().enumerate() {
            let session = 100 + u64::try_from(number).expect("two");
            let client = self.driver.client(&agent.engine, AGENTS[number], session);
            client.read_all(tier).await;
        }
    }
}

/// Which clients are with the agent.
fn turn(number: usize) -> (u64, u64) {
    let (number, all) = (u64::try_from(number), u64::try_from(AGENTS.len()));
    (number.expect("two"), all.expect("two"))
}
