//! Which segments make up a partition's history, as far as this agent knows.
//!
//! A shard's manifest only grows at its end, except where dead segments are taken out: so what is
//! known is asked on from its end, and asked for anew when an object turns out to be gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use esker_shard::{MixedSegment, SegmentPlace};
use esker_types::limits::MANIFEST_PAGE;
use esker_types::{Lane, Offset, PartitionId, ShardId, Timestamp};

use crate::error::{HeadError, ReadError};
use crate::head::{Head, Mark};
use crate::segments::{Segments, Share};

/// Manifests of all shards. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Manifests {
    head: Arc<dyn Head>,
    segments: Segments,
    known: Arc<Mutex<BTreeMap<ShardId, Arc<Known>>>>,
}

/// A shard's segments as of a mark, in log order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) mark: Option<Mark>,
    pub(crate) segments: Vec<Arc<MixedSegment>>,
}

/// A segment of the manifest, and what it holds of the partition asked for.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its place in the manifest as it was known then: ask on from here.
    pub(crate) place: SegmentPlace,
    pub(crate) share: Share,
}

impl Manifests {
    pub(crate) fn new(head: Arc<dyn Head>, segments: Segments) -> Self {
        Self {
            head,
            segments,
            known: Arc::default(),
        }
    }

    /// The segments of `shard`, as of `at` or later.
    pub(crate) async fn known(&self, shard: ShardId, at: Mark) -> Result<Arc<Known>, HeadError> {
        let known = self.lock().get(&shard).cloned().unwrap_or_default();
        if known.mark.is_some_and(|mark| mark >= at) {
            return Ok(known);
        }
        self.grow(shard, Known::clone(&known)).await
    }

    /// The segments of `shard`, asked for anew.
    pub(crate) async fn reload(&self, shard: ShardId) -> Result<Arc<Known>, HeadError> {
        self.grow(shard, Known::default()).await
    }

    async fn grow(&self, shard: ShardId, mut known: Known) -> Result<Arc<Known>, HeadError> {
        loop {
            let after = known.segments.last().map(|segment| segment.place());
            let page = self.head.manifest(shard, after, MANIFEST_PAGE).await?;
            known.segments.extend(page.items.into_iter().map(Arc::new));
            if !page.more {
                known.mark = Some(page.mark);
                break;
            }
        }
        let known = Arc::new(known);
        let mut all = self.lock();
        let newest = all.entry(shard).or_default();
        // Two may have asked at once; what was asked for anew may be shorter and is right.
        if newest.mark <= known.mark {
            *newest = Arc::clone(&known);
        }
        Ok(known)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, Arc<Known>>> {
        // Whole manifests go in and out; whoever panicked left whole ones.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that holds `offset` of `partition`; `None` if none does.
    ///
    /// Offsets of a partition ascend with the places of its segments, so halving finds it; where
    /// the segment in the middle holds nothing of the partition, the nearest before it that does
    /// decides.
    pub(crate) async fn holding(
        &self,
        shard: ShardId,
        known: &Known,
        partition: PartitionId,
        offset: Offset,
        lane: Lane,
    ) -> Result<Option<Found>, ReadError> {
        let (mut low, mut high) = (0, known.segments.len());
        while low < high {
            let middle = low.midpoint(high);
            let mut at = middle;
            let found = loop {
                if let Some(found) = self
                    .look(shard, &known.segments[at], partition, lane)
                    .await?
                {
                    break Some(found);
                }
                if at == low {
                    break None;
                }
                at -= 1;
            };
            let Some(found) = found else {
                low = middle + 1;
                continue;
            };
            let range = found.share.partition().range;
            if range.contains(offset) {
                return Ok(Some(found));
            }
            if offset < range.start() {
                high = at;
            } else {
                low = middle + 1;
            }
        }
        Ok(None)
    }

    /// The first segment above `place` that holds something of `partition`.
    pub(crate) async fn after(
        &self,
        shard: ShardId,
        known: &Known,
        partition: PartitionId,
        place: SegmentPlace,
        lane: Lane,
    ) -> Result<Option<Found>, ReadError> {
        let from = known
            .segments
            .partition_point(|segment| segment.place() <= place);
        for segment in &known.segments[from..] {
            if let Some(found) = self.look(shard, segment, partition, lane).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first offset at `from` or above of a batch with a record of `time` or later, in any
    /// segment.
    pub(crate) async fn by_time(
        &self,
        shard: ShardId,
        known: &Known,
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    ) -> Result<Option<Offset>, ReadError> {
        let lane = Lane::Tail;
        for segment in &known.segments {
            let Some(found) = self.look(shard, segment, partition, lane).await? else {
                continue;
            };
            for place in found.share.partition().pages_by_time(time, from) {
                let page = self.segments.index_page(&found.share, place, lane).await?;
                if let Some(entry) = page.by_time(time, from) {
                    return Ok(Some(entry.offset.max(from)));
                }
            }
        }
        Ok(None)
    }

    async fn look(
        &self,
        shard: ShardId,
        segment: &MixedSegment,
        partition: PartitionId,
        lane: Lane,
    ) -> Result<Option<Found>, ReadError> {
        let opened = self.segments.open(shard, segment, lane).await?;
        let share = self.segments.share(&opened, partition, lane).await?;
        Ok(share.map(|share| Found {
            place: segment.place(),
            share,
        }))
    }
}
