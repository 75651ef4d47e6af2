//! The bucket is away, a head stands that is nowhere but on the nodes' disks, and all three disks are
//! replaced, one after the other, under new ids: what each new one has, it has of a snapshot.
//!
//! A few MiB in every test run. A head as large as a cluster ever has in a whole run, or by hand, on the
//! release binary:
//!
//! ```sh
//! ESKER_HEAD_MIB=256 ESKER_BINARY=$PWD/target/release/esker \
//!     cargo test -p esker --test hard days::replaced -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use esker_client::{Client, ProducerOptions, Record};

use super::disk::{Way, lose};
use super::{Days, is_whole};
use crate::clients::{PARTITIONS, SOON, TOPIC, connect};
use crate::cluster::{Cluster, DATA_SHARDS, Settings};
use crate::turn;
use crate::writer::{Load, Reins, Writer};

/// MiB of head, unless `ESKER_HEAD_MIB` says otherwise, or the run is whole.
const HEAD_MIB: u64 = 8;
/// MiB of head of a whole run. From here on the time that all takes is longer, and what memory it takes is judged: below, a process
/// is larger than its head.
const HEAD_LARGE_MIB: u64 = 256;
const MIB: u64 = 1 << 20;
/// What a node keeps of the head in memory by its settings.
const NAMED_BYTES: u64 = 16 * MIB;
/// What a node takes beside: its code, its threads, what is in flight between nodes, and parts of snapshots.
const UNNAMED_BYTES: u64 = 176 * MIB;
const SETTINGS: Settings = Settings {
    nodes: "wal = { disk = \"3GiB\", file = \"48MiB\", head = \"1GiB\", memory = \"16MiB\" }\n",
    agents: "flush = { bytes = \"4MiB\", age = \"200ms\" }\n\
        cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n\
        upkeep = { checkpoint = \"1s\", retention = \"1s\", collect = \"1s\", grace = \"2s\" }\n",
    old: false,
};
/// What stands first in every head, and is deleted: that lets a shard go on, so that it is checkpointed.
const BALLAST: &str = "ballast";
/// What a node says of a snapshot that it was sent.
const INSTALLED: &str = "a snapshot of another node is installed";

/// What one says that a snapshot was not sent to in time.
const STOOD_STILL: &str = "nothing of it came for";

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_are_replaced_while_the_head_is_nowhere_else() {
    let Some(_turn) = turn().await else { return };
    let named = std::env::var("ESKER_HEAD_MIB");
    let unsaid = if is_whole() { HEAD_LARGE_MIB } else { HEAD_MIB };
    let mib = named.map_or(unsaid, |mib| mib.parse().expect("a number of MiB"));
    let cluster = tokio::task::block_in_place(|| Cluster::found_with(SETTINGS, 2, None));
    let bucket = Bucket(cluster.path("bucket"));
    let client = connect(&cluster.endpoints()[0]).await;
    let settings = BTreeMap::from([("compression".to_owned(), "none".to_owned())]);
    let admin = client.admin();
    let ballast = admin
        .create_topic(BALLAST, DATA_SHARDS * 2, &settings)
        .await;
    ballast.expect("a topic");
    bucket.goes_away();
    let began = Instant::now();
    lay(&client).await;
    let what = format!("three disks replaced under {mib} MiB of head");
    let mut days = Days::over(&what, cluster).await;
    fill(&days, mib * MIB).await;
    let (filled, deleted) = (began.elapsed(), SystemTime::now());
    admin.delete_topic(BALLAST).await.expect("it is there");
    checkpointed(&days.cluster, deleted).await;
    let head = head_bytes(&client).await;
    println!(
        "{} MiB of head stand after {filled:?}, and in every checkpoint",
        head / MIB
    );
    assert!(head >= mib * MIB);

    let mut most = Vec::new();
    let olds = days.well().await.nodes;
    for (old, way) in olds
        .iter()
        .zip([Way::AddFirst, Way::RemoveFirst, Way::SamePlace])
    {
        let began = Instant::now();
        let before = installed(&days.cluster);
        let standing = days.well().await;
        let at = days.cluster.node(&standing, &old.id);
        most.push(days.cluster.nodes[at].running().rss_max());
        let (old, new) = lose(&mut days, &old.id, way).await;
        days.well().await;
        let now = installed(&days.cluster);
        let (snapshots, bytes) = (now.0 - before.0, now.1 - before.1);
        println!(
            "{way:?}: {old} is replaced by {new} in {:?}, {snapshots} snapshots with {} MiB of head",
            began.elapsed(),
            bytes / MIB,
        );
        assert!(snapshots >= u64::from(DATA_SHARDS), "{snapshots} snapshots");
        assert!(bytes >= mib * MIB, "{bytes} bytes of head in snapshots");
    }
    assert!(
        head_bytes(&client).await >= mib * MIB,
        "nothing was flushed"
    );
    let stood = said(&days.cluster, STOOD_STILL);
    assert!(stood.is_empty(), "a snapshot stood still: {stood:#?}");
    bucket.returns();
    let nodes = days.cluster.nodes.iter();
    most.extend(nodes.map(|node| node.running().rss_max()));
    let most: Vec<_> = most.into_iter().map(|bytes| bytes / MIB).collect();
    println!(
        "MiB of memory that each node took at most: {most:?}; {:?}",
        began.elapsed()
    );
    if mib >= HEAD_LARGE_MIB {
        let bound = (NAMED_BYTES + UNNAMED_BYTES) / MIB;
        assert!(
            most.iter().all(|most| *most <= bound),
            "{most:?} MiB, {bound} are named"
        );
    }
    days.finish().await;
}

