//! What is counted, by name. Figures that grow while the process lives end in `_total`, as
//! Prometheus has it; the others are what is there now.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_agent::Traffic;
use esker_env::{Env, OpenMode, WallMs};
use esker_log::{Chore, Engine, FollowerReads, Progress};
use esker_object::Outcomes;
use esker_types::ShardId;
use esker_wal::Replica;
use esker_wal::disk::{Recovery, Wal};
use esker_walnode::{Differences, Node};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::asked::{Asked, ask};
use super::awaited::awaited;
use super::doors::{Doors, Expiry};
use super::fullness::{full, log_full};
use super::replicas;

/// The format of the text: OpenMetrics, which Prometheus reads.
pub(super) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bytes of a page of memory, as `/proc` counts them on every platform that is built for.
const PAGE_BYTES: u64 = 4096;

/// Where the figures of a server come from.
#[derive(Debug)]
pub(crate) struct Figures {
    agent: Option<Through>,
    log: Option<Log>,
    doors: Doors,
}

/// An agent: its engine, and what goes through it.
#[derive(Debug)]
struct Through {
    engine: Engine,
    traffic: Traffic,
}

/// The log of the node in this process.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    wal: Arc<Wal>,
    /// Where it lies.
    data_dir: PathBuf,
    /// What its start found.
    start: Recovery,
    replicas: Vec<Replica>,
    differences: Differences,
}

/// Figures at one moment.
#[derive(Debug)]
struct Moment {
    shards: Vec<(ShardId, Option<String>, Progress)>,
    /// Shards that gave no answer.
    unreachable: Vec<ShardId>,
    resident: Option<u64>,
    engine: Option<Engine>,
    log: Option<Log>,
    doors: Doors,
    expiries: Vec<Expiry>,
}

impl Log {
    /// That of `node` in `data_dir`.
    pub(crate) fn of(node: &Node, data_dir: &Path) -> Self {
        Self {
            wal: Arc::clone(node.wal()),
            data_dir: data_dir.to_owned(),
            start: node.recovery().clone(),
            replicas: node.replicas().to_vec(),
            differences: node.differences().clone(),
        }
    }

    /// The log itself.
    pub(crate) fn wal(&self) -> Arc<Wal> {
        Arc::clone(&self.wal)
    }

    /// Whether its node leads `shard`, as far as it knows.
    pub(crate) fn leads(&self, shard: ShardId) -> bool {
        let mut replicas = self.replicas.iter();
        replicas.any(|replica| replica.shard() == shard && replica.leads_in().is_some())
    }
}

impl Figures {
    /// Figures of an agent, and of the node beside it.
    pub(crate) const fn of_agent(
        engine: Engine,
        traffic: Traffic,
        log: Option<Log>,
        doors: Doors,
    ) -> Self {
        let agent = Some(Through { engine, traffic });
        Self { agent, log, doors }
    }

    /// Figures of a WAL node alone.
    pub(crate) const fn of_node(log: Log, doors: Doors) -> Self {
        Self {
            agent: None,
            log: Some(log),
            doors,
        }
    }

    /// Whether it is of use to clients, and what is to be said of it, line by line. An agent is as long as one
    /// shard answers: what all agents fail of, none of them is taken out of service for. A WAL node is once its
    /// shards count for a quorum; it stays so.
    ///
    /// # Errors
    /// Why it is of none.
    pub(super) async fn ready(&self) -> Result<Vec<String>, String> {
        let log = self.log.as_ref();
        if let Some(waits) = log.and_then(|log| awaited(&log.replicas)) {
            return Err(waits);
        }
        let asked = match &self.agent {
            Some(agent) => ask(&**agent.engine.head()).await,
            None => Asked::default(),
        };
        if let Some(nothing) = asked.nothing() {
            return Err(nothing);
        }
        let refusing = asked.answers.iter();
        let refusing = refusing.filter_map(|(shard, progress)| full(*shard, progress));
        let said = asked.some_silent().into_iter();
        Ok(said.chain(self.log_full()).chain(refusing).collect())
    }

