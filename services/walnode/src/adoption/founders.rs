//! Whom a cluster is founded with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use esker_types::NodeId;
use esker_types::limits::FOUNDERS_MAX;

use super::words::is_address;
use crate::disk_id::DiskId;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founder {
    /// Where other nodes reach it, `host:port`.
    pub address: String,
    /// The disk that it is on.
    pub disk: DiskId,
}

/// All of them, by their ids: at most [`FOUNDERS_MAX`]. Nobody for a node that joins
/// a cluster which stands. Each of them is told of all as it is adopted, and is founded with no others: a
/// founding that died half-way is gone on with, never begun a second time with other nodes under the same
/// ids.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Founders(Arc<BTreeMap<NodeId, Founder>>);

impl Founders {
    /// These.
    ///
    /// # Errors
    /// Why they cannot found a cluster together.
    pub fn new(
        founders: impl IntoIterator<Item = (NodeId, Founder)>,
    ) -> Result<Self, &'static str> {
        let (mut all, mut disks, mut addresses) =
            (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (node, founder) in founders {
            if all.len() == FOUNDERS_MAX {
                return Err("there are too many founders");
            }
            if !is_address(&founder.address) {
                return Err("a founder has no address");
            }
            if !addresses.insert(founder.address.clone()) || !disks.insert(founder.disk) {
                return Err("two founders are on the same disk, or at the same address");
            }
            if all.insert(node, founder).is_some() {
                return Err("two founders are the same node");
            }
        }
        Ok(Self(Arc::new(all)))
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Founder)> {
        self.0.iter().map(|(node, founder)| (*node, founder))
    }

    /// This one.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Founder> {
        self.0.get(&node)
    }

    /// Which of them is on `disk`.
    #[must_use]
    pub fn on(&self, disk: DiskId) -> Option<NodeId> {
        let mut founders = self.iter();
        let found = founders.find(|(_, founder)| founder.disk == disk);
        found.map(|(node, _)| node)
    }

    /// Where each is reached.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<NodeId, String> {
        let voters = self.iter();
        voters
            .map(|(node, founder)| (node, founder.address.clone()))
            .collect()
    }
}

impl fmt::Display for Founders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let founders = self.iter();
        let founders = founders.map(|(node, founder)| format!("{node} at {}", founder.address));
        f.write_str(&founders.collect::<Vec<_>>().join(", "))
    }
}
