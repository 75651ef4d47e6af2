//! The manifest: segments that a command has committed, and nothing else.

use std::fmt;
use std::sync::Arc;

use esker_types::{
    Incarnation, OffsetRange, PartitionId, RaftIndex, RaftRange, SegmentId, ShardTime,
};
use imbl::OrdMap;
use xxhash_rust::xxh3::Xxh3;

use crate::codec::Writer;

/// Mixed segments by place.
pub(crate) type Manifest = OrdMap<SegmentPlace, Arc<MixedSegment>>;

/// Where a mixed segment stands among the others: by incarnation, then by raft index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentPlace {
    /// The incarnation that wrote it.
    pub incarnation: Incarnation,
    /// The index it begins after.
    pub from: RaftIndex,
}

/// A segment that mixes partitions of the shard. One entry whatever it holds: the ranges
/// themselves stay in its footer, their count and hash stand here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MixedSegment {
    /// Its id.
    pub segment: SegmentId,
    /// The incarnation that wrote it: its key begins with it.
    pub incarnation: Incarnation,
    /// The entries it covers.
    pub raft: RaftRange,
    /// Bytes of the object.
    pub length: u64,
    /// Checksum of the object.
    pub checksum: ObjectChecksum,
    /// Ranges in its footer.
    pub range_count: u32,
    /// Hash over them, as [`ranges_hash`] computes it.
    pub ranges_hash: RangesHash,
    /// Shard time of the newest append it held when it was committed; retention goes by it.
    pub newest: ShardTime,
    /// Payload bytes of its batches as they stood in the head.
    pub bytes: u64,
}

/// Checksum of a whole object, as the one who PUT it verified it. The state machine stores and
/// compares it, no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectChecksum(pub u64);

/// XXH3-128 over the ranges of a segment in canonical order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangesHash(pub u128);

/// The hash by which the manifest knows a segment's ranges: XXH3-128, seed 0, over topic id (u64),
/// partition (u32), start (u64) and end (u64) of each, little-endian, in canonical order.
#[must_use]
pub fn ranges_hash(ranges: &[(PartitionId, OffsetRange)]) -> RangesHash {
    let mut hash = Xxh3::new();
    for &(partition, range) in ranges {
        let mut bytes = Writer::default();
        bytes.partition(partition);
        bytes.range(range);
        hash.update(&bytes.into_inner());
    }
    RangesHash(hash.digest128())
}

/// The first partition at which `ranges` leave canonical order, if they do.
pub(crate) fn out_of_order(ranges: &[(PartitionId, OffsetRange)]) -> Option<PartitionId> {
    let empty = ranges.iter().find(|(_, range)| range.is_empty());
    let back = ranges
        .windows(2)
        .find(|pair| pair[0].0 >= pair[1].0)
        .map(|pair| pair[1].0);
    empty.map(|(partition, _)| *partition).or(back)
}

impl MixedSegment {
    /// Where it stands in the manifest.
    #[must_use]
    pub const fn place(&self) -> SegmentPlace {
        SegmentPlace {
            incarnation: self.incarnation,
            from: self.raft.from,
        }
    }
}

impl fmt::Display for ObjectChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
impl fmt::Debug for ObjectChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for RangesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for RangesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