    /// Which appends the log of the node refuses. Reads go on.
    fn log_full(&self) -> Option<String> {
        let log = self.log.as_ref()?;
        let full_disk = log.wal.stats().disk_full;
        let full_disk = full_disk.then_some(log.data_dir.as_path());
        log_full(log.wal.room(), full_disk)
    }

    /// All of it, as text.
    pub(super) async fn text(&self, env: &Env, life: Life) -> String {
        let mut registry = Registry::with_prefix("esker");
        registry.register_collector(Box::new(life));
        if let Some(agent) = &self.agent {
            agent.traffic.register(&mut registry);
        }
        registry.register_collector(Box::new(self.moment(env).await));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes every text");
        text
    }

    async fn moment(&self, env: &Env) -> Moment {
        let engine = self.agent.as_ref().map(|agent| agent.engine.clone());
        let asked = match &engine {
            Some(engine) => ask(&**engine.head()).await,
            None => Asked::default(),
        };
        let trouble = |shard| {
            engine
                .as_ref()
                .and_then(|engine| engine.flush_trouble(shard))
        };
        let shards = asked.answers.into_iter();
        let shards = shards.map(|(shard, progress)| (shard, trouble(shard), progress));
        Moment {
            shards: shards.collect(),
            unreachable: asked.silent.into_iter().map(|(shard, _)| shard).collect(),
            resident: resident(env),
            engine,
            log: self.log.clone(),
            doors: self.doors.clone(),
            expiries: self.doors.expiries().await,
        }
    }
}

/// A process: which binary, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) began: WallMs,
}

impl Collector for Life {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut pen = Pen(encoder);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let help = "1, of this version";
        pen.each("build_info", help, "version", [(version, gauge(1))])?;
        let began = seconds(self.began.0.saturating_mul(1_000_000));
        let help = "When the process began, in seconds of the Unix epoch";
        pen.one("start_time_seconds", help, &ConstGauge::new(began))
    }
}

/// Bytes of memory that the process holds, where the system tells.
fn resident(env: &Env) -> Option<u64> {
    let file = env
        .files
        .open(Path::new("/proc/self/statm"), OpenMode::Read);
    let mut text = [0; 128];
    let read = file.ok()?.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..read]).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// Writes figures one after the other.
pub(super) struct Pen<'a>(DescriptorEncoder<'a>);

impl Pen<'_> {
    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let kind = metric.metric_type();
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        metric.encode(encoder)
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &gauge(value))
    }

    /// Figures of one `kind` under one name, which `each` writes with their labels.
    pub(super) fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        each: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        each(&mut self.0.encode_descriptor(name, help, None, kind)?)
    }

    /// One figure for each of several labels.
    pub(super) fn each<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        figures: impl IntoIterator<Item = (String, M)>,
    ) -> fmt::Result {
        let mut figures = figures.into_iter().peekable();
        let Some((_, first)) = figures.peek() else {
            return Ok(());
        };
        let kind = first.metric_type();
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, metric) in figures {
            metric.encode(encoder.encode_family(&[(label, value.as_str())])?)?;
        }
        Ok(())
    }
}

/// What is there now; figures above what a gauge holds stand at its most.
pub(super) fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut pen = Pen(encoder);
        if let Some(engine) = &self.engine {
            self.shards(&mut pen)?;
            upkeep(engine, &mut pen)?;
            bucket(engine, &mut pen)?;
            cache(engine, &mut pen)?;
        }
        if let Some(log) = &self.log {
            log.figures(&mut pen)?;
        }
        self.doors.figures(&mut pen)?;
        let expiries = self.expiries.iter();
        let expiries = expiries.map(|(port, end)| ((*port).to_owned(), ConstGauge::new(*end)));
        let help = "When the first certificate of what is shown there expires, in seconds of the Unix epoch";
        pen.each("certificate_not_after_seconds", help, "port", expiries)?;
        if let Some(resident) = self.resident {
            pen.gauge("resident_bytes", "Memory that the process holds", resident)?;
        }
        Ok(())
    }
}

