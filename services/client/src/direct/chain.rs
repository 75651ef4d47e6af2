//! Which segments are the log, told from their keys alone.
//!
//! ```text
//!   raft index   0        4        9    11       15       20
//!   committed    ├────────┼────────┼─────────────┼        ┆
//!   orphans      ├─────────────────────┤                  ├──  nothing leads there: a gap
//!   the chain    └──── the orphan ─────┘└── cut ─┘
//! ```
//! Segments of one life are made of committed entries, whoever wrote them and whether or not their
//! commit was heard of: at the same raft index they hold the same batches. So of several that go
//! on from the chain's end the one that reaches furthest is taken, and where two overlap the second
//! begins at its first index that is still needed. What is not decided is which of two with the
//! same range was committed: either holds the log.

use esker_types::{RaftIndex, RaftRange, SegmentId};

/// An object that may be part of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) raft: RaftRange,
    pub(super) id: SegmentId,
    pub(super) length: u64,
}

/// The longest chain from `start` on, in order.
pub(super) fn chain(start: RaftIndex, candidates: &[Candidate]) -> Vec<Candidate> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by_key(|candidate| (candidate.raft.from, candidate.raft.to, candidate.id));
    let mut rest = sorted.into_iter().peekable();
    let mut chain = Vec::new();
    let (mut end, mut best) = (start, None::<Candidate>);
    loop {
        while let Some(next) = rest.next_if(|next| next.raft.from <= end) {
            if best.is_none_or(|best| next.raft.to > best.raft.to) {
                best = Some(next);
            }
        }
        match best {
            Some(link) if link.raft.to > end => {
                end = link.raft.to;
                chain.push(link);
            }
            _ => return chain,
        }
    }
}

/// What is missing between `end`, where the chain ends, and the next segment above it.
pub(super) fn gap(end: RaftIndex, candidates: &[Candidate]) -> Option<RaftRange> {
    let above = candidates.iter().map(|candidate| candidate.raft.from);
    let next = above.filter(|from| *from > end).min()?;
    RaftRange::new(end, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(ranges: &[(u64, u64)]) -> Vec<Candidate> {
        let of = |(number, &(from, to)): (usize, &(u64, u64))| Candidate {
            raft: RaftRange::new(RaftIndex(from), RaftIndex(to)).expect("ascending"),
            id: SegmentId(number as u128),
            length: 0,
        };
        ranges.iter().enumerate().map(of).collect()
    }

    fn chained(start: u64, ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let chain = chain(RaftIndex(start), &candidates(ranges));
        let pair = |link: &Candidate| (link.raft.from.0, link.raft.to.0);
        chain.iter().map(pair).collect()
    }

    #[test]
    fn orphans_beside_the_log_change_nothing_of_where_it_ends() {
        let log = [(0, 4), (4, 9), (9, 15)];
        assert_eq!(chained(0, &log), log);
        assert_eq!(chained(4, &log), log[1..]);
        // One that was cut short, one that went further, one twice, one of nothing.
        let beside = [(9, 15), (0, 3), (0, 4), (4, 9), (4, 11), (0, 4), (9, 9)];
        assert_eq!(chained(0, &beside), [(0, 4), (4, 11), (9, 15)]);
        // It begins in the middle of one when a checkpoint stands there.
        assert_eq!(chained(5, &beside), [(4, 11), (9, 15)]);
    }

    #[test]
    fn a_segment_that_nothing_leads_to_is_a_gap() {
        let broken = candidates(&[(0, 4), (9, 15), (15, 20)]);
        assert_eq!(chained(0, &[(0, 4), (9, 15), (15, 20)]), [(0, 4)]);
        let missing = gap(RaftIndex(4), &broken).expect("a gap");
        assert_eq!((missing.from.0, missing.to.0), (4, 9));
        assert_eq!(gap(RaftIndex(20), &broken), None);
        assert_eq!(chained(0, &[]), []);
    }

    proptest! {
        #[test]
        fn no_segment_that_can_be_reached_reaches_further(
            ranges in prop::collection::vec((0u64..30, 0u64..8), 0..20),
            start in 0u64..10,
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(from, len)| (*from, from + len)).collect();
            let chain = chained(start, &ranges);
            let mut end = start;
            for (from, to) in &chain {
                prop_assert!(*from <= end && *to > end, "it goes on, and adds something");
                end = *to;
            }
            // Whatever one may reach by any way, the chain reaches.
            let mut reached = start;
            for _ in 0..=ranges.len() {
                for (from, to) in &ranges {
                    if *from <= reached {
                        reached = reached.max(*to);
                    }
                }
            }
            prop_assert_eq!(end, reached);
            let gap = gap(RaftIndex(end), &candidates(&ranges));
            prop_assert_eq!(gap.is_some(), ranges.iter().any(|(from, _)| *from > end));
        }
    }
}
