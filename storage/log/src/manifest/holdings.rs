//! What is remembered of segments so that an offset or a time is found without opening them again:
//! which offsets of a partition they hold, if any, and the latest record among them. Segments never
//! change, so it is never wrong; what is forgotten is looked up anew.
//!
//! Nothing that the manifest knows would do instead: when a segment was written bounds no time that
//! a producer gave its records.

use std::sync::Arc;

use esker_segment::Partition;
use esker_types::limits::HOLDINGS_REMEMBERED_MAX;
use esker_types::{OffsetRange, PartitionId, SegmentId, Timestamp};
use quick_cache::sync::Cache;

/// What a segment holds of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) range: OffsetRange,
    /// The largest timestamp of its records.
    pub(super) latest: Timestamp,
}

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    held: Arc<Cache<(PartitionId, SegmentId), Option<Held>>>,
}

impl Holdings {
    pub(super) fn new() -> Self {
        Self {
            held: Arc::new(Cache::new(HOLDINGS_REMEMBERED_MAX)),
        }
    }

    /// `None` if it is not remembered; `Some(None)` if the segment holds nothing of the partition.
    pub(super) fn get(&self, partition: PartitionId, segment: SegmentId) -> Option<Option<Held>> {
        self.held.get(&(partition, segment))
    }

    pub(super) fn nothing(&self, partition: PartitionId, segment: SegmentId) {
        self.held.insert((partition, segment), None);
    }

    pub(super) fn remember(&self, segment: SegmentId, of_it: &Partition) {
        let held = Some(Held::of(of_it));
        self.held.insert((of_it.id, segment), held);
    }
}

impl Held {
    pub(super) fn of(partition: &Partition) -> Self {
        let latest = partition.pages.iter().map(|page| page.max_timestamp).max();
        Self {
            range: partition.range,
            latest: latest.unwrap_or(Timestamp(i64::MIN)),
        }
    }
}
