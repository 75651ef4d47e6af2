//! Goes through a whole object, recomputes everything and believes nothing.
//!
//! Reads each byte once: the directory page by page, of each partition the index page by page, of
//! each entry the block. Those are three streams, each in ascending order, so a caller reads ahead
//! on each; and memory holds one part of each at a time.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use crc_fast::Digest;
use esker_record::codec::Decoder;
use esker_record::{Batch, Scratch, content_hash};
use esker_types::limits::BLOCK_BYTES;
use esker_types::{ContentHash, OffsetRange, PartitionId};

use crate::assembler::{Checksum, crc64};
use crate::block::BlockNumber;
use crate::error::{Error, Fault, Part};
use crate::facts::EpochStart;
use crate::fields::agree;
use crate::index::Entry;
use crate::partition::Partition;
use crate::segment::Segment;
use crate::trailer::{HEADER_BYTES, TRAILER_BYTES, Trailer, header};
use crate::writer::enter_epoch;

/// How far the check goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Every checksum, length, count and order, down to the batches' own CRCs.
    Checksums,
    /// Also decodes every batch and recomputes its content hash.
    Content,
}

/// What was found, all of it right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Bytes of the object.
    pub length: u64,
    /// Checksum of the object, to be compared with the manifest's.
    pub checksum: Checksum,
    /// Batches seen.
    pub batches: u64,
    /// Records seen.
    pub records: u64,
    /// Content hashes recomputed; those that stand for a checksum are compared with it only.
    pub hashes: u64,
    /// Partitions and their offsets, to be compared with the manifest's.
    pub ranges: Vec<(PartitionId, OffsetRange)>,
}

/// A verification under way.
#[derive(Debug)]
pub struct Verifier {
    segment: Segment,
    depth: Depth,
    decoder: Decoder,
    scratch: Scratch,
    step: Step,
    /// Streams of the object, in the order in which they lie there.
    blocks: Stream,
    index: Stream,
    directory: Stream,
    end: Stream,
    pages_begun: usize,
    partitions: VecDeque<Partition>,
    current: Option<InPartition>,
    block: OpenBlock,
    found: Verified,
}

/// What is wanted next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Header,
    Directory(usize),
    Index(usize),
    Block(BlockNumber),
    End,
    Done,
}

/// A run of parts without a gap.
#[derive(Debug)]
struct Stream {
    position: u64,
    checksum: Digest,
}

#[derive(Debug)]
struct InPartition {
    partition: Partition,
    pages_begun: usize,
    entries: VecDeque<Entry>,
    epochs: Vec<EpochStart>,
}

/// The block whose batches are being compared, and how far.
#[derive(Debug, Default)]
struct OpenBlock {
    opened: u32,
    bytes: Bytes,
    compared: usize,
}

impl Verifier {
    /// Verifies an opened segment.
    #[must_use]
    pub fn new(segment: Segment, depth: Depth) -> Self {
        let region = segment.footer.index_region();
        let stream = |position| Stream {
            position,
            checksum: crc64(),
        };
        Self {
            depth,
            decoder: Decoder::new(),
            scratch: Scratch::new(2 * BLOCK_BYTES),
            step: Step::Header,
            blocks: stream(0),
            index: stream(region.start),
            directory: stream(region.end),
            end: stream(segment.trailer.footer_position),
            pages_begun: 0,
            partitions: VecDeque::new(),
            current: None,
            block: OpenBlock::default(),
            found: Verified {
                length: segment.length(),
                checksum: Checksum(0),
                batches: 0,
                records: 0,
                hashes: 0,
                ranges: Vec::new(),
            },
            segment,
        }
    }

