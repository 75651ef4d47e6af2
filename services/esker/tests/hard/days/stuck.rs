//! A batch of the head is damaged: on every disk, so that its shard cannot be flushed, and says so while the
//! others go on; or on that of its leader alone, and another has it flushed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use esker_client::{Client, ProducerOptions, ReadOptions, Record, v1};

use super::disk::change;
use super::replaced::{Bucket, within};
use crate::clients::{SOON, connect};
use crate::cluster::{Cluster, DATA_SHARDS, Settings, esker, text};
use crate::probe::Probes;
use crate::turn;

const TOPIC: &str = "gravel";
/// What the damaged batch holds.
const MARK: &[u8] = b"a stone that will be struck, and is looked for on every disk";
/// Bytes of a value that drives others out of memory, and how many.
const VALUE: usize = 256 << 10;
const VALUES: usize = 32;
/// As little of the head is in memory as may be.
const SETTINGS: Settings = Settings {
    nodes: "wal = { disk = \"384MiB\", file = \"48MiB\", head = \"64MiB\", memory = \"1MiB\" }\n",
    agents: "flush = { bytes = \"64KiB\", age = \"50ms\" }\n\
        cache = { memory = \"32MiB\", backfill_memory = \"32MiB\", disk = \"16MiB\" }\n",
    old: false,
};
/// Two in each shard.
const PARTITIONS: u32 = DATA_SHARDS * 2;
/// How often each node leads a shard that has lost something.
const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_cannot_be_flushed_stops_alone_whoever_leads() {
    let Some(_turn) = turn().await else { return };
    let (mut cluster, client) = founded().await;
    let bucket = Bucket(cluster.path("bucket"));
    bucket.goes_away();
    let doomed = laid(&client).await;
    let all: Vec<_> = (0..cluster.nodes.len()).collect();
    let struck: usize = all.iter().map(|node| strike(&cluster, *node)).sum();
    println!("shard {doomed}: its batch is damaged in {struck} places");
    assert_eq!(struck, 3, "once on each disk");
    // What was under way to the bucket before has it whole, and is given up first.
    within(SOON, "its flush meets what is damaged", async || {
        let shards = status(&client).await;
        let of = shards.iter().find(|shard| shard.shard == doomed);
        of.is_some_and(|shard| shard.flush_error.contains("damaged"))
    })
    .await;
    bucket.returns();

    within(SOON, "the other shards are flushed", async || {
        let shards = status(&client).await;
        let is_clear = |shard: &v1::ShardStatus| shard.shard == doomed || shard.head_batches == 0;
        shards.iter().all(is_clear)
    })
    .await;
    within(SOON, "it is told which is not", async || {
        is_told(&client, doomed).await
    })
    .await;
    let probes = Probes::come(&cluster.endpoints(), DATA_SHARDS).await;
    // Each has lost it, reads what it sends to the others, and goes on.
    for _ in 0..ROUNDS {
        let standing = cluster.well().await;
        for node in &standing.nodes {
            led_by(&cluster, doomed, &node.id).await;
            // By itself a flush that fails is tried less and less often: whoever leads now is to meet what it lost.
            let flushed = client.admin().flush().await;
            assert!(flushed.is_err(), "it cannot be flushed");
            let all = probes.all_acked_since(Instant::now()).await;
            println!(
                "led by {}, every shard takes appends after {all:?}",
                node.id
            );
            cluster.all_live();
        }
    }
    within(SOON, "each knows of it", async || {
        all.iter().all(|node| damaged(&cluster, *node, doomed) == 1)
    })
    .await;
    println!("{:?} at most between two appends", probes.longest());
    probes.end().await;
    cluster.all_live();
    within(SOON, "it is told still", async || {
        is_told(&client, doomed).await
    })
    .await;
    let shards = status(&client).await;
    let stuck = shards.iter().find(|shard| shard.shard == doomed);
    let stuck = stuck.expect("it is there");
    println!("shard {doomed}: {}", stuck.flush_error);
    assert!(stuck.head_batches > 0);
    let agent = cluster.agents[0].running();
    for shard in 1..=DATA_SHARDS {
        let name = format!("esker_shard_flush_failing{{shard=\"{shard}\"}}");
        let failing = tokio::task::block_in_place(|| agent.figure(&name));
        assert_eq!(failing, u64::from(shard == doomed), "{shard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_leader_has_lost_another_has_flushed() {
    let Some(_turn) = turn().await else { return };
    let (mut cluster, client) = founded().await;
    calm(&mut cluster).await;
    let bucket = Bucket(cluster.path("bucket"));
    bucket.goes_away();
    let doomed = laid(&client).await;
    let standing = cluster.well().await;
    let loser = cluster.node(&standing, &standing.leaders[&doomed]);
    assert_eq!(strike(&cluster, loser), 1);
    let began = Instant::now();
    // By a flush: what was under way to the bucket before has it whole, and is given up first.
    within(SOON, "its leader knows", async || {
        damaged(&cluster, loser, doomed) == 1
    })
    .await;
    bucket.returns();
    within(SOON, "another leads", async || {
        let standing = cluster.well().await;
        cluster.node(&standing, &standing.leaders[&doomed]) != loser
    })
    .await;
    within(SOON, "all is flushed", async || {
        let shards = status(&client).await;
        shards.iter().all(|shard| shard.head_batches == 0)
    })
    .await;
    println!("flushed by another after {:?}", began.elapsed());
    all_is_read(&client).await;
    within(SOON, "what is flushed is let go of", async || {
        damaged(&cluster, loser, doomed) == 0
    })
    .await;
    cluster.all_live();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_its_log_damaged_does_not_start_and_is_replaced() {
    let Some(_turn) = turn().await else { return };
    let (mut cluster, client) = founded().await;
    calm(&mut cluster).await;
    let bucket = Bucket(cluster.path("bucket"));
    bucket.goes_away();
    let doomed = laid(&client).await;
    let standing = cluster.well().await;
    let id = standing.leaders[&doomed].clone();
    let loser = cluster.node(&standing, &id);
    tokio::task::block_in_place(|| cluster.kill(&[loser], &[]));
    assert_eq!(strike(&cluster, loser), 1);
    for _ in 0..ROUNDS {
        cluster.start_node(loser);
        let mut server = cluster.nodes[loser].server.take().expect("it was started");
        within(SOON, "it has ended", async || server.ended().is_some()).await;
        assert!(!server.ended().is_some_and(|status| status.success()));
        let why = server.last_words();
        println!("{why}");
        let wal = cluster.path(&cluster.nodes[loser].name).join("wal");
        for named in [
            text(&wal),
            "is damaged at byte",
            "whole up to: ",
            &format!("s{doomed} "),
        ] {
            assert!(why.contains(named), "{named}: {why}");
        }
    }
    let probes = Probes::come(&cluster.endpoints(), DATA_SHARDS).await;
    let all = probes.all_acked_since(Instant::now()).await;
    println!("without it, every shard takes appends after {all:?}");

    tokio::task::block_in_place(|| change(&cluster, "remove", &id));
    cluster.nodes[loser] = cluster.new_node();
    cluster.start_node(loser);
    let server = cluster.nodes[loser].server.as_mut();
    tokio::task::block_in_place(|| server.expect("it was started").ready());
    let address = cluster.nodes[loser].address();
    let added = tokio::task::block_in_place(|| change(&cluster, "add", &address));
    assert_ne!(added["node"].as_str(), Some(id.as_str()));
    let agent = &cluster.agents[0];
    cluster.configure(agent);
    let standing = cluster.well().await;
    assert!(
        standing.nodes.iter().all(|node| node.id != id),
        "{id}: {standing:?}"
    );
    probes.end().await;
    bucket.returns();
    within(SOON, "all is flushed", async || {
        let shards = status(&client).await;
        shards.iter().all(|shard| shard.head_batches == 0)
    })
    .await;
    all_is_read(&client).await;
    cluster.all_live();
}

/// Waits until nobody is given anything to lead any more.
async fn calm(cluster: &mut Cluster) {
    within(SOON, "nobody leads two more than another", async || {
        let standing = cluster.well().await;
        let leads = standing.nodes.iter().map(|node| node.leads);
        let most = leads.clone().max().unwrap_or(0);
        leads.min().is_some_and(|least| most - least <= 1)
    })
    .await;
}

/// Everything that was [`laid`] is read.
async fn all_is_read(client: &Client) {
    let values = vec![vec![b'.'; VALUE]; VALUES / PARTITIONS as usize];
    for partition in 0..PARTITIONS {
        let mut expected = values.clone();
        if partition == 0 {
            expected.insert(0, MARK.to_vec());
        }
        let whole = read(client, partition).await == expected;
        assert!(whole, "partition {partition} is another");
    }
}

/// A cluster with a topic that has two partitions in each shard.
async fn founded() -> (Cluster, Client) {
    let cluster = tokio::task::block_in_place(|| Cluster::found_with(SETTINGS, 1, None));
    let client = connect(&cluster.endpoints()[0]).await;
    let settings = BTreeMap::from([("compression".to_owned(), "none".to_owned())]);
    let admin = client.admin();
    let topic = admin.create_topic(TOPIC, PARTITIONS, &settings).await;
    topic.expect("a topic");
    (cluster, client)
}

/// Appends [`MARK`], and drives it out of memory. Its shard.
async fn laid(client: &Client) -> u32 {
    append(client, 0, MARK.to_vec()).await;
    for at in 0..VALUES {
        let partition = u32::try_from(at).expect("small") % PARTITIONS;
        append(client, partition, vec![b'.'; VALUE]).await;
    }
    let (_, partitions) = client
        .admin()
        .describe_topic(TOPIC)
        .await
        .expect("it is there");
    partitions[0].shard
}

/// Has `node` lead `shard`: who was asked before may hand it over meanwhile, for it has lost something, too.
async fn led_by(cluster: &Cluster, shard: u32, node: &str) {
    within(SOON, "it leads", async || {
        comes_to_lead(cluster, shard, node)
    })
    .await;
}

/// Whether `node` leads `shard` now that it was asked to once.
pub(super) fn comes_to_lead(cluster: &Cluster, shard: u32, node: &str) -> bool {
    let (config, shard) = (
        cluster.config_of(&cluster.agents[0].name),
        shard.to_string(),
    );
    let transfer = [
        "cluster",
        "transfer",
        &shard,
        node,
        "--json",
        "--config",
        text(&config),
    ];
    tokio::task::block_in_place(|| esker(&transfer)).is_ok()
}

/// Of all shards only `doomed` is said not to be flushed, and why.
async fn is_told(client: &Client, doomed: u32) -> bool {
    let shards = status(client).await;
    shards.iter().all(|shard| match shard.shard == doomed {
        true => shard.flush_error.contains("damaged"),
        false => shard.flush_error.is_empty(),
    })
}

/// What a node counts as damaged of a shard.
fn damaged(cluster: &Cluster, node: usize, shard: u32) -> u64 {
    let name = format!("esker_replica_damaged_entries{{shard=\"{shard}\"}}");
    tokio::task::block_in_place(|| cluster.nodes[node].running().figure(&name))
}

/// All values of a partition.
async fn read(client: &Client, partition: u32) -> Vec<Vec<u8>> {
    let reader = client.read(TOPIC, partition, ReadOptions::default()).await;
    let (mut reader, mut values) = (reader.expect("it is there"), Vec::new());
    while let Some(batch) = reader.next().await.expect("readable") {
        let records = batch.records();
        values.extend(records.map(|record| record.value.unwrap_or_default().to_vec()));
    }
    values
}

async fn append(client: &Client, partition: u32, value: Vec<u8>) {
    let producer = client.producer(TOPIC, ProducerOptions::default()).await;
    let sent = producer.expect("a producer");
    let sent = sent
        .send_together(Some(partition), vec![Record::value(value)])
        .await;
    sent.expect("taken").await.expect("there is room");
}

async fn status(client: &Client) -> Vec<v1::ShardStatus> {
    let status = client.admin().cluster_status().await.expect("status");
    status.shards
}

/// Changes a bit of [`MARK`] wherever it stands in the log of a node. How often that was.
fn strike(cluster: &Cluster, node: usize) -> usize {
    let wal = cluster.path(&cluster.nodes[node].name).join("wal");
    tokio::task::block_in_place(|| strike_in(&wal))
}

fn strike_in(wal: &Path) -> usize {
    let mut struck = 0;
    for entry in fs::read_dir(wal).expect("a folder") {
        let path = entry.expect("readable").path();
        let bytes = fs::read(&path).expect("it is ours");
        let mut from = 0;
        while let Some(at) = find(&bytes[from..]) {
            let file = File::options().write(true).open(&path).expect("it is ours");
            let place = (from + at) as u64;
            file.write_all_at(&[MARK[0] ^ 1], place).expect("room");
            from += at + MARK.len();
            struck += 1;
        }
    }
    struck
}

fn find(bytes: &[u8]) -> Option<usize> {
    let first = |from: usize| {
        let at = bytes[from..].iter().position(|byte| *byte == MARK[0])?;
        Some(from + at)
    };
    let mut at = first(0)?;
    while !bytes[at..].starts_with(MARK) {
        at = first(at + 1)?;
    }
    Some(at)
}
