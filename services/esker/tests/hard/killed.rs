//! `kill -9` at any moment, again and again: every acknowledged record is there once, in order, at
//! its offset, in the live log and in the bucket alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_checker::{OpId, Options as Judging, Session, View, check};
use esker_client::Error;
use esker_env::sim::SeededEntropy;
use esker_env::{Entropy as _, OsEntropy};
use esker_object::minio::Minio;

use crate::clients::{Clients, PARTITIONS, SOON, TOPIC, connect};
use crate::pen::Pen;
use crate::reader::{drain, read_all, read_bucket};
use crate::saying::{Moment, Stage};
use crate::server::{Server, binary};
use crate::site::Site;
use crate::turn;

/// Kills of a plain test run, in all.
const KILLS: u32 = 4;
/// From so many kills on, their shares are judged too.
const KILLS_JUDGED: u32 = 15;
/// From so many on, chance cannot take much from the nine in ten that have an append in flight.
const KILLS_MANY: u32 = 100;
/// Small segments, fast flushes, a WAL of many small files.
pub(crate) const SETTINGS: &str = "cluster.data_shards = 2\n\
    wal = { disk = \"384MiB\", file = \"48MiB\", head = \"64MiB\", memory = \"16MiB\" }\n\
    flush = { bytes = \"64KiB\", age = \"30ms\" }\n\
    cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n\
    upkeep = { checkpoint = \"1s\", retention = \"1s\", collect = \"1s\", grace = \"2s\" }\n";
/// Writers that are back, of eight, before a strike is thought of.
const CONNECTED: usize = 3;
/// Answers that the server gave before it died are read within this.
const LAST_ANSWERS: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_over_a_folder() {
    let (kills, of_minio) = shares();
    run(kills - of_minio, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_over_minio() {
    let (_, kills) = shares();
    match Minio::binary() {
        Some(minio) => run(kills, Some(minio)).await,
        None => println!("skipped: ESKER_MINIO does not name a MinIO binary; .ci/minio makes one"),
    }
}

/// Kills in all.
pub(crate) fn kills() -> u32 {
    let kills = std::env::var("ESKER_KILLS").ok();
    let kills = kills.map_or(KILLS, |kills| {
        kills.parse().expect("ESKER_KILLS is a number")
    });
    kills.max(2)
}

/// The seed of a run: what `ESKER_SEED` says, or any.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("ESKER_SEED").ok();
    seed.map_or_else(
        || OsEntropy.next_u64() >> 32,
        |seed| seed.parse().expect("ESKER_SEED is a number"),
    )
}

/// Kills in all, and those over MinIO.
fn shares() -> (u32, u32) {
    let kills = kills();
    let over_minio = Minio::binary().map_or(0, |_| (kills / 4).max(1));
    (kills, over_minio)
}

async fn run(kills: u32, minio: Option<std::path::PathBuf>) {
    let Some(_turn) = turn().await else { return };
    let seed = seed();
    let over = if minio.is_some() { "MinIO" } else { "a folder" };
    println!(
        "{kills} kills over {over}: ESKER_SEED={seed}, {}",
        binary().display()
    );
    let mut hunt = Hunt::new(seed, Site::new(SETTINGS, minio.as_deref()));
    while hunt.figures.kills < kills {
        hunt.life().await;
    }
    hunt.finish().await;
}

/// What a MinIO suffers meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outage {
    /// It stands still when the server is killed, and for a while before.
    Frozen,
    /// It is killed together with the server.
    Killed,
}

/// What a run counts.
#[derive(Debug, Default)]
struct Figures {
    kills: u32,
    in_flight: u32,
    during_flush: u32,
    during_checkpoint: u32,
    /// Flushes cut, by the last step that they told of.
    cut: BTreeMap<String, u32>,
    frozen: u32,
    killed_together: u32,
    at_start: u32,
    terms: u32,
    caches_dropped: u32,
    longest_start: Duration,
    longest_stop: Duration,
    rss_at_start: u64,
    rss_max: u64,
    flushes: u64,
    warnings: BTreeMap<String, u32>,
}

struct Hunt {
    site: Site,
    pen: Pen,
    random: Arc<SeededEntropy>,
    figures: Figures,
    /// Appends that were open when the server was killed, kill by kill.
    open_at: Vec<BTreeSet<OpId>>,
    clients: Option<Clients>,
    /// What idempotent producers were told instead of an acknowledgement: a retry resolves all.
    unresolved: Vec<Error>,
    seed: u64,
}

