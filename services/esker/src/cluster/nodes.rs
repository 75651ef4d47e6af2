//! The WAL nodes of a cluster, as the commands that change it find and ask them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_env::Env;
use esker_head::Calling as Head;
use esker_log::{Head as _, HeadError};
use esker_shard::{Command, Outcome};
use esker_types::limits::{ELECTION_MIN, HEAD_PATIENCE};
use esker_types::{NodeId, ShardId};
use esker_walnode::adoption::{Calling, Hello, Membership};
use esker_walnode::members::{Changing, Goal, Headway, Stood};
use futures::future::join_all;
use indicatif::ProgressBar;

use super::plan::NUMBER_MAX;
use super::reached;
use crate::config::{Config, Kind};
use crate::failure::Failure;
use crate::run::{environment, read_config};
use crate::screen;
use crate::shell::Shell;

/// How long a change may stand still before it is given up: a snapshot may be on its way.
const STILL_MAX: Duration = Duration::from_secs(120);

/// How long a node that was adopted may read its log before it is to be asked again.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, by the word of its nodes.
pub(super) struct Nodes {
    /// A world whose connections go to them.
    pub(super) env: Env,
    pub(super) membership: Membership,
    pub(super) changing: Changing,
    /// As the configuration has them.
    addresses: Vec<String>,
}

impl Nodes {
    /// The cluster whose nodes the configuration names.
    pub(super) async fn find(file: &Path, shell: &Shell) -> Result<Self, Failure> {
        let config = read_config(file);
        let environment = environment();
        let config =
            config.and_then(|file| Config::build(Kind::Serve, Some(&file), &environment, &[]));
        let config = config.map_err(|error| Failure::usage(error.to_string()))?;
        let addresses = config.cluster.nodes.iter().map(ToString::to_string);
        let addresses: Vec<_> = addresses.collect();
        if addresses.is_empty() {
            let file = file.display();
            return Err(Failure::usage(format!(
                "{file}: `cluster.nodes` is empty; name the WAL nodes of the cluster"
            )));
        }
        let env = reached(&config, shell)?;
        let membership = membership(&env, &addresses).await?;
        let network = Arc::clone(&env.network);
        let changing = Changing::new(network, membership.cluster, &addresses);
        Ok(Self {
            env,
            membership,
            changing: changing.map_err(Failure::usage)?,
            addresses,
        })
    }

    /// A node that has a log and holds no shard was removed: its votes are of another time. One that is
    /// known elsewhere is somebody else.
    pub(super) async fn may_join(
        &mut self,
        node: NodeId,
        address: &str,
        has_a_log: bool,
    ) -> Result<(), Failure> {
        // By the word of every shard's leader: who is not named by those that answer may hold the others.
        let shards = self.all_led().await?;
        let held = shards.values();
        let mut held = held.filter_map(|stood| stood.holders.get(&node));
        let first = held.next();
        if let Some(other) = first
            .into_iter()
            .chain(held)
            .find(|held| held.address != address)
        {
            let text = format!(
                "{node} is known at {}, and is said to be at {address}",
                other.address
            );
            return Err(Failure::new(text).and_next("name it by the address that it is known by"));
        }
        if has_a_log && first.is_none() {
            let text = format!("{node} was removed from this cluster, and never returns");
            return Err(Failure::new(text)
                .and_next("start it in an empty data directory: it joins under a new id"));
        }
        Ok(())
    }

    /// How every shard stands, by the word of its leader.
    pub(super) async fn all_led(&mut self) -> Result<BTreeMap<ShardId, Stood>, Failure> {
        let all = self.membership.data_shards as usize + 1;
        let began = self.env.clock.monotonic();
        loop {
            let (shards, silent) = self.changing.show().await;
            let led = shards.len();
            if led >= all {
                let shards = shards.into_iter();
                return Ok(shards.map(|(shard, (_, stood))| (shard, stood)).collect());
            }
            if self.env.clock.monotonic().since(began) > HEAD_PATIENCE {
                let why = silent.first().map_or("no node knows who", String::as_str);
                let text = format!(
                    "{} of {all} shards have no leader that answers: {why}",
                    all - led
                );
                return Err(Failure::new(text)
                    .and_next("nothing was changed: see that the nodes run, and run it again"));
            }
            // An election may be under way.
            tokio::time::sleep(ELECTION_MIN).await;
        }
    }

    /// An id that no node ever had; that of the node whose certificate is `certified`, if it has one.
    pub(super) async fn allocate(&mut self, certified: Option<u64>) -> Result<NodeId, Failure> {
        let Membership {
            cluster,
            data_shards,
            ..
        } = self.membership;
        let head = Head::new(&self.env, cluster, data_shards, self.addresses.clone());
        let shards = self.all_led().await?;
        let holders = shards.values().flat_map(|stood| stood.holders.keys());
        let highest = holders.max().copied();
        let given = loop {
            match head.propose(ShardId::CATALOG, Command::AllocateNode).await {
                // The founders' ids may not be taken yet, in the first moments of a cluster.
                Ok(Outcome::Node(node)) if Some(node) <= highest => {}
                // Those between are lost, no more.
                Ok(Outcome::Node(node)) if is_before(node, certified) => {}
                given => break given,
            }
        };
        match given {
            Ok(Outcome::Node(node)) => match certified {
                Some(number) if number != node.sequence() => Err(no_fit(number, node)),
                _ => Ok(node),
            },
            Ok(other) => Err(Failure::new(format!(
                "an id was asked for, and came {other:?}"
            ))),
            Err(error @ HeadError::Unknown { .. }) => Err(Failure::new(error.to_string())
                .and_next("run it again: an id that was given and not used is lost, no more")),
            Err(error) => Err(Failure::new(error.to_string())),
        }
    }

