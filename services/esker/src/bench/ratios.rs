//! A server of one's own under load, and what disk, wire and codec do, all in one run: figures as
//! ratios, which say the same on any machine.
//!
//! ```text
//!   single appends ─► the disk at the groups that the WAL wrote ─► lines ─► noise ─► the disk …
//!      ─► flush ─► replay, twice ─► the wire ─► the codec
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use esker_client::Client;
use serde_json::{Value, json};

use super::codec::{self, Zstd};
use super::disk::{self, Disk};
use super::history::{Replayed, replay};
use super::load::{self, Loaded};
use super::plan;
use super::server::Server;
use super::wire::{self, Wire};
use super::{in_scratch, say};
use crate::failure::Failure;
use crate::produce::Codec;
use crate::screen;
use crate::shell::Shell;

/// Bytes of a single append.
const SINGLE_BYTES: u64 = 4 << 10;
/// Partitions of each topic.
const PARTITIONS: u32 = 8;

/// Load a server of its own and measure what disk, gRPC and zstd do in the same run; tell ratios
///
/// The server is `esker dev` of this binary, in a process of its own; clients are in this one.
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
    /// Where to put the server's data: on the disk that is meant [default: the system's temporary
    /// folder]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(crate) async fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let directory = args.directory.as_deref();
    let measure = async |scratch: &Path| measure(args, shell, scratch).await;
    let measured = in_scratch(shell, "ratios", directory, measure).await?;
    shell.answer(&measured.object(), || measured.text())
}

/// A load, what the WAL wrote for it, and what the disk does with the same.
#[derive(Debug)]
struct Step {
    loaded: Loaded,
    groups: f64,
    wal_bytes: f64,
    disk: Disk,
}

#[derive(Debug)]
struct Measured {
    /// One append at a time.
    single: Step,
    /// Lines, compressed, at full speed.
    lines: Step,
    /// What no codec makes smaller, not compressed, at full speed.
    noise: Step,
    bucket: Replayed,
    cache: Replayed,
    /// Of noise, which nobody has to decompress.
    plain: Replayed,
    wire: Wire,
    zstd: Zstd,
    most_resident: u64,
}

async fn measure(args: &Args, shell: &Shell, scratch: &Path) -> Result<Measured, Failure> {
    let env = &shell.env;
    let server = Server::start(env, scratch.join("data")).await?;
    let client = server.client(env).await?;
    let bench = Bench {
        args,
        shell,
        scratch,
        server: &server,
        client: &client,
    };
    let single = bench.step("single", SINGLE_BYTES, 1, None).await?;
    let lines = bench.step("lines", args.batch_bytes, args.in_flight, None);
    let lines = lines.await?;
    let noise = bench.step("noise", args.batch_bytes, args.in_flight, Some(1 << 10));
    let noise = noise.await?;
    say("replay");
    let reading = |error: esker_client::Error| Failure::reading(&error);
    client.admin().flush().await.map_err(reading)?;
    let bucket = replay(env, &client, "lines", true).await.map_err(reading)?;
    let plain = replay(env, &client, "noise", true).await.map_err(reading)?;
    // The first reader of the tail fills the cache, as far as there is room.
    replay(env, &client, "lines", false)
        .await
        .map_err(reading)?;
    let cache = replay(env, &client, "lines", false)
        .await
        .map_err(reading)?;
    let most_resident = server.process.most_resident();
    drop(client);
    drop(server);
    say("gRPC and zstd alone");
    let (bytes, in_flight) = (args.batch_bytes, args.in_flight);
    let wire = wire::measure(env, bytes, in_flight, SINGLE_BYTES, args.seconds).await;
    let zstd = codec::measure(env, bytes, args.seconds).await;
    Ok(Measured {
        single,
        lines,
        noise,
        bucket,
        cache,
        plain,
        wire: wire.map_err(|error| Failure::new(format!("gRPC over loopback: {error}")))?,
        zstd: zstd.map_err(|error| Failure::new(format!("zstd: {error}")))?,
        most_resident,
    })
}

struct Bench<'a> {
    args: &'a Args,
    shell: &'a Shell,
    scratch: &'a Path,
    server: &'a Server,
    client: &'a Client,
}