impl Hunt {
    fn new(seed: u64, site: Site) -> Self {
        Self {
            pen: Pen::new(&site.path("history.jsonl")),
            random: Arc::new(SeededEntropy::new(seed)),
            figures: Figures::default(),
            open_at: Vec::new(),
            clients: None,
            unresolved: Vec::new(),
            seed,
            site,
        }
    }

    /// One life of the server, and what may happen before it.
    async fn life(&mut self) {
        while self.random.chance(12) {
            self.kill_at_start().await;
        }
        if self.random.chance(12) {
            self.site.drop_cache();
            self.figures.caches_dropped += 1;
        }
        let mut server = self.started();
        if self.clients.is_none() {
            let endpoints = [self.site.endpoint()];
            let clients = Clients::come(&endpoints, &self.random, &self.pen);
            self.clients = Some(clients.await);
        }
        self.pen.new_life();
        if !self.random.chance(3) {
            self.wait_for_acks(&mut server).await;
        }
        let outage = self.await_the_moment(&server).await;
        self.figures.rss_max = self.figures.rss_max.max(server.rss_max());
        let (done, _) = server.saying().flushes();
        self.figures.flushes += done;
        if outage.is_none() && self.random.chance(8) {
            self.hear(server.saying());
            let took = server.stop();
            self.figures.terms += 1;
            self.figures.longest_stop = self.figures.longest_stop.max(took);
            return;
        }
        self.kill(server, outage).await;
        let minio = self.site.minio.as_mut();
        match (outage, minio) {
            (Some(Outage::Frozen), Some(minio)) => {
                self.figures.frozen += 1;
                minio.thaw().expect("it is there");
            }
            (Some(Outage::Killed), Some(minio)) => {
                self.figures.killed_together += 1;
                tokio::task::block_in_place(|| minio.restart()).expect("it comes back");
            }
            _ => {}
        }
    }

    fn started(&mut self) -> Server {
        let mut server = self.site.spawn();
        let took = tokio::task::block_in_place(|| server.ready());
        self.figures.longest_start = self.figures.longest_start.max(took);
        self.figures.rss_at_start = self.figures.rss_at_start.max(server.rss_max());
        server
    }

    async fn kill_at_start(&mut self) {
        let server = self.site.spawn();
        let longest = 1 + u64::try_from(self.figures.longest_start.as_micros()).expect("short");
        let delay = self.random.below(longest.max(20_000));
        tokio::time::sleep(Duration::from_micros(delay)).await;
        let said = server.kill();
        self.hear(&said);
        self.figures.at_start += 1;
    }

