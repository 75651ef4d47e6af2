//! The directory: the partitions of a segment, ascending, in pages.
//!
//! ```text
//!   page   topics u32 × { id u64 │ name bytes u16 │ name │ partitions u32 × partition }
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes};
use esker_types::limits::{DIRECTORY_PAGE_BYTES, DIRECTORY_PAGE_BYTES_MAX, SEGMENT_RANGES_MAX};
use esker_types::{PartitionId, PartitionIndex, TopicId, TopicName};

use crate::error::Fault;
use crate::fields::{Fields, agree, check_crc, narrow};
use crate::partition::{PARTITION_BYTES_MIN, Partition};

/// Bytes of a topic without its name and partitions.
const TOPIC_BYTES_MIN: usize = 14;

/// Where a page of the directory is, and which partitions it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryPageRef {
    /// Byte of the object.
    pub position: u64,
    /// Its bytes.
    pub bytes: u32,
    /// CRC-32C of them.
    pub crc: u32,
    /// Its first partition.
    pub first: PartitionId,
    /// How many it holds.
    pub partitions: u32,
}

impl DirectoryPageRef {
    /// Bytes of it in the footer.
    pub(crate) const BYTES: usize = 32;

    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.position + self.bytes as u64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.position);
        out.put_u32_le(self.bytes);
        out.put_u32_le(self.crc);
        out.put_u64_le(self.first.topic.as_u64());
        out.put_u32_le(self.first.index.0);
        out.put_u32_le(self.partitions);
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let page = Self {
            position: fields.u64()?,
            bytes: fields.u32()?,
            crc: fields.u32()?,
            first: PartitionId {
                topic: decode_topic_id(fields)?,
                index: PartitionIndex(fields.u32()?),
            },
            partitions: fields.u32()?,
        };
        let bytes = page.bytes as usize;
        if bytes == 0 || bytes > DIRECTORY_PAGE_BYTES_MAX {
            return Err(Fault::TooMany {
                of: "bytes of a directory page",
                declared: page.bytes.into(),
                limit: DIRECTORY_PAGE_BYTES_MAX as u64,
            });
        }
        Ok(page)
    }
}

/// A page of the directory, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryPage {
    partitions: Vec<Partition>,
}

impl DirectoryPage {
    pub(crate) fn decode(
        bytes: &[u8],
        page: &DirectoryPageRef,
        index_region: &Range<u64>,
    ) -> Result<Self, Fault> {
        agree("page bytes", bytes.len() as u64, page.bytes.into())?;
        check_crc(bytes, page.crc)?;
        let mut fields = Fields::new(bytes);
        let mut partitions: Vec<Partition> = Vec::new();
        for _ in 0..fields.count("topics", SEGMENT_RANGES_MAX, TOPIC_BYTES_MIN)? {
            let topic = decode_topic_id(&mut fields)?;
            let name = decode_name(&mut fields)?;
            for _ in 0..fields.count("partitions", SEGMENT_RANGES_MAX, PARTITION_BYTES_MIN)? {
                let partition = Partition::decode(&mut fields, topic, &name, index_region)?;
                if partitions
                    .last()
                    .is_some_and(|last| last.id >= partition.id)
                {
                    return Err(Fault::Value {
                        of: "order of a partition",
                        found: partition.id.index.0.into(),
                    });
                }
                partitions.push(partition);
            }
        }
        fields.end()?;
        agree(
            "partitions",
            partitions.len() as u64,
            page.partitions.into(),
        )?;
        let first = partitions.first().map(|partition| partition.id);
        if first != Some(page.first) {
            return Err(Fault::Value {
                of: "first partition of the page",
                found: page.first.index.0.into(),
            });
        }
        Ok(Self { partitions })
    }

    /// Its partitions, ascending.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Gives the partitions away.
    #[must_use]
    pub fn into_partitions(self) -> Vec<Partition> {
        self.partitions
    }

