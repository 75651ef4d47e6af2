//! The index of a partition: one entry per batch, in pages, so that a lookup reads one page.

use bytes::{BufMut, Bytes};
use esker_types::limits::{INDEX_EXTENSION_BYTES_MAX, INDEX_PAGE_BYTES_MAX};
use esker_types::{ContentHash, Offset, OffsetRange, ShardTime, Timestamp};

use crate::block::{BlockNumber, BlockRef};
use crate::error::Fault;
use crate::facts::{Extension, Placement};
use crate::fields::{Fields, agree, check_crc, narrow};

/// Bytes of an entry without extensions.
pub(crate) const ENTRY_BYTES_MIN: usize = 62;
/// Bytes of a page before its entries: their count.
const PAGE_HEADER_BYTES: usize = 4;
/// Bytes of an extension before what it says.
const EXTENSION_HEADER_BYTES: usize = 4;

/// A batch of a partition: where it is and what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Offset of its first record.
    pub offset: Offset,
    /// Its records.
    pub records: u32,
    /// The block that holds it.
    pub block: BlockNumber,
    /// Where it begins in the raw block.
    pub position: u32,
    /// Its bytes.
    pub bytes: u32,
    /// Its own CRC-32C, of its byte 21 to the end.
    pub crc: u32,
    /// The largest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// Shard time of its append.
    pub append_time: ShardTime,
    /// Its content hash, or its checksum in place of one.
    pub hash: ContentHash,
    /// What later versions say of it.
    pub extensions: Extensions,
}

impl Entry {
    /// `[offset, offset + records)`.
    #[must_use]
    pub fn range(&self) -> OffsetRange {
        OffsetRange::from_count(self.offset, self.records.into())
            .expect("decoding refuses an entry that ends past its partition's range")
    }

    fn encode(&self, start: Offset, out: &mut Vec<u8>) {
        out.put_u64_le(self.offset.since(start));
        out.put_u32_le(self.records);
        out.put_u32_le(self.block.0);
        out.put_u32_le(self.position);
        out.put_u32_le(self.bytes);
        out.put_u32_le(self.crc);
        out.put_i64_le(self.max_timestamp.0);
        out.put_u64_le(self.append_time.0);
        out.put_slice(&self.hash.0.to_be_bytes());
        let bytes = u16::try_from(self.extensions.0.len()).expect("bounded by their limit");
        out.put_u16_le(bytes);
        out.put_slice(&self.extensions.0);
    }

    fn decode(
        fields: &mut Fields<'_>,
        expected: Offset,
        range: OffsetRange,
    ) -> Result<Self, Fault> {
        agree("offset", fields.u64()?, expected.since(range.start()))?;
        let records = fields.u32()?;
        let fits = records > 0 && u64::from(records) <= range.end().since(expected);
        if !fits {
            return Err(Fault::Value {
                of: "records of a batch",
                found: records.into(),
            });
        }
        Ok(Self {
            offset: expected,
            records,
            block: BlockNumber(fields.u32()?),
            position: fields.u32()?,
            bytes: fields.u32()?,
            crc: fields.u32()?,
            max_timestamp: Timestamp(fields.i64()?),
            append_time: ShardTime(fields.u64()?),
            hash: fields.hash()?,
            extensions: Extensions::decode(fields)?,
        })
    }

    /// Whether it lies inside its block.
    fn fits(&self, blocks: &[BlockRef]) -> Result<(), Fault> {
        let end = u64::from(self.position) + u64::from(self.bytes);
        let block = blocks.get(self.block.0 as usize);
        if block.is_none_or(|block| end > block.raw_bytes.into()) {
            return Err(Fault::Value {
                of: "end of a batch in its block",
                found: end,
            });
        }
        Ok(())
    }
}

/// Typed remarks on a batch, as stored: `{ kind u16, bytes u16, … }*`. A reader takes the kinds
/// that it knows and skips the rest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extensions(Bytes);

impl Extensions {
    /// # Panics
    /// Above [`INDEX_EXTENSION_BYTES_MAX`] in all: a defect of the caller.
    pub(crate) fn new(extensions: &[Extension]) -> Self {
        let mut out = Vec::new();
        for extension in extensions {
            let bytes = u16::try_from(extension.bytes.len()).unwrap_or(u16::MAX);
            out.put_u16_le(extension.kind);
            out.put_u16_le(bytes);
            out.put_slice(&extension.bytes);
        }
        assert!(
            out.len() <= INDEX_EXTENSION_BYTES_MAX,
            "extensions of a batch have {} bytes, the limit is {INDEX_EXTENSION_BYTES_MAX}",
            out.len()
        );
        Self(out.into())
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let bytes = usize::from(fields.u16()?);
        if bytes > INDEX_EXTENSION_BYTES_MAX {
            return Err(Fault::TooMany {
                of: "extension bytes",
                declared: bytes as u64,
                limit: INDEX_EXTENSION_BYTES_MAX as u64,
            });
        }
        let stored = fields.take(bytes)?;
        let mut inner = Fields::new(stored);
        while inner.end().is_err() {
            inner.u16()?;
            let length = inner.u16()?;
            inner.take(length.into())?;
        }
        Ok(Self(Bytes::copy_from_slice(stored)))
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extension> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let header = self.0.get(at..)?.first_chunk::<EXTENSION_HEADER_BYTES>()?;
            let kind = u16::from_le_bytes([header[0], header[1]]);
            let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            let start = at + EXTENSION_HEADER_BYTES;
            at = start + length;
            let bytes = self.0.slice(start..at);
            Some(Extension { kind, bytes })
        })
    }
}

