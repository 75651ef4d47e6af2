//! How the cluster stands, having it flushed, and founding one of several nodes.

mod certs; // a CA for a try
mod founding; // the command: what it takes and says
mod init; // its steps
mod members; // who holds the shards, shown and changed
mod nodes; // its WAL nodes, asked
mod plan; // what they are to do
mod time; // by which clocks it stands still, and going on from there

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use esker_client::Options;
use esker_client::v1::ClusterStatusReply;
use esker_env::Env;
use serde_json::{Value, json};

use crate::config::Config;
use crate::config::tls::PeerTls;
use crate::failure::Failure;
use crate::screen;
use crate::serve::{NoReach, Reaching};
use crate::shell::Shell;

/// How long a flush may take: a head of gigabytes to a bucket far away.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Look after the cluster
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Found a cluster on WAL nodes that run and wait, once; again, it says that it is done
    Init(founding::Args),
    /// How it stands, as the agent that answers sees it
    Status {
        /// Ask the WAL nodes that this agent's configuration names, and no agent: who leads, who votes
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Have a new WAL node hold every shard, and vote once it has what the others have
    Add(members::Add),
    /// Have a WAL node hold no shard any more: one that is lost, or to be stopped for good
    Remove(members::Remove),
    /// Have another node lead a shard
    Transfer(members::Transfer),
    /// What the clocks of the shards' leaders say; after a jump, time stands still until accepted
    Time(time::Args),
    /// Make a CA for tests, and certificates for nodes, agents, operators and clients
    Certs(certs::Args),
    /// Move everything that is in the head now to the bucket, and wait for it
    Flush,
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    match args.action {
        Action::Init(args) => founding::run(&args, shell).await,
        Action::Status { config: None } => status(shell).await,
        Action::Status { config: Some(file) } => members::status(&file, shell).await,
        Action::Add(args) => members::add(&args, shell).await,
        Action::Remove(args) => members::remove(&args, shell).await,
        Action::Transfer(args) => members::transfer(&args, shell).await,
        Action::Time(args) => time::run(&args, shell).await,
        Action::Certs(args) => certs::run(&args, shell),
        Action::Flush => flush(shell).await,
    }
}

/// A world whose connections go to the nodes of the cluster, as who the configuration says, or the
/// operator by his flags.
fn reached(config: &Config, shell: &Shell) -> Result<Env, Failure> {
    if config.tls.peers().is_none() && shell.tls.own().is_some() {
        let text = "a certificate is named, and the configuration has no `tls.peers`: nothing is sent \
                    in the clear";
        return Err(Failure::usage(text.to_owned()));
    }
    let peers = config.tls.peers().map(|peers| PeerTls {
        own: shell.tls.own().unwrap_or(peers.own),
        ..peers
    });
    let reaching = Reaching::new(&shell.env, peers).map_err(NoReach::from);
    let reaching = reaching.and_then(Reaching::of_the_cluster);
    let reaching = reaching.map_err(|error| Failure::new(error.to_string()))?;
    Ok(reaching.env())
}

pub(crate) async fn status(shell: &Shell) -> Result<(), Failure> {
    let admin = shell.client().await?.admin();
    let status = admin.cluster_status().await;
    let status = status.map_err(|error| Failure::reading(&error))?;
    shell.answer(&object(&status), || text(&status))
}

async fn flush(shell: &Shell) -> Result<(), Failure> {
    let options = Options {
        patience: FLUSH_TIMEOUT,
        call_timeout: FLUSH_TIMEOUT,
        ..Options::default()
    };
    let admin = shell.client_with(options).await?.admin();
    let flushed = admin.flush().await;
    let flushed = flushed.map_err(|error| {
        Failure::reading(&error).and_next("what is in the head stays durable there")
    })?;
    let answer = json!({ "segments": flushed.segments, "bytes": flushed.bytes });
    shell.answer(&answer, || {
        let bytes = screen::bytes(flushed.bytes);
        let segments = screen::count(flushed.segments.into(), "segment");
        format!("flushed: {segments}, {bytes}\n")
    })
}

