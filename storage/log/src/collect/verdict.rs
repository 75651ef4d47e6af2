//! Whether an object may go: pure, from what two states say of it.

use esker_object::Key;
use esker_types::{Incarnation, RaftIndex};

/// What a state forbids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marks {
    /// A segment flushed from below is never committed any more.
    pub(super) flush_position: RaftIndex,
    /// A `Swap` planned at or below it is never accepted any more.
    pub(super) gc_boundary: RaftIndex,
}

/// What a state says of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    /// Its manifest, or a page of it, names the object.
    pub(super) names: bool,
    /// What it forbids.
    pub(super) marks: Marks,
}

/// What becomes of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It stays: it is named, may be named yet, or is not ours to judge.
    Stays,
    /// Nothing names it; it may go once `Swap`s planned at this index are forbidden.
    Forbid(RaftIndex),
    /// Nothing names it, and commands may not any more, but the checkpoint does not know that yet.
    Waits,
    /// Nothing names it and nothing will.
    Free,
}

/// Judges `key` by the state as of now, and by the newest bucket checkpoint's.
pub(super) fn verdict(key: &Key, ours: Incarnation, live: Word, kept: Word) -> Verdict {
    if live.names || kept.names {
        return Verdict::Stays;
    }
    match *key {
        Key::FlushedSegment {
            incarnation, range, ..
        } if incarnation == ours => {
            let below = |word: Word| range.from < word.marks.flush_position;
            match (below(live), below(kept)) {
                (true, true) => Verdict::Free,
                (true, false) => Verdict::Waits,
                (false, _) => Verdict::Stays,
            }
        }
        Key::GatheredSegment {
            incarnation, plan, ..
        }
        | Key::PartitionSegment {
            incarnation, plan, ..
        }
        | Key::ManifestPage {
            incarnation, plan, ..
        } if incarnation == ours => {
            let forbidden = |word: Word| plan <= word.marks.gc_boundary;
            match (forbidden(live), forbidden(kept)) {
                (true, true) => Verdict::Free,
                (true, false) => Verdict::Waits,
                (false, _) => Verdict::Forbid(plan),
            }
        }
        _ => Verdict::Stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::{
        ClusterId, Offset, PartitionId, PartitionIndex, RaftRange, SegmentId, ShardId, TopicId,
    };

    const OURS: Incarnation = Incarnation::FIRST;

    fn word(names: bool, index: u64) -> Word {
        Word {
            names,
            marks: Marks {
                flush_position: RaftIndex(index),
                gc_boundary: RaftIndex(index),
            },
        }
    }

    fn flushed(incarnation: Incarnation, from: u64) -> Key {
        Key::FlushedSegment {
            incarnation,
            shard: ShardId(1),
            range: RaftRange::new(RaftIndex(from), RaftIndex(from + 10)).unwrap(),
            id: SegmentId(1),
        }
    }

    fn products(incarnation: Incarnation, plan: u64) -> [Key; 3] {
        let topic = TopicId::new(OURS, 1).unwrap();
        let index = PartitionIndex(0);
        let partition = PartitionId { topic, index };
        let (plan, base, id) = (RaftIndex(plan), Offset::ZERO, SegmentId(1));
        [
            Key::GatheredSegment {
                incarnation,
                shard: ShardId(1),
                plan,
                id,
            },
            Key::PartitionSegment {
                incarnation,
                partition,
                plan,
                base,
                id,
            },
            Key::ManifestPage {
                incarnation,
                partition,
                plan,
                base,
                id,
            },
        ]
    }

    #[test]
    fn what_either_state_names_stays() {
        let [gathered, ..] = products(OURS, 5);
        for key in [flushed(OURS, 5), gathered] {
            for (live, kept) in [(true, false), (false, true), (true, true)] {
                let verdict = verdict(&key, OURS, word(live, 100), word(kept, 100));
                assert_eq!(verdict, Verdict::Stays, "{key}: {live} {kept}");
            }
        }
    }

    #[test]
    fn a_flushed_segment_is_free_once_both_states_are_past_its_beginning() {
        let judge = |live, kept| {
            verdict(
                &flushed(OURS, 5),
                OURS,
                word(false, live),
                word(false, kept),
            )
        };
        assert_eq!(judge(6, 6), Verdict::Free);
        assert_eq!(judge(6, 5), Verdict::Waits);
        assert_eq!(judge(5, 5), Verdict::Stays, "it may be next");
        assert_eq!(judge(5, 6), Verdict::Stays);
    }

    #[test]
    fn what_a_swap_made_is_free_once_both_states_forbid_its_plan() {
        for key in products(OURS, 5) {
            let judge = |live, kept| verdict(&key, OURS, word(false, live), word(false, kept));
            assert_eq!(judge(5, 5), Verdict::Free);
            assert_eq!(judge(5, 4), Verdict::Waits);
            assert_eq!(judge(4, 4), Verdict::Forbid(RaftIndex(5)));
            assert_eq!(judge(4, 5), Verdict::Forbid(RaftIndex(5)));
        }
    }

    #[test]
    fn another_life_and_everything_else_stays() {
        let other = OURS.next().unwrap();
        let mut keys = Vec::from(products(other, 5));
        keys.push(flushed(other, 5));
        keys.push(Key::Cluster {
            incarnation: OURS,
            cluster: ClusterId(1),
        });
        keys.push(Key::Checkpoint {
            incarnation: OURS,
            shard: ShardId(1),
            index: RaftIndex(1),
            id: SegmentId(1),
        });
        for key in keys {
            let verdict = verdict(&key, OURS, word(false, 100), word(false, 100));
            assert_eq!(verdict, Verdict::Stays, "{key}");
        }
    }
}
