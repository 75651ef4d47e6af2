//! The wall clocks of the voters: what a leader that finds a gap holds its own against.
//!
//! ```text
//!   shard time ──── gap ────► the wall clock here ◄── about the same? ── the wall clocks of others
//!                               a quorum says so: the gap was a standstill, and is closed
//! ```

use std::collections::BTreeSet;

use esker_env::WallMs;
use esker_types::limits::{CLOCK_ASKED_MAX, CLOCK_SKEW_MAX};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::replica::Replica;

impl Replica {
    /// What the wall clock of this node says, for a peer that asks.
    #[must_use]
    pub fn wall(&self) -> WallMs {
        self.clock().wall()
    }

    /// Whether this node has nobody to vote with.
    pub(crate) fn votes_alone(&self) -> bool {
        self.members().voters.len() < 2
    }

    /// Whether the wall clocks of a quorum of voters, this node's among them, agree within
    /// [`CLOCK_SKEW_MAX`]. Who does not answer within [`CLOCK_ASKED_MAX`] agrees with nobody.
    pub(crate) async fn clocks_agree(&self) -> bool {
        let members = self.members();
        let own = self.id();
        let mut agreeing = BTreeSet::from([own]);
        let others = members.all.iter();
        let others =
            others.filter(|(node, _)| node.as_u64() != own && members.voters.contains(node));
        let mut asked: FuturesUnordered<_> = others
            .map(|(node, address)| {
                let peer = self.peers().peer(self.shard(), *node, address);
                async move {
                    let before = self.wall();
                    let said = tokio::time::timeout(CLOCK_ASKED_MAX, peer.clock()).await;
                    let theirs = said.ok()?.ok()?;
                    is_near(theirs, before, self.wall()).then_some(*node)
                }
            })
            .collect();
        loop {
            if self.is_quorum(&agreeing) {
                return true;
            }
            match asked.next().await {
                Some(answer) => agreeing.extend(answer.map(|node| node.as_u64())),
                None => return false,
            }
        }
    }

    /// Whether `nodes` are a quorum: of both sides, while the voters change.
    fn is_quorum(&self, nodes: &BTreeSet<u64>) -> bool {
        let standing = self.standing().borrow_watched();
        let membership = standing.membership_config.membership();
        let mut sides = membership.get_joint_config().iter();
        sides.all(|voters| 2 * voters.intersection(nodes).count() > voters.len())
    }
}

/// Whether a clock that was read between `before` and `after` of one's own says about the same.
fn is_near(theirs: WallMs, before: WallMs, after: WallMs) -> bool {
    let skew = u64::try_from(CLOCK_SKEW_MAX.as_millis()).unwrap_or(u64::MAX);
    let (from, to) = (before.0.min(after.0), before.0.max(after.0));
    (from.saturating_sub(skew)..=to.saturating_add(skew)).contains(&theirs.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_what_may_have_been_read_meanwhile() {
        let skew = u64::try_from(CLOCK_SKEW_MAX.as_millis()).expect("seconds");
        let (before, after) = (WallMs(1_000_000), WallMs(1_000_400));
        for (theirs, near) in [
            (before.0 - skew, true),
            (before.0 - skew - 1, false),
            (after.0 + skew, true),
            (after.0 + skew + 1, false),
            (0, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_near(WallMs(theirs), before, after), near, "{theirs}");
        }
        // One's own that is set back meanwhile.
        assert!(is_near(before, after, before));
    }
}
