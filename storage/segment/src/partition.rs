//! One partition's part of a segment: its range, its facts, and where its index is.
//!
//! ```text
//!   partition  number u32 │ start u64 │ end u64 │ log start u64 │ fenced u8 │ token u64
//!              │ epochs u32 × { epoch u32 │ start u64 }
//!              │ producers u32 × { id u64 │ epoch u16 │ last append u64 │ marks u16
//!                                  × { sequence u32 │ records u32 │ base offset u64 │ hash 16 } }
//!              │ pages u32 × { position u64 │ bytes u32 │ crc u32 │ first u64 │ entries u32
//!                              │ max timestamp i64 }
//! ```

use std::ops::Range;

use bytes::BufMut;
use esker_types::limits::{
    INDEX_PAGE_BYTES_MAX, LEADER_EPOCHS_PER_PARTITION_MAX, PRODUCER_WINDOW,
    PRODUCERS_PER_PARTITION_MAX, SEGMENT_BATCHES_MAX,
};
use esker_types::{
    FencingToken, LeaderEpoch, Offset, OffsetRange, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, ShardTime, Timestamp, TopicId, TopicName,
};

use crate::error::Fault;
use crate::facts::{EpochStart, Mark, ProducerWindow};
use crate::fields::{Fields, narrow};
use crate::index::IndexPageRef;

/// Bytes of a partition without epochs, producers and pages.
pub(crate) const PARTITION_BYTES_MIN: usize = 49;
const EPOCH_BYTES: usize = 12;
const PRODUCER_BYTES_MIN: usize = 20;

/// A partition's part of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Which.
    pub id: PartitionId,
    /// Its topic's name when the segment was written.
    pub topic: TopicName,
    /// The offsets it holds here, all of them.
    pub range: OffsetRange,
    /// Its log start when the segment was written.
    pub log_start: Offset,
    /// The highest fencing token it had accepted.
    pub fencing: Option<FencingToken>,
    /// Leader epochs in range, ascending; the last [`LEADER_EPOCHS_PER_PARTITION_MAX`] of them.
    pub epochs: Vec<EpochStart>,
    /// Windows of the producers with a batch in range, ascending by id.
    pub producers: Vec<ProducerWindow>,
    /// Pages of its index, in offset order.
    pub pages: Vec<IndexPageRef>,
}

impl Partition {
    /// The page whose entries hold `offset`; `None` outside the range.
    #[must_use]
    pub fn page_by_offset(&self, offset: Offset) -> Option<&IndexPageRef> {
        if !self.range.contains(offset) {
            return None;
        }
        let after = self.pages.partition_point(|page| page.first <= offset);
        self.pages.get(after.checked_sub(1)?)
    }

    /// Pages that may hold the first batch past `from` with a record at `time` or later, in the
    /// order in which to look: the first that has one ([`crate::IndexPage::by_time`]) decides.
    pub fn pages_by_time(
        &self,
        time: Timestamp,
        from: Offset,
    ) -> impl Iterator<Item = &IndexPageRef> {
        self.pages
            .iter()
            .enumerate()
            .filter(move |(at, page)| page.max_timestamp >= time && self.page_end(*at) > from)
            .map(|(_, page)| page)
    }

    /// The first offset after the page at `at` of [`Partition::pages`].
    pub(crate) fn page_end(&self, at: usize) -> Offset {
        self.pages
            .get(at + 1)
            .map_or(self.range.end(), |page| page.first)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.id.index.0);
        out.put_u64_le(self.range.start().get());
        out.put_u64_le(self.range.end().get());
        out.put_u64_le(self.log_start.get());
        out.put_u8(self.fencing.is_some().into());
        out.put_u64_le(self.fencing.map_or(0, |token| token.0));
        out.put_u32_le(narrow(self.epochs.len()));
        for epoch in &self.epochs {
            out.put_u32_le(epoch.epoch.0);
            out.put_u64_le(epoch.start.get());
        }
        out.put_u32_le(narrow(self.producers.len()));
        for producer in &self.producers {
            encode_producer(producer, out);
        }
        out.put_u32_le(narrow(self.pages.len()));
        for page in &self.pages {
            out.put_u64_le(page.position);
            out.put_u32_le(page.bytes);
            out.put_u32_le(page.crc);
            out.put_u64_le(page.first.since(self.range.start()));
            out.put_u32_le(page.entries);
            out.put_i64_le(page.max_timestamp.0);
        }
    }

    pub(crate) fn decode(
        fields: &mut Fields<'_>,
        topic: TopicId,
        name: &TopicName,
        index_region: &Range<u64>,
    ) -> Result<Self, Fault> {
        let index = PartitionIndex(fields.u32()?);
        let range = decode_range(fields)?;
        let log_start = fields.offset("log start")?;
        let fencing = decode_fencing(fields)?;
        let epochs = decode_epochs(fields, range)?;
        let producers = decode_producers(fields)?;
        let pages = decode_pages(fields, range, index_region)?;
        Ok(Self {
            id: PartitionId { topic, index },
            topic: name.clone(),
            range,
            log_start,
            fencing,
            epochs,
            producers,
            pages,
        })
    }
}

fn encode_producer(producer: &ProducerWindow, out: &mut Vec<u8>) {
    out.put_u64_le(producer.id.as_u64());
    out.put_i16_le(producer.epoch.as_i16());
    out.put_u64_le(producer.last_append.0);
    out.put_u16_le(u16::try_from(producer.marks.len()).expect("at most a window"));
    for mark in &producer.marks {
        out.put_i32_le(mark.sequence.as_i32());
        out.put_u32_le(mark.records);
        out.put_u64_le(mark.base_offset.get());
        out.put_slice(&mark.hash.0.to_be_bytes());
    }
}

