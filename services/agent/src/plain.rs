//! Plain records into batches and back, for clients without a codec of Kafka's format.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use esker_log::ReadBatch;
use esker_proto::v1;
use esker_record::codec::{Codec, Compression};
use esker_record::{
    Batch, Builder, Header, NewRecord, Place, Record, RecordHeader, Records, Scratch,
};
use esker_types::limits::{
    BATCH_BYTES_MAX, CHECK_INLINE_BYTES, MESSAGE_BYTES_MAX, READ_REPLY_BYTES,
    READ_REPLY_RECORDS_MAX, SCRATCH_BYTES, SCRATCHES_MAX,
};
use esker_types::{ProducerStamp, Timestamp};

use crate::fault;

/// One batch of `records`, not compressed: blocks compress better than batches do. `now` stands in
/// where a record has no time.
pub(crate) fn batch(
    records: &[v1::Record],
    producer: Option<v1::Producer>,
    now: Timestamp,
) -> Result<Bytes, v1::Error> {
    let stamp = producer.map(ProducerStamp::try_from).transpose()?;
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_MAX);
    for record in records {
        let timestamp = match record.timestamp_ms {
            Some(ms) => Timestamp(ms),
            None if stamp.is_some() => {
                return Err(fault::invalid(
                    "nothing is stored: records of a producer need their `timestamp_ms`, or a retry \
                     would not be the same batch",
                ));
            }
            None => now,
        };
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|header| RecordHeader {
                key: header.key.as_bytes(),
                value: header.value.as_deref(),
            })
            .collect();
        let record = NewRecord {
            timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        builder
            .push(&record)
            .map_err(|error| fault::of_records(&error))?;
    }
    let batch = builder.finish(stamp);
    Ok(batch
        .map_err(|error| fault::of_records(&error))?
        .into_bytes())
}

/// Decoders of an agent that nobody uses now. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Scratches(Arc<Mutex<Vec<Scratch>>>);

impl Scratches {
    fn with<T>(&self, work: impl FnOnce(&mut Scratch) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().pop();
        let mut scratch = kept.unwrap_or_else(|| Scratch::new(SCRATCH_BYTES));
        let done = work(&mut scratch);
        let mut all = lock();
        if all.len() < SCRATCHES_MAX {
            all.push(scratch);
        }
        done
    }
}

impl fmt::Debug for Scratches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratches")
    }
}

/// The records of a batch, a part at a time: what is decoded may be let go between two parts.
#[derive(Debug)]
pub(crate) struct Unpacking {
    batch: ReadBatch,
    decoded: Option<(Batch, Bytes)>,
    place: Place,
    /// Offset of the next record.
    next: u64,
    whole: bool,
    done: bool,
}

/// Records with their bytes on the wire.
pub(crate) type Part = Vec<(v1::StoredRecord, usize)>;

impl Unpacking {
    pub(crate) fn new(batch: ReadBatch) -> Self {
        Self {
            decoded: None,
            place: Place::default(),
            next: batch.range.start().get(),
            whole: false,
            done: false,
            batch,
        }
    }

    /// Whether a part costs less than a change of thread.
    pub(crate) fn is_small(&self) -> bool {
        let header = Header::parse(&self.batch.bytes);
        self.batch.bytes.len() <= CHECK_INLINE_BYTES
            && header.is_ok_and(|header| header.attributes.codec() == Codec::None)
    }

    /// Bytes that the next part needs to be decoded; 0 if they are there.
    pub(crate) fn needs(&self) -> usize {
        match self.decoded {
            Some(_) => 0,
            None => esker_record::decoded_bytes_most(&self.batch.bytes),
        }
    }

    /// Bytes that are decoded, and its own.
    pub(crate) fn holds(&self) -> usize {
        match &self.decoded {
            Some((batch, decoded)) if batch.header().attributes.codec() != Codec::None => {
                decoded.len()
            }
            _ => 0,
        }
    }

    /// Gives back what is decoded; the next part decodes it again.
    pub(crate) fn let_go(&mut self) {
        self.decoded = None;
    }

