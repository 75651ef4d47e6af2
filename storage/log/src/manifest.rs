//! Which segments make up a partition's history, as far as this agent knows.
//!
//! A shard's manifest only grows at its end, except where dead segments are taken out: so what is
//! known is asked on from its end, and asked for anew when there are fewer than are known, or when
//! an object turns out to be gone.

mod holdings; // what each segment holds of a partition, remembered
mod offsets; // which segment holds an offset

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use esker_shard::{MixedSegment, SegmentPlace};
use esker_types::limits::{MANIFEST_PAGE, TIME_LOOKS_IN_FLIGHT};
use esker_types::{Offset, ShardId, Timestamp};
use futures::future::join_all;

use crate::ahead::Wanted;
use crate::error::{HeadError, ReadError};
use crate::head::{Head, Mark};
use crate::segments::{Segments, Share};
use holdings::{Held, Holdings};

/// Manifests of all shards. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Manifests {
    head: Arc<dyn Head>,
    segments: Segments,
    known: Arc<Mutex<BTreeMap<ShardId, Arc<Known>>>>,
    holdings: Holdings,
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
            holdings: Holdings::new(),
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
        self.ask_on(shard, &mut known).await?;
        self.shrink(shard, &mut known).await?;
        let known = Arc::new(known);
        let mut all = self.lock();
        let newest = all.entry(shard).or_default();
        // Two may have asked at once; what was asked for anew may be shorter and is right.
        if newest.mark <= known.mark {
            *newest = Arc::clone(&known);
        }
        Ok(known)
    }

    /// Drops what the manifest has no more: what is dead is deleted some time after it was taken
    /// out, and to look for it costs a request each. What is taken out while this looks is dropped
    /// the next time.
    async fn shrink(&self, shard: ShardId, known: &mut Known) -> Result<(), HeadError> {
        let has_more = |known: &Known, count| known.segments.len() as u64 > count;
        let count = self.head.progress(shard).await?.segments;
        if !has_more(known, count) {
            return Ok(());
        }
        // The oldest go first, mostly.
        let first = self.head.manifest(shard, None, 1).await?.items.pop();
        let kept = |segment: &MixedSegment| {
            let first = first.as_ref().map(MixedSegment::place);
            first.is_some_and(|first| segment.place() >= first)
        };
        known.segments.retain(|segment| kept(segment));
        if !has_more(known, count) {
            return Ok(());
        }
        *known = Known::default();
        self.ask_on(shard, known).await
    }

    /// What follows the last that is known.
    async fn ask_on(&self, shard: ShardId, known: &mut Known) -> Result<(), HeadError> {
        loop {
            let after = known.segments.last().map(|segment| segment.place());
            let page = self.head.manifest(shard, after, MANIFEST_PAGE).await?;
            known.segments.extend(page.items.into_iter().map(Arc::new));
            if !page.more {
                known.mark = Some(page.mark);
                return Ok(());
            }
        }
    }

    /// Segments known of all shards.
    pub(crate) fn count(&self) -> usize {
        let known = self.lock();
        known.values().map(|known| known.segments.len()).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, Arc<Known>>> {
        // Whole manifests go in and out; whoever panicked left whole ones.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first offset at `wanted.from` or above of a batch with a record of `time` or later, in
    /// any segment that holds something below `wanted.to`. Opens each segment once for as long as
    /// its times are remembered, then only the one that has it.
    ///
    /// # Errors
    /// [`ReadError::Lost`] if a segment is lost that may hold an earlier one.
    pub(crate) async fn by_time(
        &self,
        known: &Known,
        wanted: &Wanted,
        time: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let (partition, from) = (wanted.partition, wanted.from);
        // Up to where it is known that nothing before `time` was missed.
        let (mut reached, mut lost) = (from, None);
        for segments in known.segments.chunks(TIME_LOOKS_IN_FLIGHT) {
            let looks = segments
                .iter()
                .map(|segment| self.held_of_topic(wanted, segment));
            for (segment, held) in segments.iter().zip(join_all(looks).await) {
                let held = match held {
                    Ok(Some(held)) => held,
                    Ok(None) => continue,
                    Err(error) if error.is_loss() => {
                        lost.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if held.range.start() > reached
                    && let Some(error) = lost
                {
                    return Err(error.touching(partition, reached, held.range.start()));
                }
                lost = None;
                if held.latest >= time && held.range.end() > from {
                    let found = self.in_segment(wanted, segment, time).await;
                    let end = held.range.end();
                    let found = found.map_err(|error| error.touching(partition, reached, end))?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                reached = reached.max(held.range.end());
            }
        }
        match lost {
            Some(error) if reached < wanted.to => {
                Err(error.touching(partition, reached, wanted.to))
            }
            _ => Ok(None),
        }
    }

    /// As [`Manifests::held`]; what is looked up is remembered of the topic's other partitions too.
    async fn held_of_topic(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
    ) -> Result<Option<Held>, ReadError> {
        let (partition, id) = (wanted.partition, segment.segment);
        if let Some(held) = self.holdings.get(partition, id) {
            return Ok(held);
        }
        let Some(found) = self.look(wanted, segment).await? else {
            return Ok(None);
        };
        // Who looks for a time looks for it in all partitions of a topic.
        for other in found.share.of_topic() {
            self.holdings.remember(id, other);
        }
        Ok(Some(Held::of(found.share.partition())))
    }

    /// What `segment` holds of the partition, as it is remembered, or looked up and remembered.
    async fn held(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
    ) -> Result<Option<Held>, ReadError> {
        if let Some(held) = self.holdings.get(wanted.partition, segment.segment) {
            return Ok(held);
        }
        let found = self.look(wanted, segment).await?;
        Ok(found.map(|found| Held::of(found.share.partition())))
    }

    /// The first offset in `segment` of a batch with a record of `time` or later.
    async fn in_segment(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
        time: Timestamp,
    ) -> Result<Option<Offset>, ReadError> {
        let from = wanted.from;
        let Some(found) = self.look(wanted, segment).await? else {
            return Ok(None);
        };
        for place in found.share.partition().pages_by_time(time, from) {
            let page = self.segments.index_page(&found.share, place, wanted.lane);
            if let Some(entry) = page.await?.by_time(time, from) {
                return Ok(Some(entry.offset.max(from)));
            }
        }
        Ok(None)
    }

    /// Opens `segment`, and remembers what it holds of the partition.
    async fn look(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
    ) -> Result<Option<Found>, ReadError> {
        let (shard, lane) = (wanted.shard, wanted.lane);
        let opened = self.segments.open(shard, segment, lane).await?;
        let share = self.segments.share(&opened, wanted.partition, lane).await?;
        let Some(share) = share else {
            self.holdings.nothing(wanted.partition, segment.segment);
            return Ok(None);
        };
        self.holdings.remember(segment.segment, share.partition());
        Ok(Some(Found {
            place: segment.place(),
            share,
        }))
    }
}
