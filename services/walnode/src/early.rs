//! Which heads are flushed before they are large or old, so that a flush need not read the disk.
//!
//! A flush reads what the leader took, and that is in memory only until later entries need the room. Once
//! what is led here fills half of it, the fullest are due, as many as it takes that the rest is within that half:
//! each is still in memory when it is read, and heads that grew alike are not all due at one moment.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use esker_env::Monotonic;
use esker_types::ShardId;
use esker_types::limits::{FLUSH_EARLY_BYTES, FLUSH_EARLY_LOOK};

/// Which those are, as found a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Early {
    found: Mutex<Option<(Monotonic, BTreeSet<ShardId>)>>,
}

impl Early {
    /// Whether `shard`, whose head holds `bytes`, is one of them, at `now`. `look` says what is led here, and the
    /// bytes of each head; it is asked each [`FLUSH_EARLY_LOOK`] at most.
    pub(crate) fn has(
        &self,
        (shard, bytes): (ShardId, u64),
        now: Monotonic,
        memory: u64,
        look: impl FnOnce() -> Vec<(ShardId, u64)>,
    ) -> bool {
        // It may have been flushed since that was found.
        if bytes < FLUSH_EARLY_BYTES {
            return false;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((at, shards)) if now.since(*at) < FLUSH_EARLY_LOOK => shards.contains(&shard),
            _ => {
                let shards = fullest(look(), memory / 2);
                let has = shards.contains(&shard);
                *found = Some((now, shards));
                has
            }
        }
    }
}

/// The fullest of `heads`, as many as it takes that the others hold no more than `bytes`; none below
/// [`FLUSH_EARLY_BYTES`].
fn fullest(mut heads: Vec<(ShardId, u64)>, bytes: u64) -> BTreeSet<ShardId> {
    heads.sort_unstable_by_key(|(shard, held)| (std::cmp::Reverse(*held), *shard));
    let mut held: u64 = heads.iter().map(|(_, held)| held).sum();
    let mut first = BTreeSet::new();
    for (shard, its) in heads {
        if held <= bytes || its < FLUSH_EARLY_BYTES {
            break;
        }
        held -= its;
        first.insert(shard);
    }
    first
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn heads(mib: &[u64]) -> Vec<(ShardId, u64)> {
        let shards = (1..).map(ShardId);
        shards.zip(mib.iter().map(|mib| mib * MIB)).collect()
    }

    fn first(mib: &[u64], most: u64) -> Vec<u32> {
        let first = fullest(heads(mib), most * MIB);
        first.into_iter().map(|shard| shard.0).collect()
    }

    #[test]
    fn the_fullest_go_until_the_others_are_within_half() {
        assert!(first(&[], 96).is_empty());
        assert!(first(&[30, 40, 26], 96).is_empty(), "they just fit");
        assert_eq!(first(&[30, 40, 27], 96), [2]);
        assert_eq!(first(&[64, 64, 64, 64], 96), [1, 2, 3]);
        assert!(first(&[15; 64], 96).is_empty(), "each is too little");
        assert_eq!(first(&[15, 15, 15, 15, 15, 15, 17], 96), [7]);
    }

    #[test]
    fn it_looks_again_only_after_a_while() {
        let early = Early::default();
        let at = |time| Monotonic(Duration::from_secs(1) + time);
        let has = |time, mib: u64, found: u64| {
            let look = || heads(&[found]);
            early.has((ShardId(1), mib * MIB), at(time), 192 * MIB, look)
        };
        assert!(has(Duration::ZERO, 100, 100));
        assert!(has(FLUSH_EARLY_LOOK / 2, 50, 50), "as it was found");
        assert!(!has(FLUSH_EARLY_LOOK / 2, 1, 1), "it was flushed meanwhile");
        assert!(!has(FLUSH_EARLY_LOOK, 50, 50));
    }
}
