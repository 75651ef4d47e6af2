//! Clusters of one's own, of one node and of three, of few shards and many, of few partitions and many, each
//! under the same load, and what the machine can do at most, all in one run.
//!
//! ```text
//!   sinks: three processes that only write, apart, in a row
//!     └─► for each cluster: idle ─► single appends ─► full speed, by a producer ─► fed as the sinks are
//! ```

mod told; // what was measured, for a program and for a person

use std::path::{Path, PathBuf};
use std::time::Duration;

use esker_client::{Client, ProducerOptions, Record};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::fed::{self, Feed};
use super::histogram::Histogram;
use super::load::{self, Loaded};
use super::plan;
use super::sink::{self, Taken};
use super::site::Site;
use super::{in_scratch, say};
use crate::failure::Failure;
use crate::produce::Codec;
use crate::screen;
use crate::shell::Shell;

/// Bytes of a single append.
const SINGLE_BYTES: u64 = 4 << 10;
const MIB: f64 = (1 << 20) as f64;
/// Bytes of a record at full speed.
const RECORD_BYTES: u64 = 1 << 10;
/// Partitions that are loaded, where a cluster has not more.
const PARTITIONS: u32 = 8;
/// What a cluster needs until nothing moves any more: leadership is even, files are written ahead.
const CALM: Duration = Duration::from_secs(6);
/// How long a cluster is at full speed before that is measured, and what is its limit. By then flushes keep up, and
/// its log writes into files that it has written before, as the limits do; until then it writes each byte twice, once
/// as a zero. And memory that others have just given back is used up: where a host lends it (virtual machines with a
/// balloon), a page that was used a moment before costs a tenth of one that must be lent first.
const STEADY: Duration = Duration::from_secs(10);
/// Records that fill a cluster of many partitions: of fewer as many, so that they differ in their partitions alone.
const FILL: u32 = PARTITIONS_MAX;
/// Those of them that are under way.
const FILL_IN_FLIGHT_MAX: usize = 2048;
/// Partitions of a cluster.
const PARTITIONS_MAX: u32 = 100_000;
/// Nodes, data shards, and partitions that have a record in the bucket and a producer each.
const CLUSTERS: [(usize, u32, u32); 7] = [
    (1, 16, PARTITIONS),
    (3, 4, PARTITIONS),
    (3, 16, PARTITIONS),
    (3, 64, PARTITIONS),
    (3, 16, 1),
    (3, 16, 1_000),
    (3, 16, PARTITIONS_MAX),
];

/// Load clusters of its own and measure what three processes do that only write; tell ratios
///
/// Each node and the agent is a process of its own, the client is in this one.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each step measures
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = plan::stretch)]
    seconds: Duration,
    /// Values of a batch at full speed, about
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = plan::batch_size)]
    batch_bytes: u64,
    /// Batches in flight at full speed
    #[arg(long, value_name = "N", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1024))]
    in_flight: u64,
    /// Where to put the clusters' data: on the disk that is meant [default: the system's temporary
    /// folder]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Only clusters of so many nodes, shards and partitions, such as 3,16,8; may be said again
    /// [default: one node and three, 4, 16 and 64 shards, 8, 1, 1000 and 100000 partitions]
    #[arg(long = "of", value_name = "N,S,P", value_parser = shape)]
    of: Vec<Shape>,
}

/// Of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    nodes: usize,
    shards: u32,
    partitions: u32,
}

fn shape(text: &str) -> Result<Shape, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    match numbers.as_deref() {
        Ok(
            &[
                nodes @ 1..=7,
                shards @ 1..=1024,
                partitions @ 1..=PARTITIONS_MAX,
            ],
        ) => Ok(Shape {
            nodes: nodes as usize,
            shards,
            partitions,
        }),
        _ => Err(
            "write nodes (1 to 7), data shards (1 to 1024) and partitions (1 to 100000), such \
                  as 3,16,8"
                .to_owned(),
        ),
    }
}

pub(crate) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let directory = args.directory.as_deref();
    let measure = async |scratch: &Path| measure(args, shell, scratch).await;
    let measured = in_scratch(shell, "clusters", directory, measure).await?;
    shell.answer(&measured.object(), || measured.text())
}

