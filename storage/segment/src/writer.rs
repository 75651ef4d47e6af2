//! Takes batches in order, cuts them into blocks and writes their index.

use bytes::Bytes;
use esker_record::{Batch, Codec, HEADER_BYTES};
use esker_types::limits::{
    BLOCK_BYTES, LEADER_EPOCHS_PER_PARTITION_MAX, MIB, PRODUCER_WINDOW,
    PRODUCERS_PER_PARTITION_MAX, SEGMENT_BATCHES_MAX, SEGMENT_BLOCKS_MAX, SEGMENT_RANGES_MAX,
};
use esker_types::{LeaderEpoch, Offset, OffsetRange};

use crate::block::{BlockNumber, RawBlock};
use crate::error::Error;
use crate::facts::{EpochStart, Origin, PartitionFacts, Placement};
use crate::index::{IndexPageRef, PageBuilder};
use crate::partition::Partition;

/// Bytes at which a chunk of index pages is closed.
const CHUNK_BYTES: usize = MIB;

/// Writes one segment. Holds one block and the index, never more than one block of batches; blocks
/// come out as they fill, to be sealed on any thread and handed to an [`crate::Assembler`] in
/// order.
#[derive(Debug)]
pub struct Writer {
    origin: Origin,
    block: OpenBlock,
    page: PageBuilder,
    current: Option<Partition>,
    next: Offset,
    index: Index,
    chunk: Vec<u8>,
}

/// What follows the blocks, once they are placed: the index of everything pushed.
#[derive(Debug)]
#[must_use]
pub struct Index {
    pub(crate) origin: Origin,
    pub(crate) chunks: Vec<Bytes>,
    /// Bytes of the chunks; positions of the pages count from the first of them.
    pub(crate) bytes: u64,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) blocks: u32,
    pub(crate) batches: u64,
    pub(crate) records: u64,
}

/// The block being filled.
#[derive(Debug, Default)]
struct OpenBlock {
    /// Large batches, but for their headers, as they came, and what is between them.
    pieces: Vec<Bytes>,
    /// Behind them.
    small: Vec<u8>,
    bytes: usize,
    plain_bytes: usize,
}

/// Bytes of a batch from which on it is not copied into its block.
const PIECE_BYTES_MIN: usize = 16 << 10;