/// Where a page of a partition's index is, and what can be told without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexPageRef {
    /// Byte of the object.
    pub position: u64,
    /// Its bytes.
    pub bytes: u32,
    /// CRC-32C of them.
    pub crc: u32,
    /// Offset of its first entry.
    pub first: Offset,
    /// Its entries.
    pub entries: u32,
    /// The largest timestamp of its entries.
    pub max_timestamp: Timestamp,
}

impl IndexPageRef {
    /// Bytes of it in a directory page.
    pub(crate) const BYTES: usize = 36;

    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.position + self.bytes as u64
    }
}

/// A page of a partition's index, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexPage {
    entries: Vec<Entry>,
}

impl IndexPage {
    /// Reads the page that `page` names, of a partition with `range`; its entries end at `end`.
    pub(crate) fn decode(
        bytes: &[u8],
        page: &IndexPageRef,
        range: OffsetRange,
        end: Offset,
        blocks: &[BlockRef],
    ) -> Result<Self, Fault> {
        agree("page bytes", bytes.len() as u64, page.bytes.into())?;
        check_crc(bytes, page.crc)?;
        let mut fields = Fields::new(bytes);
        let count = fields.count("entries", usize::MAX, ENTRY_BYTES_MIN)?;
        agree("entries", count as u64, page.entries.into())?;
        let mut entries = Vec::with_capacity(count);
        let mut next = page.first;
        let mut max_timestamp = Timestamp(i64::MIN);
        for _ in 0..count {
            let entry = Entry::decode(&mut fields, next, range)?;
            entry.fits(blocks)?;
            next = entry.range().end();
            max_timestamp = max_timestamp.max(entry.max_timestamp);
            entries.push(entry);
        }
        fields.end()?;
        agree("end of the page", next.get(), end.get())?;
        agree(
            "max timestamp of the page",
            max_timestamp.0.cast_unsigned(),
            page.max_timestamp.0.cast_unsigned(),
        )?;
        Ok(Self { entries })
    }

    /// Its entries, in offset order, without a gap.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Gives the entries away.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The entry that holds `offset`; `None` if it lies outside the page.
    #[must_use]
    pub fn by_offset(&self, offset: Offset) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        entry.range().contains(offset).then_some(entry)
    }

    /// The first entry that reaches past `from` and has a record at `time` or later.
    #[must_use]
    pub fn by_time(&self, time: Timestamp, from: Offset) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.range().end() > from && entry.max_timestamp >= time)
    }
}

/// Collects the entries of one partition into pages.
#[derive(Debug, Default)]
pub(crate) struct PageBuilder {
    bytes: Vec<u8>,
    entries: u32,
    first: Offset,
    max_timestamp: Option<Timestamp>,
}

impl PageBuilder {
    /// An entry of `placement` and what the writer knows of the batch.
    pub(crate) fn entry(
        placement: &Placement,
        header: &esker_record::Header,
        block: BlockNumber,
        position: usize,
    ) -> Entry {
        Entry {
            offset: placement.offset,
            records: header.records,
            block,
            position: narrow(position),
            bytes: narrow(header.bytes),
            crc: header.crc,
            max_timestamp: header.max_timestamp,
            append_time: placement.append_time,
            hash: placement.hash,
            extensions: Extensions::new(&placement.extensions),
        }
    }

    /// Adds `entry`; the page before it comes back if it was full.
    pub(crate) fn push(&mut self, entry: &Entry, start: Offset) -> Option<(Vec<u8>, IndexPageRef)> {
        let needed = ENTRY_BYTES_MIN + entry.extensions.0.len();
        let full = self.bytes.len() + needed > INDEX_PAGE_BYTES_MAX;
        let done = if full { self.cut() } else { None };
        if self.entries == 0 {
            self.bytes.put_u32_le(0);
            self.first = entry.offset;
        }
        entry.encode(start, &mut self.bytes);
        self.entries += 1;
        self.max_timestamp = self.max_timestamp.max(Some(entry.max_timestamp));
        done
    }

    /// Closes the page, if there is one. Its position is 0 until the blocks are all placed.
    pub(crate) fn cut(&mut self) -> Option<(Vec<u8>, IndexPageRef)> {
        let mut page = std::mem::take(self);
        let max_timestamp = page.max_timestamp?;
        page.bytes[..PAGE_HEADER_BYTES].copy_from_slice(&page.entries.to_le_bytes());
        let place = IndexPageRef {
            position: 0,
            bytes: narrow(page.bytes.len()),
            crc: crc_fast::crc32_iscsi(&page.bytes),
            first: page.first,
            entries: page.entries,
            max_timestamp,
        };
        Some((page.bytes, place))
    }
}
