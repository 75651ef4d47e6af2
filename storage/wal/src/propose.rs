//! Commands handed to raft, and what becomes of them.

use std::future::Future;

use bytes::Bytes;
use esker_shard::{Command, Outcome};
use esker_types::{EntryId, NodeId, ShardId, Term};
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use tokio::sync::oneshot;

use crate::disk::{Full, Promise, Purpose};
use crate::raft::types::{Applied, Proposal, Told, TypeConfig, entry_id};
use crate::replica::Replica;

/// Who leads a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// The node.
    pub node: NodeId,
    /// The address it was given among the voters.
    pub address: String,
}

/// Why a proposal did not end with an outcome.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead. Nothing was written.
    #[error("{shard} is led by {}", led_by(.leader.as_ref()))]
    NotLeader {
        /// The shard.
        shard: ShardId,
        /// Who leads, if anybody is known to.
        leader: Option<Leader>,
    },
    /// The command cannot be encoded, or the WAL has no room for it. Nothing was written.
    #[error("{shard}: the command is refused: {what}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Why.
        what: String,
    },
    /// It was proposed, and what became of it is unknown.
    #[error("{shard}: it is unknown whether the entry will be committed: {what}")]
    Unknown {
        /// The shard.
        shard: ShardId,
        /// What happened.
        what: String,
    },
}

impl Replica {
    /// Hands a command to raft, in the order of the calls, and returns a future of what becomes of
    /// it. Dropping the future changes nothing. Waits while the WAL writes the files for it.
    ///
    /// # Errors
    /// [`ProposeError::Refused`], also while the WAL of this node has no room for the command: one
    /// that makes room is let into the reserve. Nothing was written.
    pub async fn propose(
        &self,
        command: &Command,
        payload: Vec<Bytes>,
    ) -> Result<
        impl Future<Output = Result<(EntryId, Outcome), ProposeError>> + Send + use<>,
        ProposeError,
    > {
        let shard = self.shard();
        let proposal = self.proposal(command, payload)?;
        let needed = self.wal().entry_disk_bytes(proposal.entry_bytes());
        let promise = self.wal().promise(purpose(command), needed).await;
        let promise = promise.map_err(|full| ProposeError::Refused {
            shard,
            what: format!(
                "the WAL of this node has {} bytes of room for it, it needs {needed}; {}",
                full.room,
                Full::what_to_do(full.disk_full),
            ),
        })?;
        let (tell, told) = oneshot::channel();
        // Whoever has gone needs no answer.
        let told_to = move |outcome| _ = tell.send(outcome);
        self.send(proposal.promised(promise), None, told_to).await?;
        Ok(async move {
            let ended = |_| ProposeError::Unknown {
                shard,
                what: "raft ended".into(),
            };
            told.await.map_err(ended)?
        })
    }

    /// As [`Replica::propose`], with room on disk that was taken already, and only as the leader of
    /// `term`: in any other it is refused. `told` is told what becomes of it, where that is found
    /// out: it must be quick. Raft that ends drops it untold: then it is unknown.
    pub(crate) async fn propose_in(
        &self,
        term: Term,
        command: &Command,
        payload: Vec<Bytes>,
        promise: Promise,
        told: impl FnOnce(Result<(EntryId, Outcome), ProposeError>) + Send + 'static,
    ) {
        let proposal = match self.proposal(command, payload) {
            Ok(proposal) => proposal,
            Err(error) => return told(Err(error)),
        };
        promise.cover(proposal.entry_bytes());
        let proposal = proposal.promised(promise);
        let _ = self.send(proposal, Some(term), told).await;
    }

    fn proposal(&self, command: &Command, payload: Vec<Bytes>) -> Result<Proposal, ProposeError> {
        let shard = self.shard();
        let proposal = Proposal::new(command, payload).map_err(|error| ProposeError::Refused {
            shard,
            what: error.to_string(),
        })?;
        // Raft takes an entry that its log refuses for a broken disk, and ends.
        let (bytes, bytes_max) = (proposal.entry_bytes(), self.wal().entry_bytes_max());
        if bytes > bytes_max {
            let what = format!("an entry of {bytes} bytes, the limit of this WAL is {bytes_max}");
            return Err(ProposeError::Refused { shard, what });
        }
        Ok(proposal)
    }

    async fn send(
        &self,
        proposal: Proposal,
        term: Option<Term>,
        told: impl FnOnce(Result<(EntryId, Outcome), ProposeError>) + Send + 'static,
    ) -> Result<(), ProposeError> {
        let shard = self.shard();
        let responder = Told::new(move |written| told(outcome_of(shard, written)));
        let mut write = self.raft().write(proposal).responder(responder);
        if let Some(Term(term)) = term {
            write = write.with_leader(term);
        }
        write.await.map_err(|error| self.unknown(&error))
    }
}

fn outcome_of(
    shard: ShardId,
    written: ClientWriteResult<TypeConfig>,
) -> Result<(EntryId, Outcome), ProposeError> {
    match written {
        Ok(written) => match written.data {
            Applied::Outcome(outcome) => Ok((entry_id(&written.log_id), outcome)),
            Applied::Blank => unreachable!("a proposal carries a command"),
        },
        Err(ClientWriteError::ForwardToLeader(forward)) => {
            let leader = leader_of(forward);
            Err(ProposeError::NotLeader { shard, leader })
        }
        Err(other) => Err(ProposeError::Unknown {
            shard,
            what: other.to_string(),
        }),
    }
}

pub(crate) fn leader_of(forward: ForwardToLeader<TypeConfig>) -> Option<Leader> {
    let node = forward.leader_id.and_then(NodeId::from_u64)?;
    let address = forward.leader_node?.addr;
    Some(Leader { node, address })
}

fn led_by(leader: Option<&Leader>) -> String {
    leader.map_or_else(
        || "nobody at the moment".to_owned(),
        |Leader { node, address }| match address.as_str() {
            "" => node.to_string(),
            address => format!("{node} at {address}"),
        },
    )
}

/// Whether a command makes room, once it is flushed or a checkpoint knows of it.
fn purpose(command: &Command) -> Purpose {
    match command {
        Command::CommitSegment(_)
        | Command::Swap(_)
        | Command::Trim(_)
        | Command::DeleteTopic { .. }
        | Command::EndTopic { .. }
        | Command::TopicEnded { .. }
        | Command::DropTombstone { .. }
        | Command::RaiseGcBoundary { .. } => Purpose::Command,
        _ => Purpose::Append,
    }
}
