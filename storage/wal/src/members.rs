//! Who holds a shard: a replica joins as a learner, and votes once it has what the others have.
//!
//! ```text
//!   admit ─► learner, sent entries and snapshots ─► lag is small ─► promote: joint, then the new ones
//!                                               remove: joint, then the others, who know it no more
//! ```
//! Each step may be done again, by this leader or the next: what is so already is not changed. Each names
//! one node and is laid on whatever the configuration is by then, so that two operators at once do not undo
//! what the other has done.

use std::collections::{BTreeMap, BTreeSet};

use esker_types::NodeId;
use esker_types::limits::{HOLDERS_MAX, MEMBERS_CHANGE_MAX};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};

use crate::propose::{ProposeError, leader_of};
use crate::raft::rooms::Said;
use crate::raft::types::TypeConfig;
use crate::replica::Replica;

/// Who holds a shard, by the newest configuration.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members {
    /// Everybody, with the address they are reached at.
    pub all: BTreeMap<NodeId, String>,
    /// Who votes: before a change and after it, while one is under way.
    pub voters: BTreeSet<NodeId>,
    /// Who votes once the change that is under way is done.
    pub to_vote: BTreeSet<NodeId>,
    /// A change is under way: it is not known to be on a quorum of both sides.
    pub changing: bool,
}

/// What keeps a quorum of voters from having room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cramped {
    /// Only so many of them have room.
    Full {
        /// With room.
        room: usize,
        /// All.
        voters: usize,
    },
    /// Some that might have room give no answer.
    Silent,
}

impl Replica {
    /// Who holds the shard.
    #[must_use]
    pub fn members(&self) -> Members {
        let standing = self.standing();
        let standing = standing.borrow_watched();
        let newest = &standing.membership_config;
        let membership = newest.membership();
        let all = membership.nodes();
        let all = all.filter_map(|(id, node)| Some((NodeId::from_u64(*id)?, node.addr.clone())));
        let configs = membership.get_joint_config();
        let last = configs.last().into_iter().flatten();
        Members {
            all: all.collect(),
            voters: membership
                .voter_ids()
                .filter_map(NodeId::from_u64)
                .collect(),
            to_vote: last.filter_map(|id| NodeId::from_u64(*id)).collect(),
            changing: configs.len() > 1 || *newest != standing.committed_membership_config,
        }
    }

    /// Whether a quorum of the voters has room for appends, as this leader was told last, or which
    /// keeps them from it. Who was not asked yet is taken to have some; this node asks its own WAL.
    pub(crate) fn cramped(&self) -> Option<Cramped> {
        let standing = self.standing().borrow_watched();
        let membership = standing.membership_config.membership();
        let mut cramped = None;
        for voters in membership.get_joint_config() {
            let (mut room, mut silent) = (0, 0);
            for voter in voters {
                let said = (*voter != standing.id).then(|| self.rooms().said(*voter));
                match said.flatten() {
                    None | Some(Said::Room) => room += 1,
                    Some(Said::Nothing) => silent += 1,
                    Some(Said::Full) => {}
                }
            }
            if 2 * room <= voters.len() {
                let by = if 2 * (room + silent) > voters.len() {
                    Cramped::Silent
                } else {
                    let (room, voters) = (room, voters.len());
                    Cramped::Full { room, voters }
                };
                cramped = Some(by);
            }
        }
        cramped
    }

