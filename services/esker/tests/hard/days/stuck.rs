//! A batch of the head is damaged on every disk: its shard cannot be flushed, and says so; the others go on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use esker_client::{Client, ProducerOptions, Record, v1};

use super::replaced::{Bucket, within};
use crate::TURN;
use crate::clients::{SOON, connect};
use crate::cluster::{Cluster, DATA_SHARDS, Settings};
use crate::probe::Probes;

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
/// How long the others are watched.
const WATCHED_FOR: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_cannot_be_flushed_stops_alone() {
    let _turn = TURN.lock().await;
    let mut cluster = tokio::task::block_in_place(|| Cluster::found_with(SETTINGS, 1, None));
    let client = connect(&cluster.endpoints()[0]).await;
    let settings = BTreeMap::from([("compression".to_owned(), "none".to_owned())]);
    let admin = client.admin();
    let topic = admin.create_topic(TOPIC, DATA_SHARDS * 2, &settings).await;
    topic.expect("a topic");
    // Who comes to lead reads its log again, finds the damage, and ends: not what is tried here.
    within(SOON, "nobody leads two more than another", async || {
        let standing = cluster.well().await;
        let leads = standing.nodes.iter().map(|node| node.leads);
        let most = leads.clone().max().unwrap_or(0);
        leads.min().is_some_and(|least| most - least <= 1)
    })
    .await;
    let bucket = Bucket(cluster.path("bucket"));
    bucket.goes_away();
    let (_, partitions) = admin.describe_topic(TOPIC).await.expect("the topic");
    let doomed = partitions[0].shard;
    append(&client, 0, MARK.to_vec()).await;
    for at in 0..VALUES {
        let partition = u32::try_from(at).expect("small") % (DATA_SHARDS * 2);
        append(&client, partition, vec![b'.'; VALUE]).await;
    }
    let mut struck = 0;
    for node in &cluster.nodes {
        struck += tokio::task::block_in_place(|| strike(&cluster.path(&node.name).join("wal")));
    }
    println!("shard {doomed}: its batch is damaged in {struck} places");
    assert_eq!(struck, 3, "once on each disk");
    bucket.returns();

    within(SOON, "the other shards are flushed", async || {
        let shards = status(&client).await;
        let is_clear = |shard: &v1::ShardStatus| shard.shard == doomed || shard.head_batches == 0;
        shards.iter().all(is_clear)
    })
    .await;
    within(SOON, "it is told which is not", async || {
        let shards = status(&client).await;
        shards
            .iter()
            .all(|shard| (shard.shard == doomed) != shard.flush_error.is_empty())
    })
    .await;
    let probes = Probes::come(&cluster.endpoints(), DATA_SHARDS).await;
    let all = probes.all_acked_since(Instant::now()).await;
    tokio::time::sleep(WATCHED_FOR).await;
    println!(
        "every shard takes appends after {all:?}, {:?} at most",
        probes.longest()
    );
    probes.end().await;
    cluster.all_live();
    let shards = status(&client).await;
    let stuck = shards
        .iter()
        .find(|shard| shard.shard == doomed)
        .expect("it is there");
    println!("shard {doomed}: {}", stuck.flush_error);
    assert!(stuck.head_batches > 0);
    assert!(
        stuck.flush_error.contains("damaged"),
        "{}",
        stuck.flush_error
    );
    let agent = cluster.agents[0].running();
    for shard in 1..=DATA_SHARDS {
        let name = format!("esker_shard_flush_failing{{shard=\"{shard}\"}}");
        let failing = tokio::task::block_in_place(|| agent.figure(&name));
        assert_eq!(failing, u64::from(shard == doomed), "{shard}");
    }
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

/// Changes a bit of [`MARK`] wherever it stands in the files of a log. How often that was.
fn strike(wal: &Path) -> usize {
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