impl Moment {
    fn shards(&self, pen: &mut Pen<'_>) -> fmt::Result {
        let there = self.shards.iter().map(|(shard, ..)| (shard, 1));
        let not = self.unreachable.iter().map(|shard| (shard, 0));
        let reachable = there.chain(not);
        let reachable = reachable.map(|(shard, there)| (shard.0.to_string(), gauge(there)));
        let help =
            "1 if the shard's leader said how it stands; if not, its other figures are missing";
        pen.each("shard_reachable", help, "shard", reachable)?;
        let of = |figure: fn(&Progress) -> u64| {
            let each = self.shards.iter();
            each.map(move |(shard, _, progress)| (shard.0.to_string(), gauge(figure(progress))))
        };
        let mut shard = |name, help, figure| pen.each(name, help, "shard", of(figure));
        shard(
            "shard_applied_index",
            "Raft index of the last entry applied",
            |progress| progress.mark.index.0,
        )?;
        shard(
            "shard_flushed_index",
            "Raft index up to which all is in the bucket",
            |progress| progress.flushed.0,
        )?;
        shard(
            "shard_head_bytes",
            "Payload that is not in the bucket yet",
            |progress| progress.head.bytes,
        )?;
        shard(
            "shard_head_bytes_max",
            "Payload at which appends are refused",
            |progress| progress.head_bytes_max,
        )?;
        shard(
            "shard_head_batches",
            "Batches that are not in the bucket yet",
            |progress| progress.head.batches,
        )?;
        shard(
            "shard_segments",
            "Segments that the log names",
            |progress| progress.segments,
        )?;
        shard(
            "shard_clock_skew_seconds",
            "How far the leader's clocks are apart; above 0, retention by age stands still",
            |progress| progress.clock_skew.map_or(0, |skew| skew.as_secs().max(1)),
        )?;
        let failing = self
            .shards
            .iter()
            .map(|(shard, trouble, _)| (shard.0.to_string(), gauge(u64::from(trouble.is_some()))));
        let help = "1 while the last flush failed; the head keeps everything";
        pen.each("shard_flush_failing", help, "shard", failing)?;
        let full = self.shards.iter().map(|(shard, _, progress)| {
            let full = full(*shard, progress).is_some();
            (shard.0.to_string(), gauge(u64::from(full)))
        });
        let help = "1 while appends are refused because the head is full";
        pen.each("shard_head_full", help, "shard", full)
    }
}

impl Log {
    fn figures(&self, pen: &mut Pen<'_>) -> fmt::Result {
        let stats = self.wal.stats();
        pen.count(
            "wal_written_bytes",
            "Bytes of groups written, padding included",
            stats.bytes,
        )?;
        pen.count(
            "wal_groups",
            "Groups written, each with one sync",
            stats.groups,
        )?;
        pen.count("wal_frames", "Frames written", stats.frames)?;
        let seconds = ConstCounter::new(seconds(stats.sync_nanos));
        pen.one(
            "wal_sync_seconds",
            "Time spent in syncs of the disk",
            &seconds,
        )?;
        let longest = ConstGauge::new(self::seconds(stats.sync_nanos_max));
        pen.one(
            "wal_sync_longest_seconds",
            "The longest sync so far",
            &longest,
        )?;
        let (bytes, frames) = (self.start.bytes_read, self.start.frames);
        pen.gauge(
            "start_read_bytes",
            "Bytes of the log that the last start read",
            bytes,
        )?;
        pen.gauge("start_frames", "Frames that it found in them", frames)?;
        pen.gauge("wal_files", "Files of the log", stats.files)?;
        pen.gauge("wal_spares", "Files written ahead", stats.spares)?;
        pen.gauge(
            "wal_room_bytes",
            "Room above the reserve, for appends",
            self.wal.room(),
        )?;
        pen.gauge(
            "wal_disk_bytes_max",
            "Bytes of disk that the log may take",
            self.wal.disk_bytes_max(),
        )?;
        pen.gauge(
            "wal_memory_bytes",
            "Entries of the head in memory",
            stats.cached_bytes,
        )?;
        pen.gauge(
            "wal_queued_bytes",
            "Entries that wait for the disk",
            stats.queued_bytes,
        )?;
        pen.count(
            "replica_differs",
            "Replicas found to differ from what this node leads",
            self.differences.count(),
        )?;
        replicas::figures(&self.replicas, pen)
    }
}

