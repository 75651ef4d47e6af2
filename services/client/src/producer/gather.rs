//! Records on their way to become batches, and those who wait for them.

use std::collections::VecDeque;
use std::time::Duration;

use esker_env::Monotonic;
use esker_record::{Batch, Builder, Compression, NewRecord, RecordHeader, Records, Scratch};
use esker_types::{Offset, OffsetRange, ProducerStamp, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Acked, AckedAll, Record};
use crate::error::Error;

/// Memory that a record sent alone takes beside its own bytes: its fields, its receipt, its share.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 256;

/// What a record takes beyond [`Builder::record_bytes`], of which the deltas are those of a first one: about.
const DELTA_BYTES: usize = 4;

/// Records as they are handed over, with whoever waits for them.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) content: Content,
    /// Set by now, unless the records go wherever it suits.
    pub(super) partition: Option<u32>,
    /// As [`Builder::record_bytes`] counts.
    pub(super) bytes: usize,
    pub(super) memory: OwnedSemaphorePermit,
    pub(super) receipt: Receipt,
}

/// What a letter holds: all of it goes into one batch.
#[derive(Debug)]
pub(super) enum Content {
    /// A record, and its time.
    One(Timestamp, Record),
    /// At least one record, and the time of those that have none of their own.
    Many(Timestamp, Vec<Record>),
}

impl Content {
    const fn records(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(_, records) => records.len(),
        }
    }

    fn push(&self, builder: &mut Builder) -> Result<(), esker_record::Error> {
        let (timestamp, records) = match self {
            Self::One(timestamp, record) => (*timestamp, std::slice::from_ref(record)),
            Self::Many(timestamp, records) => (*timestamp, records.as_slice()),
        };
        records.iter().try_for_each(|record| {
            let headers: Vec<_> = record.headers.iter().map(borrowed).collect();
            let timestamp = record.timestamp.unwrap_or(timestamp);
            builder.push(&record.as_new(timestamp, &headers))
        })
    }
}

/// Who waits for a letter.
#[derive(Debug)]
pub(super) enum Receipt {
    /// For one record.
    One(oneshot::Sender<Result<Acked, Error>>),
    /// For so many.
    Many(oneshot::Sender<Result<AckedAll, Error>>, u64),
}

impl Receipt {
    const fn records(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(_, records) => *records,
        }
    }

    /// Tells what became of it. Who does not wait any more does not want to know.
    fn tell(self, told: Result<(u32, OffsetRange), Error>) {
        match self {
            Self::One(waiting) => {
                let told = told.map(|(partition, offsets)| Acked {
                    partition,
                    offset: offsets.start(),
                });
                let _ = waiting.send(told);
            }
            Self::Many(waiting, _) => {
                let told = told.map(|(partition, offsets)| AckedAll { partition, offsets });
                let _ = waiting.send(told);
            }
        }
    }
}

/// Who waits for the records of a batch, and the memory they hold until they know.
#[derive(Debug)]
pub(super) struct Receipts {
    waiting: Vec<Receipt>,
    memory: OwnedSemaphorePermit,
    /// Number of the first letter, in the order in which the producer took them.
    pub(super) number: u64,
}

impl Receipts {
    /// Tells each its offsets.
    pub(super) fn ack(self, partition: u32, base: Offset) {
        let mut next = Some(base);
        for receipt in self.waiting {
            let range = next.and_then(|start| OffsetRange::from_count(start, receipt.records()));
            next = range.map(OffsetRange::end);
            receipt.tell(match range {
                Some(range) => Ok((partition, range)),
                None => Err(Error::odd_reply("offsets beyond the last")),
            });
        }
    }

    pub(super) fn fail(self, error: &Error) {
        for receipt in self.waiting {
            receipt.tell(Err(error.clone()));
        }
    }
}

/// Records that will be one batch.
#[derive(Debug)]
pub(super) struct Bundle {
    contents: Vec<Content>,
    receipts: Receipts,
    bytes: usize,
    pub(super) opened: Monotonic,
}

