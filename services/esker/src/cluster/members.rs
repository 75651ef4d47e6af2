//! `esker cluster add`, `remove`, `transfer`, and `status --config`: who holds the shards, asked of the
//! WAL nodes themselves, and changed step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use esker_types::{NodeId, ShardId};
use esker_walnode::adoption::{Calling, Founders, Membership};
use esker_walnode::members::{Goal, Stood};
use serde_json::{Value, json};

use super::nodes::{Nodes, opened};
use crate::failure::Failure;
use crate::screen;
use crate::shell::Shell;

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
            let hello = opened(&new, hello, shell).await?;
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
    let shards = nodes.all_led().await?;
    let mut holders = shards.values().map(|stood| &stood.holders);
    let held = holders.any(|holders| holders.contains_key(&node));
    nodes.reach(Goal::Remove { node }).await?;
    let answer = json!({ "node": node.to_string(), "held": held });
    shell.answer(&answer, || {
        if !held {
            return format!("{node} held no shard: nothing was changed\n");
        }
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
