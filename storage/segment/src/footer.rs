//! The footer: identity, block table, root of the directory, tombstones.
//!
//! ```text
//!   segment id 16 │ incarnation u32 │ shard u32 │ raft from u64 │ raft to u64
//!   │ final offsets u8 │ zstd level u8 │ 0 u16 │ batches u64 │ records u64
//!   │ blocks u32 × { position u64 │ stored bytes u32 │ raw bytes u32 │ crc u32 │ codec u32 }
//!   │ directory pages u32 × { position u64 │ bytes u32 │ crc u32 │ first topic u64
//!                             │ first partition u32 │ partitions u32 }
//!   │ tombstones u32 × { topic id u64 │ version u64 }
//! ```

use std::ops::{Range, RangeInclusive};

use bytes::{BufMut, Bytes};
use esker_record::codec::Decoder;
use esker_record::{Batch, ZstdLevel};
use esker_types::limits::{
    SEGMENT_BATCHES_MAX, SEGMENT_BLOCKS_MAX, SEGMENT_RANGES_MAX, TOPICS_MAX,
};
use esker_types::{
    Incarnation, OffsetRange, PartitionId, RaftIndex, RaftRange, SegmentId, ShardId, TopicVersion,
};

use crate::block::{self, BlockNumber, BlockRef};
use crate::directory::{DirectoryPage, DirectoryPageRef, Partition, decode_topic_id};
use crate::error::{Error, Fault, Part};
use crate::facts::{Origin, Tombstone};
use crate::fields::{Fields, agree, narrow};
use crate::index::{Entry, IndexPage, IndexPageRef};
use crate::trailer::{HEADER_BYTES, Trailer};

/// Bytes of a tombstone.
const TOMBSTONE_BYTES: usize = 16;

/// An opened segment: its footer, checked. Says where everything else is and checks it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub(crate) trailer: Trailer,
    pub(crate) footer: Footer,
}

/// The content of the footer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) origin: Origin,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) blocks: Vec<BlockRef>,
    pub(crate) directory: Vec<DirectoryPageRef>,
    pub(crate) tombstones: Vec<Tombstone>,
}

impl Segment {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        self.footer.origin.segment
    }

    /// Where it comes from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.footer.origin
    }

    /// Bytes of the object.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.trailer.object_length
    }

    /// Its batches.
    #[must_use]
    pub const fn batches(&self) -> u64 {
        self.footer.batches
    }

    /// Its records.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.footer.records
    }

    /// Topics of its shard that had ended when it was written, ascending.
    #[must_use]
    pub fn tombstones(&self) -> &[Tombstone] {
        &self.footer.tombstones
    }

    /// Its blocks, by number.
    #[must_use]
    pub fn blocks(&self) -> &[BlockRef] {
        &self.footer.blocks
    }

    /// Pages of its directory, ascending by first partition.
    #[must_use]
    pub fn directory_pages(&self) -> &[DirectoryPageRef] {
        &self.footer.directory
    }

    /// The page that lists `partition` if the segment holds it at all.
    #[must_use]
    pub fn directory_page(&self, partition: PartitionId) -> Option<&DirectoryPageRef> {
        let pages = &self.footer.directory;
        let after = pages.partition_point(|page| page.first <= partition);
        pages.get(after.checked_sub(1)?)
    }

    /// The bytes of a run of blocks: one ranged GET. `None` if a number does not exist.
    #[must_use]
    pub fn block_span(&self, numbers: RangeInclusive<BlockNumber>) -> Option<Range<u64>> {
        let first = self.footer.blocks.get(numbers.start().0 as usize)?;
        let last = self.footer.blocks.get(numbers.end().0 as usize)?;
        (first.position < last.end()).then_some(first.position..last.end())
    }

    /// Checks and reads a page of the directory.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode_directory_page(
        &self,
        page: &DirectoryPageRef,
        bytes: &[u8],
    ) -> Result<DirectoryPage, Error> {
        let position = page.position;
        DirectoryPage::decode(bytes, page, &self.footer.index_region())
            .map_err(|fault| self.damaged(Part::DirectoryPage { position }, fault))
    }

    /// Checks and reads a page of `partition`'s index.
    ///
    /// # Errors
    /// [`Error::Damaged`], with the offsets of the page.
    pub fn decode_index_page(
        &self,
        partition: &Partition,
        page: &IndexPageRef,
        bytes: &[u8],
    ) -> Result<IndexPage, Error> {
        let at = partition.pages.partition_point(|p| p.first < page.first);
        let end = partition.page_end(at);
        let position = page.position;
        IndexPage::decode(bytes, page, partition.range, end, &self.footer.blocks).map_err(|fault| {
            let touched = OffsetRange::new(page.first, end).unwrap_or(partition.range);
            self.damaged(Part::IndexPage { position }, fault)
                .touching(partition.id, touched)
        })
    }

    /// Checks the stored bytes of a block and decompresses them. What comes out may be cached
    /// under the segment's id and the number. [`Error::touching`] adds what a reader was after.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn decode_block(
        &self,
        number: BlockNumber,
        stored: Bytes,
        decoder: &mut Decoder,
    ) -> Result<Bytes, Error> {
        let Some(place) = self.footer.blocks.get(number.0 as usize) else {
            let fault = Fault::TooMany {
                of: "blocks",
                declared: u64::from(number.0) + 1,
                limit: self.footer.blocks.len() as u64,
            };
            return Err(self.damaged(Part::Block(number), fault));
        };
        place
            .open(stored, decoder)
            .map_err(|fault| self.damaged(Part::Block(number), fault))
    }

    /// Cuts the batch of `entry` out of its raw block and checks that it is the one. Shares the
    /// block's bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`], with the batch's offsets.
    pub fn batch(
        &self,
        partition: PartitionId,
        entry: &Entry,
        block: &Bytes,
    ) -> Result<Batch, Error> {
        let part = Part::Batch {
            block: entry.block,
            position: entry.position,
        };
        cut_batch(entry, block)
            .map_err(|fault| self.damaged(part, fault).touching(partition, entry.range()))
    }

    pub(crate) fn damaged(&self, part: Part, fault: Fault) -> Error {
        Error::damaged(self.id(), part, fault)
    }
}

