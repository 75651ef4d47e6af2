//! A cluster at full speed, fed as its limits are: by one stream, with batches made beforehand. What a producer
//! does to make a batch takes the same cores, and is none of the cluster's work.

use std::time::Duration;

use bytes::Bytes;
use esker_client::Record;
use esker_env::Env;
use esker_proto::v1;
use esker_proto::v1::append_request;
use esker_record::{Builder, Compression, NewRecord};
use esker_types::Timestamp;
use esker_types::limits::BATCH_BYTES_MAX;

use super::histogram::Histogram;
use super::payload::Payload;
use super::wire;
use crate::failure::Failure;

/// Batches that are made; they come again and again.
const BATCHES: usize = 64;

/// What is sent, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed<'a> {
    pub(super) address: &'a str,
    pub(super) topic: &'a str,
    pub(super) partitions: u32,
    /// Values of a batch, and of each record.
    pub(super) batch_bytes: u64,
    pub(super) record_bytes: u64,
    pub(super) in_flight: u64,
    pub(super) lasting: Duration,
}

/// Bytes of batches a second that became durable, and how long each took.
pub(super) async fn run(env: &Env, feed: Feed<'_>) -> Result<(f64, Histogram), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("a cluster fed: {error}"));
    let batches = batches(feed).map_err(|error| failed(&error))?;
    let client = wire::connect(env, feed.address).await;
    let client = client.map_err(|error| failed(&error))?;
    let request = |number: u64| {
        let at = |of: u64| usize::try_from(number % of).unwrap_or(0);
        v1::AppendRequest {
            topic: feed.topic.to_owned(),
            partition: u32::try_from(number % u64::from(feed.partitions)).unwrap_or(0),
            payload: Some(append_request::Payload::Batch(
                batches[at(batches.len() as u64)].clone(),
            )),
            ..v1::AppendRequest::default()
        }
    };
    let fed = wire::there(&*env.clock, client, request, feed.in_flight, feed.lasting).await;
    fed.map_err(|status| failed(&status.message()))
}

/// Of records that no codec makes smaller, not compressed.
fn batches(feed: Feed<'_>) -> Result<Vec<Bytes>, esker_record::Error> {
    let mut payload = Payload::new(feed.batch_bytes, Some(feed.record_bytes), 1, 0);
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_MAX);
    let mut batch = || {
        let parcel = payload.next(esker_env::Monotonic(Duration::ZERO));
        parcel.records.iter().try_for_each(|record: &Record| {
            builder.push(&NewRecord {
                timestamp: Timestamp(0),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &[],
            })
        })?;
        Ok(builder.finish(None)?.bytes().clone())
    };
    (0..BATCHES).map(|_| batch()).collect()
}
