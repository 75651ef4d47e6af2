//! Blocks of a segment, fetched a run at a time, and the batches in them.

use std::sync::Arc;

use bytes::Bytes;
use esker_env::WorkersExt;
use esker_record::Codec;
use esker_record::codec::Decoder;
use esker_segment::{BlockNumber, Entry, Segment};
use esker_types::limits::{MIB, READ_RUN_BYTES_MAX};
use esker_types::{Offset, OffsetRange};

use super::bucket::{Share, damaged};
use super::read::Plan;
use crate::error::{Code, Error};
use crate::reader::batch::{Batch, Scratches, Wrapped};

/// Decoded bytes, about, of one run.
const RUN_DECODED_BYTES: usize = 8 * MIB;
/// What the batches of a block come to that came compressed, until it is known.
const EXPANSION: usize = 8;

/// What fetches a run and opens its batches.
pub(super) struct Load {
    pub(super) plan: Plan,
    pub(super) share: Share,
    pub(super) from: Offset,
    pub(super) scratches: Scratches,
}

impl Load {
    /// The batches of `blocks`.
    pub(super) async fn run(self, blocks: Blocks) -> Result<Vec<Batch>, Error> {
        let plan = self.plan.clone();
        match self.load(blocks).await {
            Ok(batches) => Ok(batches),
            Err(error) => Err(plan.or_trimmed_there(error).await),
        }
    }

    async fn load(self, blocks: Blocks) -> Result<Vec<Batch>, Error> {
        let open = &self.share.open;
        let first = blocks.first().map_or(BlockNumber(0), |(number, _)| *number);
        let last = blocks.last().map_or(first, |(number, _)| *number);
        let touched = blocks
            .first()
            .and_then(|(_, entries)| entries.first())
            .map_or(self.from, |entry| entry.offset);
        let span = open.segment.block_span(first..=last);
        let span = span.expect("an index page is refused if it names a block that is not there");
        let got = self.plan.bucket.get(&open.key, span.clone()).await;
        let stored = got.map_err(|error| match error.code() {
            Code::DataLoss => {
                let (to, key) = (self.plan.wanted.to, open.key.to_string());
                self.plan.lost(touched, to, &key, error.message())
            }
            _ => error,
        })?;
        let workers = Arc::clone(&self.plan.env.workers);
        workers
            .run(move || self.decode(&blocks, &stored, span.start))
            .await
    }

    fn decode(&self, blocks: &Blocks, stored: &Bytes, start: u64) -> Result<Vec<Batch>, Error> {
        let segment = &self.share.open.segment;
        let mut decoder = Decoder::default();
        let mut batches = Vec::new();
        for (number, entries) in blocks {
            let span = segment.block_span(*number..=*number);
            let span = span.expect("the run was made of this segment's blocks");
            let at = |position: u64| usize::try_from(position - start).expect("within a GET");
            let bytes = stored.slice(at(span.start)..at(span.end));
            let touched = entries.first().zip(entries.last());
            let touched = touched.map(|(first, last)| (first.offset, last.range().end()));
            let block = segment
                .decode_block(*number, bytes, &mut decoder)
                .map_err(|error| self.damaged(touched, damaged(&error).message()))?;
            for entry in entries {
                batches.push(self.batch(segment, entry, &block)?);
            }
        }
        Ok(batches)
    }

    fn batch(&self, segment: &Segment, entry: &Entry, block: &Bytes) -> Result<Batch, Error> {
        let of_entry = Some((entry.offset, entry.range().end()));
        let wanted = &self.plan.wanted;
        let batch = segment
            .batch(wanted.partition, entry, block)
            .map_err(|error| self.damaged(of_entry, damaged(&error).message()))?;
        let asked = OffsetRange::new(self.from, wanted.to).unwrap_or_default();
        let range = entry.range().intersect(asked).unwrap_or(entry.range());
        let wrapped = Wrapped {
            data: batch.into_bytes(),
            base: entry.offset,
            range,
            mark: wanted.mark,
            partition_end: wanted.to,
        };
        let opened = self.scratches.open(wrapped);
        opened.map_err(|error| self.damaged(of_entry, error.message()))
    }

    fn damaged(&self, touched: Option<(Offset, Offset)>, why: &str) -> Error {
        let (from, to) = touched.unwrap_or((self.from, self.plan.wanted.to));
        let key = self.share.open.key.to_string();
        self.plan.lost(from.max(self.from), to, &key, why)
    }
}

/// Blocks that lie side by side, with the entries wanted of each.
pub(super) type Blocks = Vec<(BlockNumber, Vec<Entry>)>;

/// What the records of a block come to, about.
pub(super) fn decoded(segment: &Segment, number: BlockNumber) -> usize {
    let block = &segment.blocks()[number.0 as usize];
    let raw = block.raw_bytes as usize;
    match block.codec {
        Codec::None => raw.saturating_mul(EXPANSION),
        _ => raw,
    }
}

/// Entries by block, both in order. A batch lies in one block.
pub(super) fn by_block(entries: impl Iterator<Item = Entry>) -> Blocks {
    let mut blocks = Blocks::new();
    for entry in entries {
        match blocks.last_mut() {
            Some((number, of_block)) if *number == entry.block => of_block.push(entry),
            _ => blocks.push((entry.block, vec![entry])),
        }
    }
    blocks
}

/// Joins neighbours into runs that one GET brings, within bytes stored and bytes decoded.
pub(super) fn runs(blocks: Blocks, segment: &Segment) -> Vec<Blocks> {
    let mut runs: Vec<Blocks> = Vec::new();
    let mut bytes = 0;
    for (number, entries) in blocks {
        let more = decoded(segment, number);
        if let Some(run) = runs.last_mut()
            && let Some((first, _)) = run.first()
            && let Some((last, _)) = run.last()
            && number.0 == last.0 + 1
            && bytes + more <= RUN_DECODED_BYTES
            && let Some(span) = segment.block_span(*first..=number)
            && span.end - span.start <= READ_RUN_BYTES_MAX as u64
        {
            run.push((number, entries));
            bytes += more;
        } else {
            runs.push(vec![(number, entries)]);
            bytes = more;
        }
    }
    runs
}