    /// The bytes of the object to read next; `None` when it is through.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        let footer = &self.segment.footer;
        Some(match self.step {
            Step::Header => 0..HEADER_BYTES as u64,
            Step::Directory(at) => footer.directory[at].position..footer.directory[at].end(),
            Step::Index(at) => {
                let page = &self.current.as_ref()?.partition.pages[at];
                page.position..page.end()
            }
            Step::Block(number) => {
                let block = footer.blocks.get(number.0 as usize)?;
                block.position..block.end()
            }
            Step::End => self.segment.trailer.footer_position..self.segment.length(),
            Step::Done => return None,
        })
    }

    /// Takes exactly the bytes that [`Verifier::wants`] named.
    ///
    /// # Errors
    /// [`Error::Damaged`] at the first thing that is wrong; the verification is over then.
    pub fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        let wants = self.wants().unwrap_or(0..0);
        let expected = wants.end - wants.start;
        agree("bytes of the answer", bytes.len() as u64, expected)
            .map_err(|fault| self.damaged(Part::Object, fault))?;
        match self.step {
            Step::Header => self.take_header(&bytes)?,
            Step::Directory(at) => self.take_directory(at, &bytes)?,
            Step::Index(at) => self.take_index(at, &bytes)?,
            Step::Block(number) => self.take_block(number, bytes)?,
            Step::End => return self.take_end(&bytes),
            Step::Done => return Ok(()),
        }
        self.advance()
    }

    /// What was found.
    ///
    /// # Panics
    /// If something is still wanted, or `take` has failed: a defect of the caller.
    #[must_use]
    pub fn finish(self) -> Verified {
        assert!(
            self.step == Step::Done,
            "a verification was finished before its end"
        );
        self.found
    }

    fn take_header(&mut self, bytes: &Bytes) -> Result<(), Error> {
        self.blocks.add(0, bytes);
        if bytes[..] != header() {
            return Err(self.damaged(Part::Header, Fault::Magic));
        }
        Ok(())
    }

    fn take_directory(&mut self, at: usize, bytes: &Bytes) -> Result<(), Error> {
        let place = self.segment.footer.directory[at];
        // The footer was refused unless its pages follow each other up to it.
        self.directory.add(place.position, bytes);
        let page = self.segment.decode_directory_page(&place, bytes)?;
        self.partitions = page.into_partitions().into();
        Ok(())
    }

    fn take_index(&mut self, at: usize, bytes: &Bytes) -> Result<(), Error> {
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        let place = current.partition.pages[at];
        let position = place.position;
        if position != self.index.position {
            let fault = Fault::Mismatch {
                of: "position",
                found: position,
                expected: self.index.position,
            };
            return Err(self.damaged(Part::IndexPage { position }, fault));
        }
        self.index.add(position, bytes);
        let page = self
            .segment
            .decode_index_page(&current.partition, &place, bytes)?;
        current.entries = page.into_entries().into();
        Ok(())
    }

    fn take_block(&mut self, number: BlockNumber, bytes: Bytes) -> Result<(), Error> {
        let position = self.segment.footer.blocks[number.0 as usize].position;
        self.blocks.add(position, &bytes);
        let raw = self
            .segment
            .decode_block(number, bytes, &mut self.decoder)
            .map_err(|error| self.touching(error))?;
        self.block = OpenBlock {
            opened: number.0 + 1,
            bytes: raw,
            compared: 0,
        };
        Ok(())
    }

    /// Footer and trailer once more, and what is known of the whole only now.
    fn take_end(&mut self, bytes: &Bytes) -> Result<(), Error> {
        let (footer, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        self.end.add(self.end.position, footer);
        let again = Trailer::decode(trailer, self.segment.id(), self.segment.length())?;
        if again != self.segment.trailer {
            return Err(self.damaged(Part::Trailer, Fault::Magic));
        }
        let mut whole = crc64();
        for stream in [&self.blocks, &self.index, &self.directory, &self.end] {
            whole.combine(&stream.checksum);
        }
        let (declared, computed) = (again.body_checksum, whole.finalize());
        if declared != computed {
            let fault = Fault::Checksum { declared, computed };
            return Err(self.damaged(Part::Object, fault));
        }
        whole.update(trailer);
        self.found.checksum = Checksum(whole.finalize());
        self.compare_totals()
            .map_err(|fault| self.damaged(Part::Object, fault))?;
        self.step = Step::Done;
        Ok(())
    }

    fn compare_totals(&self) -> Result<(), Fault> {
        let footer = &self.segment.footer;
        agree("batches", self.found.batches, footer.batches)?;
        agree("records", self.found.records, footer.records)?;
        let opened = u64::from(self.block.opened);
        agree("blocks with batches", opened, footer.blocks.len() as u64)?;
        let region = footer.index_region();
        agree("end of the blocks", self.blocks.position, region.start)?;
        agree("end of the index", self.index.position, region.end)?;
        let left = self.block.bytes.len() - self.block.compared;
        agree(
            "bytes of the last block that no entry names",
            left as u64,
            0,
        )
    }

    /// Goes on with what is here until something is wanted.
    fn advance(&mut self) -> Result<(), Error> {
        loop {
            if let Some(entry) = self.next_entry() {
                if let Some(block) = self.block_of(&entry)? {
                    self.step = Step::Block(block);
                    return Ok(());
                }
                self.compare(&entry)?;
            } else if let Some(at) = self.next_index_page() {
                self.step = Step::Index(at);
                return Ok(());
            } else if self.current.is_some() {
                self.end_partition()?;
            } else if let Some(partition) = self.partitions.pop_front() {
                self.current = Some(InPartition {
                    partition,
                    pages_begun: 0,
                    entries: VecDeque::new(),
                    epochs: Vec::new(),
                });
            } else if self.pages_begun < self.segment.footer.directory.len() {
                self.step = Step::Directory(self.pages_begun);
                self.pages_begun += 1;
                return Ok(());
            } else {
                self.step = Step::End;
                return Ok(());
            }
        }
    }

    fn next_entry(&self) -> Option<Entry> {
        self.current.as_ref()?.entries.front().cloned()
    }

    fn next_index_page(&mut self) -> Option<usize> {
        let current = self.current.as_mut()?;
        let at = current.pages_begun;
        (at < current.partition.pages.len()).then(|| {
            current.pages_begun += 1;
            at
        })
    }

    /// The block to read before `entry` can be compared. Entries follow each other byte for byte.
    fn block_of(&self, entry: &Entry) -> Result<Option<BlockNumber>, Error> {
        let through = self.block.compared == self.block.bytes.len();
        let (number, position, next) = if through {
            (self.block.opened, 0, Some(BlockNumber(self.block.opened)))
        } else {
            (self.block.opened - 1, self.block.compared as u64, None)
        };
        agree("block", entry.block.0.into(), number.into())
            .and_then(|()| agree("position", entry.position.into(), position))
            .map_err(|fault| self.touching(self.damaged(batch_part(entry), fault)))?;
        Ok(next)
    }

    fn compare(&mut self, entry: &Entry) -> Result<(), Error> {
        let Some(current) = self.current.as_mut() else {
            return Ok(());
        };
        current.entries.pop_front();
        let id = current.partition.id;
        let batch = self.segment.batch(id, entry, &self.block.bytes)?;
        let checked = compare_epoch(&mut current.epochs, &batch)
            .and_then(|()| compare_hash(self.depth, entry, &batch, &mut self.scratch));
        match checked {
            Ok(hashed) => self.found.hashes += u64::from(hashed),
            Err(fault) => {
                let error = self.damaged(batch_part(entry), fault);
                return Err(error.touching(id, entry.range()));
            }
        }
        self.block.compared += entry.bytes as usize;
        self.found.batches += 1;
        self.found.records += u64::from(entry.records);
        Ok(())
    }

    fn end_partition(&mut self) -> Result<(), Error> {
        let Some(done) = self.current.take() else {
            return Ok(());
        };
        let partition = done.partition;
        if done.epochs != partition.epochs {
            let position = self.segment.footer.directory[self.pages_begun - 1].position;
            let fault = Fault::Mismatch {
                of: "leader epochs",
                found: partition.epochs.len() as u64,
                expected: done.epochs.len() as u64,
            };
            return Err(self
                .damaged(Part::DirectoryPage { position }, fault)
                .touching(partition.id, partition.range));
        }
        self.found.ranges.push((partition.id, partition.range));
        Ok(())
    }

    fn damaged(&self, part: Part, fault: Fault) -> Error {
        self.segment.damaged(part, fault)
    }

    /// Adds what the current partition still had to get from here on.
    fn touching(&self, error: Error) -> Error {
        let Some(current) = &self.current else {
            return error;
        };
        let from = current.entries.front().map(|entry| entry.offset);
        let range = from.and_then(|from| OffsetRange::new(from, current.partition.range.end()));
        error.touching(
            current.partition.id,
            range.unwrap_or(current.partition.range),
        )
    }
}

