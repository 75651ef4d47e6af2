//! What is next for a shard on the way to who shall hold it: pure.

use std::collections::BTreeMap;

use esker_types::limits::LEARNER_LAG_MAX;
use esker_types::{NodeId, ShardId, Term};

/// Who holds a shard, as one node says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stood {
    /// The shard.
    pub shard: ShardId,
    /// Who leads, as far as that node knows.
    pub leader: Option<NodeId>,
    /// The term in which it leads itself: then it knows best.
    pub leads_in: Option<Term>,
    /// Everybody who holds the shard.
    pub holders: BTreeMap<NodeId, Holder>,
    /// A change is under way.
    pub changing: bool,
    /// The last entry it has applied.
    pub applied: u64,
}

/// One who holds a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Where it is reached, `host:port`.
    pub address: String,
    /// It has a vote.
    pub votes: bool,
    /// Entries it lacks, where that is known.
    pub lag: Option<u64>,
}

/// What an operator wants of every shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// The node votes.
    Add {
        /// Which.
        node: NodeId,
        /// Where it is reached, `host:port`.
        address: String,
    },
    /// The node holds it no more.
    Remove {
        /// Which.
        node: NodeId,
    },
}

/// What is next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is as wanted.
    Done,
    /// The node is to hold it without a vote.
    Admit,
    /// The node lacks this many entries.
    Wait(Option<u64>),
    /// The node is to vote.
    Promote,
    /// The node is to go.
    Remove,
    /// It cannot come to be as wanted: why.
    Never(String),
}

/// What is next for a shard that stands so by the word of its leader.
#[must_use]
pub fn next(stood: &Stood, goal: &Goal) -> Step {
    match goal {
        Goal::Add { node, address } => match stood.holders.get(node) {
            None => Step::Admit,
            Some(holder) if holder.address != *address => Step::Never(format!(
                "{node} holds {} at {}, and shall be at {address}",
                stood.shard, holder.address
            )),
            Some(holder) if holder.votes && !stood.changing => Step::Done,
            // The change that made it vote is not done, or it died on the way: done again, it ends.
            Some(holder) if holder.votes => Step::Promote,
            Some(Holder { lag, .. }) => match lag {
                Some(lag) if *lag <= LEARNER_LAG_MAX => Step::Promote,
                lag => Step::Wait(*lag),
            },
        },
        Goal::Remove { node } => match stood.holders.contains_key(node) {
            false if !stood.changing => Step::Done,
            _ => Step::Remove,
        },
    }
}

#[cfg(test)]
mod tests {
    use esker_types::Incarnation;

    use super::*;

    fn id(node: u64) -> NodeId {
        NodeId::new(Incarnation::FIRST, node).expect("a small sequence")
    }

    fn stood(voters: &[u64], learner: Option<(u64, Option<u64>)>, changing: bool) -> Stood {
        let holder = |votes, lag| Holder {
            address: "n:1".into(),
            votes,
            lag,
        };
        let voters = voters.iter().map(|node| (id(*node), holder(true, Some(0))));
        let learner = learner.map(|(node, lag)| (id(node), holder(false, lag)));
        Stood {
            shard: ShardId(1),
            leader: Some(id(1)),
            leads_in: Some(Term(1)),
            holders: voters.chain(learner).collect(),
            changing,
            applied: 1,
        }
    }

    #[test]
    fn a_node_is_admitted_catches_up_and_then_votes() {
        let add = Goal::Add {
            node: id(4),
            address: "n:1".into(),
        };
        let next = |stood: Stood| super::next(&stood, &add);
        let three = [1, 2, 3];
        assert_eq!(next(stood(&three, None, false)), Step::Admit);
        assert_eq!(
            next(stood(&three, Some((4, None)), false)),
            Step::Wait(None)
        );
        let behind = LEARNER_LAG_MAX + 1;
        let waits = next(stood(&three, Some((4, Some(behind))), false));
        assert_eq!(waits, Step::Wait(Some(behind)));
        let votes = next(stood(&three, Some((4, Some(LEARNER_LAG_MAX))), false));
        assert_eq!(votes, Step::Promote);
        assert_eq!(next(stood(&[1, 2, 3, 4], None, true)), Step::Promote);
        assert_eq!(next(stood(&[1, 2, 3, 4], None, false)), Step::Done);
    }

    #[test]
    fn a_node_is_not_added_under_two_addresses() {
        let add = Goal::Add {
            node: id(3),
            address: "m:1".into(),
        };
        let never = next(&stood(&[1, 2, 3], None, false), &add);
        let Step::Never(why) = never else {
            unreachable!("{never:?}")
        };
        assert!(why.contains("n:1") && why.contains("m:1"), "{why}");
    }

    #[test]
    fn a_node_is_removed_whether_it_votes_or_not() {
        let next = |stood: Stood| next(&stood, &Goal::Remove { node: id(3) });
        assert_eq!(next(stood(&[1, 2, 3, 4], None, false)), Step::Remove);
        assert_eq!(next(stood(&[1, 2, 3, 4], None, true)), Step::Remove);
        assert_eq!(
            next(stood(&[1, 2], Some((3, Some(0))), false)),
            Step::Remove
        );
        assert_eq!(next(stood(&[1, 2, 4], None, true)), Step::Remove);
        assert_eq!(next(stood(&[1, 2, 4], None, false)), Step::Done);
    }
}
