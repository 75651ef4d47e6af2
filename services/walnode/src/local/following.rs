//! What a replica gives that does not lead: nothing before it has applied what its reader was told.

use esker_log::{HeadError, Mark};
use esker_types::ShardId;
use esker_types::limits::HEAD_FOLLOWER_BEHIND_MAX;
use esker_wal::Replica;

use super::LocalHead;
use super::refusals::ended;
use crate::view;

impl LocalHead {
    /// The replica of `shard`, once it has applied what was `seen`. It may lead, follow or learn: all that
    /// it has applied is committed.
    pub(super) async fn caught_up(
        &self,
        shard: ShardId,
        seen: Mark,
    ) -> Result<&Replica, HeadError> {
        let led = self.shards.get(&shard);
        let replica = &led.ok_or(HeadError::NoShard { shard })?.replica;
        let mut states = replica.watch();
        let reached = async {
            let of_this_life = |mark: Mark| mark.incarnation == seen.incarnation;
            let has_it = |mark: Mark| of_this_life(mark) && mark.index >= seen.index;
            let reached = states.wait_for(|state| has_it(view::mark(state))).await;
            reached.map(drop)
        };
        match tokio::time::timeout(HEAD_FOLLOWER_BEHIND_MAX, reached).await {
            Ok(Ok(())) => Ok(replica),
            Ok(Err(_)) => Err(ended(shard)),
            Err(_) => Err(behind(replica, seen)),
        }
    }
}

fn behind(replica: &Replica, seen: Mark) -> HeadError {
    let (shard, stands) = (replica.shard(), view::mark(&replica.state()));
    HeadError::NotLeader {
        shard,
        leader: None,
        what: format!(
            "this follower is behind: it has applied {} of incarnation {}, and its reader has seen {} \
             of incarnation {}; who leads has it",
            stands.index, stands.incarnation, seen.index, seen.incarnation
        ),
    }
}
