//! Messages, as they travel and as a node means them.

use std::collections::BTreeMap;

use esker_proto::internal as wire;
use esker_types::limits::{DATA_SHARDS_MAX, HOLDERS_MAX};
use esker_types::{NodeId, ShardId, Term};
use esker_wal::{ProposeError, Replica};

use super::calling::Changed;
use super::step::{Holder, Stood};

/// What is missing in a message, or is none.
pub(super) type Fault = &'static str;

/// Holders of a shard that are read: more than there may be, so that a cluster that came to have more can
/// still be looked at, and relieved of them.
const HOLDERS_READ_MAX: usize = 8 * HOLDERS_MAX;

pub(super) fn shown(replica: &Replica) -> wire::ShardMembers {
    let members = replica.members();
    let leads_in = replica.leads_in();
    let holders = members.all.into_iter().map(|(node, address)| wire::Holder {
        node: node.as_u64(),
        address,
        votes: members.voters.contains(&node),
        lag: leads_in.and_then(|_| replica.lag(node)),
    });
    wire::ShardMembers {
        shard: replica.shard().0,
        leader: replica.leader().map_or(0, |leader| leader.node.as_u64()),
        leads_in: leads_in.map_or(0, |term| term.0),
        holders: holders.collect(),
        changing: members.changing,
        applied: replica.state().applied().index.0,
    }
}

pub(super) fn read_shown(reply: wire::ShowMembersReply) -> Result<Vec<Stood>, Fault> {
    if reply.shards.len() > DATA_SHARDS_MAX as usize + 1 {
        return Err("it names too many shards");
    }
    reply.shards.into_iter().map(read_shard).collect()
}

fn read_shard(shard: wire::ShardMembers) -> Result<Stood, Fault> {
    if shard.holders.len() > HOLDERS_READ_MAX {
        return Err("a shard has too many holders");
    }
    let mut holders = BTreeMap::new();
    for wire::Holder {
        node,
        address,
        votes,
        lag,
    } in shard.holders
    {
        let holder = Holder {
            address,
            votes,
            lag,
        };
        holders.insert(read_node(node)?, holder);
    }
    Ok(Stood {
        shard: ShardId(shard.shard),
        leader: NodeId::from_u64(shard.leader),
        leads_in: (shard.leads_in > 0).then_some(Term(shard.leads_in)),
        holders,
        changing: shard.changing,
        applied: shard.applied,
    })
}

pub(super) fn read_node(node: u64) -> Result<NodeId, Fault> {
    NodeId::from_u64(node).ok_or("a node is none")
}

pub(super) fn outcome(done: Result<(), ProposeError>) -> wire::MembersReply {
    use wire::members_reply::{Done, NotLeader, Outcome};
    let outcome = match done {
        Ok(()) => Outcome::Done(Done {}),
        Err(ProposeError::NotLeader { leader, .. }) => {
            let node = leader.as_ref().map_or(0, |leader| leader.node.as_u64());
            let address = leader.map_or_else(String::new, |leader| leader.address);
            Outcome::NotLeader(NotLeader { node, address })
        }
        Err(error @ ProposeError::Refused { .. }) => Outcome::Refused(error.to_string()),
        Err(error @ ProposeError::Unknown { .. }) => Outcome::Unknown(error.to_string()),
    };
    wire::MembersReply {
        outcome: Some(outcome),
    }
}

/// An answer that says nothing leaves it unknown.
pub(super) fn read_outcome(reply: wire::MembersReply) -> Changed {
    use wire::members_reply::Outcome;
    match reply.outcome {
        Some(Outcome::Done(_)) => Changed::Done,
        Some(Outcome::NotLeader(_)) => Changed::NotLeader,
        Some(Outcome::Refused(what)) => Changed::Refused(what),
        Some(Outcome::Unknown(what)) => Changed::Unknown(what),
        None => Changed::Unknown("its answer says nothing".to_owned()),
    }
}
