//! Which segment holds an offset of a partition.
//!
//! ```text
//!   a busy partition   [x][x][x][x][x][x]   halving opens a few; the next one is the one after
//!   a quiet one        [x][ ][ ][ ][ ][x]   those without it are opened once, some at a time, and
//!                                           passed by from memory from then on
//! ```

use std::sync::Arc;

use esker_shard::{MixedSegment, SegmentPlace};
use esker_types::Offset;
use esker_types::limits::TIME_LOOKS_IN_FLIGHT;
use futures::future::join_all;

use super::holdings::Held;
use super::{Found, Known, Manifests};
use crate::ahead::Wanted;
use crate::error::ReadError;

/// How far from the middle halving takes a segment of which it is remembered what it holds.
const NEAR_MIDDLE: usize = 32;

/// The nearest segment on a walk that holds something of a partition.
struct Nearest {
    /// Its index, and what it holds.
    found: Option<(usize, Held)>,
    /// The first on the way that is lost.
    lost: Option<ReadError>,
}

impl Manifests {
    /// The segment that holds `wanted.from`, which lies below `wanted.to`.
    ///
    /// Offsets of a partition ascend with the places of its segments, so halving finds it; where
    /// the segment in the middle holds nothing of the partition, the nearest before it that does
    /// decides. One that is lost is passed over like one that holds nothing. The last one is looked
    /// at first: who follows a log is near its end.
    ///
    /// # Errors
    /// [`ReadError::Uncovered`] if none does; [`ReadError::Lost`] if one may that is lost.
    pub(crate) async fn holding(&self, known: &Known, wanted: &Wanted) -> Result<Found, ReadError> {
        let (offset, segments) = (wanted.from, &known.segments);
        let (mut low, mut high) = (0, segments.len());
        if let Some(last) = high.checked_sub(1) {
            match self.held(wanted, &segments[last]).await {
                Ok(Some(held)) if held.range.contains(offset) => {
                    return self.found(wanted, &segments[last], &held).await;
                }
                Ok(Some(held)) if offset < held.range.start() => high = last,
                Ok(_) => {}
                Err(error) if error.is_loss() => {}
                Err(error) => return Err(error),
            }
        }
        while low < high {
            let middle = self.middle(wanted, segments, low, high);
            let before = (low..=middle).rev();
            let Some((at, held)) = self.nearest(wanted, segments, before).await?.found else {
                low = middle + 1;
                continue;
            };
            if held.range.contains(offset) {
                return self.found(wanted, &segments[at], &held).await;
            }
            if offset < held.range.start() {
                high = at;
            } else {
                low = middle + 1;
            }
        }
        Err(self.why_not(known, wanted, low).await)
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
        let segments = &known.segments;
        let from = segments.partition_point(|segment| segment.place() <= place);
        let nearest = self.nearest(wanted, segments, from..segments.len()).await?;
        let mut end = wanted.to;
        if let Some((at, held)) = nearest.found {
            if held.range.start() == next {
                return self.found(wanted, &segments[at], &held).await;
            }
            end = end.min(held.range.start());
        }
        let partition = wanted.partition;
        Err(match nearest.lost {
            Some(error) => error.touching(partition, next, end),
            None => ReadError::Uncovered {
                partition,
                offset: next,
            },
        })
    }

    /// Why no segment holds `wanted.from`: those below `at` that can be read end at or below it,
    /// those from there on begin above.
    async fn why_not(&self, known: &Known, wanted: &Wanted, at: usize) -> ReadError {
        let (partition, offset) = (wanted.partition, wanted.from);
        let segments = &known.segments;
        let before = match self.nearest(wanted, segments, (0..at).rev()).await {
            Ok(nearest) => nearest,
            Err(error) => return error,
        };
        let after = match self.nearest(wanted, segments, at..segments.len()).await {
            Ok(nearest) => nearest,
            Err(error) => return error,
        };
        let start = before.found.map_or(offset, |(_, held)| held.range.end());
        let next = after.found.map(|(_, held)| held.range.start());
        let end = next.map_or(wanted.to, |next| next.min(wanted.to));
        match before.lost.or(after.lost) {
            Some(error) => error.touching(partition, start.min(offset), end),
            None => ReadError::Uncovered { partition, offset },
        }
    }

    /// The first segment along `walk` that holds something of the partition. The first is looked
    /// at alone, since it mostly does; then several at a time.
    async fn nearest(
        &self,
        wanted: &Wanted,
        segments: &[Arc<MixedSegment>],
        mut walk: impl Iterator<Item = usize>,
    ) -> Result<Nearest, ReadError> {
        let (mut width, mut lost) = (1, None);
        loop {
            let mut looks = Vec::with_capacity(width);
            while looks.len() < width
                && let Some(at) = walk.next()
            {
                match self.holdings.get(wanted.partition, segments[at].segment) {
                    Some(None) => {}
                    None => looks.push(at),
                    Some(Some(_)) => {
                        looks.push(at);
                        break;
                    }
                }
            }
            if looks.is_empty() {
                return Ok(Nearest { found: None, lost });
            }
            width = TIME_LOOKS_IN_FLIGHT;
            let held = looks.iter().map(|at| self.held(wanted, &segments[*at]));
            for (at, held) in looks.iter().zip(join_all(held).await) {
                match held {
                    Ok(None) => {}
                    Ok(Some(held)) => {
                        let found = Some((*at, held));
                        return Ok(Nearest { found, lost });
                    }
                    Err(error) if error.is_loss() => _ = lost.get_or_insert(error),
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Somewhere about the middle of `[low, high)`: where it is remembered what a segment holds, if
    /// that is near. The middle itself moves with every segment that is added.
    fn middle(
        &self,
        wanted: &Wanted,
        segments: &[Arc<MixedSegment>],
        low: usize,
        high: usize,
    ) -> usize {
        let (middle, near) = (low.midpoint(high), ((high - low) / 4).min(NEAR_MIDDLE));
        let around = (0..=near).flat_map(|far| [middle - far, middle + far]);
        let mut around = around.filter(|at| {
            let held = self.holdings.get(wanted.partition, segments[*at].segment);
            matches!(held, Some(Some(_)))
        });
        around.next().unwrap_or(middle)
    }

    /// The segment that is known to hold `held`, opened.
    async fn found(
        &self,
        wanted: &Wanted,
        segment: &MixedSegment,
        held: &Held,
    ) -> Result<Found, ReadError> {
        let (partition, range) = (wanted.partition, held.range);
        match self.look(wanted, segment).await {
            Ok(Some(found)) => Ok(found),
            // Segments never change.
            Ok(None) => Err(ReadError::Uncovered {
                partition,
                offset: range.start(),
            }),
            Err(error) => Err(error.touching(partition, range.start(), range.end().min(wanted.to))),
        }
    }
}