#[derive(Debug)]
struct Measured {
    clusters: Vec<Cluster>,
}

/// What is possible, measured before a cluster and after it: the mean, since a machine that others share is not
/// as fast in each minute.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Three processes that only write.
    apart: Taken,
    /// The same, in a row.
    in_a_row: Taken,
}

/// What a cluster did that was fed as the limits are.
#[derive(Debug)]
struct Fed {
    bytes_per_second: f64,
    latency: Histogram,
    /// Seconds of a core, of all its processes, for each MiB.
    cpu_per_mib: f64,
}

/// What a cluster did.
#[derive(Debug)]
struct Cluster {
    shape: Shape,
    limits: Limits,
    /// Of a core, of all its processes while nothing happens.
    idle: f64,
    /// One append at a time.
    single: Histogram,
    /// By a producer.
    full: Loaded,
    fed: Fed,
    most_resident: u64,
    /// Bytes that the fullest node holds, and the agent, once all is filled and calm.
    held: [u64; 2],
}

async fn measure(args: &Args, shell: &Shell, scratch: &Path) -> Result<Measured, Failure> {
    let all = CLUSTERS.map(|(nodes, shards, partitions)| Shape {
        nodes,
        shards,
        partitions,
    });
    let shapes = if args.of.is_empty() {
        &all[..]
    } else {
        &args.of
    };
    let mut clusters = Vec::new();
    let mut before = limits(args, shell, scratch).await?;
    for (at, shape) in shapes.iter().enumerate() {
        say(&shape.to_string());
        let folder = scratch.join(format!("cluster-{at}"));
        let site = Site::found(&shell.env, &folder, shape.nodes, shape.shards).await?;
        let client = site.client(&shell.env).await?;
        let bench = Bench {
            args,
            shell,
            site: &site,
            client: &client,
            shape: *shape,
        };
        let mut cluster = bench.run(before).await?;
        drop(site);
        crate::run::remove(&folder);
        before = limits(args, shell, scratch).await?;
        cluster.limits = cluster.limits.mean(before);
        clusters.push(cluster);
    }
    Ok(Measured { clusters })
}

async fn limits(args: &Args, shell: &Shell, scratch: &Path) -> Result<Limits, Failure> {
    let plan = sink::Plan {
        bytes: args.batch_bytes,
        in_flight: args.in_flight,
        warmup: STEADY,
        lasting: args.seconds,
    };
    say("three processes that only write");
    let apart = sink::apart(&shell.env, scratch, plan).await?;
    say("the same in a row, behind a relay");
    let in_a_row = sink::in_a_row(&shell.env, scratch, plan).await?;
    Ok(Limits { apart, in_a_row })
}

impl Limits {
    fn mean(self, other: Self) -> Self {
        let mean = |one: Taken, other: Taken| Taken {
            bytes_per_second: f64::midpoint(one.bytes_per_second, other.bytes_per_second),
            cpu_per_mib: f64::midpoint(one.cpu_per_mib, other.cpu_per_mib),
        };
        Self {
            apart: mean(self.apart, other.apart),
            in_a_row: mean(self.in_a_row, other.in_a_row),
        }
    }
}

struct Bench<'a> {
    args: &'a Args,
    shell: &'a Shell,
    site: &'a Site,
    client: &'a Client,
    shape: Shape,
}

