//! An opened segment: says where every part is, and checks what comes from there.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use esker_record::Batch;
use esker_record::codec::Decoder;
use esker_types::{OffsetRange, PartitionId, SegmentId};

use crate::block::{BlockNumber, BlockRef};
use crate::directory::{DirectoryPage, DirectoryPageRef};
use crate::error::{Error, Fault, Part};
use crate::facts::{Origin, Tombstone};
use crate::fields::agree;
use crate::footer::Footer;
use crate::index::{Entry, IndexPage, IndexPageRef};
use crate::partition::Partition;
use crate::trailer::Trailer;

/// An opened segment: its footer, checked. Says where everything else is and checks it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub(crate) trailer: Trailer,
    pub(crate) footer: Footer,
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
