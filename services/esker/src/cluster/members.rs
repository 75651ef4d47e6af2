//! `esker cluster add`, `remove`, `transfer`, and `status --config`: who holds the shards, asked of the
//! WAL nodes themselves, and changed step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker_env::Env;
use esker_head::Calling as Head;
use esker_log::{Head as _, HeadError};
use esker_shard::{Command, Outcome};
use esker_types::limits::{ELECTION_MIN, HEAD_PATIENCE};
use esker_types::{NodeId, ShardId};
use esker_walnode::adoption::{Calling, Founders, Membership};
use esker_walnode::members::{Changing, Goal, Headway, Stood};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::plan::NUMBER_MAX;
use super::reached;
use crate::config::{Config, Kind};
use crate::failure::Failure;
use crate::run::{environment, read_config};
use crate::screen;
use crate::shell::Shell;

/// How long a change may stand still before it is given up: a snapshot may be on its way.
const STILL_MAX: Duration = Duration::from_secs(120);

/// What `esker cluster add` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Where the new node is reached, `host:port` of its `listen.peers`; it runs, and waits
    node: String,
    #[command(flatten)]
    of: Of,
}

/// What `esker cluster remove` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The node's id as `cluster status --config` has it, such as n1.3
    node: String,
    #[command(flatten)]
    of: Of,
}

/// What `esker cluster transfer` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Transfer {
    /// The shard's number, 0 for the catalog
    shard: u32,
    /// The node that is to lead it, such as n1.3
    node: String,
    #[command(flatten)]
    of: Of,
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// The configuration of an agent of the cluster: it names the nodes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// A cluster, by the word of its nodes.
struct Nodes {
    /// A world whose connections go to them.
    env: Env,
    membership: Membership,
    changing: Changing,
    /// As the configuration has them.
    addresses: Vec<String>,
}

pub(super) async fn add(args: &Add, shell: &Shell) -> Result<(), Failure> {
    let mut nodes = Nodes::find(&args.of.config, shell).await?;
    let new = Calling::new(&nodes.env.network, &args.node);
    let new = new.map_err(|error| Failure::usage(error.to_string()))?;
    let hello = new.hello().await;
    let hello = hello.map_err(|error| {
        Failure::new(error.to_string()).and_next(
            "start `esker serve` with roles = [\"wal\"] there, on an empty data directory",
        )
    })?;
    let ours = nodes.membership;
    let node = match hello.membership {
        // It was adopted by this command before, which died or gave up.
        Some(of) if of.cluster == ours.cluster => {
            let has_a_log = hello.shards_begun > 0;
            nodes.may_join(of.node, &args.node, has_a_log).await?;
            of.node
        }
        Some(of) => {
            let text = format!("{} belongs to cluster {}", args.node, of.cluster);
            return Err(Failure::new(text).and_next("a node never changes its cluster"));
        }
        None => {
            let node = nodes.allocate(hello.certified).await?;
            let adopted = new
                .adopt(
                    hello.disk,
                    Membership { node, ..ours },
                    &Founders::default(),
                )
                .await;
            adopted.map_err(|error| Failure::new(error.to_string()))?;
            node
        }
    };
    let address = args.node.clone();
    nodes.reach(Goal::Add { node, address }).await?;
    let answer = json!({ "node": node.to_string(), "address": args.node });
    shell.answer(&answer, || {
        let (program, address) = (&shell.program, &args.node);
        format!(
            "{node} at {address} holds every shard, and votes\n\
             name it in `cluster.nodes` of the agents; a node that it replaces goes by\n\
             \x20 {program} cluster remove --config {config} ID\n",
            config = args.of.config.display(),
        )
    })
}

pub(super) async fn remove(args: &Remove, shell: &Shell) -> Result<(), Failure> {
    let mut nodes = Nodes::find(&args.of.config, shell).await?;
    let node = nodes.named(&args.node)?;
    nodes.reach(Goal::Remove { node }).await?;
    shell.answer(&json!({ "node": node.to_string() }), || {
        format!(
            "{node} holds no shard any more: stop it, and take it out of `cluster.nodes`; its id is \
             never given again\n"
        )
    })
}

pub(super) async fn transfer(args: &Transfer, shell: &Shell) -> Result<(), Failure> {
    let mut nodes = Nodes::find(&args.of.config, shell).await?;
    let (shard, node) = (ShardId(args.shard), nodes.named(&args.node)?);
    let handed = nodes.changing.hand_over(shard, node).await;
    handed.map_err(Failure::new)?;
    let answer = json!({ "shard": shard.0, "leader": node.to_string() });
    shell.answer(&answer, || format!("{node} leads shard {}\n", shard.0))
}

/// How the nodes stand, by their own word: no agent is needed for it.
pub(super) async fn status(config: &Path, shell: &Shell) -> Result<(), Failure> {
    let mut nodes = Nodes::find(config, shell).await?;
    let (shards, silent) = nodes.changing.show().await;
    let shards: BTreeMap<_, _> = shards
        .into_iter()
        .map(|(shard, (_, stood))| (shard, stood))
        .collect();
    let answer = object(&nodes.membership, &shards, &silent);
    shell.answer(&answer, || text(&nodes.membership, &shards, &silent))
}