    /// Waits until some writers have come back and were answered.
    async fn wait_for_acks(&self, server: &mut Server) {
        let came = async {
            while self.pen.connected() < CONNECTED {
                assert!(server.ended().is_none(), "{}", server.last_words());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(SOON, came).await;
        assert!(
            came.is_ok(),
            "no appends in {SOON:?}; {}",
            server.last_words()
        );
    }

    /// Waits until it is time to strike; what becomes of the bucket.
    async fn await_the_moment(&self, server: &Server) -> Option<Outage> {
        let random = &self.random;
        if let Some(minio) = &self.site.minio
            && random.chance(30)
        {
            tokio::task::block_in_place(|| minio.freeze()).expect("it freezes");
            tokio::time::sleep(Duration::from_millis(random.below(1000))).await;
            return Some(Outage::Frozen);
        }
        match random.below(100) {
            0..45 => {
                let stages = [
                    Stage::Building,
                    Stage::Putting,
                    Stage::Verifying,
                    Stage::Committing,
                ];
                let stage = stages[usize::try_from(random.below(4)).expect("four")];
                self.strike_at(server, Moment::Flush(stage), 2500, 1500)
                    .await;
            }
            45..48 => {
                // The node takes one when the last is ten seconds old.
                let moment = Moment::Checkpoint;
                self.strike_at(server, moment, 14_000, 20_000).await;
            }
            48..56 => {
                // Long enough for the log to be checkpointed and released.
                let delay = 1000 + random.below(1500);
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            _ => {
                let delay = 5 + random.below(396);
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
        }
        let together = self.site.minio.is_some() && random.chance(15);
        together.then_some(Outage::Killed)
    }

    /// Waits for `moment`, and a little more. Not every life sees one: it is struck all the same.
    async fn strike_at(&self, server: &Server, moment: Moment, millis: u64, micros: u64) {
        let patience = Duration::from_millis(millis);
        let _ = tokio::time::timeout(patience, server.saying().next(moment)).await;
        let delay = Duration::from_micros(self.random.below(micros));
        if !delay.is_zero() {
            // A timer would make a millisecond of it.
            tokio::task::block_in_place(|| std::thread::sleep(delay));
        }
    }

    async fn kill(&mut self, server: Server, outage: Option<Outage>) {
        if outage == Some(Outage::Killed) {
            self.site.minio.as_mut().expect("it is there").kill();
        }
        let before = self.pen.in_flight();
        let said = server.kill();
        tokio::time::sleep(LAST_ANSWERS).await;
        // Without an answer still, or for ever.
        let after = &self.pen.in_flight() | &self.pen.unknown();
        let open = &before & &after;
        let figures = &mut self.figures;
        figures.kills += 1;
        figures.in_flight += u32::from(!open.is_empty());
        let cut = said.under_way();
        figures.during_flush += u32::from(!cut.flushes.is_empty());
        figures.during_checkpoint += u32::from(cut.checkpoints > 0);
        for stage in cut.flushes {
            *figures.cut.entry(format!("{stage:?}")).or_default() += 1;
        }
        self.open_at.push(open);
        self.hear(&said);
    }

    fn hear(&mut self, said: &crate::saying::Saying) {
        let errors = said.errors();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        for warning in said.warnings() {
            let said: serde_json::Value = serde_json::from_str(&warning).expect("it is a line");
            let text = said["fields"]["message"].as_str().unwrap_or_default();
            *self.figures.warnings.entry(text.to_owned()).or_default() += 1;
        }
    }

    /// Settles what is open, reads everything three times, and asks the checker.
    async fn finish(mut self) {
        let server = self.started();
        let clients = self.clients.take().expect("there was a life");
        let client = connect(&self.site.endpoint()).await;
        self.unresolved = clients.settle(&client).await;
        let (live, pen) = (View::new("client", "live"), self.pen.clone());
        let records = read_all(&client, TOPIC, PARTITIONS, Session(300), &pen, &live).await;
        drain(&client, TOPIC).await;
        self.verify();
        self.hear(server.saying());
        server.stop();
        self.site.drop_cache();
        let server = self.started();
        let client = connect(&self.site.endpoint()).await;
        let restarted = View::new("client", "restarted");
        let again = read_all(&client, TOPIC, PARTITIONS, Session(301), &pen, &restarted).await;
        let said = server.kill();
        self.hear(&said);
        let (url, options) = (self.site.url(), self.site.store_options());
        let bucket = View::new("direct", "bucket");
        let alone = read_bucket(&url, &options, TOPIC, Session(302), &pen, &bucket).await;
        drop(pen);
        println!(
            "{records} records live, {again} after a restart, {alone} out of the bucket alone"
        );
        self.judge(vec![live, restarted, bucket]);
    }

    /// The command that proves bucket, manifest and head: it finds nothing.
    fn verify(&self) {
        let verified = std::process::Command::new(binary())
            .args(["verify", "--content", "--endpoint", &self.site.endpoint()])
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&verified.stdout);
        let failed = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{said}{failed}");
        println!("esker verify --content: {}", said.trim_end());
    }

    fn judge(self, final_views: Vec<View>) {
        let Self {
            pen,
            figures,
            open_at,
            seed,
            ..
        } = &self;
        let (tally, unknown) = (pen.tally(), pen.unknown());
        let left = open_at.iter().filter(|open| !open.is_disjoint(&unknown));
        let left = left.count();
        println!("{figures:#?}");
        println!("reads refused: {:#?}", pen.refusals());
        println!(
            "seed {seed}: {} kills, an append in flight at {}, of them {left} where a plain \
             producer's append had left and stays unknown; during a flush {}; {} batches of {} \
             records acknowledged, {} unknown",
            figures.kills,
            figures.in_flight,
            figures.during_flush,
            tally.batches,
            tally.records,
            tally.unknown,
        );
        let options = Judging {
            final_views,
            retention: false,
        };
        let report = check(&self.pen.clone().history(), &options);
        println!("{report}");
        assert!(report.is_clean(), "seed {seed}");
        assert_eq!(report.counts.final_reads, 3 * PARTITIONS as usize);
        assert!(self.unresolved.is_empty(), "{:?}", self.unresolved);
        if figures.kills >= KILLS_JUDGED {
            let tenths = if figures.kills < KILLS_MANY { 7 } else { 9 };
            assert!(
                figures.in_flight * 10 >= figures.kills * tenths,
                "in flight"
            );
            assert!(figures.during_flush * 3 >= figures.kills, "during a flush");
        }
    }
}