/// A bucket that is a folder.
pub(super) struct Bucket(pub(super) PathBuf);

impl Bucket {
    /// Whatever it is asked for fails from here on.
    pub(super) fn goes_away(&self) {
        fs::rename(&self.0, self.elsewhere()).expect("it is ours");
        fs::write(&self.0, "").expect("a file in its place");
    }

    pub(super) fn returns(&self) {
        fs::remove_file(&self.0).expect("it is ours");
        fs::rename(self.elsewhere(), &self.0).expect("it is ours");
    }

    fn elsewhere(&self) -> PathBuf {
        self.0.with_extension("away")
    }
}

/// Puts a record into the head of every shard.
async fn lay(client: &Client) {
    let producer = client.producer(BALLAST, ProducerOptions::default()).await;
    let producer = producer.expect("a producer");
    for partition in 0..DATA_SHARDS * 2 {
        let record = vec![Record::value("first")];
        let sent = producer.send_together(Some(partition), record).await;
        sent.expect("it is taken").await.expect("there is room");
    }
}

/// Writes until the head has so many bytes.
async fn fill(days: &Days, bytes: u64) {
    let endpoints = days.cluster.endpoints();
    let client = connect(&endpoints[0]).await;
    let (reins, mut writers) = (Arc::<Reins>::default(), Vec::new());
    for (partition, endpoint) in (0..PARTITIONS).zip(endpoints.iter().cycle()) {
        let writer = Writer {
            number: 20 + u64::from(partition),
            partition,
            options: ProducerOptions {
                linger: Duration::ZERO,
                delivery_timeout: 2 * SOON,
                ..ProducerOptions::default()
            },
            load: Load {
                window: 4,
                records: 8,
                bytes: 60_000,
                pause: 0,
            },
            random: Arc::clone(&days.random),
            pen: days.pen.clone(),
        };
        let (client, reins) = (connect(endpoint).await, Arc::clone(&reins));
        writers.push(tokio::spawn(writer.run(client, TOPIC, reins)));
    }
    within(10 * SOON, "the head grows", async || {
        head_bytes(&client).await >= bytes
    })
    .await;
    reins.stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let written = writer.await.expect("a writer");
        assert!(written.errors.is_empty(), "{:?}", written.errors);
    }
}

/// Waits until every node has a checkpoint of every shard that has a head, later than `since`.
async fn checkpointed(cluster: &Cluster, since: SystemTime) {
    within(SOON, "every shard is checkpointed", async || {
        cluster.nodes.iter().all(|node| {
            let folder = cluster.path(&node.name).join("checkpoints");
            (1..=DATA_SHARDS).all(|shard| {
                let path = folder.join(format!("{shard:010}.ckp"));
                let written = fs::metadata(path).and_then(|path| path.modified());
                written.is_ok_and(|written| written > since)
            })
        })
    })
    .await;
}

async fn head_bytes(client: &Client) -> u64 {
    let status = client.admin().cluster_status().await.expect("status");
    status.shards.iter().map(|shard| shard.head_bytes).sum()
}

/// Snapshots that all nodes ever were sent, and bytes of their heads.
fn installed(cluster: &Cluster) -> (u64, u64) {
    let (mut snapshots, mut bytes) = (0, 0);
    for line in said(cluster, INSTALLED) {
        let said: serde_json::Value = serde_json::from_str(&line).expect("it is a line");
        snapshots += 1;
        bytes += said["fields"]["head_bytes"].as_u64().expect("a number");
    }
    (snapshots, bytes)
}

/// Lines with `what` in the logs of all processes that there were.
pub(super) fn said(cluster: &Cluster, what: &str) -> Vec<String> {
    let mut said = Vec::new();
    for path in logs(&cluster.path("")) {
        let log = fs::read_to_string(path).expect("it is ours");
        said.extend(
            log.lines()
                .filter(|line| line.contains(what))
                .map(str::to_owned),
        );
    }
    said
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is ours");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    paths.filter(is_log).collect()
}

pub(super) async fn within(time: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(time, waited).await;
    assert!(waited.is_ok(), "not within {time:?}: {what}");
}