    /// The partition `id`, if it is on this page.
    #[must_use]
    pub fn find(&self, id: PartitionId) -> Option<&Partition> {
        let at = self
            .partitions
            .binary_search_by_key(&id, |partition| partition.id)
            .ok()?;
        self.partitions.get(at)
    }
}

/// Writes `partitions`, whose index pages are placed, as pages from `position` on.
pub(crate) fn encode_pages(
    partitions: &[Partition],
    mut position: u64,
) -> Vec<(Bytes, DirectoryPageRef)> {
    let mut pages = Vec::new();
    let mut open = PageBuilder::default();
    let mut one = Vec::new();
    for partition in partitions {
        one.clear();
        partition.encode(&mut one);
        if let Some(page) = open.cut_before(one.len(), position) {
            position = page.1.end();
            pages.push(page);
        }
        open.push(partition, &one);
    }
    pages.extend(open.cut(position));
    pages
}

#[derive(Default)]
struct PageBuilder {
    bytes: Vec<u8>,
    topics: u32,
    /// The topic being listed, and where its count of partitions stands.
    topic: Option<(TopicId, usize, u32)>,
    first: Option<PartitionId>,
    partitions: u32,
}

impl PageBuilder {
    fn cut_before(&mut self, bytes: usize, position: u64) -> Option<(Bytes, DirectoryPageRef)> {
        let full = self.bytes.len() + bytes > DIRECTORY_PAGE_BYTES;
        if full { self.cut(position) } else { None }
    }

    fn push(&mut self, partition: &Partition, encoded: &[u8]) {
        if self.partitions == 0 {
            self.bytes.put_u32_le(0);
            self.first = Some(partition.id);
        }
        let same = self.topic.filter(|(id, ..)| *id == partition.id.topic);
        let (id, at, count) = same.unwrap_or_else(|| self.open_topic(partition));
        self.bytes.extend_from_slice(encoded);
        self.bytes[at..at + 4].copy_from_slice(&(count + 1).to_le_bytes());
        self.topic = Some((id, at, count + 1));
        self.partitions += 1;
    }

    fn open_topic(&mut self, partition: &Partition) -> (TopicId, usize, u32) {
        let name = partition.topic.as_str();
        let bytes = u16::try_from(name.len()).expect("a topic name is at most 249 bytes");
        self.bytes.put_u64_le(partition.id.topic.as_u64());
        self.bytes.put_u16_le(bytes);
        self.bytes.put_slice(name.as_bytes());
        let at = self.bytes.len();
        self.bytes.put_u32_le(0);
        self.topics += 1;
        (partition.id.topic, at, 0)
    }

    fn cut(&mut self, position: u64) -> Option<(Bytes, DirectoryPageRef)> {
        let mut page = std::mem::take(self);
        let first = page.first?;
        page.bytes[..4].copy_from_slice(&page.topics.to_le_bytes());
        assert!(
            page.bytes.len() <= DIRECTORY_PAGE_BYTES_MAX,
            "a partition's share of a page is bounded by the limits of what it holds"
        );
        let place = DirectoryPageRef {
            position,
            bytes: narrow(page.bytes.len()),
            crc: crc_fast::crc32_iscsi(&page.bytes),
            first,
            partitions: page.partitions,
        };
        Some((page.bytes.into(), place))
    }
}

pub(crate) fn decode_topic_id(fields: &mut Fields<'_>) -> Result<TopicId, Fault> {
    let found = fields.u64()?;
    let of = "topic id";
    TopicId::from_u64(found).ok_or(Fault::Value { of, found })
}

fn decode_name(fields: &mut Fields<'_>) -> Result<TopicName, Fault> {
    let bytes = fields.u16()?;
    let raw = fields.take(bytes.into())?;
    let text = std::str::from_utf8(raw).map_err(|error| Fault::Value {
        of: "byte of a topic name that is no UTF-8",
        found: error.valid_up_to() as u64,
    })?;
    Ok(TopicName::new(text)?)
}
