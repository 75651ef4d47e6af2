//! What the topic's settings and the caller's options come to.

use std::time::Duration;

use esker_proto::v1;
use esker_record::{Compression, HEADER_BYTES, ZstdLevel};
use esker_types::limits::{BATCH_BYTES_MAX, PRODUCER_EXPIRY};
use esker_types::{ProducerEpoch, ProducerId};

use super::ProducerOptions;
use crate::client::{Again, Client};
use crate::error::Error;

/// The least of `batch_bytes`: below, headers are most of what is written.
const BATCH_BYTES_MIN: usize = 1 << 10;
/// The most of `delivery_timeout`. The service forgets a producer, and with it what it has written,
/// after [`PRODUCER_EXPIRY`] of its own time: a first batch that is sent again after that would be
/// written again.
const DELIVERY_TIMEOUT_MAX: Duration = PRODUCER_EXPIRY.checked_div(2).expect("2 is not 0");

/// What a producer goes by, settled when it is made.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) topic: String,
    pub(super) partitions: u32,
    pub(super) compression: Compression,
    /// The topic's.
    pub(super) max_batch_bytes: usize,
    /// Plain bytes of records at which a batch is full.
    pub(super) target_bytes: usize,
    pub(super) producer: Option<(ProducerId, ProducerEpoch)>,
    options: ProducerOptions,
}

impl Settings {
    pub(super) async fn settle(
        client: &Client,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Self, Error> {
        check(&options)?;
        let (found, _) = client.admin().describe_topic(topic).await?;
        let max_batch_bytes = max_batch_bytes(&found)?;
        let producer = match options.idempotent {
            true => Some(allocate(client).await?),
            false => None,
        };
        if found.partitions == 0 {
            return Err(Error::odd_reply("the topic has no partition"));
        }
        Ok(Self {
            topic: topic.to_owned(),
            partitions: found.partitions,
            compression: match options.compression {
                Some(chosen) => chosen,
                None => compression(&found),
            },
            max_batch_bytes,
            target_bytes: options
                .batch_bytes
                .min(max_batch_bytes.saturating_sub(HEADER_BYTES)),
            producer,
            options,
        })
    }

    pub(super) const fn memory_bytes(&self) -> usize {
        self.options.memory_bytes
    }

    pub(super) const fn linger(&self) -> Duration {
        self.options.linger
    }

    pub(super) const fn delivery_timeout(&self) -> Duration {
        self.options.delivery_timeout
    }

    /// No longer than anybody waits for what is sent.
    pub(super) fn reply_timeout(&self) -> Duration {
        let Self { options, .. } = self;
        options.reply_timeout.min(options.delivery_timeout)
    }
}

fn check(options: &ProducerOptions) -> Result<(), Error> {
    let bounds = [
        (
            "batch_bytes",
            options.batch_bytes,
            BATCH_BYTES_MIN,
            BATCH_BYTES_MAX,
        ),
        (
            "memory_bytes",
            options.memory_bytes,
            BATCH_BYTES_MIN,
            1 << 31,
        ),
    ];
    for (name, value, least, most) in bounds {
        if !(least..=most).contains(&value) {
            let text = format!("{name} is {value}, it may be {least} to {most}");
            return Err(Error::invalid(text));
        }
    }
    if options.delivery_timeout > DELIVERY_TIMEOUT_MAX {
        let (timeout, most) = (options.delivery_timeout, DELIVERY_TIMEOUT_MAX);
        let text = format!(
            "delivery_timeout is {timeout:?}, it may be {most:?} at most: what is sent again much \
             later would not be recognised"
        );
        return Err(Error::invalid(text));
    }
    if options.linger >= options.delivery_timeout {
        let (linger, timeout) = (options.linger, options.delivery_timeout);
        let text = format!("linger is {linger:?}, it must be below delivery_timeout, {timeout:?}");
        return Err(Error::invalid(text));
    }
    Ok(())
}

async fn allocate(client: &Client) -> Result<(ProducerId, ProducerEpoch), Error> {
    // An id that nobody heard of is not missed.
    let reply = client.call(Again::Yes, || {
        let mut log = client.log();
        async move { log.allocate_producer(v1::AllocateProducerRequest {}).await }
    });
    Ok(reply.await?.producer()?)
}

fn max_batch_bytes(topic: &v1::Topic) -> Result<usize, Error> {
    let text = topic.settings.get("max_batch_bytes");
    let number = text.and_then(|text| text.parse::<usize>().ok());
    number
        .filter(|bytes| (HEADER_BYTES..=BATCH_BYTES_MAX).contains(bytes))
        .ok_or_else(|| Error::odd_reply("the topic's max_batch_bytes is no such number"))
}

/// A codec of a later version is no reason to fail: what we can do, readers can read.
fn compression(topic: &v1::Topic) -> Compression {
    match topic.settings.get("compression").map(String::as_str) {
        Some("none") => Compression::None,
        Some("gzip") => Compression::Gzip,
        Some("snappy") => Compression::Snappy,
        Some("lz4") => Compression::Lz4,
        _ => Compression::Zstd(ZstdLevel::FAST),
    }
}
