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

use std::ops::Range;

use bytes::BufMut;
use esker_record::ZstdLevel;
use esker_types::limits::{
    SEGMENT_BATCHES_MAX, SEGMENT_BLOCKS_MAX, SEGMENT_RANGES_MAX, TOPICS_MAX,
};
use esker_types::{Incarnation, RaftIndex, RaftRange, SegmentId, ShardId, TopicVersion};

use crate::block::{self, BlockRef};
use crate::directory::{DirectoryPageRef, decode_topic_id};
use crate::error::Fault;
use crate::facts::{Origin, Tombstone};
use crate::fields::{Fields, agree, narrow};
use crate::trailer::HEADER_BYTES;

/// Bytes of a tombstone.
const TOMBSTONE_BYTES: usize = 16;

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