fn decode_range(fields: &mut Fields<'_>) -> Result<OffsetRange, Fault> {
    let start = fields.offset("start")?;
    let end = fields.offset("end")?;
    let range = OffsetRange::new(start, end).filter(|range| !range.is_empty());
    range.ok_or(Fault::Value {
        of: "end of a range",
        found: end.get(),
    })
}

fn decode_fencing(fields: &mut Fields<'_>) -> Result<Option<FencingToken>, Fault> {
    let fenced = fields.u8()?;
    let token = fields.u64()?;
    match (fenced, token) {
        (0, 0) => Ok(None),
        (1, token) => Ok(Some(FencingToken(token))),
        (found, _) => Err(Fault::Value {
            of: "fencing mark",
            found: found.into(),
        }),
    }
}

fn decode_epochs(fields: &mut Fields<'_>, range: OffsetRange) -> Result<Vec<EpochStart>, Fault> {
    let count = fields.count(
        "leader epochs",
        LEADER_EPOCHS_PER_PARTITION_MAX,
        EPOCH_BYTES,
    )?;
    let mut epochs: Vec<EpochStart> = Vec::with_capacity(count);
    for _ in 0..count {
        let next = EpochStart {
            epoch: LeaderEpoch(fields.u32()?),
            start: fields.offset("start of a leader epoch")?,
        };
        let rises = epochs
            .last()
            .is_none_or(|last| last.epoch < next.epoch && last.start < next.start);
        if !rises || !range.contains(next.start) {
            return Err(Fault::Value {
                of: "start of a leader epoch",
                found: next.start.get(),
            });
        }
        epochs.push(next);
    }
    Ok(epochs)
}

fn decode_producers(fields: &mut Fields<'_>) -> Result<Vec<ProducerWindow>, Fault> {
    let limit = PRODUCERS_PER_PARTITION_MAX;
    let count = fields.count("producers", limit, PRODUCER_BYTES_MIN)?;
    let mut producers: Vec<ProducerWindow> = Vec::with_capacity(count);
    for _ in 0..count {
        let raw = fields.u64()?;
        let rises = producers.last().is_none_or(|last| last.id.as_u64() < raw);
        let Some(id) = ProducerId::from_u64(raw).filter(|_| rises) else {
            return Err(Fault::Value {
                of: "producer id",
                found: raw,
            });
        };
        let raw = fields.u16()?;
        let epoch = ProducerEpoch::from_i16(raw.cast_signed()).ok_or(Fault::Value {
            of: "producer epoch",
            found: raw.into(),
        })?;
        producers.push(ProducerWindow {
            id,
            epoch,
            last_append: ShardTime(fields.u64()?),
            marks: decode_marks(fields)?,
        });
    }
    Ok(producers)
}

fn decode_marks(fields: &mut Fields<'_>) -> Result<Vec<Mark>, Fault> {
    let count = usize::from(fields.u16()?);
    if count > PRODUCER_WINDOW {
        return Err(Fault::TooMany {
            of: "batches of a producer",
            declared: count as u64,
            limit: PRODUCER_WINDOW as u64,
        });
    }
    let mut marks = Vec::with_capacity(count);
    for _ in 0..count {
        let raw = fields.u32()?;
        let sequence = Sequence::from_i32(raw.cast_signed()).ok_or(Fault::Value {
            of: "sequence",
            found: raw.into(),
        })?;
        marks.push(Mark {
            sequence,
            records: fields.u32()?,
            base_offset: fields.offset("base offset of a producer's batch")?,
            hash: fields.hash()?,
        });
    }
    Ok(marks)
}

fn decode_pages(
    fields: &mut Fields<'_>,
    range: OffsetRange,
    region: &Range<u64>,
) -> Result<Vec<IndexPageRef>, Fault> {
    let count = fields.count("index pages", SEGMENT_BATCHES_MAX, IndexPageRef::BYTES)?;
    let mut pages: Vec<IndexPageRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let position = fields.u64()?;
        let bytes = fields.u32()?;
        let crc = fields.u32()?;
        let relative = fields.u64()?;
        let expected = pages.last().map(IndexPageRef::end);
        let end = position.checked_add(bytes.into());
        let placed = position >= region.start
            && end.is_some_and(|end| end <= region.end)
            && expected.is_none_or(|expected| expected == position)
            && bytes as usize <= INDEX_PAGE_BYTES_MAX;
        if !placed {
            return Err(Fault::Value {
                of: "position of an index page",
                found: position,
            });
        }
        let first = range.start().checked_add(relative);
        let rises = |first: &Offset| match pages.last() {
            None => relative == 0,
            Some(last) => last.first < *first,
        };
        let Some(first) = first.filter(|first| range.contains(*first) && rises(first)) else {
            return Err(Fault::Value {
                of: "first offset of an index page",
                found: relative,
            });
        };
        pages.push(IndexPageRef {
            position,
            bytes,
            crc,
            first,
            entries: fields.u32()?,
            max_timestamp: Timestamp(fields.i64()?),
        });
    }
    if pages.is_empty() {
        return Err(Fault::Value {
            of: "count of index pages",
            found: 0,
        });
    }
    Ok(pages)
}
