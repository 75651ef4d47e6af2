//! Why a head did not answer. All of it travels: what was written and what was not hangs on it.

use esker_log::{HeadError, Leader};
use esker_proto::internal as wire;
use esker_proto::internal::head_error::{self, Of};
use esker_types::{RaftIndex, ShardId};

use super::Fault;
use super::atoms::{need, node_id};

/// An error.
#[must_use]
pub fn head_error(error: HeadError) -> wire::HeadError {
    let nothing = wire::Nothing {};
    let (shard, what, of) = match error {
        HeadError::NoShard { shard } => (shard, String::new(), Of::NoShard(nothing)),
        HeadError::NotLeader {
            shard,
            leader,
            what,
        } => {
            let leader = leader.map(|leader| head_error::Leader {
                node: leader.node.as_u64(),
                address: leader.address,
            });
            (shard, what, Of::NotLeader(head_error::NotLeader { leader }))
        }
        HeadError::Released { shard, index } => (shard, String::new(), Of::Released(index.0)),
        HeadError::Refused { shard, what } => (shard, what, Of::Refused(nothing)),
        HeadError::HeadFull {
            shard,
            what,
            limit,
            held,
        } => {
            let full = head_error::HeadFull { limit, held };
            (shard, what, Of::HeadFull(full))
        }
        HeadError::DiskFull {
            shard,
            what,
            room,
            needed,
        } => {
            let full = head_error::DiskFull { room, needed };
            (shard, what, Of::DiskFull(full))
        }
        HeadError::Unknown { shard, what } => (shard, what, Of::Unknown(nothing)),
        HeadError::Corrupt { shard, what } => (shard, what, Of::Corrupt(nothing)),
    };
    wire::HeadError {
        shard: shard.0,
        what,
        of: Some(of),
    }
}

/// Reads an error.
///
/// # Errors
/// [`Fault`].
pub fn read_head_error(error: wire::HeadError) -> Result<HeadError, Fault> {
    let (shard, what) = (ShardId(error.shard), error.what);
    Ok(match need(error.of, "an error has no kind")? {
        Of::NoShard(_) => HeadError::NoShard { shard },
        Of::NotLeader(not) => HeadError::NotLeader {
            shard,
            leader: not.leader.map(leader).transpose()?,
            what,
        },
        Of::Released(index) => HeadError::Released {
            shard,
            index: RaftIndex(index),
        },
        Of::Refused(_) => HeadError::Refused { shard, what },
        Of::HeadFull(full) => HeadError::HeadFull {
            shard,
            what,
            limit: full.limit,
            held: full.held,
        },
        Of::DiskFull(full) => HeadError::DiskFull {
            shard,
            what,
            room: full.room,
            needed: full.needed,
        },
        Of::Unknown(_) => HeadError::Unknown { shard, what },
        Of::Corrupt(_) => HeadError::Corrupt { shard, what },
    })
}

fn leader(leader: head_error::Leader) -> Result<Leader, Fault> {
    Ok(Leader {
        node: node_id(leader.node)?,
        address: leader.address,
    })
}
