//! The nodes of a cluster, asked until the shards are held as an operator wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_env::Network;
use esker_types::limits::HOLDERS_MAX;
use esker_types::{ClusterId, NodeId, ShardId};
use futures::future::join_all;

use super::calling::{Calling, Changed};
use super::step::{Goal, Step, Stood, next};

/// Between two looks at the shards.
const LOOK: Duration = Duration::from_millis(300);
/// Looks until a node that was asked to lead has to.
const HAND_OVER_LOOKS: u32 = 20;

/// The nodes of a cluster, by the addresses they are reached at.
#[derive(Clone, Debug)]
pub struct Changing {
    network: Arc<dyn Network>,
    cluster: ClusterId,
    nodes: BTreeMap<String, Calling>,
}

/// How far a change has come.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Headway {
    /// Shards that are as wanted.
    pub done: usize,
    /// All shards.
    pub shards: usize,
    /// Entries that a node still lacks, all shards together.
    pub lag: u64,
    /// The same without those that never answered.
    pub known: u64,
    /// What kept a shard from the next step in this look, the last of it.
    pub obstacle: Option<String>,
}

impl Changing {
    /// The nodes of `cluster`, of which those at `addresses` are known; the others are named by them.
    ///
    /// # Errors
    /// What is wrong with an address.
    pub fn new(
        network: Arc<dyn Network>,
        cluster: ClusterId,
        addresses: &[String],
    ) -> Result<Self, String> {
        let mut changing = Self {
            network,
            cluster,
            nodes: BTreeMap::new(),
        };
        for address in addresses {
            changing.meet(address)?;
        }
        Ok(changing)
    }

    /// Who holds each shard by the word of its leader; a shard without one is missing. With it, why
    /// nodes did not answer.
    pub async fn show(&mut self) -> (BTreeMap<ShardId, (Calling, Stood)>, Vec<String>) {
        let (mut shards, mut silent) = (BTreeMap::new(), Vec::new());
        let mut asked = BTreeSet::new();
        // Nodes that are asked name others, which are few.
        loop {
            let new = self.nodes.values();
            let new = new.filter(|node| !asked.contains(node.address()));
            let nodes: Vec<_> = new.cloned().collect();
            if nodes.is_empty() {
                return (shards, silent);
            }
            let shown = join_all(nodes.iter().map(Calling::show)).await;
            for (node, shown) in nodes.into_iter().zip(shown) {
                asked.insert(node.address().to_owned());
                match shown {
                    Ok(shown) => self.hear(&node, shown, &mut shards),
                    Err(why) => silent.push(why),
                }
            }
        }
    }

    /// Keeps what the leader of each shard says, and meets whom a node names.
    fn hear(
        &mut self,
        node: &Calling,
        shown: Vec<Stood>,
        shards: &mut BTreeMap<ShardId, (Calling, Stood)>,
    ) {
        for stood in shown {
            for holder in stood.holders.values() {
                // A cluster of one has no address to be reached at.
                let _ = self.meet(&holder.address);
            }
            let known = shards.get(&stood.shard);
            let newer = known.is_none_or(|(_, known)| known.leads_in < stood.leads_in);
            if stood.leads_in.is_some() && newer {
                shards.insert(stood.shard, (node.clone(), stood));
            }
        }
    }

    /// Goes on until all `data_shards` and the catalog are as `goal` says; `tell` hears of it after
    /// every look. Ends early with the last obstacle if nothing moves for `patience`.
    ///
    /// # Errors
    /// The obstacle, in words. It may be asked again: what was done stays.
    pub async fn reach(
        &mut self,
        goal: &Goal,
        data_shards: u32,
        patience: Duration,
        mut tell: impl FnMut(&Headway),
    ) -> Result<(), String> {
        let all = data_shards as usize + 1;
        let (mut last, mut still) = (Headway::default(), Duration::ZERO);
        loop {
            let now = self.look(goal, all).await;
            tell(&now);
            if now.done == all {
                return Ok(());
            }
            // One that never answers lacks more with every append.
            let moved = now.done != last.done || now.known != last.known;
            still = if moved { Duration::ZERO } else { still + LOOK };
            if still >= patience {
                let why = now.obstacle.unwrap_or_else(|| "nothing moves".to_owned());
                return Err(why);
            }
            last = now;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks at every shard once, and takes the next step of each.
    async fn look(&mut self, goal: &Goal, all: usize) -> Headway {
        let (shards, silent) = self.show().await;
        let mut headway = Headway {
            shards: all,
            ..Headway::default()
        };
        if shards.len() < all {
            let missing = all - shards.len();
            let why = silent.first().map_or("no node knows who", String::as_str);
            headway.obstacle = Some(format!(
                "{missing} shards have no leader that answers: {why}"
            ));
        }
        for (shard, (leader, stood)) in shards {
            let changed = match next(&stood, goal) {
                Step::Done => {
                    headway.done += 1;
                    continue;
                }
                Step::Wait(lag) => {
                    headway.lag += lag.unwrap_or(stood.applied);
                    headway.known += lag.unwrap_or_default();
                    continue;
                }
                Step::Never(why) => Changed::Refused(why),
                step => take(&leader, shard, &step, goal).await,
            };
            match changed {
                // The next look sees it, or who leads by then.
                Changed::Done | Changed::NotLeader => {}
                Changed::Refused(why) => headway.obstacle = Some(why),
                // What stands still in one shard need not come to stand still in all.
                Changed::Unknown(why) => {
                    headway.obstacle = Some(why);
                    break;
                }
            }
        }
        headway
    }

    /// Asks the leader of `shard` to have `node` lead it.
    ///
    /// # Errors
    /// Why that cannot be.
    pub async fn hand_over(&mut self, shard: ShardId, node: NodeId) -> Result<(), String> {
        for _ in 0..HAND_OVER_LOOKS {
            let (shards, _) = self.show().await;
            if let Some((leader, stood)) = shards.get(&shard) {
                if stood.leader == Some(node) {
                    return Ok(());
                }
                if !stood.holders.get(&node).is_some_and(|holder| holder.votes) {
                    return Err(format!("node {node} has no vote on {shard}"));
                }
                if let Changed::Refused(why) = leader.hand_over(shard, node).await {
                    return Err(why);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(format!(
            "node {node} does not lead {shard} after {HAND_OVER_LOOKS} tries; it may lack entries, \
             or be away"
        ))
    }

    fn meet(&mut self, address: &str) -> Result<(), String> {
        if self.nodes.contains_key(address) || self.nodes.len() >= HOLDERS_MAX {
            return Ok(());
        }
        let calling = Calling::new(&self.network, self.cluster, address)?;
        self.nodes.insert(address.to_owned(), calling);
        Ok(())
    }
}

/// Takes a step of `shard` by its leader.
async fn take(leader: &Calling, shard: ShardId, step: &Step, goal: &Goal) -> Changed {
    let (Goal::Add { node, .. } | Goal::Remove { node }) = goal;
    match (step, goal) {
        (Step::Admit, Goal::Add { address, .. }) => leader.admit(shard, *node, address).await,
        (Step::Promote, _) => leader.promote(shard, *node).await,
        (Step::Remove, _) => leader.remove(shard, *node).await,
        (Step::Admit | Step::Done | Step::Wait(_) | Step::Never(_), _) => Changed::Done,
    }
}
