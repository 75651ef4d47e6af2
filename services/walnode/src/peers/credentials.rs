//! Who calls whom, and about which shard: the metadata of every call between nodes.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use esker_types::limits::HEAD_NODES_MAX;
use esker_types::{ClusterId, NodeId, ShardId};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

pub(super) const CLUSTER: &str = "esker-cluster";
pub(super) const FROM: &str = "esker-from";
const DISK: &str = "esker-disk";
const TO: &str = "esker-to";
const SHARD: &str = "esker-shard";
const VERSION: &str = "esker-peers";

/// Which version of what nodes say to each other this binary speaks. One that changes a message so that
/// an older binary would misread it takes the next number, and speaks the older to who is older.
const SPOKEN: u32 = 1;
/// The oldest that it still understands.
const UNDERSTOOD: u32 = 1;

/// A node, as it shows itself to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
    /// The disk its log is on.
    pub disk: u128,
}

impl Credentials {
    /// Shows them on a call to `to` about `shard`.
    pub(super) fn show(&self, to: NodeId, shard: ShardId, on: &mut MetadataMap) {
        let mut put = |name: &'static str, text: String| {
            let value = AsciiMetadataValue::try_from(text);
            on.insert(name, value.expect("digits"));
        };
        put(CLUSTER, self.cluster.to_string());
        put(FROM, self.node.as_u64().to_string());
        put(DISK, format!("{:032x}", self.disk));
        put(TO, to.as_u64().to_string());
        put(SHARD, shard.0.to_string());
        put(VERSION, SPOKEN.to_string());
    }

    /// Reads who calls, as they show themselves, and about which shard; why not, if this node is not meant.
    pub(super) fn check(&self, shown: &MetadataMap) -> Result<(Self, ShardId), String> {
        let cluster = text(shown, CLUSTER)?;
        if cluster != self.cluster.to_string() {
            return Err(format!(
                "this node is of cluster {}, the call is of cluster {cluster}",
                self.cluster
            ));
        }
        let to = node(shown, TO)?;
        if to != self.node {
            return Err(format!("this node is {}, the call is for {to}", self.node));
        }
        let from = node(shown, FROM)?;
        if from == self.node {
            return Err(format!(
                "the call says that it is of {from}, and so is this node"
            ));
        }
        understood(from, shown)?;
        let disk = u128::from_str_radix(text(shown, DISK)?, 16);
        let caller = Self {
            cluster: self.cluster,
            node: from,
            disk: disk.map_err(|_| unreadable(DISK))?,
        };
        Ok((caller, ShardId(number(shown, SHARD)?)))
    }
}

/// The disk of each node that has called. An id stays with the disk that its log is on: two that call by one
/// id, as a node and a copy of it do, would vote twice.
#[derive(Debug, Default)]
pub(super) struct Disks(Mutex<BTreeMap<NodeId, u128>>);

impl Disks {
    /// Keeps the disk of `caller`, or says that another had its id before.
    pub(super) fn know(&self, caller: &Credentials) -> Result<(), String> {
        let mut disks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if disks.len() >= HEAD_NODES_MAX && !disks.contains_key(&caller.node) {
            return Ok(());
        }
        let known = *disks.entry(caller.node).or_insert(caller.disk);
        if known == caller.disk {
            return Ok(());
        }
        let (node, disk) = (caller.node, caller.disk);
        Err(format!(
            "{node} called from disk {known:032x} before, and now from {disk:032x}: one of them is a copy. \
             Stop it; if the first is gone for good, restart this node"
        ))
    }
}

/// Whether `from` speaks a version that this binary understands; those that name none speak the first.
fn understood(from: NodeId, shown: &MetadataMap) -> Result<(), String> {
    let version = match shown.get(VERSION) {
        None => 1,
        Some(_) => number(shown, VERSION)?,
    };
    if (UNDERSTOOD..=SPOKEN).contains(&version) {
        return Ok(());
    }
    let older = if version > SPOKEN {
        "this node"
    } else {
        "that one"
    };
    Err(format!(
        "{from} speaks version {version} of what nodes say to each other, this node understands \
         {UNDERSTOOD} to {SPOKEN}: restart {older} with a newer binary"
    ))
}

fn text<'a>(shown: &'a MetadataMap, name: &'static str) -> Result<&'a str, String> {
    let value = shown
        .get(name)
        .ok_or_else(|| format!("the call has no {name}"))?;
    value.to_str().map_err(|_| unreadable(name))
}

fn number<T: FromStr>(shown: &MetadataMap, name: &'static str) -> Result<T, String> {
    text(shown, name)?.parse().map_err(|_| unreadable(name))
}

fn node(shown: &MetadataMap, name: &'static str) -> Result<NodeId, String> {
    NodeId::from_u64(number(shown, name)?).ok_or_else(|| unreadable(name))
}

fn unreadable(name: &str) -> String {
    format!("{name} of the call cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_understood_is_refused() {
        let of = |node| Credentials {
            cluster: ClusterId(7),
            node: NodeId::from_u64((1_u64 << 32) | node).expect("a node's"),
            disk: 9,
        };
        let (caller, called) = (of(1), of(2));
        let mut shown = MetadataMap::new();
        caller.show(called.node, ShardId(3), &mut shown);
        let known = Ok((caller, ShardId(3)));
        assert_eq!(called.check(&shown), known);
        shown.insert(VERSION, AsciiMetadataValue::from_static("2"));
        let refused = called.check(&shown).expect_err("nobody speaks it yet");
        assert!(
            refused.ends_with("restart this node with a newer binary"),
            "{refused}"
        );
        shown.insert(VERSION, AsciiMetadataValue::from_static("0"));
        let refused = called.check(&shown).expect_err("nobody ever spoke it");
        assert!(
            refused.ends_with("restart that one with a newer binary"),
            "{refused}"
        );
        shown.insert(VERSION, AsciiMetadataValue::from_static("one"));
        called.check(&shown).expect_err("no number");
        // Binaries from before versions were named.
        shown.remove(VERSION);
        assert_eq!(called.check(&shown), known);
    }

    #[test]
    fn an_id_stays_with_the_disk_it_came_from() {
        let of = |node, disk| Credentials {
            cluster: ClusterId(7),
            node: NodeId::from_u64((1_u64 << 32) | node).expect("a node's"),
            disk,
        };
        let disks = Disks::default();
        for _ in 0..2 {
            disks.know(&of(1, 9)).expect("the first");
            disks.know(&of(2, 8)).expect("another node");
            let refused = disks.know(&of(1, 8)).expect_err("another disk");
            assert!(refused.contains("one of them is a copy"), "{refused}");
        }
        // Strangers do not make it grow.
        for node in 3..1000 {
            disks.know(&of(node, 7)).expect("unknown");
        }
        assert_eq!(disks.0.lock().expect("unpoisoned").len(), HEAD_NODES_MAX);
        disks.know(&of(1, 8)).expect_err("it is known still");
    }
}
