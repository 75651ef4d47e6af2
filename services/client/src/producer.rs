//! Appends records, in batches, in order, each once.
//!
//! ```text
//!   send ─► gather, by partition ─► press: one batch ─► window ─► the one stream ─► service
//!             linger, bytes           compressed          5          any number of partitions
//! ```

mod gather; // records becoming batches
mod link; // the stream and its breaks
mod partitioner; // Kafka's choice of partition
mod pump; // the task that does it all
mod settings; // what topic and options come to
mod window; // what is not settled, and what answers mean

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use esker_env::Clock;
use esker_record::{Builder, Compression, NewRecord, RecordHeader};
use esker_types::{Durability, Offset, OffsetRange, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::client::Client;
use crate::error::{Code, Error};
use gather::{Content, Letter, RECORD_OVERHEAD_BYTES, Receipt, borrowed};
use partitioner::partition_of;
use pump::{LETTERS_MAX, Order, Pump};
use settings::Settings;

/// How a producer behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerOptions {
    /// How long a record waits for others to share its batch; a full batch leaves at once.
    /// Default: 5 ms.
    pub linger: Duration,
    /// Bytes of records, before compression, at which a batch is full; at most the topic's
    /// `max_batch_bytes`. Default: 256 KiB.
    pub batch_bytes: usize,
    /// How batches are compressed. Default: as the topic's setting `compression` says.
    pub compression: Option<Compression>,
    /// Whether retries are recognised, so that none writes a record twice. Without it only one
    /// batch of a partition is in flight, and one whose stream breaks ends as unknown: it may
    /// come to be written later, behind what was sent after it. Default: true.
    pub idempotent: bool,
    /// Bytes of records that are not settled; `send` waits above. Default: 32 MiB.
    pub memory_bytes: usize,
    /// How long after `send` a record is settled, one way or another; at most half of the time after
    /// which the service forgets a producer, which is 12 hours. Default: 120 s.
    pub delivery_timeout: Duration,
    /// How long the service may leave a batch unanswered before the stream counts as broken; what
    /// is above `delivery_timeout` counts as that. Default: 30 s.
    pub reply_timeout: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            batch_bytes: 256 << 10,
            compression: None,
            idempotent: true,
            memory_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
            reply_timeout: Duration::from_secs(30),
        }
    }
}

/// A record to append.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Where to. Absent: by the key, as Kafka's default partitioner has it; without a key, to
    /// any, a batch at a time.
    pub partition: Option<u32>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; absent and empty are two things.
    pub value: Option<Bytes>,
    /// Its headers, in order; keys may repeat.
    pub headers: Vec<Header>,
    /// Absent: the clock of `env`, when it is sent.
    pub timestamp: Option<Timestamp>,
}

/// A header of a record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Its key, meant as UTF-8.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

impl Record {
    /// A record of a value alone.
    #[must_use]
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record of key and value.
    #[must_use]
    pub fn keyed(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::value(value)
        }
    }

    /// Bytes that it adds to a batch before compression, give or take a few.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        let headers: Vec<_> = self.headers.iter().map(borrowed).collect();
        let timestamp = self.timestamp.unwrap_or(Timestamp(0));
        Builder::record_bytes(&self.as_new(timestamp, &headers))
    }

    fn as_new<'a>(
        &'a self,
        timestamp: Timestamp,
        headers: &'a [RecordHeader<'a>],
    ) -> NewRecord<'a> {
        NewRecord {
            timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers,
        }
    }
}

/// Where a record is: synced on a quorum of disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acked {
    /// In which partition.
    pub partition: u32,
    /// At which offset.
    pub offset: Offset,
}

/// Where records that were sent together are: synced on a quorum of disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckedAll {
    /// In which partition.
    pub partition: u32,
    /// At which offsets, one after the other.
    pub offsets: OffsetRange,
}

/// What will become of a record. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "whether the record was written is told here only"]
pub struct Delivery(oneshot::Receiver<Result<Acked, Error>>);

impl Future for Delivery {
    type Output = Result<Acked, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(told.unwrap_or_else(|_| Err(gone(Durability::Unknown))))
    }
}

/// What will become of records that were sent together. Dropping it does not take them back.
#[derive(Debug)]
#[must_use = "whether the records were written is told here only"]
pub struct DeliveryOfAll(oneshot::Receiver<Result<AckedAll, Error>>);

impl Future for DeliveryOfAll {
    type Output = Result<AckedAll, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(told.unwrap_or_else(|_| Err(gone(Durability::Unknown))))
    }
}

/// Appends records to one topic. Clones share everything. Once all are dropped, what was sent is
/// still delivered, as long as the runtime lives.
#[derive(Clone)]
pub struct Producer {
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    memory: Arc<Semaphore>,
    orders: mpsc::Sender<Order>,
}

impl Producer {
    pub(crate) async fn open(
        client: &Client,
        topic: &str,
        options: ProducerOptions,
    ) -> Result<Self, Error> {
        let settings = Arc::new(Settings::settle(client, topic, options).await?);
        let (orders, received) = mpsc::channel(LETTERS_MAX);
        let memory = Arc::new(Semaphore::new(settings.memory_bytes()));
        let pump = Pump::new(client, Arc::clone(&settings), received);
        tokio::spawn(pump.run());
        Ok(Self {
            settings,
            clock: Arc::clone(&client.env.clock),
            memory,
            orders,
        })
    }

