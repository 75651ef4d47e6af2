//! Producers of one partition each, which go on in every life of the server where they stood.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use esker_checker::{Append, OpId, Producer, Sequence, Session, Stream, ValueHash, Values};
use esker_client::{AckedAll, Client, Error, ProducerOptions, Record};
use esker_env::sim::SeededEntropy;
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::pen::Pen;

/// How much a writer writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Batches without an answer.
    pub(crate) window: usize,
    /// Records of a batch, at most.
    pub(crate) records: u64,
    /// Bytes of a record, at most.
    pub(crate) bytes: u64,
    /// Milliseconds between batches, at most; none where all are answered.
    pub(crate) pause: u64,
}

/// One writer.
pub(crate) struct Writer {
    pub(crate) number: u64,
    pub(crate) partition: u32,
    pub(crate) options: ProducerOptions,
    pub(crate) load: Load,
    pub(crate) random: Arc<SeededEntropy>,
    pub(crate) pen: Pen,
}

/// What writers share with who drives them.
#[derive(Debug, Default)]
pub(crate) struct Reins {
    /// Send nothing new, settle what is open, and end.
    pub(crate) stop: AtomicBool,
    /// Batches acknowledged.
    pub(crate) acked: AtomicU64,
}

/// What a writer came to.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Answers that were errors, in order.
    pub(crate) errors: Vec<Error>,
}

impl Writer {
    /// Writes to `topic` until it is told to stop, and settles what is open then.
    pub(crate) async fn run(self, client: Client, topic: &str, reins: Arc<Reins>) -> Written {
        let producer = client.producer(topic, self.options.clone()).await;
        let producer = producer.expect("a producer");
        let stream = Stream(self.partition.into());
        let mut values = Values::new(stream, Producer(self.number));
        let (mut sequence, mut written) = (0, Written::default());
        let mut open = FuturesUnordered::new();
        while !reins.stop.load(Ordering::Relaxed) {
            if open.len() == self.load.window {
                let settled = open.next().await.expect("some are open");
                self.note(settled, &reins, &mut written);
                continue;
            }
            let batch = self.batch(&mut values);
            let op = self.pen.append(
                Session(self.number),
                self.partition,
                Append {
                    producer: Producer(self.number),
                    sequence: Sequence(sequence),
                    values: batch.iter().map(|value| ValueHash::of(value)).collect(),
                    expect: None,
                    token: None,
                    plain: !self.options.idempotent,
                },
            );
            sequence += 1;
            let records = batch.into_iter().map(Record::value).collect();
            let sent = producer.send_together(Some(self.partition), records).await;
            match sent {
                Ok(delivery) => open.push(async move { (op, delivery.await) }),
                Err(error) => self.note((op, Err(error)), &reins, &mut written),
            }
            let pause = Duration::from_millis(self.random.below(self.load.pause + 1));
            let rest = tokio::time::sleep(pause);
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    biased;
                    Some(settled) = open.next() => {
                        self.note(settled, &reins, &mut written);
                        // Something is in flight all the time.
                        if open.is_empty() {
                            break;
                        }
                    }
                    () = &mut rest => break,
                }
            }
        }
        while let Some(settled) = open.next().await {
            self.note(settled, &reins, &mut written);
        }
        written
    }

    fn batch(&self, values: &mut Values) -> Vec<Vec<u8>> {
        let count = 1 + self.random.below(self.load.records);
        let sizes = (0..count).map(|_| self.random.below(self.load.bytes));
        let sizes = sizes.map(|bytes| usize::try_from(bytes).expect("small"));
        sizes.map(|bytes| values.next(bytes)).collect()
    }

    fn note(
        &self,
        (op, answer): (OpId, Result<AckedAll, Error>),
        reins: &Reins,
        written: &mut Written,
    ) {
        let session = Session(self.number);
        match &answer {
            Ok(acked) => {
                let offsets = acked.offsets;
                self.pen
                    .appended(session, op, Ok((offsets.start().get(), offsets.len())));
                reins.acked.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.pen.appended(session, op, Err(error)),
        }
        written.errors.extend(answer.err());
    }
}
