//! What a node lacks to count for a quorum: as long as that is so, no other may be stopped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use esker_types::ShardId;
use esker_wal::{Awaits, Replica};

/// Shards of each kind that are named.
const NAMED_MAX: usize = 8;

/// What `replicas` wait for, in words, if any do.
pub(super) fn awaited(replicas: &[Replica]) -> Option<String> {
    let awaiting = replicas.iter();
    let awaiting = awaiting.filter_map(|replica| Some((replica.shard(), replica.awaits()?)));
    words(replicas.len(), &awaiting.collect())
}

fn words(shards: usize, awaiting: &BTreeMap<ShardId, Awaits>) -> Option<String> {
    if awaiting.is_empty() {
        return None;
    }
    let (mut unheard, mut behind, mut lacking_max) = (Vec::new(), Vec::new(), 0);
    for (shard, awaits) in awaiting {
        match awaits {
            Awaits::Leader => unheard.push(*shard),
            Awaits::Entries { lacking } => {
                lacking_max = lacking_max.max(*lacking);
                behind.push(*shard);
            }
        }
    }
    let waits = awaiting.len();
    let mut text = format!("starting: {waits} of {shards} shards do not count for a quorum yet");
    if !unheard.is_empty() {
        let (count, named) = (unheard.len(), named(&unheard));
        let what = "have heard no leader since this node was started: are most of the nodes up, and reached?";
        let _ = write!(text, "; {count} ({named}) {what}");
    }
    if !behind.is_empty() {
        let (count, named) = (behind.len(), named(&behind));
        let what = format!("fetch what they lack, up to {lacking_max} entries each");
        let _ = write!(text, "; {count} ({named}) {what}");
    }
    Some(text)
}

fn named(shards: &[ShardId]) -> String {
    let first = shards.iter().take(NAMED_MAX);
    let mut names: Vec<_> = first.map(|shard| shard.0.to_string()).collect();
    if shards.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_and_for_what_is_said_by_kind() {
        assert_eq!(words(3, &BTreeMap::new()), None);
        let lacking = |lacking| Awaits::Entries { lacking };
        let awaiting = [(0, Awaits::Leader), (1, lacking(7)), (2, lacking(5))];
        let awaiting = awaiting.map(|(shard, awaits)| (ShardId(shard), awaits));
        let said = words(3, &awaiting.into()).expect("three wait");
        assert_eq!(
            said,
            "starting: 3 of 3 shards do not count for a quorum yet; 1 (0) have heard no leader since this \
             node was started: are most of the nodes up, and reached?; 2 (1, 2) fetch what they lack, up \
             to 7 entries each"
        );
    }

    #[test]
    fn of_many_the_first_are_named() {
        let awaiting = (0..20).map(|shard| (ShardId(shard), Awaits::Leader));
        let said = words(64, &awaiting.collect()).expect("twenty wait");
        assert!(said.contains("20 of 64 shards"), "{said}");
        assert!(
            said.contains("20 (0, 1, 2, 3, 4, 5, 6, 7, …) have"),
            "{said}"
        );
    }
}