impl Bundle {
    fn new(letter: Letter, number: u64, now: Monotonic) -> Self {
        Self {
            contents: vec![letter.content],
            receipts: Receipts {
                waiting: vec![letter.receipt],
                memory: letter.memory,
                number,
            },
            bytes: letter.bytes,
            opened: now,
        }
    }

    fn add(&mut self, letter: Letter) {
        self.contents.push(letter.content);
        self.receipts.waiting.push(letter.receipt);
        self.receipts.memory.merge(letter.memory);
        self.bytes += letter.bytes;
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn number(&self) -> u64 {
        self.receipts.number
    }

    pub(super) fn fail(self, error: &Error) {
        self.receipts.fail(error);
    }
}

/// The bundles of one partition: the last one open, those before it full.
#[derive(Debug, Default)]
pub(super) struct Gather {
    bundles: VecDeque<Bundle>,
}

impl Gather {
    /// Whether `bytes` more would begin another bundle.
    pub(super) fn is_full_for(&self, bytes: usize, target: usize) -> bool {
        self.bundles
            .back()
            .is_some_and(|open| open.bytes + bytes > target)
    }

    /// Takes a letter; `number` counts those of the producer.
    pub(super) fn add(&mut self, letter: Letter, number: u64, target: usize, now: Monotonic) {
        let full = self.is_full_for(letter.bytes, target);
        match self.bundles.back_mut() {
            Some(open) if !full => open.add(letter),
            _ => self.bundles.push_back(Bundle::new(letter, number, now)),
        }
    }

    pub(super) fn front(&self) -> Option<&Bundle> {
        self.bundles.front()
    }

    pub(super) fn take(&mut self) -> Option<Bundle> {
        self.bundles.pop_front()
    }

    /// When the first bundle is to leave: at once if it is full, else when it has lingered.
    pub(super) fn due(&self, target: usize, linger: Duration) -> Option<Monotonic> {
        let first = self.bundles.front()?;
        let full = self.bundles.len() > 1 || first.bytes >= target;
        let wait = if full { Duration::ZERO } else { linger };
        Some(Monotonic(first.opened.0 + wait))
    }
}

/// A batch, and who waits for it.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) batch: Batch,
    pub(super) receipts: Receipts,
}

/// Makes batches. Keeps its buffers from one to the next.
#[derive(Debug)]
pub(super) struct Press {
    builder: Builder,
    scratch: Scratch,
}

impl Press {
    pub(super) fn new(compression: Compression, batch_bytes_max: usize) -> Self {
        Self {
            builder: Builder::new(compression, batch_bytes_max),
            scratch: Scratch::new(0),
        }
    }

    /// Makes one batch of `bundle`.
    pub(super) fn seal(
        &mut self,
        bundle: Bundle,
        stamp: Option<ProducerStamp>,
    ) -> Result<Sealed, (Receipts, esker_record::Error)> {
        let records = bundle.contents.iter().map(Content::records).sum::<usize>();
        self.builder.reserve(bundle.bytes + records * DELTA_BYTES);
        let mut contents = bundle.contents.iter();
        let pushed = contents.try_for_each(|content| content.push(&mut self.builder));
        // Whatever was pushed, the builder is empty after this.
        let finished = self.builder.finish(stamp);
        match pushed.and(finished) {
            Ok(batch) => Ok(Sealed {
                batch,
                receipts: bundle.receipts,
            }),
            Err(error) => Err((bundle.receipts, error)),
        }
    }

    /// The same records under another stamp.
    pub(super) fn restamp(
        &mut self,
        batch: &Batch,
        stamp: ProducerStamp,
    ) -> Result<Batch, esker_record::Error> {
        let plain = self.scratch.decode_owned(batch)?;
        for record in Records::new(batch.header(), &plain) {
            let record = record?;
            let headers: Vec<_> = record.headers.collect();
            self.builder.push(&NewRecord {
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
                headers: &headers,
            })?;
        }
        self.builder.finish(Some(stamp))
    }
}

pub(super) fn borrowed(header: &super::Header) -> RecordHeader<'_> {
    RecordHeader {
        key: &header.key,
        value: header.value.as_deref(),
    }
}
