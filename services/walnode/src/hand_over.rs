//! Handing over what a node leads: before it ends, while its disk is slow, and where its log is damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use esker_types::ShardId;
use esker_types::limits::{DAMAGE_REST, FSYNC_HANDOVER, HAND_OVER_MAX, HAND_OVER_REST};
use esker_wal::Replica;
use esker_wal::disk::Wal;
use tokio::time::Instant;

/// How often the age of a sync under way is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often what is known to be damaged is looked at.
const DAMAGE_LOOK: Duration = Duration::from_secs(1);

/// Has others lead what `replicas` lead, each whom has most of its log, and waits for it within
/// [`HAND_OVER_MAX`]. Shards with no other voter stay.
pub(crate) async fn hand_over(replicas: &[Replica]) {
    let mut asked = Vec::new();
    for replica in replicas {
        // Whose raft has ended leads nothing.
        if let Some(node) = replica.successor()
            && replica.hand_over(node).await.is_ok()
        {
            let shard = replica.shard();
            tracing::info!(%shard, %node, "asked to lead in place of this node");
            asked.push(replica);
        }
    }
    let gone = async {
        while !asked.is_empty() {
            asked.retain(|replica| !is_led_by_another(replica));
            tokio::time::sleep(LOOK / 5).await;
        }
    };
    // An election decides; this node need not see how it ends.
    let _ = tokio::time::timeout(HAND_OVER_MAX, gone).await;
}

/// Whether it is, which is told.
fn is_led_by_another(replica: &Replica) -> bool {
    if replica.leads_in().is_some() {
        return false;
    }
    let leader = replica.leader();
    if let Some(leader) = &leader {
        let (shard, node) = (replica.shard(), leader.node);
        tracing::info!(%shard, %node, "another leads in place of this node");
    }
    leader.is_some()
}

/// Hands everything over while an fdatasync takes longer than [`FSYNC_HANDOVER`]; at most once in
/// [`HAND_OVER_REST`], since the others' disks may be no better.
pub(crate) async fn hand_over_when_slow(wal: Arc<Wal>, replicas: Vec<Replica>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(age) = wal.sync_age().filter(|age| *age > FSYNC_HANDOVER) else {
            continue;
        };
        let led = replicas
            .iter()
            .filter(|replica| replica.successor().is_some());
        let shards = led.count();
        if shards > 0 {
            tracing::warn!(
                shards,
                age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                "the disk of the WAL is slow: others are asked to lead"
            );
            hand_over(&replicas).await;
            tokio::time::sleep(HAND_OVER_REST).await;
        }
    }
}

/// Hands over the shards that this node leads and of which its log has damaged entries: it can neither flush
/// nor send these. Each at most once in [`DAMAGE_REST`].
pub(crate) async fn hand_over_when_damaged(replicas: Vec<Replica>) {
    let mut rests = Rests::default();
    loop {
        tokio::time::sleep(DAMAGE_LOOK).await;
        for replica in replicas.iter().filter(|replica| replica.damaged() > 0) {
            let shard = replica.shard();
            let Some(node) = replica.successor() else {
                continue;
            };
            if rests.begins(shard, Instant::now()) {
                let entries = replica.damaged();
                tracing::warn!(%shard, entries, %node, "the log is damaged on this disk: another is asked to lead");
                // Refused if it lost its vote meanwhile, and then somebody else is asked after the rest.
                let _ = replica.hand_over(node).await;
            }
        }
    }
}

/// When each shard was handed over last.
#[derive(Default, Debug)]
struct Rests(BTreeMap<ShardId, Instant>);

impl Rests {
    /// Whether the last rest of `shard` is over, so that another begins.
    fn begins(&mut self, shard: ShardId, now: Instant) -> bool {
        let last = self.0.get(&shard);
        let over = last.is_none_or(|last| now.duration_since(*last) >= DAMAGE_REST);
        if over {
            self.0.insert(shard, now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_handed_over_once_in_a_rest() {
        let (mut rests, began) = (Rests::default(), Instant::now());
        assert!(rests.begins(ShardId(1), began));
        assert!(rests.begins(ShardId(2), began + DAMAGE_REST / 2));
        let handed =
            (1..=600).filter(|tenth| rests.begins(ShardId(1), began + DAMAGE_REST / 10 * *tenth));
        assert_eq!(handed.count(), 60);
    }
}
