//! Which segments make up a partition's history, as far as this agent knows.
//!
//! A shard's manifest only grows at its end, except where dead segments are taken out: so what is
//! known is asked on from its end, and asked for anew when an object turns out to be gone.

mod times; // the latest record of each segment, remembered

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
use times::{Held, Times};

/// Manifests of all shards. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Manifests {
    head: Arc<dyn Head>,
    segments: Segments,
    known: Arc<Mutex<BTreeMap<ShardId, Arc<Known>>>>,
    times: Times,
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
            times: Times::new(),
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

    /// The segment that holds `offset` of `partition`, which lies below `to`.
    ///
    /// Offsets of a partition ascend with the places of its segments, so halving finds it; where
    /// the segment in the middle holds nothing of the partition, the nearest before it that does
    /// decides. One that is lost is passed over like one that holds nothing.
    ///
    /// # Errors
    /// [`ReadError::Uncovered`] if none does; [`ReadError::Lost`] if one may that is lost.
    pub(crate) async fn holding(&self, known: &Known, wanted: &Wanted) -> Result<Found, ReadError> {
        let offset = wanted.from;
        let (mut low, mut high) = (0, known.segments.len());
        while low < high {
            let middle = low.midpoint(high);
            let mut at = middle;
            let found = loop {
                match self.look(wanted, &known.segments[at]).await {
                    Ok(Some(found)) => break Some(found),
                    Ok(None) => {}
                    Err(error) if error.is_loss() => {}
                    Err(error) => return Err(error),
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
                return Ok(found);
            }
            if offset < range.start() {
                high = at;
            } else {
                low = middle + 1;
            }
        }
        Err(self.why_not(known, wanted, low).await)
    }

    /// Why no segment holds `wanted.from`: those below `at` that can be read end at or below it,
    /// those from there on begin above.
    async fn why_not(&self, known: &Known, wanted: &Wanted, at: usize) -> ReadError {
        let (partition, offset) = (wanted.partition, wanted.from);
        let (before, after) = known.segments.split_at(at);
        let (mut lost, mut start) = (None, offset);
        for segment in before.iter().rev() {
            match self.look(wanted, segment).await {
                Ok(None) => {}
                Ok(Some(found)) => {
                    start = found.share.partition().range.end();
                    break;
                }
                Err(error) if error.is_loss() => lost = Some(error),
                Err(error) => return error,
            }
        }
        let mut end = wanted.to;
        for segment in after {
            match self.look(wanted, segment).await {
                Ok(None) => {}
                Ok(Some(found)) => {
                    end = end.min(found.share.partition().range.start());
                    break;
                }
                Err(error) if error.is_loss() => {
                    lost.get_or_insert(error);
                }
                Err(error) => return error,
            }
        }
        match lost {
            Some(error) => error.touching(partition, start.min(offset), end),
            None => ReadError::Uncovered { partition, offset },
        }
    }

    /// The first segment above `place` that holds something of the partition, which must begin at
    /// `next`. Lost ones on the way are passed over.
    ///
    /// # Errors
    /// As [`Manifests::holding`].
    pub(crate) async fn after(
        &self,
        known: &Known,
        wanted: &Wanted,
        place: SegmentPlace,
        next: Offset,
    ) -> Result<Found, ReadError> {
        let from = known
            .segments
            .partition_point(|segment| segment.place() <= place);
        let (partition, mut lost, mut end) = (wanted.partition, None, wanted.to);
        for segment in &known.segments[from..] {
            match self.look(wanted, segment).await {
                Ok(None) => {}
                Ok(Some(found)) if found.share.partition().range.start() == next => {
                    return Ok(found);
                }
                Ok(Some(found)) => {
                    end = end.min(found.share.partition().range.start());
                    break;
                }
                Err(error) if error.is_loss() => {
                    lost.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(match lost {
            Some(error) => error.touching(partition, next, end),
            None => ReadError::Uncovered {
                partition,
                offset: next,
            },
        })
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
            let looks = segments.iter().map(|segment| self.held(wanted, segment));
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

    /// What `segment` holds of the partition, as it is remembered, or looked up and remembered.
    async fn held(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
    ) -> Result<Option<Held>, ReadError> {
        let (partition, id) = (wanted.partition, segment.segment);
        if let Some(held) = self.times.get(partition, id) {
            return Ok(held);
        }
        let Some(found) = self.look(wanted, segment).await? else {
            self.times.nothing(partition, id);
            return Ok(None);
        };
        // Who looks for a time looks for it in all partitions of a topic.
        for other in found.share.of_topic() {
            self.times.remember(id, other);
        }
        Ok(Some(self.times.remember(id, found.share.partition())))
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

    async fn look(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
    ) -> Result<Option<Found>, ReadError> {
        let (shard, lane) = (wanted.shard, wanted.lane);
        let opened = self.segments.open(shard, segment, lane).await?;
        let share = self.segments.share(&opened, wanted.partition, lane).await?;
        Ok(share.map(|share| Found {
            place: segment.place(),
            share,
        }))
    }
}
