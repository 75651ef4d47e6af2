//! `esker cluster init`: what it takes, and what it says.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::init::{Founded, InitError, Step, init};
use super::plan::{Shards, Stage};
use super::reached;
use crate::config::{Config, Kind};
use crate::failure::Failure;
use crate::run::{environment, read_config};
use crate::screen;
use crate::serve::open_bucket;
use crate::shell::Shell;

/// What `esker cluster init` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration of an agent of the cluster: it names the bucket and the nodes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let file = args.config.display();
    let (config, environment) = (read_config(&args.config), environment());
    let config = config.and_then(|file| Config::build(Kind::Serve, Some(&file), &environment, &[]));
    let config = config.map_err(|error| Failure::usage(error.to_string()))?;
    if config.cluster.nodes.is_empty() {
        return Err(Failure::usage(format!(
            "{file}: `cluster.nodes` is empty; name the WAL nodes that the cluster is to have, such as \
             [\"10.0.0.1:7072\", \"10.0.0.2:7072\", \"10.0.0.3:7072\"]"
        )));
    }
    if config.object_store.url.is_none() {
        return Err(Failure::usage(format!(
            "{file}: `object_store.url` is not said; the agents of a cluster have one bucket: write \
             file:///var/lib/esker/bucket, s3://my-bucket/prefix, gs://my-bucket/prefix or \
             az://my-container/prefix"
        )));
    }
    let store = open_bucket(&shell.env, &config, environment);
    let store = store.map_err(|error| Failure::new(error.to_string()))?;
    let env = reached(&config, shell)?;
    let nodes = config.cluster.nodes.iter().map(ToString::to_string);
    let nodes: Vec<_> = nodes.collect();
    let shards = Shards {
        count: config.cluster.data_shards,
        is_said: config.cluster.is_said,
    };
    let bar = screen::progress(None, "{spinner} {msg}");
    let tell = |step: Step| {
        bar.set_message(step.to_string());
        bar.tick();
    };
    let founded = init(&env, &nodes, shards, &store, &tell).await;
    bar.finish_and_clear();
    let founded = founded.map_err(|error| failure(&error))?;
    shell.answer(&object(&founded), || {
        let next = format!("{} serve --config {file}", shell.program);
        text(&founded, &config.bucket(), &next)
    })
}

fn failure(error: &InitError) -> Failure {
    Failure::new(error.to_string())
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asking => f.write_str("asking the nodes who they are"),
            Self::Adopting(node) => write!(f, "adopting {node}"),
            Self::Claiming => f.write_str("claiming the bucket"),
            Self::Founding(node) => write!(f, "founding the shards at {node}"),
            Self::Waiting(late) => {
                let late = screen::count(*late as u64, "node");
                write!(f, "waiting for {late} to hear from the leaders")
            }
        }
    }
}

fn object(founded: &Founded) -> Value {
    let nodes = founded.plan.members.iter().map(|member| {
        json!({
            "node": member.node.to_string(),
            "address": member.address,
            "disk": member.disk.to_string(),
        })
    });
    json!({
        "cluster_id": founded.cluster.to_string(),
        "incarnation": founded.plan.incarnation.get(),
        "data_shards": founded.plan.data_shards,
        "founded_before": founded.plan.stage == Stage::Founded,
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

fn text(founded: &Founded, bucket: &str, next: &str) -> String {
    let Founded { cluster, plan } = founded;
    let rows = plan.members.iter().map(|member| {
        vec![
            member.node.to_string(),
            member.address.clone(),
            member.disk.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let done = match plan.stage {
        Stage::Founded => "was founded before: nothing is changed",
        Stage::Anew | Stage::HalfFounded => "is founded",
    };
    let shards = screen::count(plan.data_shards.into(), "data shard");
    let runs = match rows.len() {
        1 => "it goes on while its one node runs".to_owned(),
        nodes => format!("it goes on while {} of {nodes} nodes run", nodes / 2 + 1),
    };
    format!(
        "cluster {cluster} {done}\n\
         {shards}, bucket {bucket}; {runs}\n\
         \n\
         {}\n\
         next, wherever clients are to be served:\n\
         \x20 {next}\n",
        screen::table(&["NODE", "ADDRESS", "DISK"], &rows)
    )
}
