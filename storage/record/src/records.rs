//! Decoded records, borrowed from the buffer they were decoded into.

use esker_types::{Offset, Timestamp};

use crate::cursor::{Cursor, Located};
use crate::error::{Error, Fault, FieldName};
use crate::header::{Header, TimestampKind};

/// One record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its position in the partition (once the batch is patched).
    pub offset: Offset,
    /// Its timestamp: its own, or the batch's maximum if the broker set the time.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order, duplicates kept.
    pub headers: Headers<'a>,
}

/// A header of a record. Kafka means the key as UTF-8; nothing here depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader<'a> {
    /// Its key, never null, may be empty, may occur again.
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// Headers of one record, checked; iterates in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl Headers<'_> {
    /// How many are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.count = self.count.checked_sub(1)?;
        let mut cursor = Cursor::new(self.bytes, 0);
        let header = read_header(&mut cursor).expect("headers were checked with their record");
        self.bytes = &self.bytes[cursor.at()..];
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of a batch, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: Header,
    cursor: Cursor<'a>,
    next: u32,
}

/// A place between two records of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    at: usize,
    next: u32,
}

impl<'a> Records<'a> {
    /// Goes on at `place`, which another reader of the same bytes has come to.
    #[must_use]
    pub fn resumed(header: &Header, plain: &'a [u8], place: Place) -> Self {
        Self {
            header: *header,
            cursor: Cursor::new(plain, place.at.min(plain.len())),
            next: place.next,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            at: self.cursor.at(),
            next: self.next,
        }
    }

    /// Reads `plain`, the decoded records of the batch that `header` belongs to.
    #[must_use]
    pub fn new(header: &Header, plain: &'a [u8]) -> Self {
        Self {
            header: *header,
            cursor: Cursor::new(plain, 0),
            next: 0,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, Error> {
        let raw = read_record(&mut self.cursor, self.next).map_err(located)?;
        let at = self.cursor.at();
        let own = raw
            .timestamp(&self.header)
            .map_err(|fault| located((at, fault)))?;
        let timestamp = match self.header.attributes.timestamp_kind() {
            TimestampKind::Create => Timestamp(own),
            TimestampKind::LogAppend => self.header.max_timestamp,
        };
        let offset = self.header.base_offset.checked_add(u64::from(self.next));
        self.next += 1;
        if self.next == self.header.records && self.cursor.left() > 0 {
            let bytes = self.cursor.left();
            return Err(located((at, Fault::Trailing { bytes })));
        }
        Ok(Record {
            offset: offset.expect("a parsed header leaves room for its records"),
            timestamp,
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.header.records {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.next = self.header.records;
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.header.records - self.next) as usize))
    }
}

/// A record as it stands, relative to its batch.
pub(crate) struct Raw<'a> {
    timestamp_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl Raw<'_> {
    pub(crate) fn timestamp(&self, header: &Header) -> Result<i64, Fault> {
        let base = header.base_timestamp.0;
        let delta = self.timestamp_delta;
        base.checked_add(delta)
            .ok_or(Fault::TimestampOverflow { delta, base })
    }
}

pub(crate) fn located((at, fault): Located) -> Error {
    Error::MalformedRecords { at, fault }
}

/// Bytes of the smallest header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

/// Reads the record at `cursor`, which must be the batch's `expected`-th, and checks it whole.
pub(crate) fn read_record<'a>(cursor: &mut Cursor<'a>, expected: u32) -> Result<Raw<'a>, Located> {
    let start = cursor.at();
    let declared = cursor.varint()?;
    let left = cursor.left();
    let Some(len) = usize::try_from(declared).ok().filter(|&len| len <= left) else {
        let of = FieldName::Record;
        let declared = i64::from(declared);
        return Err((start, Fault::Length { of, declared, left }));
    };
    let mut inner = cursor.split(len);
    // Kafka gives the record's own attributes no meaning, and its readers ignore them.
    inner.u8()?;
    let timestamp_delta = inner.varlong()?;
    let delta_at = inner.at();
    let found = inner.varint()?;
    if u32::try_from(found) != Ok(expected) {
        return Err((delta_at, Fault::OffsetDelta { found, expected }));
    }
    let key = inner.nullable(FieldName::Key)?;
    let value = inner.nullable(FieldName::Value)?;
    let headers = read_headers(&mut inner)?;
    if inner.left() > 0 {
        let bytes = inner.left();
        return Err((inner.at(), Fault::Trailing { bytes }));
    }
    Ok(Raw {
        timestamp_delta,
        key,
        value,
        headers,
    })
}

fn read_headers<'a>(cursor: &mut Cursor<'a>) -> Result<Headers<'a>, Located> {
    let count_at = cursor.at();
    let declared = cursor.varint()?;
    let limit = cursor.left() / HEADER_BYTES_MIN;
    let fits = |&count: &u32| count as usize <= limit;
    let Some(count) = u32::try_from(declared).ok().filter(fits) else {
        let fault = Fault::Count {
            of: FieldName::Header,
            declared: i64::from(declared),
            limit,
        };
        return Err((count_at, fault));
    };
    let start = cursor.at();
    for _ in 0..count {
        read_header(cursor)?;
    }
    Ok(Headers {
        count,
        bytes: cursor.since(start),
    })
}

fn read_header<'a>(cursor: &mut Cursor<'a>) -> Result<RecordHeader<'a>, Located> {
    Ok(RecordHeader {
        key: cursor.required(FieldName::HeaderKey)?,
        value: cursor.nullable(FieldName::HeaderValue)?,
    })
}
