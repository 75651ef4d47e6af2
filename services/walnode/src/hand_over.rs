//! Handing over what a node leads: before it ends, and while its disk is slow.

use std::sync::Arc;
use std::time::Duration;

use esker_types::limits::{FSYNC_HANDOVER, HAND_OVER_MAX, HAND_OVER_REST};
use esker_wal::Replica;
use esker_wal::disk::Wal;

/// How often the age of a sync under way is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Has others lead what `replicas` lead, each whom has most of its log, and waits for it within
/// [`HAND_OVER_MAX`]. Shards with no other voter stay.
pub(crate) async fn hand_over(replicas: &[Replica]) {
    let mut asked = Vec::new();
    for replica in replicas {
        // Whose raft has ended leads nothing.
        if let Some(node) = replica.successor()
            && replica.hand_over(node).await.is_ok()
        {
            asked.push(replica);
        }
    }
    let gone = async {
        for replica in asked {
            while replica.leads_in().is_some() {
                tokio::time::sleep(LOOK / 5).await;
            }
        }
    };
    // An election decides; this node need not see how it ends.
    let _ = tokio::time::timeout(HAND_OVER_MAX, gone).await;
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
