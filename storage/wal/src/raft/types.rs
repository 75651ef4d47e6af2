//! openraft's type parameters, and ids converted.

use std::fmt;

use bytes::{BufMut, Bytes};
use esker_shard::{Command, Outcome};
use esker_types::{EntryId, RaftIndex, Term};
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

pub use super::runtime::Runtime;
use crate::disk::{Body, Promise, Vote};

/// What openraft is asked to work with.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Applied;
    type NodeId = u64;
    type Node = openraft::BasicNode;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Told<T>
    where
        T: OptionalSend + 'static;

    // As openraft has them unless told otherwise.
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, openraft::BasicNode>;
    type Entry = openraft::impls::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Who is told what became of a proposal, at once and where it is found out: a channel would wake a
/// task that only wakes others. Dropped untold if raft ends.
pub struct Told<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Told<T> {
    /// Tells `whom`, which must be quick and may not block.
    pub(crate) fn new(whom: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(whom))
    }
}

impl<T> fmt::Debug for Told<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Told<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// A raft entry as openraft knows it.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// An entry's id as openraft knows it.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote as openraft knows it.
pub type RaftVote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// What an entry carries as openraft knows it.
pub type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;

/// First byte of a body's head.
const TAG_BLANK: u8 = 0;
const TAG_COMMAND: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

/// A command with the payload beside it, in the form that the log stores.
#[derive(Clone)]
pub struct Proposal(Body);

impl Proposal {
    /// A proposal of `command`, with the bytes of its batches.
    ///
    /// # Errors
    /// What is wrong with the command, as its encoding finds it.
    pub fn new(command: &Command, payload: Vec<Bytes>) -> Result<Self, esker_shard::Error> {
        let encoded = command.encode()?;
        let mut head = Vec::with_capacity(1 + encoded.len());
        head.put_u8(TAG_COMMAND);
        head.put_slice(&encoded);
        Ok(Self(Body::new(&head, payload)))
    }

    /// What stands for an entry whose bytes this node has lost, of whatever kind it was: it is said to others,
    /// and neither written nor applied.
    pub(crate) fn lost() -> Self {
        Self(Body::lost())
    }

    /// The same, with the room on disk that was taken for it.
    pub(crate) fn promised(self, promise: Promise) -> Self {
        Self(self.0.promised(promise))
    }

    /// The command.
    ///
    /// # Errors
    /// The bytes are none, or of a level that this binary does not know.
    pub fn command(&self) -> Result<Command, esker_shard::Error> {
        Command::decode(self.0.head().get(1..).unwrap_or_default())
    }

    /// Bytes that an entry of it takes in a log.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.0.weight()
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.0.payload_bytes()
    }
}

/// Sizes only: payload never reaches a log line.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What became of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was raft's own and carried no command.
    Blank,
    /// The answer to its command.
    Outcome(Outcome),
}

/// The body that stores a payload.
pub(crate) fn body_of(payload: &Payload) -> Body {
    match payload {
        Payload::Blank => Body::new(&[TAG_BLANK], Vec::new()),
        Payload::Normal(proposal) => proposal.0.clone(),
        Payload::Membership(membership) => {
            let mut head = vec![TAG_MEMBERSHIP];
            super::membership::encode(membership, &mut head);
            Body::new(&head, Vec::new())
        }
    }
}

/// The payload that a body stores; `None` if it stores none.
pub(crate) fn payload_of(body: Body) -> Option<Payload> {
    let head = body.head();
    match *head.first()? {
        TAG_BLANK => Some(Payload::Blank),
        TAG_COMMAND => Some(Payload::Normal(Proposal(body))),
        TAG_MEMBERSHIP => Some(Payload::Membership(super::membership::decode(&head[1..])?)),
        _ => None,
    }
}

/// The command that a body carries; `None` if it carries none.
pub(crate) fn command_of(body: &Body) -> Option<Result<Command, esker_shard::Error>> {
    let head = body.head();
    let (tag, encoded) = head.split_first()?;
    (*tag == TAG_COMMAND).then(|| Command::decode(encoded))
}

/// Our id of openraft's; openraft's index 0 is our 1.
#[must_use]
pub fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: Term(id.leader_id.term),
        index: RaftIndex(id.index + 1),
    }
}

/// openraft's id of ours; `None` for "before any entry".
#[must_use]
pub fn log_id(id: EntryId) -> Option<LogId> {
    let index = id.index.0.checked_sub(1)?;
    let leader = LeaderId::<u64, u64>::new(id.term.0, 0).to_committed();
    Some(LogId::new(leader, index))
}

/// Our vote of openraft's.
pub(crate) fn vote_of(vote: &RaftVote) -> Vote {
    let LeaderId { term, voted_for } = vote.leader_id;
    Vote {
        term: Term(term),
        node: voted_for,
        committed: vote.committed,
    }
}

/// openraft's vote of ours.
pub(crate) fn raft_vote(vote: Vote) -> RaftVote {
    RaftVote {
        leader_id: LeaderId::new(vote.term.0, vote.node),
        committed: vote.committed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_payload_survives_its_body() {
        let nodes = BTreeMap::from([
            (1, openraft::BasicNode::new("a:1")),
            (2, openraft::BasicNode::new("")),
            (3, openraft::BasicNode::new("c:3")),
        ]);
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
        let membership = openraft::Membership::new(joint, nodes).unwrap();
        let body = body_of(&Payload::Membership(membership.clone()));
        match payload_of(body).unwrap() {
            Payload::Membership(read) => assert_eq!(read, membership),
            other => panic!("{other}"),
        }
        assert!(matches!(
            payload_of(body_of(&Payload::Blank)),
            Some(Payload::Blank)
        ));

        let command = Command::AllocateNode;
        let proposal = Proposal::new(&command, vec![Bytes::from_static(b"xyz")]).unwrap();
        match payload_of(body_of(&Payload::Normal(proposal))).unwrap() {
            Payload::Normal(read) => {
                assert_eq!(
                    (read.command().unwrap(), read.payload_bytes()),
                    (command, 3)
                );
            }
            other => panic!("{other}"),
        }
        assert!(payload_of(Body::new(&[9], Vec::new())).is_none());
        assert!(payload_of(Body::new(&[], Vec::new())).is_none());
    }

    #[test]
    fn ids_are_shifted_by_one_and_none_is_zero() {
        let id = EntryId {
            term: Term(3),
            index: RaftIndex(1),
        };
        assert_eq!(log_id(id).unwrap().index, 0);
        assert_eq!(entry_id(&log_id(id).unwrap()), id);
        assert_eq!(log_id(EntryId::default()), None);
    }
}