fn upkeep(engine: &Engine, pen: &mut Pen<'_>) -> fmt::Result {
    let failing = Chore::ALL.map(|chore| (chore.name().to_owned(), gauge(engine.failing(chore))));
    let help = "Shards of which the last round failed here; nothing is lost, and it is tried again";
    pen.each("upkeep_failing", help, "task", failing)
}

fn bucket(engine: &Engine, pen: &mut Pen<'_>) -> fmt::Result {
    let counters = engine.store().counters();
    let verbs = [
        ("put", counters.put),
        ("get", counters.get),
        ("head", counters.head),
        ("list", counters.list),
        ("delete", counters.delete),
    ];
    let of = |figure: fn(&Outcomes) -> u64| {
        verbs.map(|(verb, outcomes)| (verb.to_owned(), ConstCounter::new(figure(&outcomes))))
    };
    let mut verb = |name, help, figure| pen.each(name, help, "verb", of(figure));
    verb("bucket_done", "Requests that the bucket did", |of| of.done)?;
    verb("bucket_not_found", "Requests for what is not there", |of| {
        of.not_found
    })?;
    verb("bucket_failed", "Requests that failed", |of| of.failed)?;
    verb(
        "bucket_abandoned",
        "Requests given up without an answer",
        |of| of.abandoned,
    )?;
    pen.count(
        "bucket_written_bytes",
        "Payload written",
        counters.written_bytes,
    )?;
    pen.count("bucket_read_bytes", "Payload read", counters.read_bytes)?;
    pen.count("bucket_retried", "Requests made again", counters.retried)?;
    pen.count(
        "bucket_refused",
        "Requests not made: circuit open, or too many",
        counters.refused,
    )?;
    pen.count("bucket_opened", "Times the circuit opened", counters.opened)
}

fn cache(engine: &Engine, pen: &mut Pen<'_>) -> fmt::Result {
    let counters = engine.cache_counters();
    pen.count(
        "cache_memory_hits",
        "Blocks found in memory",
        counters.memory_hits,
    )?;
    pen.count(
        "cache_disk_hits",
        "Blocks found on disk",
        counters.disk_hits,
    )?;
    pen.count(
        "cache_loads",
        "Blocks fetched from the bucket",
        counters.loads,
    )?;
    pen.count(
        "cache_coalesced",
        "Requests that joined another's fetch",
        counters.coalesced,
    )?;
    pen.count(
        "cache_corrupt",
        "Blocks on disk that were damaged",
        counters.corrupt,
    )?;
    pen.count("cache_errors", "Failures of the disk tier", counters.errors)?;
    let damages = engine.readers().damages();
    pen.count(
        "read_again",
        "Reads made again, past the cache, because something came damaged",
        damages.again,
    )?;
    pen.count(
        "read_lost",
        "Losses that readers were told of: a segment missing, or damaged twice",
        damages.lost,
    )?;
    let FollowerReads {
        answered,
        fell_back,
    } = engine.readers().follower_reads();
    let counts = [("follower", answered), ("leader", fell_back)];
    let counts = counts.map(|(by, count)| (by.to_owned(), ConstCounter::new(count)));
    let help = "Reads of what is not in the bucket yet that followers might answer, by who did";
    pen.each("follower_reads", help, "answered_by", counts)?;
    let ahead = engine.readers().ahead_bytes();
    pen.gauge(
        "read_ahead_bytes",
        "Bytes that readers of the bucket may be ahead, beyond 2 MiB each",
        ahead as u64,
    )?;
    let memory = counters.tail_bytes + counters.backfill_bytes;
    pen.gauge("cache_memory_bytes", "Blocks in memory", memory)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people: nanoseconds of 100 days are exact"
)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
