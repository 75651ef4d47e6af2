//! One node has a small disk and leads as many shards as anybody: its log is full of what it and the others took
//! and the bucket does not, while it leads. It refuses, hands over to who has room, and those go on.

use std::collections::BTreeMap;
use std::time::Instant;

use esker_client::{Client, ReadOptions};
use esker_types::limits::{FULL_HANDOVER, LEAD_ROOM_MIN};

use super::{BYTES, Flood, Floods, LARGE, NONE_BYTES, TOPIC, Told, is_given, room};
use crate::clients::{SOON, connect};
use crate::cluster::{Cluster, DATA_SHARDS};
use crate::days::replaced::{Bucket, said, within};
use crate::days::stuck::comes_to_lead;
use crate::days::{Days, is_short};
use crate::probe::Probes;
use crate::turn;

/// As small as a disk may be, and as much of it for what it leads as a node takes: what others lead has the rest.
const SMALL: &str =
    "wal = { disk = \"384MiB\", file = \"48MiB\", head = \"112MiB\", memory = \"16MiB\" }\n";
/// Which node has it, and the shards that it leads: no more than its part, so that nobody evens that out.
const FULL: usize = 0;
const LED: [u32; 2] = [1, 2];
/// Who leads the others.
const LARGE_LEADS: [(u32, usize); 3] = [(0, 1), (3, 1), (4, 2)];
/// What who is refused for want of room is told, by one of these codes: it may be retried.
const WHAT_TO_DO: &str = "retry once the bucket has taken some";
const CODES: [&str; 2] = ["DiskFull true", "HeadFull true"];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_leader_hands_over_and_others_go_on() {
    if is_short() {
        println!("left out of a plain run: it writes a gigabyte; ESKER_KILLS=20 has it run");
        return;
    }
    let Some(_turn) = turn().await else { return };
    let mut cluster = tokio::task::block_in_place(|| Cluster::found_with(LARGE, 2, None));
    is_given(&mut cluster, FULL, SMALL).await;
    let mut days = Days::over("a full leader", cluster).await;
    let small = leads_its_part(&mut days).await;
    let probes = Probes::come(&days.cluster.endpoints(), DATA_SHARDS).await;
    let bucket = Bucket(days.cluster.path("bucket"));
    bucket.goes_away();
    let began = Instant::now();
    let floods = Floods::come(&days.cluster.endpoints(), Flood::Kept).await;
    let mut filled = 0;
    within(SOON, "it leads, and has no room", async || {
        days.cluster.all_live();
        let led = leads(&days.cluster);
        let left = room(&days.cluster, FULL);
        filled = led.min(leads(&days.cluster));
        // Its disk was slow, and others were asked to lead.
        if filled == 0 {
            for shard in LED {
                comes_to_lead(&days.cluster, shard, &small);
            }
        }
        filled > 0 && left < LEAD_ROOM_MIN
    })
    .await;
    println!(
        "full after {:?}, as it leads {filled} shards",
        began.elapsed()
    );
    within(SOON, "it has refused what it had no room for", async || {
        CODES.iter().any(|code| floods.is_told(code))
    })
    .await;
    let told = floods.told.clone();
    let refusals = floods.end().await;
    println!("{refusals:#?}");
    within(SOON, "others lead all shards", async || {
        days.cluster.all_live();
        leads(&days.cluster) == 0 && is_led_elsewhere(&days.cluster)
    })
    .await;
    println!(
        "others lead after {:?}; it is given {FULL_HANDOVER:?}",
        began.elapsed()
    );
    let (full, slow) = (
        "the log of this node is full: another is asked to lead",
        "the disk of the WAL is slow",
    );
    let why = [full, slow].map(|why| said(&days.cluster, why).len());
    println!("{why:?} times somebody said that its log is full, that its disk is slow");
    assert!(why[0] > 0 || why[1] > 0, "it gave them away");
    let all = probes.all_acked_since(Instant::now()).await;
    let left = room(&days.cluster, FULL);
    assert!(
        left < NONE_BYTES,
        "the bucket is away, {left} bytes are free"
    );
    println!("without it every shard takes appends after {all:?}");
    for refusal in refusals.keys().filter(|told| told.contains(WHAT_TO_DO)) {
        assert!(
            CODES.iter().any(|code| refusal.starts_with(code)),
            "{refusal}"
        );
    }
    assert!(refusals.keys().any(|told| told.contains(WHAT_TO_DO)));
    bucket.returns();
    let back = Instant::now();
    probes.all_acked_since(back).await;
    probes.end().await;
    within(2 * SOON, "the logs have room", async || {
        (0..3).all(|at| room(&days.cluster, at) > 8 * NONE_BYTES)
    })
    .await;
    println!("all logs have room after {:?}", back.elapsed());
    all_is_read(&days, &told).await;
    days.finish().await;
}

