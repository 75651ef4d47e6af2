//! Messages, as they travel and as a node means them.

use std::collections::BTreeMap;

use esker_proto::internal as wire;
use esker_types::limits::{DATA_SHARDS_MAX, FOUNDERS_MAX};
use esker_types::{ClusterId, Incarnation, NodeId};

use super::founders::{Founder, Founders};
use super::standing::{Hello, Membership};
use crate::disk_id::DiskId;

/// What is missing in a message, or is none.
pub(super) type Fault = &'static str;

/// Bytes of an address: a name of DNS, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;

pub(super) fn hello(hello: Hello) -> wire::HelloReply {
    wire::HelloReply {
        version: hello.version,
        disk: hello.disk.to_string(),
        membership: hello.membership.map(membership),
        open: hello.open,
        shards_begun: hello.shards_begun,
        shards_led: hello.shards_led,
        members: voters(&hello.members),
        founders: founders(&hello.founders),
        certified: hello.certified.unwrap_or(0),
    }
}

pub(super) fn read_hello(hello: wire::HelloReply) -> Result<Hello, Fault> {
    Ok(Hello {
        version: hello.version,
        disk: read_disk(&hello.disk)?,
        membership: hello.membership.as_ref().map(read_membership).transpose()?,
        open: hello.open,
        shards_begun: hello.shards_begun,
        shards_led: hello.shards_led,
        members: hello
            .members
            .into_iter()
            .map(read_voter)
            .collect::<Result<_, _>>()?,
        founders: read_founders(hello.founders)?,
        certified: Some(hello.certified).filter(|number| *number != 0),
    })
}

pub(super) fn membership(membership: Membership) -> wire::Membership {
    wire::Membership {
        cluster: membership.cluster.to_string(),
        incarnation: membership.incarnation.get(),
        node: membership.node.as_u64(),
        data_shards: membership.data_shards,
    }
}

pub(super) fn read_membership(membership: &wire::Membership) -> Result<Membership, Fault> {
    let data_shards = membership.data_shards;
    if !(1..=DATA_SHARDS_MAX).contains(&data_shards) {
        return Err("its data_shards is out of bounds");
    }
    let incarnation = Incarnation::new(membership.incarnation);
    let incarnation = incarnation.ok_or("its incarnation is out of bounds")?;
    let node = NodeId::from_u64(membership.node).ok_or("its node is none")?;
    if node.incarnation() != incarnation {
        return Err("its node is of another incarnation");
    }
    Ok(Membership {
        cluster: read_cluster(&membership.cluster)?,
        incarnation,
        node,
        data_shards,
    })
}

pub(super) fn read_disk(disk: &str) -> Result<DiskId, Fault> {
    DiskId::parse(disk).ok_or("its disk is not 32 hex digits")
}

pub(super) fn read_cluster(cluster: &str) -> Result<ClusterId, Fault> {
    ClusterId::parse(cluster).ok_or("its cluster is not 32 hex digits")
}

/// Whether a node can be reached at `address`, as far as the text tells.
pub(crate) fn is_address(address: &str) -> bool {
    address.contains(':') && address.len() <= ADDRESS_BYTES_MAX
}

pub(super) fn voters(voters: &BTreeMap<NodeId, String>) -> Vec<wire::Voter> {
    let voters = voters.iter().map(|(node, address)| wire::Voter {
        node: node.as_u64(),
        address: address.clone(),
    });
    voters.collect()
}

pub(super) fn read_voters(voters: Vec<wire::Voter>) -> Result<BTreeMap<NodeId, String>, Fault> {
    if voters.is_empty() || voters.len() > FOUNDERS_MAX {
        return Err("it has no voters, or too many");
    }
    let count = voters.len();
    let read = voters.into_iter().map(read_voter);
    let read: BTreeMap<_, _> = read.collect::<Result<_, _>>()?;
    let mut addresses: Vec<_> = read.values().collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() != count {
        return Err("two voters are the same node, or at the same address");
    }
    Ok(read)
}

pub(super) fn founders(founders: &Founders) -> Vec<wire::Founder> {
    let founders = founders.iter().map(|(node, founder)| wire::Founder {
        node: node.as_u64(),
        address: founder.address.clone(),
        disk: founder.disk.to_string(),
    });
    founders.collect()
}

pub(super) fn read_founders(founders: Vec<wire::Founder>) -> Result<Founders, Fault> {
    let read = founders.into_iter().map(|founder| {
        let node = NodeId::from_u64(founder.node).ok_or("a founder is no node")?;
        let (address, disk) = (founder.address, read_disk(&founder.disk)?);
        Ok((node, Founder { address, disk }))
    });
    Founders::new(read.collect::<Result<Vec<_>, Fault>>()?)
}

fn read_voter(wire::Voter { node, address }: wire::Voter) -> Result<(NodeId, String), Fault> {
    let node = NodeId::from_u64(node).ok_or("a voter is no node")?;
    if !is_address(&address) {
        return Err("a voter has no address");
    }
    Ok((node, address))
}
