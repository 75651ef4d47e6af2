//! Who votes, as bytes.
//!
//! `configs u32 │ per config: voters u32 │ node u64 … │ nodes u32 │ per node: id u64, address
//! length u32, address`. Little-endian; more than one config is a joint one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut};
use openraft::{BasicNode, Membership};

/// Members of one raft group, learners included: what a decoder is willing to read.
const MEMBERS_MAX: usize = 1024;
/// Configurations at the same time: the old and the new one.
const CONFIGS_MAX: usize = 2;
/// Bytes of one member's address.
const ADDRESS_BYTES_MAX: usize = 1024;

/// Appends `membership` to `out`.
pub(crate) fn encode(membership: &Membership<u64, BasicNode>, out: &mut Vec<u8>) {
    let count = |count: usize| u32::try_from(count).expect("a few members");
    let configs = membership.get_joint_config();
    out.put_u32_le(count(configs.len()));
    for voters in configs {
        out.put_u32_le(count(voters.len()));
        voters.iter().for_each(|node| out.put_u64_le(*node));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u32_le(count(nodes.len()));
    for (id, node) in nodes {
        out.put_u64_le(*id);
        out.put_u32_le(count(node.addr.len()));
        out.put_slice(node.addr.as_bytes());
    }
}

/// Reads what [`encode`] wrote, and nothing else.
pub(crate) fn decode(mut from: &[u8]) -> Option<Membership<u64, BasicNode>> {
    let from = &mut from;
    let configs = (0..read_count(from, CONFIGS_MAX)?)
        .map(|_| {
            let voters = read_count(from, MEMBERS_MAX)?;
            (0..voters)
                .map(|_| from.try_get_u64_le().ok())
                .collect::<Option<BTreeSet<u64>>>()
        })
        .collect::<Option<Vec<_>>>()?;
    let nodes = (0..read_count(from, MEMBERS_MAX)?)
        .map(|_| {
            let id = from.try_get_u64_le().ok()?;
            let length = read_count(from, ADDRESS_BYTES_MAX)?;
            let (address, rest) = from.split_at_checked(length)?;
            *from = rest;
            Some((id, BasicNode::new(std::str::from_utf8(address).ok()?)))
        })
        .collect::<Option<BTreeMap<_, _>>>()?;
    if !from.is_empty() {
        return None;
    }
    if configs.is_empty() && nodes.is_empty() {
        return Some(Membership::default());
    }
    Membership::new(configs, nodes).ok()
}

fn read_count(from: &mut &[u8], most: usize) -> Option<usize> {
    usize::try_from(from.try_get_u32_le().ok()?)
        .ok()
        .filter(|count| *count <= most)
}