/// Has the small node lead its part, and the others theirs. Its id.
async fn leads_its_part(days: &mut Days) -> String {
    let wanted: BTreeMap<_, _> = LED
        .map(|shard| (shard, FULL))
        .into_iter()
        .chain(LARGE_LEADS)
        .collect();
    let mut small = String::new();
    within(SOON, "each leads its part", async || {
        let standing = days.well().await;
        let id = |at: usize| {
            let address = days.cluster.nodes[at].address();
            let stands = standing.nodes.iter().find(|node| node.address == address);
            &stands.expect("it is there").id
        };
        small.clone_from(id(FULL));
        let leader = |shard: &u32| days.cluster.node(&standing, &standing.leaders[shard]);
        let moved: Vec<_> = wanted
            .iter()
            .filter(|(shard, at)| leader(shard) != **at)
            .collect();
        for (shard, at) in &moved {
            comes_to_lead(&days.cluster, **shard, id(**at));
        }
        moved.is_empty()
    })
    .await;
    small
}

/// How many data shards the small node says that it leads.
fn leads(cluster: &Cluster) -> u64 {
    let node = cluster.nodes[FULL].running();
    let of = |shard| node.figure(&format!("esker_replica_leads{{shard=\"{shard}\"}}"));
    tokio::task::block_in_place(|| (1..=DATA_SHARDS).map(of).sum())
}

/// Whether every data shard has a leader, and another.
fn is_led_elsewhere(cluster: &Cluster) -> bool {
    let standing = tokio::task::block_in_place(|| cluster.standing());
    standing.is_ok_and(|standing| {
        (1..=DATA_SHARDS).all(|shard| {
            let leader = standing.leaders.get(&shard);
            leader.is_some_and(|id| cluster.node(&standing, id) != FULL)
        })
    })
}

/// All that was acknowledged is read, once.
async fn all_is_read(days: &Days, told: &Told) {
    let client = connect(&days.cluster.endpoints()[0]).await;
    let poured = told.poured.lock().expect("no panic").clone();
    assert_eq!(poured.len(), DATA_SHARDS as usize);
    for (partition, poured) in poured {
        let there = read(&client, partition).await;
        let (acked, most) = (poured.acked.len() as u64, poured.not_refused);
        println!("{partition}: {there} records, {acked} acknowledged, {most} not refused");
        assert!(acked > 0 && acked <= there && there <= most, "{partition}");
        let last = poured.acked.last().expect("there are some");
        assert!(*last < there, "{partition}: {last} was acknowledged");
    }
}

/// Reads a partition of the flood: nothing is left out, nothing comes twice, each as large as it was. How many.
async fn read(client: &Client, partition: u32) -> u64 {
    let reader = client.read(TOPIC, partition, ReadOptions::default()).await;
    let (mut reader, mut next) = (reader.expect("it is there"), 0);
    while let Some(batch) = reader.next().await.expect("readable") {
        for record in batch.records() {
            assert_eq!(record.offset.get(), next, "{partition}");
            assert_eq!(record.value.map(<[u8]>::len), Some(BYTES), "{partition}");
            next += 1;
        }
    }
    next
}
