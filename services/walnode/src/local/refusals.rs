//! What goes wrong below, as the head says it.

use esker_log::{HeadError, Leader};
use esker_types::ShardId;
use esker_wal::{AppendRefusal, Error, ProposeError};

pub(super) fn not_appended(shard: ShardId, refusal: &AppendRefusal) -> HeadError {
    let what = refusal.to_string();
    match *refusal {
        AppendRefusal::HeadFull { held, share, .. } => HeadError::HeadFull {
            shard,
            what,
            limit: share,
            held,
        },
        AppendRefusal::HeadCrowded { batches, share, .. } => HeadError::HeadFull {
            shard,
            what,
            limit: share,
            held: batches,
        },
        AppendRefusal::ProducersFull {
            producers, limit, ..
        } => HeadError::HeadFull {
            shard,
            what,
            limit,
            held: producers,
        },
        AppendRefusal::DiskFull { room, bytes, .. } => HeadError::DiskFull {
            shard,
            what,
            room,
            needed: bytes,
        },
        AppendRefusal::QuorumFull { bytes, .. } => HeadError::DiskFull {
            shard,
            what,
            room: 0,
            needed: bytes as u64,
        },
        AppendRefusal::TooLarge { .. } => HeadError::Refused { shard, what },
        AppendRefusal::Proposal(ref error) => not_proposed(error),
    }
}

pub(super) fn not_proposed(error: &ProposeError) -> HeadError {
    let what = error.to_string();
    match error {
        ProposeError::NotLeader { shard, leader } => HeadError::NotLeader {
            shard: *shard,
            leader: leader.clone().map(|leader| Leader {
                node: leader.node,
                address: leader.address,
            }),
            what,
        },
        &ProposeError::Refused { shard, .. } => HeadError::Refused { shard, what },
        &ProposeError::Unknown { shard, .. } => HeadError::Unknown { shard, what },
    }
}

pub(super) fn unreadable(shard: ShardId, error: &Error) -> HeadError {
    HeadError::Corrupt {
        shard,
        what: error.to_string(),
    }
}

pub(super) fn ended(shard: ShardId) -> HeadError {
    HeadError::NotLeader {
        shard,
        leader: None,
        what: "its raft has ended".into(),
    }
}