fn cut_batch(entry: &Entry, block: &Bytes) -> Result<Batch, Fault> {
    let start = entry.position as usize;
    let end = start + entry.bytes as usize;
    if end > block.len() {
        return Err(Fault::Short {
            needed: end as u64,
            left: block.len() as u64,
        });
    }
    let batch = Batch::open(block.slice(start..end))?;
    let header = batch.header();
    agree("base offset", header.base_offset.get(), entry.offset.get())?;
    agree("record count", header.records.into(), entry.records.into())?;
    agree("checksum of the batch", header.crc.into(), entry.crc.into())?;
    agree(
        "max timestamp",
        header.max_timestamp.0.cast_unsigned(),
        entry.max_timestamp.0.cast_unsigned(),
    )?;
    Ok(batch)
}

impl Footer {
    /// Where pages of the index lie: between the blocks and the directory.
    pub(crate) fn index_region(&self) -> Range<u64> {
        let start = self
            .blocks
            .last()
            .map_or(HEADER_BYTES as u64, BlockRef::end);
        let end = self.directory.first().map_or(start, |page| page.position);
        start..end
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let origin = &self.origin;
        out.put_slice(&origin.segment.0.to_be_bytes());
        out.put_u32_le(origin.incarnation.get());
        out.put_u32_le(origin.shard.0);
        out.put_u64_le(origin.raft.from.0);
        out.put_u64_le(origin.raft.to.0);
        out.put_u8(origin.final_offsets.into());
        out.put_u8(origin.zstd_level.get());
        out.put_u16_le(0);
        out.put_u64_le(self.batches);
        out.put_u64_le(self.records);
        out.put_u32_le(narrow(self.blocks.len()));
        for block in &self.blocks {
            block.encode(&mut out);
        }
        out.put_u32_le(narrow(self.directory.len()));
        for page in &self.directory {
            page.encode(&mut out);
        }
        out.put_u32_le(narrow(self.tombstones.len()));
        for tombstone in &self.tombstones {
            out.put_u64_le(tombstone.topic.as_u64());
            out.put_u64_le(tombstone.version.0);
        }
        out
    }

    /// Reads a footer that stands at `position` and whose CRC has been checked.
    pub(crate) fn decode(bytes: &[u8], segment: SegmentId, position: u64) -> Result<Self, Fault> {
        let mut fields = Fields::new(bytes);
        let footer = Self {
            origin: decode_origin(&mut fields, segment)?,
            batches: fields.u64()?,
            records: fields.u64()?,
            blocks: decode_blocks(&mut fields)?,
            directory: decode_directory(&mut fields)?,
            tombstones: decode_tombstones(&mut fields)?,
        };
        fields.end()?;
        if footer.batches > SEGMENT_BATCHES_MAX as u64 {
            return Err(Fault::TooMany {
                of: "batches",
                declared: footer.batches,
                limit: SEGMENT_BATCHES_MAX as u64,
            });
        }
        let region = footer.index_region();
        let end = footer.directory.last().map(DirectoryPageRef::end);
        agree("end of the directory", end.unwrap_or(0), position)?;
        if region.start >= region.end {
            return Err(Fault::Value {
                of: "end of the index",
                found: region.end,
            });
        }
        Ok(footer)
    }
}

