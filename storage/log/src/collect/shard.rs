//! Objects of a shard: checkpoints, flushed segments, gathered segments.

use std::collections::BTreeSet;

use esker_object::{Cursor, Key, Object, Prefix};
use esker_shard::{Data, SegmentPlace, State};
use esker_types::limits::MANIFEST_PAGE;
use esker_types::{Incarnation, RaftIndex, SegmentId, ShardId};

use super::verdict::{Marks, Verdict, Word, verdict};
use super::{Collector, Round, Sweep};
use crate::checkpoint;
use crate::error::KeepError;

/// What judges a listing.
struct Walk<'a> {
    shard: ShardId,
    /// The newest bucket checkpoint.
    kept: &'a State,
    sweep: u64,
}

/// Where a listing stopped for lack of time.
enum Halt {
    Never,
    At(Option<Cursor>),
}

impl Collector {
    /// Looks through everything of `shard`, and drops tombstones of which nothing is left.
    pub(super) async fn shard(
        &mut self,
        shard: ShardId,
        round: &mut Round,
    ) -> Result<(), KeepError> {
        let (sweep, begins) = match self.halted.get(&shard) {
            Some(sweep) => (sweep.clone(), false),
            None => (
                Sweep {
                    number: self.begin(),
                    next: (0, None),
                },
                true,
            ),
        };
        // Before the listing: what went before this reading was outside the manifest by then.
        let emptied = self.emptied(shard, begins.then_some(sweep.number)).await?;
        let Some(kept) = self.newest(shard, round).await? else {
            return Ok(());
        };
        self.halted.remove(&shard);
        round.kept.insert(shard, marks(&kept));
        let prefixes = [
            Prefix::Flushed(self.owner.incarnation, shard),
            Prefix::Gathered(self.owner.incarnation, shard),
        ];
        let (first, mut after) = sweep.next;
        for (at, prefix) in prefixes.into_iter().enumerate().skip(first) {
            let walk = Walk {
                shard,
                kept: &kept,
                sweep: sweep.number,
            };
            if let Halt::At(cursor) = self.walk(&walk, prefix, after.take(), round).await? {
                let next = (at, cursor);
                self.halted.insert(shard, Sweep { next, ..sweep });
                return Ok(());
            }
        }
        self.sights.forget_unseen(shard, sweep.number);
        self.drop_tombstones(shard, &emptied, round).await
    }

    /// The newest checkpoint, read and checked, and every older one deleted; `None` if the shard
    /// has none: then there is no evidence, and nothing goes.
    async fn newest(&self, shard: ShardId, round: &mut Round) -> Result<Option<State>, KeepError> {
        let mut listed = checkpoint::listed(&self.store, self.owner.incarnation, shard).await?;
        let Some(newest) = listed.pop() else {
            return Ok(None);
        };
        checkpoint::not_ahead(&*self.head, shard, newest.index).await?;
        let kept = checkpoint::read(&self.store, &self.env, &newest).await?;
        let left = self.time_left(round);
        let deleted = tokio::time::timeout(left, checkpoint::delete(&self.store, &listed));
        let deleted = if left.is_zero() {
            None
        } else {
            deleted.await.ok()
        };
        let Some(deleted) = deleted else {
            round.done.out_of_time = true;
            return Ok(None);
        };
        round.done.older += deleted?;
        Ok(Some(kept.state))
    }

    async fn walk(
        &mut self,
        walk: &Walk<'_>,
        prefix: Prefix,
        mut after: Option<Cursor>,
        round: &mut Round,
    ) -> Result<Halt, KeepError> {
        let shard = walk.shard;
        let bucket = |source| KeepError::Bucket { shard, source };
        loop {
            if self.time_left(round).is_zero() {
                return Ok(Halt::At(after));
            }
            let page = self.store.list(prefix, after.as_ref()).await;
            let page = page.map_err(bucket)?;
            if !page.objects.is_empty() {
                self.judge(walk, &page.objects, round).await?;
            }
            // What was due and is not deleted is seen again.
            if round.done.out_of_time {
                return Ok(Halt::At(after));
            }
            after = page.next;
            if after.is_none() {
                return Ok(Halt::Never);
            }
        }
    }

