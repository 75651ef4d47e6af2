//! Trims by append time. Segments lie in the order of their appends, so what is too old for a
//! topic is a run of segments from the oldest on. For each age that topics are kept, the walk
//! remembers how far that run reached the last time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use esker_shard::SegmentPlace;
use esker_types::limits::{MANIFEST_PAGE, RETENTION_SEGMENTS, RETENTION_TRIMS};

use super::{Round, Trims, ranges};
use crate::error::KeepError;

/// The walks over one shard, by the age they go by.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// The last segment that was too old and is dealt with.
    done: BTreeMap<Duration, SegmentPlace>,
    /// The age that was walked last: the next round begins with the one after it.
    last: Option<Duration>,
}

/// How far walks have come, to be remembered once what they planned is done.
pub(super) type Cursors = BTreeMap<Duration, SegmentPlace>;

impl Ages {
    /// Begins at the oldest segment again.
    pub(super) fn restart(&mut self, age: Duration) {
        self.done.remove(&age);
    }

    pub(super) fn commit(&mut self, cursors: Cursors) {
        self.done.extend(cursors);
    }

    /// Adds to `trims` what is too old, as far as a round goes.
    pub(super) async fn plan(
        &mut self,
        round: &mut Round<'_>,
        trims: &mut Trims,
    ) -> Result<Cursors, KeepError> {
        let kept = round.view.topics.values().filter_map(|kept| kept.age);
        let ages: BTreeMap<Duration, ()> = kept.map(|age| (age, ())).collect();
        self.done.retain(|age, _| ages.contains_key(age));
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let first = ages.range((after, Bound::Unbounded));
        let turn: Vec<_> = first
            .chain(&ages)
            .take(ages.len())
            .map(|(age, ())| *age)
            .collect();
        let (mut cursors, mut opened) = (Cursors::new(), 0);
        for age in turn {
            let from = self.done.get(&age).copied();
            let reached = walk(round, age, from, trims, &mut opened).await?;
            cursors.extend(reached.map(|place| (age, place)));
            self.last = Some(age);
            if opened >= RETENTION_SEGMENTS || trims.len() >= RETENTION_TRIMS {
                break;
            }
        }
        Ok(cursors)
    }
}

/// Walks on from `from` while segments are older than `age`; the last one that was.
async fn walk(
    round: &mut Round<'_>,
    age: Duration,
    from: Option<SegmentPlace>,
    trims: &mut Trims,
    opened: &mut usize,
) -> Result<Option<SegmentPlace>, KeepError> {
    let mut reached = from;
    loop {
        let page = round
            .head
            .manifest(round.shard, reached, MANIFEST_PAGE)
            .await?;
        for segment in &page.items {
            let old = round.view.time.since(segment.newest) > age;
            let room = *opened < RETENTION_SEGMENTS && trims.len() < RETENTION_TRIMS;
            if !old || !room || !round.view.covers(segment) {
                return Ok(reached);
            }
            *opened += 1;
            if let Some((_, pages)) = round.open(segment).await? {
                for (partition, range) in ranges(&pages) {
                    let topic = round.view.topics.get(&partition.topic);
                    if topic.is_some_and(|kept| kept.age == Some(age)) {
                        let to = trims.entry(partition).or_insert(range.end());
                        *to = range.end().max(*to);
                    }
                }
            }
            reached = Some(segment.place());
        }
        if !page.more {
            return Ok(reached);
        }
    }
}
