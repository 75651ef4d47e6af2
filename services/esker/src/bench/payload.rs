//! The batches of a load, made beforehand: what is measured is the service, not the making of
//! lines.

use bytes::{BufMut as _, Bytes, BytesMut};
use esker_client::Record;
use esker_env::Monotonic;

use crate::sample::Lines;

/// Values made beforehand, about; they come again and again.
const POOL_BYTES: u64 = 16 << 20;
/// Bytes of the key that the first record of each batch carries: whose it is, when it was due.
const KEY_BYTES: usize = 16;

/// Batches, to be sent one after the other, over and over.
#[derive(Debug)]
pub(crate) struct Payload {
    batches: Vec<Vec<Record>>,
    next: usize,
    run: u64,
    /// Values of the largest batch, and the rest of its records.
    pub(crate) batch_bytes: u64,
    pub(crate) encoded_bytes: usize,
    /// Of the batch that has the most.
    pub(crate) records: usize,
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) records: Vec<Record>,
    /// Of values.
    pub(crate) bytes: u64,
}

impl Payload {
    /// Batches of about `batch_bytes` of values: log lines, or `record_bytes` each that no codec
    /// makes smaller. `run` tells them from those of others.
    pub(crate) fn new(batch_bytes: u64, record_bytes: Option<u64>, seed: u64, run: u64) -> Self {
        let mut lines = Lines::new(seed);
        let count = (POOL_BYTES / batch_bytes).clamp(2, 4096);
        let batches: Vec<_> = (0..count)
            .map(|_| batch(&mut lines, batch_bytes, record_bytes))
            .collect();
        let encoded = |records: &Vec<Record>| -> usize {
            records.iter().map(Record::plain_bytes).sum::<usize>() + KEY_BYTES
        };
        Self {
            batch_bytes: batches
                .iter()
                .map(|records| values(records))
                .max()
                .unwrap_or(0),
            encoded_bytes: batches.iter().map(encoded).max().unwrap_or(0),
            records: batches.iter().map(Vec::len).max().unwrap_or(0),
            batches,
            next: 0,
            run,
        }
    }

    /// The next batch, due at `due`.
    pub(crate) fn next(&mut self, due: Monotonic) -> Parcel {
        let mut records = self.batches[self.next].clone();
        self.next = (self.next + 1) % self.batches.len();
        let bytes = values(&records);
        if let Some(first) = records.first_mut() {
            first.key = Some(key(self.run, due));
        }
        Parcel { records, bytes }
    }
}

fn batch(lines: &mut Lines, batch_bytes: u64, record_bytes: Option<u64>) -> Vec<Record> {
    let mut text = BytesMut::new();
    let mut records: Vec<Record> = Vec::new();
    let mut line = Vec::new();
    let mut left = batch_bytes;
    let mut ends = Vec::new();
    while left > 0 {
        match record_bytes {
            None => lines.write(&mut line),
            Some(bytes) => {
                line.resize(usize::try_from(bytes.min(left)).unwrap_or(usize::MAX), 0);
                lines.fill(&mut line);
            }
        }
        text.extend_from_slice(&line);
        ends.push(text.len());
        left = left.saturating_sub(line.len() as u64);
    }
    // One allocation that all records share.
    let text = text.freeze();
    let mut start = 0;
    for end in ends {
        records.push(Record::value(text.slice(start..end)));
        start = end;
    }
    records
}

fn values(records: &[Record]) -> u64 {
    let values = records.iter().filter_map(|record| record.value.as_ref());
    values.map(|value| value.len() as u64).sum()
}

fn key(run: u64, due: Monotonic) -> Bytes {
    let mut key = BytesMut::with_capacity(KEY_BYTES);
    key.put_u64(run);
    key.put_u64(u64::try_from(due.0.as_nanos()).unwrap_or(u64::MAX));
    key.freeze()
}

/// When a batch of `run` was due, by the key of its first record; `None` if it is of another.
pub(crate) fn due_of(run: u64, key: Option<&[u8]>) -> Option<Monotonic> {
    let (whose, due) = key?.split_first_chunk::<8>()?;
    let due = u64::from_be_bytes(due.try_into().ok()?);
    let ours = u64::from_be_bytes(*whose) == run;
    ours.then(|| Monotonic(std::time::Duration::from_nanos(due)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_batch_tells_whose_it_is_and_when_it_was_due() {
        let mut payload = Payload::new(1000, Some(300), 1, 77);
        let due = Monotonic(Duration::from_nanos(123_456_789));
        let parcel = payload.next(due);
        assert_eq!(parcel.bytes, 1000);
        let lengths = parcel
            .records
            .iter()
            .map(|r| r.value.as_ref().unwrap().len());
        let lengths = lengths.collect::<Vec<_>>();
        assert_eq!(lengths, [300, 300, 300, 100]);
        let key = parcel.records[0].key.as_deref();
        assert_eq!(due_of(77, key), Some(due));
        assert_eq!(due_of(78, key), None);
        assert_eq!(due_of(77, parcel.records[1].key.as_deref()), None);
        assert_ne!(payload.next(due).records[0].value, parcel.records[0].value);
    }
}