impl Nodes {
    /// The cluster whose nodes the configuration names, by the first of them that answers.
    async fn find(file: &Path, shell: &Shell) -> Result<Self, Failure> {
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
        let mut why = Vec::new();
        for address in &addresses {
            let node = Calling::new(&env.network, address);
            let node = node.map_err(|error| Failure::usage(error.to_string()))?;
            match node.hello().await.map(|hello| hello.membership) {
                Ok(Some(membership)) => {
                    let network = Arc::clone(&env.network);
                    let changing = Changing::new(network, membership.cluster, &addresses);
                    return Ok(Self {
                        env,
                        membership,
                        changing: changing.map_err(Failure::usage)?,
                        addresses,
                    });
                }
                Ok(None) => why.push(format!("{address} is not adopted")),
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(Failure::new(format!(
            "no node of the cluster answers: {}",
            why.join("; ")
        )))
    }

    /// A node that has a log and holds no shard was removed: its votes are of another time. One that is
    /// known elsewhere is somebody else.
    async fn may_join(
        &mut self,
        node: NodeId,
        address: &str,
        has_a_log: bool,
    ) -> Result<(), Failure> {
        let (shards, _) = self.changing.show().await;
        let held = shards.values();
        let mut held = held.filter_map(|(_, stood)| stood.holders.get(&node));
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

    /// An id that no node ever had; that of the node whose certificate is `certified`, if it has one.
    async fn allocate(&mut self, certified: Option<u64>) -> Result<NodeId, Failure> {
        let Membership {
            cluster,
            data_shards,
            ..
        } = self.membership;
        let head = Head::new(&self.env, cluster, data_shards, self.addresses.clone());
        let began = self.env.clock.monotonic();
        let catalog = loop {
            let (mut shards, _) = self.changing.show().await;
            if let Some((_, catalog)) = shards.remove(&ShardId::CATALOG) {
                break catalog;
            }
            if self.env.clock.monotonic().since(began) > HEAD_PATIENCE {
                let text = "the catalog has no leader that answers, and gives no id away";
                return Err(Failure::new(text).and_next("see that its nodes run, and run it again"));
            }
            // An election may be under way.
            tokio::time::sleep(ELECTION_MIN).await;
        };
        let highest = catalog.holders.keys().max().copied();
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
    fn named(&self, name: &str) -> Result<NodeId, Failure> {
        let incarnation = self.membership.incarnation;
        let prefix = format!("n{incarnation}.");
        let sequence = name.strip_prefix(&prefix).unwrap_or(name).parse();
        let node = sequence
            .ok()
            .and_then(|sequence| NodeId::new(incarnation, sequence));
        let none = || Failure::usage(format!("`{name}` is no node's id; write {prefix}3, say"));
        node.ok_or_else(none)
    }

    async fn reach(&mut self, goal: Goal) -> Result<(), Failure> {
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

/// A node, over all shards.
#[derive(Default)]
struct Sum {
    address: String,
    leads: u64,
    votes: u64,
    learns: u64,
    lag: u64,
}

fn sums(shards: &BTreeMap<ShardId, Stood>) -> BTreeMap<NodeId, Sum> {
    let mut sums: BTreeMap<NodeId, Sum> = BTreeMap::new();
    for stood in shards.values() {
        for (node, holder) in &stood.holders {
            let sum = sums.entry(*node).or_default();
            sum.address.clone_from(&holder.address);
            sum.leads += u64::from(stood.leader == Some(*node));
            sum.votes += u64::from(holder.votes);
            sum.learns += u64::from(!holder.votes);
            sum.lag = sum.lag.max(holder.lag.unwrap_or(0));
        }
    }
    sums
}

/// Shards that no node leads, as far as anybody says.
fn leaderless(of: &Membership, shards: &BTreeMap<ShardId, Stood>) -> BTreeSet<ShardId> {
    let all = (0..=of.data_shards).map(ShardId);
    all.filter(|shard| !shards.contains_key(shard)).collect()
}

fn object(of: &Membership, shards: &BTreeMap<ShardId, Stood>, silent: &[String]) -> Value {
    let nodes = sums(shards).into_iter().map(|(node, sum)| {
        json!({
            "node": node.to_string(),
            "address": sum.address,
            "leads": sum.leads,
            "votes": sum.votes,
            "learns": sum.learns,
            "lag_entries": sum.lag,
        })
    });
    let leaders = shards.values().map(|stood| {
        json!({
            "shard": stood.shard.0,
            "leader": stood.leader.map(|node| node.to_string()),
            "changing": stood.changing,
        })
    });
    let leaderless = leaderless(of, shards).into_iter().map(|shard| shard.0);
    json!({
        "cluster_id": of.cluster.to_string(),
        "incarnation": of.incarnation.get(),
        "nodes": nodes.collect::<Vec<_>>(),
        "shards": leaders.collect::<Vec<_>>(),
        "leaderless": leaderless.collect::<Vec<_>>(),
        "silent": silent,
    })
}

fn text(of: &Membership, shards: &BTreeMap<ShardId, Stood>, silent: &[String]) -> String {
    let rows = sums(shards).into_iter().map(|(node, sum)| {
        vec![
            node.to_string(),
            sum.address,
            sum.leads.to_string(),
            sum.votes.to_string(),
            sum.learns.to_string(),
            sum.lag.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let heads = ["NODE", "ADDRESS", "LEADS", "VOTES", "LEARNS", "LAG"];
    let mut text = format!(
        "cluster {}, incarnation {}, {} and the catalog\n\n{}",
        of.cluster,
        of.incarnation,
        screen::count(of.data_shards.into(), "data shard"),
        screen::table(&heads, &rows)
    );
    let leaderless = leaderless(of, shards);
    if !leaderless.is_empty() {
        let count = screen::count(leaderless.len() as u64, "shard");
        text.push_str(&format!("\n{count} without a leader that answers\n"));
    }
    for why in silent {
        text.push_str(&format!("\n{why}\n"));
    }
    text
}
