//! Handing over what a node leads: before it ends, while its disk is slow or its log full, and where its log is
//! damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use esker_types::limits::{
    DAMAGE_REST, FSYNC_HANDOVER, FULL_HANDOVER, FULL_REST, HAND_OVER_MAX, HAND_OVER_REST,
    LEAD_ROOM_GIVEN, LEAD_ROOM_MIN,
};
use esker_types::{NodeId, ShardId};
use esker_wal::Replica;
use esker_wal::disk::Wal;
use tokio::time::Instant;

/// How often the age of a sync under way is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often the room of the log is looked at.
const ROOM_LOOK: Duration = Duration::from_millis(500);
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

/// Hands over what this node leads while its log has had no room for appends for [`FULL_HANDOVER`]: each shard to
/// a voter that has room, if one does, and at most once in [`FULL_REST`].
pub(crate) async fn hand_over_when_full(wal: Arc<Wal>, replicas: Vec<Replica>) {
    let mut fullness = Fullness::default();
    let mut rests = Rests::of(FULL_REST);
    loop {
        tokio::time::sleep(ROOM_LOOK).await;
        let (room, now) = (wal.room(), Instant::now());
        if !fullness.lasts(room, now) {
            continue;
        }
        for replica in &replicas {
            let shard = replica.shard();
            // Only who leads knows of any.
            let Some(node) = roomiest(&heirs(replica)) else {
                continue;
            };
            if rests.begins(shard, now) {
                tracing::warn!(%shard, room, %node, "the log of this node is full: another is asked to lead");
                // Refused if it lost its vote meanwhile, and then somebody else is asked after the rest.
                let _ = replica.hand_over(node).await;
            }
        }
    }
}

/// The other voters of what `replica` leads that may lead it.
fn heirs(replica: &Replica) -> Vec<Heir> {
    let members = replica.members();
    if members.changing {
        return Vec::new();
    }
    let heirs = members.voters.into_iter().filter_map(|node| {
        let room = replica.room_of(node)?;
        replica.may_lead(node).then_some(Heir { node, room })
    });
    heirs.collect()
}

/// Who might lead instead.
#[derive(Clone, Copy, Debug)]
struct Heir {
    node: NodeId,
    /// Bytes that its log has room for.
    room: u64,
}

/// Which of them has most room, and enough of it.
fn roomiest(heirs: &[Heir]) -> Option<NodeId> {
    let fit = heirs.iter().filter(|heir| heir.room >= LEAD_ROOM_GIVEN);
    fit.max_by_key(|heir| (heir.room, heir.node))
        .map(|heir| heir.node)
}

/// Since when a node has had no room.
#[derive(Default, Debug)]
struct Fullness(Option<Instant>);

impl Fullness {
    /// Whether there has been less than [`LEAD_ROOM_MIN`] for [`FULL_HANDOVER`], now that there is `room`.
    fn lasts(&mut self, room: u64, now: Instant) -> bool {
        if room >= LEAD_ROOM_MIN {
            self.0 = None;
            return false;
        }
        now.duration_since(*self.0.get_or_insert(now)) >= FULL_HANDOVER
    }
}

/// Hands over the shards that this node leads and of which its log has damaged entries: it can neither flush
/// nor send these. Each at most once in [`DAMAGE_REST`].
pub(crate) async fn hand_over_when_damaged(replicas: Vec<Replica>) {
    let mut rests = Rests::of(DAMAGE_REST);
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

/// When each shard was handed over last, and how long it is not after that.
#[derive(Debug)]
struct Rests {
    rest: Duration,
    last: BTreeMap<ShardId, Instant>,
}

impl Rests {
    fn of(rest: Duration) -> Self {
        let last = BTreeMap::new();
        Self { rest, last }
    }

    /// Whether the last rest of `shard` is over, so that another begins.
    fn begins(&mut self, shard: ShardId, now: Instant) -> bool {
        let last = self.last.get(&shard);
        let over = last.is_none_or(|last| now.duration_since(*last) >= self.rest);
        if over {
            self.last.insert(shard, now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_handed_over_once_in_a_rest() {
        let (mut rests, began) = (Rests::of(DAMAGE_REST), Instant::now());
        assert!(rests.begins(ShardId(1), began));
        assert!(rests.begins(ShardId(2), began + DAMAGE_REST / 2));
        let handed =
            (1..=600).filter(|tenth| rests.begins(ShardId(1), began + DAMAGE_REST / 10 * *tenth));
        assert_eq!(handed.count(), 60);
    }

    fn heir(node: u64, room: u64) -> Heir {
        let node = NodeId::from_u64(1 << 32 | node).expect("a node's");
        Heir { node, room }
    }

    #[test]
    fn who_has_most_room_is_handed_to_and_nobody_without() {
        let most = |heirs: &[Heir]| roomiest(heirs).map(NodeId::sequence);
        assert_eq!(most(&[]), None);
        let enough = LEAD_ROOM_GIVEN;
        assert_eq!(most(&[heir(2, enough), heir(3, enough + 1)]), Some(3));
        assert_eq!(most(&[heir(2, enough), heir(3, enough - 1)]), Some(2));
        // Room for some batches: it would hand it back after these.
        assert_eq!(most(&[heir(2, LEAD_ROOM_MIN), heir(3, 0)]), None);
    }

    #[test]
    fn only_who_has_had_no_room_for_a_while_hands_over() {
        let (mut fullness, began) = (Fullness::default(), Instant::now());
        let least = LEAD_ROOM_MIN;
        for (at, room, lasts) in [
            (0, least, false),
            (1, least - 1, false),
            (2, 0, false),
            (3, least, false),
            (4, 0, false),
            (5, 0, false),
            (6, least - 1, true),
            (7, 0, true),
            (8, least, false),
            (9, 0, false),
        ] {
            let now = began + FULL_HANDOVER / 2 * at;
            assert_eq!(fullness.lasts(room, now), lasts, "look {at}");
        }
    }
}