    /// Judges a page that was just listed.
    async fn judge(
        &mut self,
        walk: &Walk<'_>,
        objects: &[Object],
        round: &mut Round,
    ) -> Result<(), KeepError> {
        let (shard, sweep) = (walk.shard, walk.sweep);
        let (live, index) = self.live(shard).await?;
        let named = self.named(shard, objects, index).await?;
        let (mut due, mut forbid) = (Vec::new(), None);
        for object in objects {
            let key = object.key;
            let live = Word {
                names: place(&key).is_some_and(|(_, id)| named.contains(&id)),
                marks: live,
            };
            let kept = Word {
                names: names(walk.kept, &key),
                marks: marks(walk.kept),
            };
            let verdict = verdict(&key, self.owner.incarnation, live, kept);
            let below = |range: esker_types::RaftRange| range.from < live.marks.flush_position;
            let out = match key {
                Key::FlushedSegment { range, .. } => !live.names && below(range),
                _ => true,
            };
            if out && !self.sights.out(key, shard, sweep) {
                // It cannot be told later which objects were there before a topic was emptied.
                self.emptied.begin_anew(shard);
            }
            match verdict {
                Verdict::Stays => {}
                Verdict::Waits => round.done.waiting += 1,
                Verdict::Free => self.unnamed(key, shard, sweep, round, &mut due),
                Verdict::Forbid(plan) => {
                    let mut past = Vec::new();
                    self.unnamed(key, shard, sweep, round, &mut past);
                    if !past.is_empty() {
                        forbid = forbid.max(Some(plan));
                    }
                }
            }
        }
        if let Some(to) = forbid {
            self.raise(shard, to).await?;
        }
        self.delete(&due, round).await;
        Ok(())
    }

    /// What the manifest names, as of `index` or later, between the first and the last of
    /// `objects`, which ascend.
    async fn named(
        &self,
        shard: ShardId,
        objects: &[Object],
        index: RaftIndex,
    ) -> Result<BTreeSet<SegmentId>, KeepError> {
        let places = || objects.iter().filter_map(|object| place(&object.key));
        let ends = places().next().zip(places().next_back());
        let Some(((first, _), (last, _))) = ends else {
            return Ok(BTreeSet::new());
        };
        let mut named = BTreeSet::new();
        let mut after = before(first);
        loop {
            let page = self.head.manifest(shard, after, MANIFEST_PAGE).await?;
            if page.mark.incarnation != self.owner.incarnation || page.mark.index < index {
                let what = format!("a manifest of {:?}, entry {index} was due", page.mark);
                return Err(KeepError::Stale { shard, what });
            }
            for segment in &page.items {
                after = Some(segment.place());
                if segment.place() > last {
                    return Ok(named);
                }
                named.insert(segment.segment);
            }
            if !page.more {
                return Ok(named);
            }
        }
    }
}

/// What a checkpoint forbids.
fn marks(state: &State) -> Marks {
    let data = state.data();
    Marks {
        flush_position: data.map_or(RaftIndex::ZERO, Data::flush_position),
        gc_boundary: data.map_or(RaftIndex::ZERO, Data::gc_boundary),
    }
}

/// Whether a checkpoint names the object at `key`.
fn names(state: &State, key: &Key) -> bool {
    let Some((place, id)) = place(key) else {
        return false;
    };
    let entry = state.data().and_then(|data| data.segment(place));
    entry.is_some_and(|entry| entry.segment == id)
}

/// Where a flushed segment stands in a manifest that names it.
fn place(key: &Key) -> Option<(SegmentPlace, SegmentId)> {
    match *key {
        Key::FlushedSegment {
            incarnation,
            range,
            id,
            ..
        } => Some((
            SegmentPlace {
                incarnation,
                from: range.from,
            },
            id,
        )),
        _ => None,
    }
}

/// The last place before `place`.
fn before(place: SegmentPlace) -> Option<SegmentPlace> {
    let SegmentPlace { incarnation, from } = place;
    if let Some(from) = from.0.checked_sub(1).map(RaftIndex) {
        return Some(SegmentPlace { incarnation, from });
    }
    let incarnation = Incarnation::new(incarnation.get() - 1)?;
    let from = RaftIndex(u64::MAX);
    Some(SegmentPlace { incarnation, from })
}
