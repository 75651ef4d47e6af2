//! Plain records in, batch out.

use std::fmt;

use bytes::Bytes;
use esker_types::limits::BATCH_DECODED_BYTES_MAX;
use esker_types::{Offset, ProducerStamp, Timestamp};

use crate::batch::Batch;
use crate::codec::{Codec, Compression, Encoder};
use crate::cursor::{put_varlong, varlong_bytes};
use crate::error::Error;
use crate::header::{Attributes, HEADER_BYTES, Header, layout};
use crate::records::RecordHeader;

/// A record to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewRecord<'a> {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers; order and duplicates are kept.
    pub headers: &'a [RecordHeader<'a>],
}

impl<'a> NewRecord<'a> {
    /// A record of a value alone.
    #[must_use]
    pub const fn value(timestamp: Timestamp, value: &'a [u8]) -> Self {
        Self {
            timestamp,
            key: None,
            value: Some(value),
            headers: &[],
        }
    }
}

/// Collects records and writes them as one batch; then starts afresh, with the same buffers if it compresses.
///
/// ```text
///   push ─► [ room for a header | records ] ─┬─ stored plain: this becomes the batch, nothing is copied
///                                            └─ compressed:   a batch of its own, the buffer stays
/// ```
pub struct Builder {
    compression: Compression,
    batch_bytes_max: usize,
    /// [`HEADER_BYTES`] of room and the records behind it; nothing at all before the first.
    plain: Vec<u8>,
    packed: Vec<u8>,
    encoder: Encoder,
    records: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl Builder {
    /// A builder of batches of at most `batch_bytes_max` bytes (`max_batch_bytes` of the topic).
    #[must_use]
    pub fn new(compression: Compression, batch_bytes_max: usize) -> Self {
        Self {
            compression,
            batch_bytes_max,
            plain: Vec::new(),
            packed: Vec::new(),
            encoder: Encoder::new(),
            records: 0,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
        }
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of the batch if it were finished now and nothing compressed: what a caller compares
    /// with its target.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.plain.len().max(HEADER_BYTES)
    }

    /// Makes room for `bytes` of records, as [`Builder::record_bytes`] counts: they are not moved then while
    /// there become more of them.
    pub fn reserve(&mut self, bytes: usize) {
        let bytes = bytes.min(BATCH_DECODED_BYTES_MAX);
        let room = self.plain_bytes() - self.plain.len();
        self.plain.reserve(room + bytes);
    }

    /// Bytes that `record` would add before compression, give or take the width of its deltas.
    #[must_use]
    pub fn record_bytes(record: &NewRecord<'_>) -> usize {
        let body = body_bytes(record, 0, 0);
        body + varlong_bytes(wire(body))
    }

    /// Adds `record` at the end. An error leaves the builder as it was.
    ///
    /// # Errors
    /// [`Error::DecodedTooLarge`] if the batch's records would pass 64 MiB,
    /// [`Error::TimestampSpread`].
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), Error> {
        let Timestamp(timestamp) = record.timestamp;
        let base = if self.records == 0 {
            timestamp
        } else {
            self.base_timestamp.0
        };
        let Some(timestamp_delta) = timestamp.checked_sub(base) else {
            return Err(Error::TimestampSpread { timestamp, base });
        };
        let offset_delta = i64::from(self.records);
        let body = body_bytes(record, timestamp_delta, offset_delta);
        let total = self.plain_bytes() + varlong_bytes(wire(body)) + body;
        if total - HEADER_BYTES > BATCH_DECODED_BYTES_MAX {
            return Err(Error::DecodedTooLarge {
                at_least: total - HEADER_BYTES,
                limit: BATCH_DECODED_BYTES_MAX,
            });
        }
        self.plain.resize(self.plain_bytes(), 0);
        put_varlong(&mut self.plain, wire(body));
        put_body(&mut self.plain, record, timestamp_delta, offset_delta);
        debug_assert_eq!(self.plain.len(), total, "record_bytes and put agree");
        if self.records == 0 {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.records += 1;
        Ok(())
    }

    /// Writes what was pushed as one batch with base offset 0, stored plain if compression does
    /// not pay. The builder is empty afterwards, whatever comes back.
    ///
    /// # Errors
    /// [`Error::Empty`] without records, [`Error::TooLarge`] if the batch passes its limit even
    /// compressed, [`Error::Codec`] if the compressor fails.
    pub fn finish(&mut self, producer: Option<ProducerStamp>) -> Result<Batch, Error> {
        let batch = self.write(producer);
        self.records = 0;
        for buffer in [&mut self.plain, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(RETAINED_BYTES_MAX);
        }
        batch
    }

    fn write(&mut self, producer: Option<ProducerStamp>) -> Result<Batch, Error> {
        if self.records == 0 {
            return Err(Error::Empty);
        }
        let codec = self.pack()?;
        let bytes = match codec {
            Codec::None => self.plain.len(),
            _ => HEADER_BYTES + self.packed.len(),
        };
        if bytes > self.batch_bytes_max {
            return Err(Error::TooLarge {
                bytes,
                limit: self.batch_bytes_max,
            });
        }
        let mut header = Header {
            base_offset: Offset::ZERO,
            leader_epoch: None,
            bytes,
            crc: 0,
            attributes: Attributes::of_codec(codec),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer,
            records: self.records,
        };
        let mut out = self.take_out(codec);
        let (front, _) = out
            .split_first_chunk_mut::<HEADER_BYTES>()
            .expect("the header's room is in front");
        header.write(front);
        header.crc = crc_fast::crc32_iscsi(&out[layout::CRC_FROM..]);
        out[layout::CRC..layout::CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
        Ok(Batch::built(Bytes::from(out), header))
    }

    /// Room for a header and the payload behind it, in memory that is not much more.
    fn take_out(&mut self, codec: Codec) -> Vec<u8> {
        let packed = match codec {
            Codec::None => {
                let mut out = std::mem::take(&mut self.plain);
                if out.capacity() > out.len() + out.len() / SPARE {
                    out.shrink_to_fit();
                }
                return out;
            }
            _ => &self.packed,
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(packed);
        out
    }

    fn pack(&mut self) -> Result<Codec, Error> {
        let codec = self.compression.codec();
        if codec == Codec::None {
            return Ok(codec);
        }
        self.encoder
            .encode(
                self.compression,
                &self.plain[HEADER_BYTES..],
                &mut self.packed,
            )
            .map_err(|fault| Error::Codec { codec, fault })?;
        let pays = HEADER_BYTES + self.packed.len() < self.plain.len();
        Ok(if pays { codec } else { Codec::None })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("compression", &self.compression)
            .field("records", &self.records)
            .field("plain_bytes", &self.plain_bytes())
            .finish_non_exhaustive()
    }
}

/// Of a batch that is not compressed, at most a so-manieth more stays allocated than it has bytes.
const SPARE: usize = 8;
/// What each of the two buffers keeps between batches.
const RETAINED_BYTES_MAX: usize = esker_types::limits::BATCH_BYTES_MAX;

/// A length as a varint's value. What reaches it is bounded by memory, so below 2^63.
fn wire(length: usize) -> i64 {
    i64::try_from(length).expect("no slice is longer than i64::MAX")
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(varlong_bytes(-1), |bytes| {
        varlong_bytes(wire(bytes.len())) + bytes.len()
    })
}

/// Bytes of a record after its length.
fn body_bytes(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i64) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| field_bytes(Some(header.key)) + field_bytes(header.value))
        .sum();
    1 + varlong_bytes(timestamp_delta)
        + varlong_bytes(offset_delta)
        + field_bytes(record.key)
        + field_bytes(record.value)
        + varlong_bytes(wire(record.headers.len()))
        + headers
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, wire(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

fn put_body(out: &mut Vec<u8>, record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i64) {
    out.push(0); // the record's attributes, without a meaning
    put_varlong(out, timestamp_delta);
    put_varlong(out, offset_delta);
    put_field(out, record.key);
    put_field(out, record.value);
    put_varlong(out, wire(record.headers.len()));
    for header in record.headers {
        put_field(out, Some(header.key));
        put_field(out, header.value);
    }
}
