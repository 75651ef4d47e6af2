//! Logs are full, by what the bucket does not take and by what is refused once it is written, on one node, on
//! two, on all: whoever has room goes on, the others say what is full, and once the bucket is back all drains
//! unaided.

mod leader; // who leads

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::append_request::Payload;
use esker_client::v1::log_client::LogClient;
use esker_client::{Client, Code, Durability, v1};
use esker_env::Env;
use esker_proto::{transport, tuning};
use esker_record::codec::Compression;
use esker_record::{Builder, NewRecord};
use esker_types::Timestamp;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::replaced::{Bucket, within};
use super::{Days, is_short};
use crate::clients::{SOON, connect, stop};
use crate::cluster::{Cluster, DATA_SHARDS, Settings};
use crate::probe::Probes;
use crate::turn;

/// A topic that no history is kept of.
const TOPIC: &str = "flood";
/// Payload bytes of an append of the flood.
const BYTES: usize = 4 << 20;
/// Where no partition ends.
const NOWHERE: u64 = 1 << 40;
/// Of what who leads says whose head is full.
const HEADS_FULL: &str = "unflushed bytes";
/// Less room than that is none for who writes as much at once, and all that goes with it.
const NONE_BYTES: u64 = 2 * BYTES as u64;
/// Of three nodes, those without which nothing is written.
const MAJORITY: usize = 2;
/// How long it is watched while it is full.
const WATCHED_FOR: Duration = Duration::from_secs(3);
/// What is kept of a log on a small disk, and on a large one.
const SMALL: &str =
    "wal = { disk = \"384MiB\", file = \"48MiB\", head = \"64MiB\", memory = \"16MiB\" }\n";
const LARGE: Settings = Settings {
    nodes: "wal = { disk = \"1536MiB\", file = \"48MiB\", head = \"640MiB\", memory = \"16MiB\" }\n",
    agents: "flush = { bytes = \"4MiB\", age = \"200ms\" }\n\
        cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n\
        upkeep = { checkpoint = \"1s\", retention = \"1s\", collect = \"1s\", grace = \"2s\" }\n",
    old: false,
};