    /// Entries that `node` lacks, as this leader knows; `None` where it does not lead, or was never
    /// answered by it.
    #[must_use]
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&node.as_u64())?;
        // Nothing is known of one that never answered: it may not be reached at all.
        let matched = matched.as_ref()?.index;
        Some(metrics.last_log_index?.saturating_sub(matched))
    }

    /// Bytes of room for appends that `node`, another, said last, where it answered the last thing it was asked.
    #[must_use]
    pub fn room_of(&self, node: NodeId) -> Option<u64> {
        self.rooms().bytes(node.as_u64())
    }

    /// Entries that `node` lacks which answered the last thing it was asked, whatever else is wrong with it;
    /// `None` if it did not, or this replica does not lead.
    #[must_use]
    pub fn hears(&self, node: NodeId) -> Option<u64> {
        self.answers(node).then(|| self.lag(node)).flatten()
    }

    /// Has `node`, reached at `address`, hold the shard, without a vote.
    ///
    /// # Errors
    /// [`ProposeError`]; refused if the node is known at another address, a change is under way, or there
    /// are [`HOLDERS_MAX`] already.
    pub async fn admit(&self, node: NodeId, address: &str) -> Result<(), ProposeError> {
        if let Some(known) = self.members().all.get(&node) {
            if known == address {
                return Ok(());
            }
            let what = format!("{node} is known at {known}, and shall be at {address}");
            return Err(self.refused(what));
        }
        let holders = self.members().all.len();
        if holders >= HOLDERS_MAX {
            return Err(self.refused(format!(
                "it has {holders} holders, which is the limit: remove one that is needed no more, such \
                 as one that was added and never voted"
            )));
        }
        let node = BTreeMap::from([(node.as_u64(), BasicNode::new(address))]);
        self.change(ChangeMembers::AddNodes(node)).await
    }

    /// Has `node`, which holds the shard, vote. What is left of a change that died on the way is done
    /// with it.
    ///
    /// # Errors
    /// [`ProposeError`]; refused for one that does not hold the shard yet, while a change is under
    /// way, or if no majority of those that shall vote answers: what they cannot commit would stop the
    /// shard, the way back included.
    pub async fn promote(&self, node: NodeId) -> Result<(), ProposeError> {
        let mut members = self.members();
        if !members.to_vote.insert(node) && !members.changing {
            return Ok(());
        }
        self.majority_answers(&members.to_vote)?;
        let node = BTreeSet::from([node.as_u64()]);
        self.change(ChangeMembers::AddVoterIds(node)).await
    }

    /// Has `node` hold the shard no more, whether it votes or not. What is left of a change that died
    /// on the way is done first: whoever asks again until [`Self::members`] has neither comes to both.
    ///
    /// # Errors
    /// [`ProposeError`]; refused for the last that votes, while a change is under way, or if no
    /// majority of the others that vote answers.
    pub async fn remove(&self, node: NodeId) -> Result<(), ProposeError> {
        let mut members = self.members();
        let votes = members.voters.contains(&node);
        let id = BTreeSet::from([node.as_u64()]);
        if votes || members.changing {
            members.to_vote.remove(&node);
            self.majority_answers(&members.to_vote)?;
            self.change(ChangeMembers::RemoveVoters(id)).await
        } else if members.all.contains_key(&node) {
            self.change(ChangeMembers::RemoveNodes(id)).await
        } else {
            Ok(())
        }
    }

    fn majority_answers(&self, voters: &BTreeSet<NodeId>) -> Result<(), ProposeError> {
        let answers = voters.iter().filter(|node| self.answers(**node)).count();
        if 2 * answers > voters.len() {
            return Ok(());
        }
        let voters = voters.len();
        Err(self.refused(format!(
            "of the {voters} nodes that shall vote {answers} answer, which is no majority: the shard \
             would stand still"
        )))
    }

    /// This node, as raft has it.
    pub(crate) fn id(&self) -> u64 {
        self.standing().borrow_watched().id
    }

    /// Whether `node` is this one, or answered the last thing it was asked.
    pub(crate) fn answers(&self, node: NodeId) -> bool {
        let node = node.as_u64();
        let own = self.standing().borrow_watched().id == node;
        own || matches!(self.rooms().said(node), Some(Said::Room | Said::Full))
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let changed = self.raft().change_membership(change, false);
        let shard = self.shard();
        let Ok(changed) = tokio::time::timeout(MEMBERS_CHANGE_MAX, changed).await else {
            let what = format!("no quorum took the change within {MEMBERS_CHANGE_MAX:?}");
            return Err(ProposeError::Unknown { shard, what });
        };
        match changed {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(self.unknown(&error)),
            Err(RaftError::APIError(error)) => Err(self.unchanged(error)),
        }
    }

    fn unchanged(&self, error: ClientWriteError<TypeConfig>) -> ProposeError {
        let shard = self.shard();
        match error {
            // The second step of a change may have come to this after the first was taken.
            ClientWriteError::ForwardToLeader(forward) if !self.members().changing => {
                let leader = leader_of(forward);
                ProposeError::NotLeader { shard, leader }
            }
            ClientWriteError::ChangeMembershipError(error) => self.refused(error.to_string()),
            error => ProposeError::Unknown {
                shard,
                what: error.to_string(),
            },
        }
    }

    pub(crate) fn refused(&self, what: String) -> ProposeError {
        let shard = self.shard();
        ProposeError::Refused { shard, what }
    }
}