impl Bench<'_> {
    async fn step(
        &self,
        topic: &str,
        batch_bytes: u64,
        in_flight: u64,
        record_bytes: Option<u64>,
    ) -> Result<Step, Failure> {
        say(topic);
        let env = &self.shell.env;
        let plan = plan::Args {
            batch_bytes,
            in_flight,
            record_bytes,
            compression: record_bytes.map(|_| Codec::None),
            // Reading along shows what a single append takes to arrive; at full speed it would
            // only take its share of the cores.
            tail: in_flight == 1,
            ..plan::Args::full_speed(topic, PARTITIONS, self.args.seconds)
        };
        let (_, made) = load::topic(&plan, self.shell, self.client).await?;
        let before = self.server.figures(env).await?;
        let loaded = load::load(&plan, self.shell, self.client, topic).await?;
        if let Some(wrong) = loaded.wrong(made) {
            return Err(Failure::new(wrong));
        }
        if let Some(failure) = loaded.failed() {
            return Err(failure);
        }
        let after = self.server.figures(env).await?;
        let groups = after.since(&before, "esker_wal_groups_total");
        let wal_bytes = after.since(&before, "esker_wal_written_bytes_total");
        let group = mean(wal_bytes, groups);
        let disk = disk::measure(env, self.scratch.to_owned(), group, self.args.seconds).await;
        let failed = |error| Failure::io(&self.scratch.display().to_string(), &error);
        Ok(Step {
            loaded,
            groups,
            wal_bytes,
            disk: disk.map_err(failed)?,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of bytes, never negative"
)]
fn mean(bytes: f64, groups: f64) -> u64 {
    (bytes / groups.max(1.0)).max(0.0) as u64
}

impl Step {
    /// Bytes that the WAL wrote a second while it was measured.
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    fn wal_per_second(&self) -> f64 {
        let all = self.loaded.written.all.bytes.max(1) as f64;
        self.loaded.bytes_per_second() * self.wal_bytes / all
    }
}

/// A figure, what limits it, and how one stands to the other.
struct Ratio {
    name: &'static str,
    figure: f64,
    limit_name: &'static str,
    limit: f64,
    unit: &'static str,
}

impl Measured {
    fn ratios(&self) -> Vec<Ratio> {
        let mut all = self.of_appends();
        all.extend(self.of_replays());
        all
    }

    fn of_appends(&self) -> Vec<Ratio> {
        const MS: &str = "ms";
        const MB: &str = "MB/s";
        let ratio = |name, figure, limit_name, limit, unit| Ratio {
            name,
            figure,
            limit_name,
            limit,
            unit,
        };
        let (p50, p99) = (500_000, 990_000);
        let of = &self.single;
        let (append, sync) = (&of.loaded.written.latency, &of.disk.latency);
        let round = &self.wire.round_trip;
        let seen = of.loaded.tail.as_ref().map(|tail| &tail.latency);
        let seen = seen.unwrap_or(append);
        let ms = |name, latency: &super::histogram::Histogram, limit_name, limit, q| {
            let limit: &super::histogram::Histogram = limit;
            ratio(
                name,
                latency.quantile_ms(q),
                limit_name,
                limit.quantile_ms(q),
                MS,
            )
        };
        let (lines, noise) = (&self.lines, &self.noise);
        let raw = noise.loaded.bytes_per_second();
        vec![
            ms(
                "single append, p50",
                append,
                "write + fdatasync, p50",
                sync,
                p50,
            ),
            ms(
                "single append, p99",
                append,
                "write + fdatasync, p99",
                sync,
                p99,
            ),
            ms(
                "single append, p50",
                append,
                "gRPC round trip, p50",
                round,
                p50,
            ),
            ms("append to read, p50", seen, "append, p50", append, p50),
            ms("append to read, p99", seen, "append, p99", append, p99),
            ratio(
                "append, lines",
                lines.loaded.bytes_per_second() / 1e6,
                "zstd compress, one core",
                self.zstd.encoded / 1e6,
                MB,
            ),
            ratio(
                "WAL, lines",
                lines.wal_per_second() / 1e6,
                "disk, same groups",
                lines.disk.bytes_per_second / 1e6,
                MB,
            ),
            ratio(
                "WAL, uncompressed",
                noise.wal_per_second() / 1e6,
                "disk, same groups",
                noise.disk.bytes_per_second / 1e6,
                MB,
            ),
            ratio(
                "append, uncompressed",
                raw / 1e6,
                "gRPC there",
                self.wire.in_per_second / 1e6,
                MB,
            ),
        ]
    }

    fn of_replays(&self) -> Vec<Ratio> {
        let zstd = ("zstd decompress, one core", self.zstd.decoded / 1e6);
        let wire = ("gRPC back", self.wire.out_per_second / 1e6);
        let ratio = |name, replayed: &Replayed, (limit_name, limit)| Ratio {
            name,
            figure: replayed.bytes_per_second() / 1e6,
            limit_name,
            limit,
            unit: "MB/s",
        };
        vec![
            ratio("replay from the bucket, lines", &self.bucket, zstd),
            ratio("read from the cache, lines", &self.cache, zstd),
            ratio("replay from the bucket, uncompressed", &self.plain, wire),
        ]
    }

    fn object(&self) -> Value {
        let ratios = self.ratios().into_iter().map(|ratio| {
            json!({
                "name": ratio.name,
                "figure": ratio.figure,
                "limit_name": ratio.limit_name,
                "limit": ratio.limit,
                "unit": ratio.unit,
                "ratio": ratio.figure / ratio.limit,
            })
        });
        let step = |step: &Step| {
            json!({
                "mb_per_s": step.loaded.bytes_per_second() / 1e6,
                "append": step.loaded.written.latency.object(),
                "tail": step.loaded.tail.as_ref().map(|tail| tail.latency.object()),
                "groups": step.groups,
                "group_bytes": mean(step.wal_bytes, step.groups),
                "wal_mb_per_s": step.wal_per_second() / 1e6,
                "disk": {
                    "write_bytes": step.disk.write_bytes,
                    "mb_per_s": step.disk.bytes_per_second / 1e6,
                    "latency": step.disk.latency.object(),
                },
            })
        };
        json!({
            "ratios": ratios.collect::<Vec<_>>(),
            "single": step(&self.single),
            "lines": step(&self.lines),
            "noise": step(&self.noise),
            "replay": {
                "bucket": self.bucket.object(),
                "cache": self.cache.object(),
                "uncompressed": self.plain.object(),
            },
            "grpc": {
                "there_mb_per_s": self.wire.in_per_second / 1e6,
                "back_mb_per_s": self.wire.out_per_second / 1e6,
                "round_trip": self.wire.round_trip.object(),
            },
            "zstd": {
                "compress_mb_per_s": self.zstd.encoded / 1e6,
                "decompress_mb_per_s": self.zstd.decoded / 1e6,
                "ratio": self.zstd.ratio,
            },
            "most_resident_bytes": self.most_resident,
        })
    }

    fn text(&self) -> String {
        let rows: Vec<_> = self
            .ratios()
            .into_iter()
            .map(|ratio| {
                let digits = if ratio.unit == "ms" { 3 } else { 0 };
                vec![
                    ratio.name.to_owned(),
                    format!("{:.digits$}", ratio.figure),
                    ratio.limit_name.to_owned(),
                    format!("{:.digits$}", ratio.limit),
                    ratio.unit.to_owned(),
                    format!("{:.2}", ratio.figure / ratio.limit),
                ]
            })
            .collect();
        let heads = ["FIGURE", "IS", "LIMIT", "IS", "UNIT", "RATIO"];
        let groups = |name: &str, step: &Step| {
            let mean = screen::bytes(mean(step.wal_bytes, step.groups));
            format!("{name}: {} groups of {mean} on average", step.groups)
        };
        format!(
            "{}\nthe WAL wrote, {}, {}, {}\nzstd makes lines {:.1} times smaller\nthe server held at \
             most {}\n",
            screen::table(&heads, &rows),
            groups("single", &self.single),
            groups("lines", &self.lines),
            groups("uncompressed", &self.noise),
            self.zstd.ratio,
            screen::bytes(self.most_resident),
        )
    }
}
