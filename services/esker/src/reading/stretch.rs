//! A stretch of a partition: from a place to another, to the record.

use std::collections::BTreeMap;

use esker_client::v1::Mark;
use esker_client::{Batch, Error, From, Offset, ReadOptions, Timestamp, Until};
use esker_env::WallMs;

use super::source::{Batches, Source};
use crate::positions::Position;
use crate::when::Place;

/// What is to be read of each partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    pub(crate) from: Place,
    pub(crate) until: Place,
    /// Has no end, whatever `until` is.
    pub(crate) follow: bool,
    /// Leaves the cache of those who read the tail alone.
    pub(crate) backfill: bool,
}

/// What is to be read of a partition, ends settled.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) partition: u32,
    options: ReadOptions,
    /// What comes before the first record of this time is left out.
    since: Option<Timestamp>,
    /// What comes from the first record of this time on is left out.
    till: Option<Timestamp>,
    /// Where it begins, if that is known.
    next: Option<Offset>,
    /// Where the partition ended when this was settled.
    end: Offset,
}

/// Settles what is to be read of `partitions`, or of all: in ascending order, up to where they end
/// now. `resumed` tells where some go on.
pub(crate) async fn plan(
    source: &Source,
    topic: &str,
    partitions: &[u32],
    bounds: &Bounds,
    resumed: &BTreeMap<u32, Position>,
    now: WallMs,
) -> Result<Vec<Stretch>, Error> {
    let found = source.ends(topic, partitions).await?;
    let stretches = found.into_iter().map(|offsets| {
        let (start, end) = (offsets.start, offsets.end);
        let resumed = resumed.get(&offsets.partition);
        let place = resumed.map_or(bounds.from, |at| Place::Offset(at.next));
        let seen = resumed.and_then(|at| at.incarnation);
        let seen = seen.map(|incarnation| Mark {
            incarnation,
            index: 0,
        });
        let (from, since, next) = match place {
            Place::Earliest => (From::Earliest, None, Some(start)),
            Place::End => (From::Offset(end), None, Some(end)),
            Place::Offset(offset) => (From::Offset(offset), None, Some(offset)),
            Place::Time(when) => {
                let time = when.resolve(now);
                (From::Time(time), Some(time), None)
            }
        };
        let (until, till) = match bounds.until {
            Place::Earliest => (start, None),
            Place::End => (end, None),
            Place::Offset(offset) => (offset.min(end), None),
            Place::Time(when) => (end, Some(when.resolve(now))),
        };
        Stretch {
            partition: offsets.partition,
            options: ReadOptions {
                from,
                until: match bounds.follow {
                    true => Until::End,
                    false => Until::Offset(until),
                },
                follow: bounds.follow,
                backfill: bounds.backfill,
                mark: seen.or(offsets.mark),
                ..ReadOptions::default()
            },
            since,
            till: till.filter(|_| !bounds.follow),
            next,
            end,
        }
    });
    Ok(stretches.collect())
}

impl Stretch {
    /// The life of the cluster that it is of, if that is known.
    pub(crate) fn incarnation(&self) -> Option<u32> {
        self.options.mark.map(|mark| mark.incarnation)
    }

    /// Begins to read.
    pub(crate) async fn open(&self, source: &Source, topic: &str) -> Result<Reading, Error> {
        let batches = source.read(topic, self.partition, self.options.clone(), self.end);
        Ok(Reading {
            partition: self.partition,
            batches: batches.await?,
            since: self.since,
            till: self.till,
            next: self.next,
            end: self.end,
            over: false,
        })
    }
}

/// A stretch being read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) partition: u32,
    batches: Batches,
    since: Option<Timestamp>,
    till: Option<Timestamp>,
    next: Option<Offset>,
    end: Offset,
    over: bool,
}

/// Records of one batch, those that belong to the stretch.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) batch: Batch,
    /// Records at its beginning that do not.
    skip: usize,
    /// Those that do.
    pub(crate) count: usize,
}

impl Piece {
    pub(crate) fn records(&self) -> impl Iterator<Item = esker_record::Record<'_>> {
        self.batch.records().skip(self.skip).take(self.count)
    }

    /// Behind the first `count` records that belong to the stretch.
    pub(crate) fn offset_behind(&self, count: usize) -> u64 {
        self.batch.range().start().get() + (self.skip + count) as u64
    }
}

impl Reading {
    /// Records of the next batch; `None` at the end. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Error> {
        while !self.over {
            let Some(batch) = self.batches.next().await? else {
                self.over = true;
                break;
            };
            let piece = self.cut(batch);
            self.next = Offset::new(piece.offset_behind(piece.count));
            if piece.count > 0 {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Where to go on. Unknown before the first record of a read that begins with a time.
    pub(crate) const fn next_offset(&self) -> Option<Offset> {
        self.next
    }

    /// Where to go on after the end.
    pub(crate) fn end_offset(&self) -> Offset {
        self.next.unwrap_or(self.end)
    }

    fn cut(&mut self, batch: Batch) -> Piece {
        let whole = usize::try_from(batch.range().len()).unwrap_or(usize::MAX);
        let first = |time: Timestamp, from: usize| {
            let mut records = batch.records().skip(from);
            let at = records.position(|record| record.timestamp >= time);
            at.map(|at| at + from)
        };
        let skip = match self.since {
            Some(since) => first(since, 0).unwrap_or(whole),
            None => 0,
        };
        if skip < whole {
            // They are in the order of offsets, not of times: none is left out from here on.
            self.since = None;
        }
        // The end may come before the beginning; then there is nothing between.
        let end = self.till.and_then(|till| first(till, 0));
        self.over |= end.is_some();
        let end = end.unwrap_or(whole);
        Piece {
            batch,
            skip: skip.min(end),
            count: end.saturating_sub(skip),
        }
    }
}