fn object(status: &ClusterStatusReply) -> Value {
    let shards = status.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard,
            "leads_here": shard.leads_here,
            "leader": (!shard.leader.is_empty()).then_some(&shard.leader),
            "term": shard.term,
            "applied": shard.applied,
            "checkpointed": shard.checkpointed,
            "flush_position": shard.flush_position,
            "head_bytes": shard.head_bytes,
            "head_batches": shard.head_batches,
            "head_bytes_max": shard.head_bytes_max,
            "segments": shard.segments,
            "segment_bytes": shard.segment_bytes,
            "clock_skew_ms": shard.clock_skew_ms,
            "time_ms": shard.time_ms,
            "flush_error": (!shard.flush_error.is_empty()).then_some(&shard.flush_error),
        })
    });
    let wal = status.wal.as_ref().map(|wal| {
        json!({
            "disk_bytes_max": wal.disk_bytes_max,
            "disk_bytes": wal.disk_bytes,
            "room_bytes": wal.room_bytes,
            "files": wal.files,
            "spares": wal.spares,
        })
    });
    json!({
        "cluster_id": status.cluster_id,
        "incarnation": status.incarnation,
        "version": status.version,
        "bucket": status.bucket,
        "topics": status.topics,
        "partitions": status.partitions,
        "shards": shards.collect::<Vec<_>>(),
        "wal": wal,
    })
}

fn text(status: &ClusterStatusReply) -> String {
    let head: u64 = status.shards.iter().map(|shard| shard.head_bytes).sum();
    let batches: u64 = status.shards.iter().map(|shard| shard.head_batches).sum();
    let segments: u64 = status.shards.iter().map(|shard| shard.segments).sum();
    let stored: u64 = status.shards.iter().map(|shard| shard.segment_bytes).sum();
    let mut text = format!(
        "cluster  {}, incarnation {}, version {}\n\
         bucket   {}: {}, {}\n\
         topics   {}, {}\n\
         head     {}\n",
        status.cluster_id,
        status.incarnation,
        status.version,
        status.bucket,
        screen::count(segments, "segment"),
        screen::bytes(stored),
        status.topics,
        screen::count(status.partitions.into(), "partition"),
        match batches {
            0 => "empty: everything is in the bucket".to_owned(),
            _ => format!(
                "{} in {}, not in the bucket yet",
                screen::bytes(head),
                screen::count(batches, "batch")
            ),
        },
    );
    if let Some(wal) = &status.wal {
        let (used, most) = (
            screen::bytes(wal.disk_bytes),
            screen::bytes(wal.disk_bytes_max),
        );
        let room = screen::bytes(wal.room_bytes);
        let _ = writeln!(
            text,
            "wal      {used} of {most} in {} and {}, room for {room}",
            screen::count(wal.files.into(), "file"),
            screen::count(wal.spares.into(), "spare")
        );
    }
    let rows = status.shards.iter().map(|shard| {
        vec![
            shard.shard.to_string(),
            match (shard.leads_here, &*shard.leader) {
                (true, _) => "here",
                (false, "") => "unknown",
                (false, address) => address,
            }
            .to_owned(),
            shard.term.to_string(),
            screen::bytes(shard.head_bytes),
            shard.head_batches.to_string(),
            shard.segments.to_string(),
            screen::bytes(shard.segment_bytes),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let heads = [
        "SHARD",
        "LEADER",
        "TERM",
        "UNFLUSHED",
        "BATCHES",
        "SEGMENTS",
        "IN BUCKET",
    ];
    text.push('\n');
    text.push_str(&screen::table(&heads, &rows));
    for shard in status
        .shards
        .iter()
        .filter(|shard| !shard.flush_error.is_empty())
    {
        let _ = writeln!(
            text,
            "\nshard {} cannot flush: {}",
            shard.shard, shard.flush_error
        );
    }
    text
}