impl Writer {
    /// A writer of the segment that `origin` names.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        Self {
            index: Index {
                origin: origin.clone(),
                chunks: Vec::new(),
                bytes: 0,
                partitions: Vec::new(),
                blocks: 0,
                batches: 0,
                records: 0,
            },
            origin,
            block: OpenBlock::default(),
            page: PageBuilder::default(),
            current: None,
            next: Offset::ZERO,
            chunk: Vec::new(),
        }
    }

    /// Begins a partition. Its batches follow, without a gap, from `facts.start` on.
    ///
    /// # Errors
    /// [`Error::Full`] above [`SEGMENT_RANGES_MAX`] partitions.
    ///
    /// # Panics
    /// If partitions do not ascend, the last one got no batch, or a producer's window is larger
    /// than its limits: defects of the caller.
    pub fn begin(&mut self, facts: PartitionFacts) -> Result<(), Error> {
        self.end_partition();
        let last = self.index.partitions.last();
        assert!(
            last.is_none_or(|last| last.id < facts.id),
            "partition {} does not come after the last one",
            facts.id
        );
        assert!(
            facts.producers.len() <= PRODUCERS_PER_PARTITION_MAX
                && facts
                    .producers
                    .iter()
                    .all(|p| p.marks.len() <= PRODUCER_WINDOW)
                && facts.producers.is_sorted_by(|a, b| a.id < b.id),
            "producers of partition {} are out of order or too many",
            facts.id
        );
        if self.index.partitions.len() == SEGMENT_RANGES_MAX {
            return Err(self.full("partitions", SEGMENT_RANGES_MAX));
        }
        self.next = facts.start;
        self.current = Some(Partition {
            id: facts.id,
            topic: facts.topic,
            range: OffsetRange::new(facts.start, facts.start).expect("an empty range"),
            log_start: facts.log_start,
            fencing: facts.fencing,
            epochs: Vec::new(),
            producers: facts.producers,
            pages: Vec::new(),
        });
        Ok(())
    }

    /// Puts `batch` into the current block, patched as `placement` says, and indexes it; of a large one only
    /// the header is copied. The block before comes back when this one had to begin.
    ///
    /// # Errors
    /// [`Error::Full`] above [`SEGMENT_BATCHES_MAX`] batches or [`SEGMENT_BLOCKS_MAX`] blocks; the
    /// writer is as it was.
    ///
    /// # Panics
    /// If no partition was begun, the offset is not the next one, the epoch goes back or the
    /// extensions pass their limit: defects of the caller.
    pub fn push(
        &mut self,
        batch: &Batch,
        placement: &Placement,
    ) -> Result<Option<RawBlock>, Error> {
        let header = batch.header();
        assert!(
            placement.offset == self.next,
            "offset {} was pushed where {} comes next",
            placement.offset,
            self.next
        );
        if self.index.batches == SEGMENT_BATCHES_MAX as u64 {
            return Err(self.full("batches", SEGMENT_BATCHES_MAX));
        }
        let fits = self.block.bytes + header.bytes <= BLOCK_BYTES;
        let cut = !fits && self.block.bytes > 0;
        if cut && self.index.blocks as usize + 1 == SEGMENT_BLOCKS_MAX {
            return Err(self.full("blocks", SEGMENT_BLOCKS_MAX));
        }
        let done = if cut { self.cut_block() } else { None };
        let position = self.block.push(batch, placement);
        let number = BlockNumber(self.index.blocks);
        self.enter_epoch(placement.leader_epoch, placement.offset);
        let entry = PageBuilder::entry(placement, header, number, position);
        let current = self.current.as_mut().expect("a partition was begun");
        let range_start = current.range.start();
        self.next = placement
            .offset
            .checked_add(header.records.into())
            .expect("the shard gives no offsets past the last one");
        current.range = OffsetRange::new(range_start, self.next).expect("offsets ascend");
        if let Some(page) = self.page.push(&entry, range_start) {
            self.add_page(page);
        }
        self.index.batches += 1;
        self.index.records += u64::from(header.records);
        Ok(done)
    }

    /// Ends the segment: the last block, and the index for [`crate::Assembler::finish`].
    ///
    /// # Errors
    /// [`Error::Empty`].
    ///
    /// # Panics
    /// If the last partition got no batch.
    pub fn finish(mut self) -> Result<(RawBlock, Index), Error> {
        self.end_partition();
        let Some(last) = self.cut_block() else {
            return Err(Error::Empty {
                segment: self.origin.segment,
            });
        };
        if !self.chunk.is_empty() {
            self.index.chunks.push(self.chunk.into());
        }
        Ok((last, self.index))
    }

    fn cut_block(&mut self) -> Option<RawBlock> {
        let mut block = std::mem::take(&mut self.block);
        if block.bytes == 0 {
            return None;
        }
        block.end_piece();
        let number = BlockNumber(self.index.blocks);
        self.index.blocks += 1;
        Some(RawBlock {
            segment: self.origin.segment,
            number,
            plain: block.plain_bytes * 2 >= block.bytes,
            bytes: block.bytes,
            pieces: block.pieces,
        })
    }

    fn enter_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        let current = self.current.as_mut().expect("a partition was begun");
        enter_epoch(&mut current.epochs, epoch, start);
    }

    fn end_partition(&mut self) {
        let Some(_) = self.current else { return };
        if let Some(page) = self.page.cut() {
            self.add_page(page);
        }
        let Some(partition) = self.current.take() else {
            return;
        };
        assert!(
            !partition.range.is_empty(),
            "partition {} was begun and got no batch",
            partition.id
        );
        self.index.partitions.push(partition);
    }

    fn add_page(&mut self, (bytes, mut place): (Vec<u8>, IndexPageRef)) {
        place.position = self.index.bytes;
        self.index.bytes += bytes.len() as u64;
        let current = self.current.as_mut().expect("a partition was begun");
        current.pages.push(place);
        self.chunk.extend_from_slice(&bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            let chunk = std::mem::take(&mut self.chunk);
            self.index.chunks.push(chunk.into());
        }
    }

    fn full(&self, what: &'static str, limit: usize) -> Error {
        Error::Full {
            segment: self.origin.segment,
            what,
            limit,
        }
    }
}

/// Notes that `start` was written under `epoch`, and forgets the oldest epoch beyond the limit.
///
/// # Panics
/// If the epoch goes back.
pub(crate) fn enter_epoch(epochs: &mut Vec<EpochStart>, epoch: LeaderEpoch, start: Offset) {
    let last = epochs.last().map(|last| last.epoch);
    if last == Some(epoch) {
        return;
    }
    assert!(last < Some(epoch), "leader epoch went back to {epoch}");
    if epochs.len() == LEADER_EPOCHS_PER_PARTITION_MAX {
        epochs.remove(0);
    }
    epochs.push(EpochStart { epoch, start });
}

impl OpenBlock {
    /// Where the batch begins.
    fn push(&mut self, batch: &Batch, placement: &Placement) -> usize {
        let (position, bytes) = (self.bytes, batch.bytes());
        let copied = match bytes.len() < PIECE_BYTES_MIN {
            true => bytes.len(),
            false => HEADER_BYTES,
        };
        let from = self.small.len();
        self.small.extend_from_slice(&bytes[..copied]);
        let front = &mut self.small[from..];
        esker_record::patch_front(front, placement.offset, placement.leader_epoch);
        if copied < bytes.len() {
            self.end_piece();
            self.pieces.push(bytes.slice(copied..));
        }
        self.bytes += bytes.len();
        if batch.header().attributes.codec() == Codec::None {
            self.plain_bytes += bytes.len();
        }
        position
    }

    fn end_piece(&mut self) {
        if !self.small.is_empty() {
            // It grew by doubling, and is kept until the segment is in the bucket.
            self.small.shrink_to_fit();
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
    }
}
