//! The replicas of a shard on other nodes: what is said between them, and the ways that it goes.
//!
//! ```text
//!   leader ── append: entries, or none to show that it lives ──► follower
//!          ◄── matched, conflict, a higher vote ───────────────
//!   candidate ── vote, or asked beforehand whether it would be given ──► everybody
//!   leader ── a snapshot with the head that it names ──► who is too far behind
//!   leader ── lead from now on ──► one follower
//!          ── what is your state, by its hash? and what is the time? ──► everybody
//! ```
//! The ways are built where there is a network. Whatever is said may be lost, late or said twice;
//! what one stream of appends carries arrives in order or not at all.

use std::fmt;

use esker_env::WallMs;
use esker_shard::StateHash;
use esker_types::{EntryId, NodeId, ShardId};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::disk::{Body, Vote};
use crate::raft::Snapshot;

/// What came of saying something to a peer.
pub type Said<'a, T> = BoxFuture<'a, Result<T, PeerError>>;
/// Answers of a peer to a stream of appends, in the order of the requests.
pub type AppendReplies = BoxStream<'static, Result<AppendReply, PeerError>>;

/// Ways to the replicas on other nodes.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// The way to the replica of `shard` on `node`, which listens at `address`. Connects when
    /// something is said.
    fn peer(&self, shard: ShardId, node: NodeId, address: &str) -> Box<dyn Peer>;
}

/// The way to one replica. An answer that does not come within the time that raft gives it is not
/// waited for: dropping a future or a stream takes back what was not said yet.
pub trait Peer: Send + Sync + 'static {
    /// Appends, in order; the answers come in the same order. Ends with the requests, with a reply
    /// other than [`AppendReply::Matched`], or with an error.
    fn append(&self, requests: BoxStream<'static, AppendRequest>) -> Said<'_, AppendReplies>;

    /// Shows that the leader lives: one request without entries. Nothing waits for it.
    fn beat(&self, request: AppendRequest) -> Said<'_, AppendReply>;

    /// Asks for a vote.
    fn vote(&self, request: VoteRequest) -> Said<'_, VoteReply>;

    /// Hands over a snapshot; the peer has it on its disk when it answers, with its vote.
    fn install(&self, leader: Vote, snapshot: Snapshot) -> Said<'_, Vote>;

    /// Asks the peer to lead.
    fn transfer(&self, request: TransferRequest) -> Said<'_, TransferReply>;

    /// Asks what its wall clock says.
    fn clock(&self) -> Said<'_, WallMs>;

    /// Asks what its state was when it was last to be compared; `None` if it never was.
    fn likeness(&self) -> Said<'_, Option<Likeness>>;
}

/// A peer gave no answer, and why. What was said may have arrived all the same.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PeerError(pub String);

/// Entries for a follower; none, to show that the leader lives. An id of zero is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendRequest {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry that those below follow on.
    pub previous: EntryId,
    /// In order, without a gap.
    pub entries: Vec<(EntryId, Body)>,
    /// What a quorum has, as far as the leader knows.
    pub committed: EntryId,
}

/// A follower's answer to an [`AppendRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendReply {
    /// Its log is the leader's, on its disk.
    Matched {
        /// Up to this entry.
        upto: EntryId,
        /// Bytes that appends may still take in its WAL before they touch the reserve.
        room: u64,
        /// It knows of entries of the shard that are damaged on its disk.
        damaged: bool,
    },
    /// It has another entry, or none, in place of the one that was to be followed on.
    Conflict(EntryId),
    /// It has given a higher vote.
    HigherVote(Vote),
}

/// A replica's state at one entry: that of every other at this entry is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Likeness {
    /// The last entry applied to it.
    pub at: EntryId,
    /// Its hash.
    pub hash: StateHash,
}

/// A candidate's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteRequest {
    /// The vote that is asked for.
    pub vote: Vote,
    /// The last entry of the candidate; zero is none.
    pub last: EntryId,
    /// The leader itself has asked the candidate to lead: nobody waits until its lease is over.
    pub transfer: bool,
    /// Only whether the vote would be given: nothing is written.
    pub beforehand: bool,
}

/// An answer to a [`VoteRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteReply {
    /// The vote of who answers, afterwards.
    pub vote: Vote,
    /// It is given.
    pub granted: bool,
    /// The last entry of who answers; zero is none.
    pub last: EntryId,
}

/// A leader's wish that another leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferRequest {
    /// The leader's vote.
    pub from: Vote,
    /// The stored form of the id of the node that is to lead. Everybody is told, so that they grant it.
    pub to: u64,
    /// What that node must have on its disk first; zero is nothing.
    pub last: EntryId,
}

/// An answer to a [`TransferRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferReply {
    /// It will campaign, if it is the one.
    Taken,
    /// It has given another vote since.
    VoteChanged(Vote),
    /// Its log ends here; zero is nowhere.
    Behind(EntryId),
}
