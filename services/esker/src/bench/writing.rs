//! Batches in, each timed from when it was due.

use std::sync::Arc;
use std::time::Duration;

use esker_client::{AckedAll, DeliveryOfAll, Durability, Error, Producer};
use esker_env::{Clock, Env, Monotonic};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::ProgressBar;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::histogram::Histogram;
use super::payload::Payload;
use super::schedule::{Schedule, Times};

/// A batch that is handed over later than this after it was due was late.
pub(crate) const LATE: Duration = Duration::from_millis(2);

/// What writing came to.
#[derive(Debug)]
pub(crate) struct Written {
    /// From due to durable, of batches that were due while it was measured.
    pub(crate) latency: Histogram,
    /// Settled while it was measured.
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    /// Of all, warm-up included.
    pub(crate) all: Total,
    /// Of those due while it was measured: handed over, and handed over late.
    pub(crate) sent: u64,
    pub(crate) late: u64,
    /// Of batches that failed.
    pub(crate) failed: u64,
    /// Of those, batches that may be written all the same.
    pub(crate) unsure: u64,
    pub(crate) first_failure: Option<Error>,
    /// Behind the last acknowledged record, by partition.
    pub(crate) ends: Vec<u64>,
}

/// What is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Total {
    pub(crate) records: u64,
    /// Of values.
    pub(crate) bytes: u64,
}

/// Batches to write.
pub(crate) struct Writing<'a> {
    pub(crate) env: &'a Env,
    pub(crate) producer: Producer,
    pub(crate) payload: Payload,
    pub(crate) times: Times,
    /// Between two batches; `None` for as many as there is room for.
    pub(crate) interval: Option<Duration>,
    pub(crate) in_flight: usize,
    pub(crate) bar: ProgressBar,
}

/// A batch that was handed over.
struct Sent {
    due: Monotonic,
    bytes: u64,
    delivery: DeliveryOfAll,
    room: OwnedSemaphorePermit,
}

impl Writing<'_> {
    /// Writes until the time is over and everything is settled.
    ///
    /// # Errors
    /// What could not even be handed over.
    pub(crate) async fn run(mut self) -> Result<Written, Error> {
        let (sent, settling) = mpsc::channel(self.in_flight);
        let settled = Settling {
            clock: Arc::clone(&self.env.clock),
            times: self.times,
            bar: self.bar.clone(),
            written: Written::new(self.producer.partitions()),
        };
        let settled = tokio::spawn(settled.run(settling));
        let mut schedule = match self.interval {
            Some(interval) => Some(Schedule::start(self.env, self.times, interval)),
            None => None,
        };
        let handed = self.hand_over(schedule.as_mut(), &sent).await;
        drop(sent);
        let mut written = settled
            .await
            .expect("it is neither aborted nor does it panic");
        (written.sent, written.late) = handed?;
        Ok(written)
    }

    /// How many were handed over while it was measured, and how many of those late.
    async fn hand_over(
        &mut self,
        mut schedule: Option<&mut Schedule>,
        sent: &mpsc::Sender<Sent>,
    ) -> Result<(u64, u64), Error> {
        let room = Arc::new(Semaphore::new(self.in_flight));
        let clock = Arc::clone(&self.env.clock);
        let (mut handed, mut late) = (0, 0);
        let mut partition = 0;
        loop {
            let due = match &mut schedule {
                Some(schedule) => schedule.next().await,
                None => None,
            };
            if schedule.is_some() && due.is_none() {
                break;
            }
            let room = Arc::clone(&room).acquire_owned().await;
            let room = room.expect("the semaphore is never closed");
            let now = clock.monotonic();
            if now >= self.times.end {
                break;
            }
            let due = due.unwrap_or(now);
            if self.times.is_measured(due) {
                handed += 1;
                late += u64::from(now.since(due) > LATE);
            }
            let parcel = self.payload.next(due);
            let sending = self.producer.send_together(Some(partition), parcel.records);
            let batch = Sent {
                due,
                bytes: parcel.bytes,
                delivery: sending.await?,
                room,
            };
            partition = (partition + 1) % self.producer.partitions();
            if sent.send(batch).await.is_err() {
                break;
            }
        }
        Ok((handed, late))
    }
}

impl Written {
    pub(super) fn new(partitions: u32) -> Self {
        Self {
            latency: Histogram::new(),
            batches: 0,
            bytes: 0,
            all: Total::default(),
            sent: 0,
            late: 0,
            failed: 0,
            unsure: 0,
            first_failure: None,
            ends: vec![0; partitions as usize],
        }
    }
}

/// Waits for what was sent.
struct Settling {
    clock: Arc<dyn Clock>,
    times: Times,
    bar: ProgressBar,
    written: Written,
}

struct Settled {
    due: Monotonic,
    at: Monotonic,
    bytes: u64,
    outcome: Result<AckedAll, Error>,
}

impl Settling {
    /// Until no more is sent, and all of it is settled.
    async fn run(mut self, mut sent: mpsc::Receiver<Sent>) -> Written {
        // As many as there is room for: each holds its share until it is settled.
        let mut waiting = FuturesUnordered::new();
        let mut more = true;
        while more || !waiting.is_empty() {
            tokio::select! {
                biased;
                Some(settled) = waiting.next() => self.take(settled),
                next = sent.recv(), if more => match next {
                    Some(batch) => waiting.push(settled(Arc::clone(&self.clock), batch)),
                    None => more = false,
                },
            }
        }
        self.written
    }

    fn take(&mut self, settled: Settled) {
        let written = &mut self.written;
        let acked = match settled.outcome {
            Ok(acked) => acked,
            Err(error) => {
                written.failed += 1;
                let unsure = error.durability() != Durability::NotWritten;
                written.unsure += u64::from(unsure);
                written.first_failure.get_or_insert(error);
                return;
            }
        };
        written.all.records += acked.offsets.len();
        written.all.bytes += settled.bytes;
        if let Some(end) = written.ends.get_mut(acked.partition as usize) {
            *end = (*end).max(acked.offsets.end().get());
        }
        if self.times.is_measured(settled.due) {
            written.latency.add(settled.at.since(settled.due));
        }
        if self.times.is_measured(settled.at) {
            written.batches += 1;
            written.bytes += settled.bytes;
        }
        self.bar.set_position(written.all.bytes);
    }
}

async fn settled(clock: Arc<dyn Clock>, batch: Sent) -> Settled {
    let outcome = batch.delivery.await;
    let at = clock.monotonic();
    drop(batch.room);
    Settled {
        due: batch.due,
        at,
        bytes: batch.bytes,
        outcome,
    }
}