fn decode_origin(fields: &mut Fields<'_>, expected: SegmentId) -> Result<Origin, Fault> {
    let segment = fields.segment_id()?;
    if segment != expected {
        // Told by their entropy, the part that differs.
        let low = |id: SegmentId| u64::try_from(id.0 & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        return Err(Fault::Mismatch {
            of: "segment id (lower half)",
            found: low(segment),
            expected: low(expected),
        });
    }
    let raw = fields.u32()?;
    let incarnation = Incarnation::new(raw).ok_or(Fault::Value {
        of: "incarnation",
        found: raw.into(),
    })?;
    let shard = ShardId(fields.u32()?);
    let (from, to) = (RaftIndex(fields.u64()?), RaftIndex(fields.u64()?));
    let raft = RaftRange::new(from, to).ok_or(Fault::Value {
        of: "end of the raft range",
        found: to.0,
    })?;
    let raw = fields.u8()?;
    if raw > 1 {
        return Err(Fault::Value {
            of: "mark of final offsets",
            found: raw.into(),
        });
    }
    let level = fields.u8()?;
    let zstd_level = ZstdLevel::new(level).ok_or(Fault::Value {
        of: "zstd level",
        found: level.into(),
    })?;
    agree("reserved", fields.u16()?.into(), 0)?;
    Ok(Origin {
        segment,
        incarnation,
        shard,
        raft,
        final_offsets: raw == 1,
        zstd_level,
    })
}

fn decode_blocks(fields: &mut Fields<'_>) -> Result<Vec<BlockRef>, Fault> {
    let count = fields.count("blocks", SEGMENT_BLOCKS_MAX, block::REF_BYTES)?;
    let mut blocks = Vec::with_capacity(count);
    let mut position = HEADER_BYTES as u64;
    for _ in 0..count {
        let block = BlockRef::decode(fields, position)?;
        position = block.end();
        blocks.push(block);
    }
    Ok(blocks)
}

fn decode_directory(fields: &mut Fields<'_>) -> Result<Vec<DirectoryPageRef>, Fault> {
    let count = fields.count(
        "directory pages",
        SEGMENT_RANGES_MAX,
        DirectoryPageRef::BYTES,
    )?;
    let mut pages: Vec<DirectoryPageRef> = Vec::with_capacity(count);
    let mut partitions = 0;
    for _ in 0..count {
        let page = DirectoryPageRef::decode(fields)?;
        partitions += u64::from(page.partitions);
        if let Some(last) = pages.last() {
            agree("position of a directory page", page.position, last.end())?;
            if page.first <= last.first {
                return Err(Fault::Value {
                    of: "first partition of a directory page",
                    found: page.first.index.0.into(),
                });
            }
        }
        // Ends are sums of positions: one that is bounded by the object cannot overflow.
        if page.position > i64::MAX as u64 {
            return Err(Fault::Value {
                of: "position of a directory page",
                found: page.position,
            });
        }
        pages.push(page);
    }
    if pages.is_empty() || partitions > SEGMENT_RANGES_MAX as u64 {
        return Err(Fault::TooMany {
            of: "partitions",
            declared: partitions,
            limit: SEGMENT_RANGES_MAX as u64,
        });
    }
    Ok(pages)
}

fn decode_tombstones(fields: &mut Fields<'_>) -> Result<Vec<Tombstone>, Fault> {
    let count = fields.count("tombstones", TOPICS_MAX, TOMBSTONE_BYTES)?;
    let mut tombstones: Vec<Tombstone> = Vec::with_capacity(count);
    for _ in 0..count {
        let next = Tombstone {
            topic: decode_topic_id(fields)?,
            version: TopicVersion(fields.u64()?),
        };
        if tombstones
            .last()
            .is_some_and(|last| last.topic >= next.topic)
        {
            return Err(Fault::Value {
                of: "topic id of a tombstone",
                found: next.topic.as_u64(),
            });
        }
        tombstones.push(next);
    }
    Ok(tombstones)
}