    /// The node of this name: its id, or the last part of it.
    pub(super) fn named(&self, name: &str) -> Result<NodeId, Failure> {
        let incarnation = self.membership.incarnation;
        let prefix = format!("n{incarnation}.");
        let sequence = name.strip_prefix(&prefix).unwrap_or(name).parse();
        let node = sequence
            .ok()
            .and_then(|sequence| NodeId::new(incarnation, sequence));
        let none = || Failure::usage(format!("`{name}` is no node's id; write {prefix}3, say"));
        node.ok_or_else(none)
    }

    pub(super) async fn reach(&mut self, goal: Goal) -> Result<(), Failure> {
        let bar = screen::progress(None, "{spinner} {msg}");
        let shards = self.membership.data_shards;
        let tell = |headway: &Headway| show(&bar, headway);
        let reached = self.changing.reach(&goal, shards, STILL_MAX, tell).await;
        bar.finish_and_clear();
        reached.map_err(|why| {
            let text = format!("nothing moved for {STILL_MAX:?}: {why}");
            Failure::new(text).and_next("what was done stays; run it again to go on")
        })
    }
}

/// What the node at `new`, which is adopted, says once its log is open: before, it does not tell whether it
/// has one.
pub(super) async fn opened(new: &Calling, hello: Hello, shell: &Shell) -> Result<Hello, Failure> {
    let (mut hello, clock) = (hello, &shell.env.clock);
    let began = clock.monotonic();
    while !hello.open {
        if clock.monotonic().since(began) > OPEN_PATIENCE {
            let text = "the node still reads its log";
            return Err(Failure::new(text).and_next("run it again once it has"));
        }
        tokio::time::sleep(ELECTION_MIN).await;
        let again = new.hello().await;
        hello = again.map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(hello)
}

/// Which cluster the nodes at `addresses` are of, by all that answer.
async fn membership(env: &Env, addresses: &[String]) -> Result<Membership, Failure> {
    let nodes = addresses
        .iter()
        .map(|address| Calling::new(&env.network, address));
    let nodes: Result<Vec<_>, _> = nodes.collect();
    let nodes = nodes.map_err(|error| Failure::usage(error.to_string()))?;
    let hellos = join_all(nodes.iter().map(Calling::hello)).await;
    let (mut found, mut why): (Option<(&String, Membership)>, _) = (None, Vec::new());
    for (address, hello) in addresses.iter().zip(hellos) {
        match (hello.map(|hello| hello.membership), &found) {
            (Ok(Some(of)), Some((other, first))) if of.cluster != first.cluster => {
                let (of, first) = (of.cluster, first.cluster);
                let text = format!("{other} is of cluster {first}, {address} of cluster {of}");
                return Err(Failure::new(text).and_next(
                    "nothing was changed: take those of the other cluster out of `cluster.nodes`",
                ));
            }
            (Ok(Some(of)), None) => found = Some((address, of)),
            (Ok(Some(_)), Some(_)) => {}
            (Ok(None), _) => why.push(format!("{address} is not adopted")),
            (Err(error), _) => why.push(error.to_string()),
        }
    }
    let none = || {
        Failure::new(format!(
            "no node of the cluster answers: {}",
            why.join("; ")
        ))
    };
    found.map(|(_, membership)| membership).ok_or_else(none)
}

/// Whether ids have to be given until the number of a certificate is reached.
fn is_before(node: NodeId, certified: Option<u64>) -> bool {
    let next = node.sequence();
    certified.is_some_and(|number| next < number && number - next <= NUMBER_MAX)
}

fn no_fit(number: u64, given: NodeId) -> Failure {
    let text = format!("its certificate is of node {number}, and ids are given up to {given}");
    let next = given.sequence() + 1;
    Failure::new(text).and_next(format!(
        "give it a certificate of node {next}: no id is given twice, and no more than {NUMBER_MAX} are \
         left out"
    ))
}

fn show(bar: &ProgressBar, headway: &Headway) {
    let Headway {
        done,
        shards,
        lag,
        obstacle,
        ..
    } = headway;
    let lag = match lag {
        0 => String::new(),
        lag => format!(", {} to go", screen::count(*lag, "entry")),
    };
    let obstacle = obstacle.as_ref().map(|why| format!(" ({why})"));
    let obstacle = obstacle.unwrap_or_default();
    bar.set_message(format!("{done} of {shards} shards{lag}{obstacle}"));
    bar.tick();
}
