//! Hard days of a cluster: three WAL nodes and the agents before them, as processes, under producers,
//! readers, and who appends on condition. What befalls them is told in the files below; each ends
//! with everybody well, everything read, and the checker's verdict.
//!
//! ```text
//!   this process ─ SDK ─► agents ──► nodes ◄─ SIGKILL, SIGSTOP, an empty disk
//!        │                  │  ▲
//!        ▼                  ▼  └ SIGKILL
//!     history ─► checker   folder
//! ```
//! How often each happens goes by `ESKER_KILLS`: of 200, 300 leaders are killed, 100 times all nodes, 10
//! disks are lost, 4 leaders stand still. Agents are killed for `ESKER_AGENT_SECONDS`, 600 by hand; all
//! are restarted one by one `ESKER_ROUNDS` times, 20 by hand.

mod leader; // who leads is killed
mod all; // all nodes are
mod disk; // a disk is lost
mod agents; // agents are killed
mod frozen; // who leads stands still
mod replaced; // all disks are, while the bucket is away
mod cut; // ways are cut
mod quorum; // two nodes of three are away
mod full; // disks are full
mod stuck; // a shard cannot be flushed
mod rolling; // one process after the other is asked to stop, and is back

use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_checker::{Options as Judging, Session, View, check};
use esker_env::sim::SeededEntropy;

use crate::bucket::segments;
use crate::clients::{Clients, PARTITIONS, SOON, TOPIC, connect};
use crate::cluster::{Cluster, Standing, esker};
use crate::killed::{kills, seed};
use crate::marks::Marks;
use crate::net::Net;
use crate::pen::Pen;
use crate::reader::{drain, read_all, read_bucket};
use crate::server::binary;

/// Between two looks at a bucket.
const LOOK: Duration = Duration::from_millis(300);
/// Below so many kills a run is a plain one, of which nothing may take long.
const KILLS_SHORT: u32 = 10;
/// Times that anything happens in a plain run.
const SHORT_MAX: u32 = 3;
/// Kills that a whole run is asked for.
const KILLS_WHOLE: u32 = 200;

/// How often something happens of which a whole run has `whole`: once at least, and not often where
/// nobody said how many kills.
fn share(whole: u32) -> u32 {
    let share = (whole * kills()).div_ceil(KILLS_WHOLE);
    if is_short() {
        share.min(SHORT_MAX)
    } else {
        share
    }
}

/// A plain test run.
fn is_short() -> bool {
    kills() < KILLS_SHORT
}

/// Whether this is a whole run, by hand, on a machine that has nothing else to do.
fn is_whole() -> bool {
    kills() >= KILLS_WHOLE
}

/// A cluster under clients.
struct Days {
    cluster: Cluster,
    pen: Pen,
    random: Arc<SeededEntropy>,
    seed: u64,
    clients: Clients,
    marks: Marks,
    /// Whether the end waits until all that nothing names has left the bucket.
    collected: bool,
}

impl Days {
    /// Founds a cluster, and has everybody call it.
    async fn begin(what: &str, agents: usize) -> Self {
        Self::begin_on(what, agents, None).await
    }

    /// The same in a network of its own.
    async fn begin_on(what: &str, agents: usize, network: Option<Net>) -> Self {
        let cluster = tokio::task::block_in_place(|| Cluster::found(agents, network));
        Self::over(what, cluster).await
    }

    /// The same over a cluster that was founded.
    async fn over(what: &str, cluster: Cluster) -> Self {
        let seed = seed();
        println!("{what}: ESKER_SEED={seed}, {}", binary().display());
        let random = Arc::new(SeededEntropy::new(seed));
        let pen = Pen::new(&cluster.path("history.jsonl"));
        let endpoints = cluster.endpoints();
        let mut clients = Clients::come(&endpoints, &random, &pen).await;
        clients.claim(&endpoints, &random, &pen).await;
        Self {
            marks: Marks::watch(&endpoints).await,
            cluster,
            pen,
            random,
            seed,
            clients,
            collected: false,
        }
    }

    async fn well(&mut self) -> Standing {
        self.cluster.well().await
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// Settles what is open, reads everything: at an agent that was there, at one that has no cache,
    /// and out of the bucket alone; and asks the checker.
    async fn finish(mut self) {
        self.well().await;
        let client = connect(&self.cluster.endpoints()[0]).await;
        let unresolved = self.clients.settle(&client).await;
        let looks = self.marks.end().await;
        assert!(looks > 0, "nobody looked at watermarks");
        let (live, pen) = (View::new("agent", "live"), &self.pen);
        let records = read_all(&client, TOPIC, PARTITIONS, Session(300), pen, &live).await;
        drain(&client, TOPIC).await;

        let agent = self.cluster.new_agent("agent-fresh");
        self.cluster.agents.push(agent);
        self.cluster.start_agent(self.cluster.agents.len() - 1);
        self.cluster.well().await;
        let endpoint = self.cluster.endpoints().pop().expect("the last");
        let client = connect(&endpoint).await;
        let cold = View::new("fresh agent", "cold");
        let again = read_all(&client, TOPIC, PARTITIONS, Session(301), pen, &cold).await;
        assert_eq!(again, records);
        let verified = esker(&["verify", "--content", "--json", "--endpoint", &endpoint]);
        println!("esker verify --content: {}", verified.expect("all agree"));
        if self.collected {
            collected(&self.cluster).await;
        }
        tokio::task::block_in_place(|| self.cluster.stop());
        let (url, options) = (self.cluster.url(), self.cluster.store_options());
        let bucket = View::new("direct", "bucket");
        let alone = read_bucket(&url, &options, TOPIC, Session(302), pen, &bucket).await;
        assert_eq!(alone, records);

        let (tally, seed) = (pen.tally(), self.seed);
        println!("warnings: {:#?}", self.cluster.warnings);
        println!("reads refused: {:#?}", pen.refusals());
        println!(
            "seed {seed}: {} batches of {} records acknowledged, {} unknown; {records} records live, \
             {again} at a fresh agent, {alone} out of the bucket alone; {looks} looks at watermarks",
            tally.batches, tally.records, tally.unknown,
        );
        let judging = Judging {
            final_views: vec![live, cold, bucket],
            retention: false,
        };
        let report = check(&pen.history(), &judging);
        println!("{report}");
        assert!(report.is_clean(), "seed {seed}");
        assert_eq!(report.counts.final_reads, 3 * PARTITIONS as usize);
        assert!(unresolved.is_empty(), "{unresolved:?}");
    }
}

/// Waits until the bucket holds what the log names and nothing else, each segment named once.
async fn collected(cluster: &Cluster) {
    let (began, folder) = (Instant::now(), cluster.path("bucket"));
    let mut orphans = None;
    loop {
        let seen = tokio::task::block_in_place(|| segments(&folder));
        if let Some(seen) = &seen {
            assert!(seen.twice.is_empty(), "named twice: {:?}", seen.twice);
            let unnamed = seen.there.difference(&seen.named).count();
            let orphans = *orphans.get_or_insert(unnamed);
            if unnamed == 0 && seen.named.is_subset(&seen.there) {
                println!(
                    "the bucket holds the {} segments that the log names, and {} other objects; {orphans} \
                     more were collected within {:?}",
                    seen.named.len(),
                    seen.others,
                    began.elapsed(),
                );
                return;
            }
        }
        assert!(
            began.elapsed() < SOON,
            "not collected in {SOON:?}: {seen:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
}