    /// Partitions of the topic, as many as there were when this producer was made.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.settings.partitions
    }

    /// Bytes of records, before compression, at which a batch is full.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        self.settings.target_bytes
    }

    /// The most a batch of the topic may have, as it was when this producer was made.
    #[must_use]
    pub fn max_batch_bytes(&self) -> usize {
        self.settings.max_batch_bytes
    }

    /// Which partition a record of this key goes to: the one that Kafka's default partitioner
    /// gives it.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> u32 {
        partition_of(key, self.settings.partitions)
    }

    /// Takes `record`; waits for memory and for nothing else. Records of one partition are
    /// appended in the order in which these calls return.
    ///
    /// # Errors
    /// Nothing was taken: [`Code::UnknownPartition`], [`Code::BatchTooLarge`] for a record above
    /// the topic's `max_batch_bytes` as it is or above this producer's memory,
    /// [`Code::InvalidRequest`] for a timestamp beyond 2^62 ms of 1970.
    pub async fn send(&self, record: Record) -> Result<Delivery, Error> {
        let partition = self.partition(record.partition, record.key.as_deref())?;
        let timestamp = self.timestamp(&record)?;
        let bytes = record.plain_bytes();
        let (receipt, told) = oneshot::channel();
        let letter = Letter {
            content: Content::One(timestamp, record),
            partition,
            bytes,
            memory: self.share(bytes + RECORD_OVERHEAD_BYTES).await?,
            receipt: Receipt::One(receipt),
        };
        self.hand_over(letter).await?;
        Ok(Delivery(told))
    }

    /// Takes `records` together: they are appended to `partition` in one batch, one after the
    /// other, all or none. Without a partition it is any, whatever their keys are. What each says
    /// of its own partition does not count. For who has many at once this costs the least.
    ///
    /// # Errors
    /// As [`Producer::send`], with the limits applied to all of them together;
    /// [`Code::InvalidRequest`] if there are none.
    pub async fn send_together(
        &self,
        partition: Option<u32>,
        records: Vec<Record>,
    ) -> Result<DeliveryOfAll, Error> {
        if records.is_empty() {
            return Err(Error::invalid(
                "no records to send together; give one at least",
            ));
        }
        let partition = self.partition(partition, None)?;
        let now = self.timestamp(&Record::default())?;
        let mut bytes = 0;
        for record in &records {
            if record.timestamp.is_some() {
                self.timestamp(record)?;
            }
            bytes += record.plain_bytes();
        }
        let (receipt, told) = oneshot::channel();
        let receipt = Receipt::Many(receipt, records.len() as u64);
        let overhead = records.capacity() * size_of::<Record>() + RECORD_OVERHEAD_BYTES;
        let letter = Letter {
            content: Content::Many(now, records),
            partition,
            bytes,
            memory: self.share(bytes + overhead).await?,
            receipt,
        };
        self.hand_over(letter).await?;
        Ok(DeliveryOfAll(told))
    }

    async fn hand_over(&self, letter: Letter) -> Result<(), Error> {
        let sent = self.orders.send(Order::Append(letter)).await;
        sent.map_err(|_| gone(Durability::NotWritten))
    }

    /// Sends what lingers, and waits until all that was taken before is settled. Whether it was
    /// written each [`Delivery`] tells.
    ///
    /// # Errors
    /// [`Code::Overloaded`] if very many wait already.
    pub async fn flush(&self) -> Result<(), Error> {
        let (settled, told) = oneshot::channel();
        let sent = self.orders.send(Order::Flush(settled)).await;
        sent.map_err(|_| gone(Durability::Unknown))?;
        told.await.map_err(|_| {
            let text = "very many flushes are waited for already; wait for some of them";
            Error::new(Code::Overloaded, Durability::Unknown, text)
        })
    }

    fn partition(&self, wanted: Option<u32>, key: Option<&[u8]>) -> Result<Option<u32>, Error> {
        let count = self.settings.partitions;
        match (wanted, key) {
            (Some(partition), _) if partition >= count => {
                let topic = &self.settings.topic;
                let text = format!("topic {topic} has no partition {partition}, it has {count}");
                Err(Error::new(
                    Code::UnknownPartition,
                    Durability::NotWritten,
                    text,
                ))
            }
            (Some(partition), _) => Ok(Some(partition)),
            (None, Some(key)) => Ok(Some(partition_of(key, count))),
            (None, None) => Ok(None),
        }
    }

    /// Within bounds, so that no two of a batch are too far apart to be written.
    fn timestamp(&self, record: &Record) -> Result<Timestamp, Error> {
        const FARTHEST: u64 = 1 << 62;
        let Some(Timestamp(given)) = record.timestamp else {
            let now = i64::try_from(self.clock.wall().0);
            return Ok(Timestamp(now.unwrap_or(i64::MAX >> 1)));
        };
        if given.unsigned_abs() > FARTHEST {
            let text = format!("timestamp {given} ms is beyond {FARTHEST} ms of 1970");
            return Err(Error::invalid(text));
        }
        Ok(Timestamp(given))
    }

    /// Waits for memory.
    async fn share(&self, share: usize) -> Result<OwnedSemaphorePermit, Error> {
        let limit = self.settings.memory_bytes();
        let permits = match u32::try_from(share) {
            Ok(permits) if share <= limit => permits,
            _ => {
                let text =
                    format!("this takes {share} bytes, the producer's memory_bytes are {limit}");
                let error = Error::new(Code::BatchTooLarge, Durability::NotWritten, text);
                return Err(error.with_limit(limit, share));
            }
        };
        let memory = Arc::clone(&self.memory).acquire_many_owned(permits).await;
        Ok(memory.expect("the semaphore is never closed"))
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("topic", &self.settings.topic)
            .field("memory_left", &self.memory.available_permits())
            .finish_non_exhaustive()
    }
}

/// The producer's task ended with its runtime.
fn gone(durability: Durability) -> Error {
    let text = "the producer has ended with its runtime";
    Error::new(Code::Unavailable, durability, text)
}