impl Stream {
    fn add(&mut self, position: u64, bytes: &[u8]) {
        debug_assert_eq!(
            position, self.position,
            "parts of a stream follow each other"
        );
        self.checksum.update(bytes);
        self.position = position + bytes.len() as u64;
    }
}

fn batch_part(entry: &Entry) -> Part {
    Part::Batch {
        block: entry.block,
        position: entry.position,
    }
}

fn compare_epoch(epochs: &mut Vec<EpochStart>, batch: &Batch) -> Result<(), Fault> {
    let header = batch.header();
    let last = epochs.last().map(|last| last.epoch);
    match header.leader_epoch {
        Some(epoch) if last <= Some(epoch) => {
            enter_epoch(epochs, epoch, header.base_offset);
            Ok(())
        }
        epoch => Err(Fault::Value {
            of: "leader epoch",
            found: epoch.map_or(u64::MAX, |epoch| epoch.0.into()),
        }),
    }
}

/// Whether a hash of content was recomputed.
fn compare_hash(
    depth: Depth,
    entry: &Entry,
    batch: &Batch,
    scratch: &mut Scratch,
) -> Result<bool, Fault> {
    if let Some(crc) = entry.hash.as_checksum() {
        agree("checksum in place of a hash", crc.into(), entry.crc.into())?;
        return Ok(false);
    }
    if depth == Depth::Checksums {
        return Ok(false);
    }
    let plain = scratch.decode(batch)?;
    let ContentHash(computed) = content_hash(batch.header(), &plain);
    let upper = |hash: u128| u64::try_from(hash >> 64).expect("64 bits are left");
    if computed != entry.hash.0 {
        return Err(Fault::Mismatch {
            of: "content hash (upper half)",
            found: upper(computed),
            expected: upper(entry.hash.0),
        });
    }
    Ok(true)
}