/// What the flood is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flood {
    /// Appends that stay in the head.
    Kept,
    /// Appends that are refused by the log once they are written.
    Refused,
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_full_of_what_was_refused_drain() {
    let Some(_turn) = turn().await else { return };
    let settings = Settings {
        nodes: SMALL,
        ..LARGE
    };
    let cluster = tokio::task::block_in_place(|| Cluster::found_with(settings, 2, None));
    run(cluster, Flood::Refused, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_holds_nobody_up() {
    with_small(Flood::Kept, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_full_followers_drain() {
    with_small(Flood::Kept, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_full_of_what_was_refused_holds_nobody_up() {
    with_small(Flood::Refused, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_followers_full_of_what_was_refused_drain() {
    with_small(Flood::Refused, 2).await;
}

/// The first `small` nodes are given small disks, and their logs are full long before the others'.
async fn with_small(flood: Flood, small: usize) {
    if is_short() {
        println!("left out of a plain run: it writes a gigabyte; ESKER_KILLS=20 has it run");
        return;
    }
    let Some(_turn) = turn().await else { return };
    let mut cluster = tokio::task::block_in_place(|| Cluster::found_with(LARGE, 2, None));
    for at in 0..small {
        is_given(&mut cluster, at, SMALL).await;
    }
    run(cluster, flood, small).await;
}

/// The node at `at` is given another disk than a large one, and started once more.
async fn is_given(cluster: &mut Cluster, at: usize, disk: &str) {
    cluster.well().await;
    tokio::task::block_in_place(|| cluster.stop_node(at));
    let path = cluster.config_of(&cluster.nodes[at].name);
    let config = fs::read_to_string(&path).expect("it is ours");
    let given = config.replace(LARGE.nodes, disk);
    assert_ne!(given, config, "it has a large one");
    fs::write(&path, given).expect("it is ours");
    cluster.start_node(at);
}

/// Floods until the logs of the first `small` nodes are full, while the bucket is away.
async fn run(cluster: Cluster, flood: Flood, small: usize) {
    let what = format!("{small} logs full of what is {flood:?}");
    let mut days = Days::over(&what, cluster).await;
    let standing = days.well().await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let bucket = Bucket(days.cluster.path("bucket"));
    bucket.goes_away();
    let began = Instant::now();
    let floods = Floods::come(&days.cluster.endpoints(), flood).await;
    // Once two are full no append is taken any more, and what room the third has stays: it may be much,
    // since how groups fall into the files of a log is its own.
    let full = small.min(MAJORITY);
    within(SOON, "the logs are full", async || {
        days.cluster.all_live();
        let rooms = (0..small).map(|at| room(&days.cluster, at));
        rooms.filter(|room| *room < NONE_BYTES).count() >= full
            || small >= MAJORITY
                && floods.is_told(HEADS_FULL)
                && all_led_below(&days.cluster, small)
    })
    .await;
    println!("{what}: full after {:?}", began.elapsed());
    let before = days.cluster.standing().expect("a majority is there");
    probes.listen(Instant::now());
    tokio::time::sleep(WATCHED_FOR).await;
    days.cluster.all_live();
    let heard = probes.heard();
    let rooms: Vec<_> = (0..3).map(|at| room(&days.cluster, at) >> 20).collect();
    let led: BTreeMap<_, _> = standing
        .leaders
        .iter()
        .map(|(shard, id)| (*shard, days.cluster.node(&standing, id)))
        .collect();
    println!(
        "{what}: MiB of room {rooms:?}, led by {led:?}; in {WATCHED_FOR:?} appends to {heard:?}"
    );
    let refusals = floods.end().await;
    println!("{what}: {refusals:#?}");
    if small == 1 {
        // Who leads on a large disk has a quorum with room. What the full one led is handed over only after a
        // while, and who was refused by it comes back later still.
        let after = days.cluster.standing().expect("a majority is there");
        for (shard, id) in after.leaders.iter().filter(|(shard, _)| **shard > 0) {
            let at = days.cluster.node(&after, id);
            assert!(
                at < small || before.leaders.get(shard) != Some(id) || heard.contains_key(shard),
                "{shard}: {heard:?}"
            );
        }
    }
    bucket.returns();
    let back = Instant::now();
    let all = probes.all_acked_since(back).await;
    println!("{what}: the bucket is back, every shard takes appends after {all:?}");
    probes.end().await;
    within(2 * SOON, "the logs have room", async || {
        (0..3).all(|at| room(&days.cluster, at) > 8 * NONE_BYTES)
    })
    .await;
    println!("{what}: all logs have room after {:?}", back.elapsed());
    days.finish().await;
    // One who asked for room was told that there was none, what of, and what to do.
    let told = |what: &str| refusals.keys().any(|told| told.contains(what));
    // With one that leads nothing there need not be anybody.
    if small != 1 || !refusals.is_empty() {
        assert!(told("room") || told(HEADS_FULL), "{refusals:#?}");
        assert!(
            told("retry once the bucket has taken some"),
            "{refusals:#?}"
        );
    }
}

/// Those who flood every shard, and go on where they are refused for want of room.
struct Floods {
    tasks: JoinSet<()>,
    told: Told,
}

/// What they were told.
#[derive(Clone, Default)]
struct Told {
    /// For want of room, and how often.
    refusals: Arc<Mutex<BTreeMap<String, u32>>>,
    poured: Arc<Mutex<BTreeMap<u32, Poured>>>,
}

/// What came of appends of one record to a partition.
#[derive(Clone, Default, Debug)]
struct Poured {
    /// Where those are that were acknowledged.
    acked: BTreeSet<u64>,
    /// Those that were not refused: the others, which may be there.
    not_refused: u64,
}

impl Floods {
    async fn come(endpoints: &[String], flood: Flood) -> Self {
        let client = connect(&endpoints[0]).await;
        let settings = BTreeMap::from([("max_batch_bytes".into(), (2 * BYTES).to_string())]);
        let admin = client.admin();
        let topic = admin.create_topic(TOPIC, DATA_SHARDS * 2, &settings).await;
        topic.expect("a topic");
        let (mut tasks, told) = (JoinSet::new(), Told::default());
        let partitions = of_each_shard(&client).await;
        for (partition, endpoint) in partitions.into_iter().zip(endpoints.iter().cycle()) {
            let endpoint = tuning::endpoint(endpoint).expect("an address");
            let log = LogClient::new(transport::channel(Env::real().network, &endpoint));
            tasks.spawn(pour(log, partition, flood, told.clone()));
        }
        Self { tasks, told }
    }

    /// Whether any was told `what`.
    fn is_told(&self, what: &str) -> bool {
        let refusals = self.told.refusals.lock().expect("no panic");
        refusals.keys().any(|told| told.contains(what))
    }

    /// Ends them. What they were told for want of room, and how often.
    async fn end(self) -> BTreeMap<String, u32> {
        stop(self.tasks).await;
        self.told.refusals.lock().expect("no panic").clone()
    }
}

impl Told {
    fn refused(&self, told: String) {
        let mut refusals = self.refusals.lock().expect("no panic");
        *refusals.entry(told).or_default() += 1;
    }

    fn of<T>(&self, partition: u32, told: impl FnOnce(&mut Poured) -> T) -> T {
        let mut poured = self.poured.lock().expect("no panic");
        told(poured.entry(partition).or_default())
    }
}

/// Whether every data shard is led by one of the first `small` nodes, as where a disk was slow: what their heads may
/// hold leaves room in a log, and there is nobody else to fill it.
fn all_led_below(cluster: &Cluster, small: usize) -> bool {
    let standing = tokio::task::block_in_place(|| cluster.standing());
    standing.is_ok_and(|standing| {
        let mut leaders = standing.leaders.iter().filter(|(shard, _)| **shard > 0);
        leaders.all(|(_, id)| cluster.node(&standing, id) < small)
    })
}

/// A partition on each shard.
async fn of_each_shard(client: &Client) -> BTreeSet<u32> {
    let (_, partitions) = client
        .admin()
        .describe_topic(TOPIC)
        .await
        .expect("the topic");
    let of: BTreeMap<_, _> = partitions
        .iter()
        .map(|of| (of.shard, of.partition))
        .collect();
    assert_eq!(of.len(), DATA_SHARDS as usize, "every shard has one");
    of.into_values().collect()
}

async fn pour(log: LogClient<Channel>, partition: u32, flood: Flood, heard: Told) {
    let mut value = vec![0; BYTES];
    Env::real().entropy.fill(&mut value);
    let mut builder = Builder::new(Compression::None, 2 * BYTES);
    builder
        .push(&NewRecord::value(Timestamp(1000), &value))
        .expect("it fits");
    let batch = builder.finish(None).expect("not empty").into_bytes();
    loop {
        let request = v1::AppendRequest {
            request_id: 1,
            topic: TOPIC.to_owned(),
            partition,
            payload: Some(Payload::Batch(batch.clone())),
            expected_end: (flood == Flood::Refused).then_some(NOWHERE),
            ..v1::AppendRequest::default()
        };
        heard.of(partition, |of| of.not_refused += 1);
        let mut log = log.clone();
        let told = async {
            let replies = log.append(futures::stream::iter([request])).await;
            replies?.into_inner().message().await
        };
        let Ok(Some(reply)) = told.await else {
            continue;
        };
        let error = match reply.result {
            Some(Answer::Error(error)) => error,
            Some(Answer::Appended(done)) => {
                let is_new = heard.of(partition, |of| of.acked.insert(done.base_offset));
                assert!(is_new, "{partition}: {done:?} is another's");
                continue;
            }
            None => continue,
        };
        if Durability::from(error.durability()) == Durability::NotWritten {
            heard.of(partition, |of| of.not_refused -= 1);
        }
        if error.code() == Code::ExpectedEnd {
            continue;
        }
        // No answer in time is no refusal.
        if matches!(error.code(), Code::HeadFull | Code::DiskFull) {
            let durability = Durability::from(error.durability());
            assert_eq!(durability, Durability::NotWritten, "{error:?}");
            assert!(error.retriable, "{error:?}");
            assert!(error.limit.is_some() && error.value.is_some(), "{error:?}");
        }
        let told = format!(
            "{:?} {}, {:?} of {:?}: {}",
            error.code(),
            error.retriable,
            error.value,
            error.limit,
            error.message
        );
        heard.refused(told);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes of room that a node says its log has for appends.
fn room(cluster: &Cluster, at: usize) -> u64 {
    tokio::task::block_in_place(|| cluster.nodes[at].running().figure("esker_wal_room_bytes"))
}
