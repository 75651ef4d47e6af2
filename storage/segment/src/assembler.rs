//! Puts sealed blocks in order and writes all that follows them.

use std::fmt;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use esker_types::limits::TOPICS_MAX;
use esker_types::{OffsetRange, PartitionId, SegmentId};

use crate::block::{BlockRef, SealedBlock};
use crate::directory::encode_pages;
use crate::error::Error;
use crate::facts::Tombstone;
use crate::fields::narrow;
use crate::footer::Footer;
use crate::trailer::{HEADER_BYTES, Trailer, header};
use crate::writer::Index;

/// CRC-64/NVME of a whole object, trailer included: what object stores compute too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Checksum(pub u64);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a manifest needs to know of a segment that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Which.
    pub segment: SegmentId,
    /// Bytes of the object.
    pub length: u64,
    /// Checksum of the object.
    pub checksum: Checksum,
    /// Its batches.
    pub batches: u64,
    /// Its records.
    pub records: u64,
    /// Its partitions, ascending, and the offsets it holds of each.
    pub ranges: Vec<(PartitionId, OffsetRange)>,
}

/// Turns sealed blocks into the chunks of an object: their concatenation is the segment.
#[derive(Debug)]
#[must_use]
pub struct Assembler {
    blocks: Vec<BlockRef>,
    position: u64,
    checksum: Digest,
}

impl Assembler {
    /// An assembler, and the object's first chunk.
    pub fn start() -> (Self, Bytes) {
        let mut assembler = Self {
            blocks: Vec::new(),
            position: 0,
            checksum: crc64(),
        };
        let chunk = assembler.emit(Bytes::copy_from_slice(&header()));
        debug_assert_eq!(assembler.position, HEADER_BYTES as u64);
        (assembler, chunk)
    }

    /// Takes the next block and gives its chunks.
    ///
    /// # Panics
    /// If it is not the next by number: a defect of the caller.
    #[must_use]
    pub fn push(&mut self, block: SealedBlock) -> Vec<Bytes> {
        assert!(
            block.number.0 as usize == self.blocks.len(),
            "{} was handed over where block {} comes next",
            block.number,
            self.blocks.len()
        );
        self.blocks.push(BlockRef {
            position: self.position,
            stored_bytes: block.stored_bytes,
            raw_bytes: block.raw_bytes,
            crc: block.crc,
            codec: block.codec,
        });
        let pieces = block.stored.into_iter();
        pieces.map(|piece| self.emit(piece)).collect()
    }

    /// Writes index, directory, footer and trailer. `tombstones` are the shard's, ascending.
    ///
    /// # Errors
    /// [`Error::Full`] above [`TOPICS_MAX`] tombstones.
    ///
    /// # Panics
    /// If a block of the index was not pushed, or tombstones do not ascend: defects of the caller.
    pub fn finish(
        mut self,
        mut index: Index,
        tombstones: Vec<Tombstone>,
    ) -> Result<(Vec<Bytes>, Summary), Error> {
        assert!(
            index.blocks as usize == self.blocks.len(),
            "{} blocks were cut and {} handed over",
            index.blocks,
            self.blocks.len()
        );
        assert!(
            tombstones.is_sorted_by(|a, b| a.topic < b.topic),
            "tombstones are out of order"
        );
        let segment = index.origin.segment;
        if tombstones.len() > TOPICS_MAX {
            return Err(Error::Full {
                segment,
                what: "tombstones",
                limit: TOPICS_MAX,
            });
        }
        for page in index.partitions.iter_mut().flat_map(|p| &mut p.pages) {
            page.position += self.position;
        }
        let mut chunks = Vec::new();
        for chunk in index.chunks {
            chunks.push(self.emit(chunk));
        }
        let mut directory = Vec::new();
        for (bytes, page) in encode_pages(&index.partitions, self.position) {
            directory.push(page);
            chunks.push(self.emit(bytes));
        }
        let footer = Footer {
            origin: index.origin,
            batches: index.batches,
            records: index.records,
            blocks: std::mem::take(&mut self.blocks),
            directory,
            tombstones,
        };
        self.close(&footer, &mut chunks);
        let partitions = index.partitions.iter();
        let summary = Summary {
            segment,
            length: self.position,
            checksum: Checksum(self.checksum.finalize()),
            batches: index.batches,
            records: index.records,
            ranges: partitions.map(|part| (part.id, part.range)).collect(),
        };
        Ok((chunks, summary))
    }

    fn close(&mut self, footer: &Footer, chunks: &mut Vec<Bytes>) {
        let encoded = footer.encode();
        let mut trailer = Trailer {
            footer_position: self.position,
            footer_bytes: narrow(encoded.len()),
            footer_crc: crc_fast::crc32_iscsi(&encoded),
            body_checksum: 0,
            object_length: 0,
        };
        chunks.push(self.emit(encoded.into()));
        trailer.body_checksum = self.checksum.finalize();
        trailer.object_length = self.position + crate::trailer::TRAILER_BYTES as u64;
        chunks.push(self.emit(trailer.encode().into()));
    }

    fn emit(&mut self, chunk: Bytes) -> Bytes {
        self.checksum.update(&chunk);
        self.position += chunk.len() as u64;
        chunk
    }
}

/// A running CRC-64/NVME.
pub(crate) fn crc64() -> Digest {
    Digest::new(CrcAlgorithm::Crc64Nvme)
}
