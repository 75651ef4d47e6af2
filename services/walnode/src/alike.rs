//! Whether the replicas of what this node leads are alike: they apply the same entries, so that a difference
//! is a fault of the program or of a machine, and no replica can tell by itself.
//!
//! ```text
//!   an entry that changes nothing ─► every replica: the hash of its state there ─► asked for, held together
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_types::limits::{COMPARE_PERIOD, HEARTBEAT};
use esker_types::{NodeId, ShardId};
use esker_wal::Replica;
use esker_wal::peers::{Likeness, Peers};

/// How often a replica that is behind is asked before it is left out.
const ASKED_MAX: u32 = 20;
/// Between two times that it is asked.
const ASKED_REST: Duration = Duration::from_millis(500);

/// What was found different since this node began. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Differences(Arc<AtomicU64>);

impl Differences {
    /// How often a replica was found to differ from its leader here.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compares what `replicas`, all of `own` node, lead, each once in [`COMPARE_PERIOD`].
pub(crate) async fn compare(
    own: NodeId,
    replicas: Vec<Replica>,
    peers: Arc<dyn Peers>,
    differences: Differences,
) {
    // Spread over the period: each takes a moment of a core.
    let share = u32::try_from(replicas.len().max(1)).unwrap_or(u32::MAX);
    let rest = (COMPARE_PERIOD / share).max(HEARTBEAT);
    loop {
        for replica in &replicas {
            tokio::time::sleep(rest).await;
            if replica.leads_in().is_none() {
                continue;
            }
            let others = replica.members().all;
            if others.len() < 2 {
                continue;
            }
            let ours = match replica.compare().await {
                Ok(ours) => ours,
                // Deposed, or without room: another time.
                Err(error) => {
                    tracing::debug!(shard = %replica.shard(), %error, "not compared");
                    continue;
                }
            };
            let mut waiting: BTreeSet<_> = others.keys().copied().filter(|id| *id != own).collect();
            for _ in 0..ASKED_MAX {
                for node in waiting.clone() {
                    let peer = peers.peer(replica.shard(), node, &others[&node]);
                    match peer.likeness().await {
                        Ok(Some(theirs)) if theirs.at >= ours.at => {
                            waiting.remove(&node);
                            judge(replica.shard(), node, ours, theirs, &differences);
                        }
                        // It is behind.
                        Ok(_) => {}
                        // Whoever gives no answer is another's concern, and compared another time.
                        Err(_) => _ = waiting.remove(&node),
                    }
                }
                if waiting.is_empty() {
                    break;
                }
                tokio::time::sleep(ASKED_REST).await;
            }
        }
    }
}

/// Tells if they differ. Of a later entry, by the next leader's wish, nothing can be said.
fn judge(
    shard: ShardId,
    node: NodeId,
    ours: Likeness,
    theirs: Likeness,
    differences: &Differences,
) {
    if theirs.at.index > ours.at.index || theirs == ours {
        return;
    }
    differences.0.fetch_add(1, Ordering::Relaxed);
    let at = ours.at;
    tracing::error!(%shard, %node, %at, ?ours, ?theirs, "two replicas differ where they have applied the same entries. Reads of the shard may differ by who leads; keep the disks of both for an investigation, and replace the node that differs from the other two");
}

#[cfg(test)]
mod tests {
    use esker_shard::StateHash;
    use esker_types::{EntryId, RaftIndex, Term};

    use super::*;

    #[test]
    fn what_differs_at_the_same_entry_is_counted() {
        let likeness = |term, index, hash| Likeness {
            at: EntryId {
                term: Term(term),
                index: RaftIndex(index),
            },
            hash: StateHash(hash),
        };
        let (differences, ours) = (Differences::default(), likeness(2, 10, 7));
        let node = NodeId::from_u64(1 << 32 | 1).expect("a node's");
        for (theirs, count) in [
            (likeness(2, 10, 7), 0),
            (likeness(2, 11, 8), 0),
            (likeness(2, 10, 8), 1),
            (likeness(1, 10, 7), 2),
        ] {
            judge(ShardId(1), node, ours, theirs, &differences);
            assert_eq!(differences.count(), count, "{theirs:?}");
        }
    }
}
