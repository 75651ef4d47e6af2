//! What the collector has seen unnamed, and since when: in memory alone, so that after a restart
//! every grace begins anew.

use std::collections::BTreeMap;

use esker_env::Monotonic;
use esker_object::Key;
use esker_types::limits::COLLECT_SIGHTS_MAX;
use esker_types::{SegmentId, ShardId};

/// Objects that no manifest names, at most `COLLECT_SIGHTS_MAX`.
#[derive(Debug, Default)]
pub(super) struct Sights {
    seen: BTreeMap<SegmentId, Sight>,
}

#[derive(Clone, Copy, Debug)]
struct Sight {
    key: Key,
    shard: ShardId,
    /// The sweep that first saw it outside the manifest.
    out: u64,
    /// When it was first seen named by nothing at all, and past any command.
    unnamed: Option<Monotonic>,
    /// The last sweep that saw it.
    last: u64,
}

impl Sights {
    /// The manifest does not name `key`; `false` if there is no room to remember it.
    pub(super) fn out(&mut self, key: Key, shard: ShardId, sweep: u64) -> bool {
        self.see(key, shard, sweep).is_some()
    }

    /// Nothing names `key`: since when; `None` if there is no room to remember it.
    pub(super) fn unnamed(
        &mut self,
        key: Key,
        shard: ShardId,
        sweep: u64,
        now: Monotonic,
    ) -> Option<Monotonic> {
        let sight = self.see(key, shard, sweep)?;
        Some(*sight.unnamed.get_or_insert(now))
    }

    fn see(&mut self, key: Key, shard: ShardId, sweep: u64) -> Option<&mut Sight> {
        let id = id(&key)?;
        let fresh = Sight {
            key,
            shard,
            out: sweep,
            unnamed: None,
            last: sweep,
        };
        let full = self.seen.len() >= COLLECT_SIGHTS_MAX;
        if full && !self.seen.contains_key(&id) {
            return None;
        }
        let sight = self.seen.entry(id).or_insert(fresh);
        // Two objects never have one id; if they do, neither inherits the other's time.
        if sight.key != key {
            *sight = fresh;
        }
        sight.last = sweep;
        Some(sight)
    }

    /// It is deleted.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(id) = id(key) {
            self.seen.remove(&id);
        }
    }

    /// A sweep over all that `shard` has is over: what it did not show is gone.
    pub(super) fn forget_unseen(&mut self, shard: ShardId, sweep: u64) {
        self.seen
            .retain(|_, sight| sight.shard != shard || sight.last >= sweep);
    }

    /// Whether an object of `shard` is left that was outside the manifest in `sweep` or before.
    pub(super) fn any_out_since(&self, shard: ShardId, sweep: u64) -> bool {
        let mut of_shard = self.seen.values().filter(|sight| sight.shard == shard);
        of_shard.any(|sight| sight.out <= sweep)
    }
}

/// The id that no two objects share; claims have none, and are never seen here.
fn id(key: &Key) -> Option<SegmentId> {
    match *key {
        Key::FlushedSegment { id, .. }
        | Key::GatheredSegment { id, .. }
        | Key::PartitionSegment { id, .. }
        | Key::ManifestPage { id, .. }
        | Key::Checkpoint { id, .. }
        | Key::Probe(id) => Some(id),
        Key::Cluster { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn an_object_keeps_its_first_sight_until_a_listing_lacks_it() {
        let (mut sights, shard) = (Sights::default(), ShardId(1));
        let key = Key::Probe(SegmentId(7));
        assert_eq!(sights.unnamed(key, shard, 1, at(1)), Some(at(1)));
        assert_eq!(sights.unnamed(key, shard, 2, at(9)), Some(at(1)));
        sights.forget_unseen(ShardId(2), 3);
        assert_eq!(sights.unnamed(key, shard, 3, at(10)), Some(at(1)));
        assert!(sights.any_out_since(shard, 1) && !sights.any_out_since(shard, 0));
        sights.forget_unseen(shard, 4);
        assert_eq!(sights.unnamed(key, shard, 5, at(20)), Some(at(20)));
    }

    #[test]
    fn of_too_many_objects_the_last_are_not_remembered_and_so_never_due() {
        let (mut sights, shard) = (Sights::default(), ShardId(1));
        for number in 0..COLLECT_SIGHTS_MAX as u128 {
            assert!(sights.out(Key::Probe(SegmentId(number)), shard, 1));
        }
        let late = Key::Probe(SegmentId(u128::MAX));
        assert!(!sights.out(late, shard, 1));
        assert_eq!(sights.unnamed(late, shard, 1, at(1)), None);
        sights.forget(&Key::Probe(SegmentId(0)));
        assert!(sights.out(late, shard, 2));
        assert_eq!(sights.seen.len(), COLLECT_SIGHTS_MAX);
    }
}
