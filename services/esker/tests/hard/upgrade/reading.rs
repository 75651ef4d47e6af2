//! All of every topic: live, and out of the bucket alone.

use std::collections::BTreeMap;

use esker_client::direct::Direct;
use esker_client::{Batch, Client, From, ReadOptions, Until};
use esker_env::Env;

use super::Records;
use super::left::Left;
use crate::site::Site;

/// What a client reads of the partitions that were left.
pub(super) async fn read_live(client: &Client, left: &Left) -> Records {
    let mut records = Records::new();
    for name in left.names() {
        let of_topic = records.entry(name.clone()).or_default();
        for partition in left.partitions(&name) {
            let reader = client.read(&name, partition, ReadOptions::default()).await;
            let (mut reader, mut seen) = (reader.expect("open"), BTreeMap::new());
            while let Some(batch) = reader.next().await.expect("readable") {
                note(&mut seen, &batch);
            }
            of_topic.insert(partition, seen);
        }
    }
    records
}

/// The same out of the bucket of `site`, without a server.
pub(super) async fn read_alone(site: &Site, left: &Left) -> Records {
    let direct = Direct::open(&site.url(), &site.store_options(), &Env::real()).await;
    let direct = direct.expect("a bucket that can be read");
    let mut records = Records::new();
    for name in left.names() {
        let of_topic = records.entry(name.clone()).or_default();
        for partition in left.partitions(&name) {
            let reader = direct.read(&name, partition, From::Earliest, Until::End);
            let (mut reader, mut seen) = (reader.await.expect("open"), BTreeMap::new());
            while let Some(batch) = reader.next().await.expect("readable") {
                note(&mut seen, &batch);
            }
            of_topic.insert(partition, seen);
        }
    }
    records
}

fn note(seen: &mut BTreeMap<u64, String>, batch: &Batch) {
    for record in batch.records() {
        let value = record.value.unwrap_or_default();
        let value = String::from_utf8_lossy(value).into_owned();
        let before = seen.insert(record.offset.get(), value);
        assert_eq!(before, None, "once");
    }
}