    /// Whether the last part was given.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The next records whose offsets are within `wanted`, as many as a reply holds. Empty at the
    /// end.
    ///
    /// # Errors
    /// A batch that is damaged: the first part tells, so that no part of such a batch is given.
    pub(crate) fn part(
        &mut self,
        wanted: &Range<u64>,
        scratches: &Scratches,
    ) -> Result<Part, esker_record::Error> {
        if self.decoded.is_none() {
            let batch = Batch::open(self.batch.bytes.clone())?;
            let decoded = scratches.with(|scratch| scratch.decode_owned(&batch))?;
            self.decoded = Some((batch, decoded));
        }
        let (batch, decoded) = self.decoded.as_ref().expect("it was just decoded");
        let mut records = Records::resumed(batch.header(), decoded, self.place);
        let first = self.place == Place::default();
        let (mut part, mut bytes) = (Vec::new(), 0);
        let mut full = false;
        while !full && let Some(record) = records.next().transpose()? {
            let offset = self.next;
            self.next += 1;
            if wanted.contains(&offset) {
                bytes += least(&record);
                part.push((offset, record));
                full = bytes >= READ_REPLY_BYTES || part.len() == READ_REPLY_RECORDS_MAX;
            }
        }
        self.place = records.place();
        self.done = !full;
        if first {
            // All of it in one reply, most of which is wanted: else what waits for its client would
            // hold on to far more than it weighs.
            self.whole = !full && bytes >= decoded.len() / 2;
            // What is left is looked at, so that damage is told before anything is.
            records.try_for_each(|record| record.map(|_| ()))?;
        }
        Ok(if self.whole {
            part.iter()
                .map(|record| stored(record, |bytes| decoded.slice_ref(bytes)))
                .collect()
        } else {
            apart(&part, bytes)
        })
    }
}

/// Records with bytes of their own, `bytes` at most: one that waits for its client must not hold on
/// to all that its batch decodes to.
fn apart(part: &[(u64, Record<'_>)], bytes: usize) -> Part {
    let mut copied = BytesMut::with_capacity(bytes);
    // In the order in which `stored` asks for them.
    for (_, record) in part.iter().filter(|(_, record)| fits(record)) {
        copied.extend_from_slice(record.key.unwrap_or_default());
        copied.extend_from_slice(record.value.unwrap_or_default());
        for header in record.headers {
            copied.extend_from_slice(header.value.unwrap_or_default());
        }
    }
    let mut copied = copied.freeze();
    let mut own = |bytes: &[u8]| copied.split_to(bytes.len());
    part.iter().map(|record| stored(record, &mut own)).collect()
}

/// Bytes that a record has on the wire at least.
fn least(record: &Record<'_>) -> usize {
    let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record
        .headers
        .map(|header| 2 + header.key.len() + of(header.value));
    of(record.key) + of(record.value) + headers.sum::<usize>()
}

/// Whether a message may hold it.
fn fits(record: &Record<'_>) -> bool {
    least(record) <= MESSAGE_BYTES_MAX
}

/// A record as it is sent, and its bytes; of one that does not fit, only these.
fn stored<'a>(
    (offset, record): &(u64, Record<'a>),
    mut shared: impl FnMut(&'a [u8]) -> Bytes,
) -> (v1::StoredRecord, usize) {
    let offset = *offset;
    if !fits(record) {
        let nothing = v1::StoredRecord {
            offset,
            record: None,
        };
        return (nothing, least(record));
    }
    let (key, value) = (record.key.map(&mut shared), record.value.map(&mut shared));
    let headers = record.headers.map(|header| v1::Header {
        key: String::from_utf8_lossy(header.key).into_owned(),
        value: header.value.map(&mut shared),
    });
    let record = v1::StoredRecord {
        offset,
        record: Some(v1::Record {
            key,
            value,
            headers: headers.collect(),
            timestamp_ms: Some(record.timestamp.0),
        }),
    };
    let bytes = esker_proto::encoded_bytes(&record);
    (record, bytes)
}

#[cfg(test)]
mod tests;