impl Bench<'_> {
    async fn run(&self, limits: Limits) -> Result<Cluster, Failure> {
        let full = plan::Args {
            warmup: STEADY,
            ..self.plan("full", self.shape.partitions)
        };
        let single = plan::Args {
            batch_bytes: SINGLE_BYTES,
            in_flight: 1,
            ..self.plan("single", PARTITIONS)
        };
        for plan in [&full, &single] {
            load::topic(plan, self.shell, self.client).await?;
        }
        tokio::time::sleep(CALM).await;
        if self.shape.partitions > PARTITIONS {
            self.fill("full").await?;
            tokio::time::sleep(CALM).await;
        }
        let held = self.site.taken();
        let held = [held.nodes.into_iter().max().unwrap_or(0), held.agent];
        let idle = self.idle().await;
        let single = self.load(&single).await?.written.latency;
        let full = self.load(&full).await?;
        let fed = self.fed("full").await?;
        Ok(Cluster {
            shape: self.shape,
            limits,
            idle,
            single,
            full,
            fed,
            most_resident: self.site.most_resident(),
            held,
        })
    }

    /// What no codec makes smaller, not compressed, at full speed.
    fn plan(&self, topic: &str, partitions: u32) -> plan::Args {
        plan::Args {
            batch_bytes: self.args.batch_bytes,
            in_flight: self.args.in_flight,
            record_bytes: Some(RECORD_BYTES),
            compression: Some(Codec::None),
            ..plan::Args::full_speed(topic, partitions, self.args.seconds)
        }
    }

    async fn load(&self, plan: &plan::Args) -> Result<Loaded, Failure> {
        let topic = plan.topic.as_deref().unwrap_or_default();
        let loaded = load::load(plan, self.shell, self.client, topic).await?;
        match (loaded.wrong(false), loaded.failed()) {
            (Some(wrong), _) => Err(Failure::new(wrong)),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(loaded),
        }
    }

    /// What it takes that is at full speed already.
    async fn fed(&self, topic: &str) -> Result<Fed, Failure> {
        let feed = Feed {
            address: &self.site.address,
            topic,
            partitions: self.shape.partitions,
            batch_bytes: self.args.batch_bytes,
            record_bytes: RECORD_BYTES,
            in_flight: self.args.in_flight,
            lasting: self.args.seconds,
        };
        let before = self.site.taken().cpu;
        let (bytes_per_second, latency) = fed::run(&self.shell.env, feed).await?;
        let cpu = self.site.taken().cpu - before;
        let bytes = bytes_per_second * self.args.seconds.as_secs_f64();
        Ok(Fed {
            bytes_per_second,
            latency,
            cpu_per_mib: cpu / (bytes / MIB).max(1.0),
        })
    }

    /// Cores that are busy while nothing happens.
    async fn idle(&self) -> f64 {
        let clock = &self.shell.env.clock;
        let (began, before) = (clock.monotonic(), self.site.taken().cpu);
        tokio::time::sleep(self.args.seconds).await;
        let lasted = clock.monotonic().since(began);
        (self.site.taken().cpu - before) / lasted.as_secs_f64()
    }

    /// Records of an idempotent producer, in each partition of `topic` as many, all in the bucket.
    async fn fill(&self, topic: &str) -> Result<(), Failure> {
        let options = ProducerOptions {
            linger: Duration::ZERO,
            ..ProducerOptions::default()
        };
        let producer = self.client.producer(topic, options).await;
        let producer = producer.map_err(|error| Failure::writing(&error))?;
        let mut under_way = FuturesUnordered::new();
        for number in 0..FILL {
            let partition = number % self.shape.partitions;
            let record = vec![Record::value("one of many")];
            let sent = producer.send_together(Some(partition), record).await;
            under_way.push(sent.map_err(|error| Failure::writing(&error))?);
            if under_way.len() >= FILL_IN_FLIGHT_MAX {
                settled(under_way.next().await)?;
            }
        }
        while let Some(next) = under_way.next().await {
            settled(Some(next))?;
        }
        let flushed = self.client.admin().flush().await;
        flushed.map_err(|error| Failure::writing(&error))?;
        Ok(())
    }
}

fn settled<T>(outcome: Option<Result<T, esker_client::Error>>) -> Result<(), Failure> {
    match outcome {
        Some(Err(error)) => Err(Failure::writing(&error)),
        Some(Ok(_)) | None => Ok(()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn bytes_more(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            nodes,
            shards,
            partitions,
        } = self;
        write!(
            f,
            "{}, {}, {}",
            screen::count(*nodes as u64, "node"),
            screen::count(u64::from(*shards), "data shard"),
            screen::count(u64::from(*partitions), "partition"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_nodes_shards_and_partitions() {
        let told = Shape {
            nodes: 3,
            shards: 16,
            partitions: 8,
        };
        assert_eq!(shape("3,16,8"), Ok(told));
        assert_eq!(told.to_string(), "3 nodes, 16 data shards, 8 partitions");
        for wrong in [
            "",
            "3",
            "3,16",
            "0,1,1",
            "3,0,1",
            "3,1,0",
            "3,1,100001",
            "3,16,8,1",
            "a,b,c",
        ] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }
}
