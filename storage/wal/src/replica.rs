//! One replica of one shard: its raft, its log, its state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Clock, Entropy, Env};
use esker_shard::{Command, Genesis, HeadBatch, HeadEntry, HeadPosition, HeadSize, State};
use esker_types::limits::{ELECTION_MAX, ELECTION_MIN, HEAD_READ_DISK_BYTES_MAX, HEARTBEAT};
use esker_types::{ContentHash, NodeId, RaftIndex, ShardId};
use openraft::alias::WatchReceiverOf;
use openraft::errors::Fatal;
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, SnapshotPolicy};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::Error;
use crate::caught_up::CaughtUp;
use crate::disk::{Checkpoints, Wal};
use crate::peers::{Likeness, Peers};
use crate::propose::ProposeError;
use crate::raft::network::Links;
use crate::raft::rooms::Rooms;
use crate::raft::types::{Runtime, TypeConfig, command_of};
use crate::raft::{Durable, LogStore, Machine, replay};
use crate::rounds::Rounds;
use crate::succession::{Heard, succeed};

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;
/// Who leads, in which term, among whom, and every change of it.
pub(crate) type Standing = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// How long the hash of a state may take.
const LIKENESS_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a checkpoint before it is asked for again.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(1);

/// One replica of one shard. Clones share it.
#[derive(Clone)]
pub struct Replica {
    shard: ShardId,
    raft: Raft,
    wal: Arc<Wal>,
    checkpoints: Checkpoints,
    view: watch::Receiver<State>,
    durable: watch::Receiver<Durable>,
    alive: watch::Receiver<()>,
    likeness: watch::Receiver<Option<Likeness>>,
    /// Who leads, in which term, among whom.
    standing: Standing,
    rooms: Rooms,
    heard: Heard,
    caught_up: CaughtUp,
    /// Of ReadIndex.
    rounds: Rounds<Result<RaftIndex, ProposeError>>,
    _watching: Arc<Task>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    peers: Arc<dyn Peers>,
}

/// A task that has raft at hand, and ends with the last clone of its replica.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An accepted batch, as its producer sent it.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Where it stands.
    pub batch: HeadBatch,
    /// Hash of its plain records, or what stands in for it.
    pub hash: ContentHash,
    /// The batch.
    pub bytes: Bytes,
}

impl Replica {
    /// Opens the replica of `genesis.shard` on `node`, from its checkpoint and its log.
    ///
    /// # Errors
    /// What [`Machine::open`] says, or [`Error::Raft`] if raft cannot start from what is there.
    pub async fn open(
        env: &Env,
        wal: Arc<Wal>,
        checkpoints: Checkpoints,
        node: NodeId,
        genesis: Genesis,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, Error> {
        let shard = genesis.shard;
        let refused = |what: &dyn fmt::Display| Error::Raft {
            shard,
            what: what.to_string(),
        };
        let config = raft_config(shard)
            .validate()
            .map_err(|error| refused(&error))?;
        let (log, kept) = (Arc::clone(&wal), checkpoints.clone());
        let mut start = Machine::open(env, log, kept, genesis).await?;
        start.machine.is_backed(node)?;
        // An installed checkpoint may have become durable, and the purge behind it not: raft would go on from
        // a log that ends below what it has applied.
        let applied = start.machine.state().applied();
        if wal.bounds(shard).last.index < applied.index {
            wal.purge(shard, applied);
        }
        let mut store = LogStore::new(Arc::clone(&wal), shard);
        replay(&mut store, &mut start.machine)
            .await
            .map_err(|error| refused(&error))?;
        let rooms = Rooms::default();
        let links = Links {
            shard,
            peers: Arc::clone(&peers),
            rooms: rooms.clone(),
            kept: Arc::default(),
        };
        let raft = Raft::new(node.as_u64(), Arc::new(config), links, store, start.machine);
        // Whatever raft spawns here draws from this seed.
        let raft = Runtime::scope(env.entropy.next_u64(), raft);
        let raft = wal.step().keep(raft).await;
        let raft = raft.map_err(|error| refused(&error))?;
        let (standing, heard) = (raft.server_metrics(), Heard::new());
        let log = (Arc::clone(&wal), shard);
        let succeeding = succeed(log, raft.clone(), standing.clone(), heard.clone());
        let caught_up = CaughtUp::new();
        let leading = caught_up.clone().lead(standing.clone());
        let watching = async { _ = tokio::join!(succeeding, leading) };
        let watching = Task(tokio::spawn(watching).abort_handle());
        Ok(Self {
            shard,
            standing,
            rooms,
            heard,
            rounds: Rounds::default(),
            caught_up,
            _watching: Arc::new(watching),
            raft,
            wal,
            checkpoints,
            view: start.view,
            durable: start.durable,
            alive: start.alive,
            likeness: start.likeness,
            entropy: Arc::clone(&env.entropy),
            clock: Arc::clone(&env.clock),
            peers,
        })
    }

    /// Whether the shard has a log: a vote, or an entry.
    ///
    /// # Errors
    /// [`Error::Raft`].
    pub async fn has_begun(&self) -> Result<bool, Error> {
        let begun = self.raft.is_initialized().await;
        begun.map_err(|error| Error::Raft {
            shard: self.shard,
            what: error.to_string(),
        })
    }

    /// Gives a shard that has no log yet its voters, this node among them, each with the address it
    /// listens at. Does nothing to one that has. One node does this; the others hear of it.
    ///
    /// # Errors
    /// [`Error::Raft`].
    pub async fn found(&self, voters: &BTreeMap<NodeId, String>) -> Result<(), Error> {
        let refused = |what: &dyn fmt::Display| Error::Raft {
            shard: self.shard,
            what: what.to_string(),
        };
        if self.has_begun().await? {
            return Ok(());
        }
        let voters = voters.iter();
        let voters = voters.map(|(node, address)| (node.as_u64(), BasicNode::new(address)));
        self.raft
            .initialize(voters.collect::<BTreeMap<_, _>>())
            .await
            .map_err(|error| refused(&error))
    }

    /// Waits until this replica leads and has applied everything committed before. A single voter
    /// elects itself within an election timeout of its start.
    ///
    /// # Errors
    /// [`ProposeError::Unknown`] if raft ended.
    pub async fn lead(&self) -> Result<(), ProposeError> {
        self.raft
            .trigger()
            .elect(false)
            .await
            .map_err(|error| self.unknown(&error))?;
        loop {
            match self.read_index().await {
                Ok(_) => return Ok(()),
                Err(ProposeError::NotLeader { .. }) => tokio::time::sleep(HEARTBEAT / 4).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Which shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The log of this node.
    #[must_use]
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// The state as last applied here. O(1), and never changes.
    #[must_use]
    pub fn state(&self) -> State {
        self.view.borrow().clone()
    }

    /// What the head holds, as last applied here.
    #[must_use]
    pub fn head_size(&self) -> HeadSize {
        self.view.borrow().head_size()
    }

    /// The state, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.view.clone()
    }

    /// Has every replica take the hash of its state, by an entry that changes nothing. Returns what it is
    /// here.
    ///
    /// # Errors
    /// As [`Replica::propose`].
    pub async fn compare(&self) -> Result<Likeness, ProposeError> {
        let level = self.state().level();
        let command = Command::RaiseLevel { level };
        let (at, _) = self.propose(&command, Vec::new()).await?.await?;
        let mut likeness = self.likeness.clone();
        let taken = likeness.wait_for(|last| last.is_some_and(|last| last.at >= at));
        let taken = tokio::time::timeout(LIKENESS_PATIENCE, taken).await;
        match taken.ok().and_then(Result::ok).and_then(|taken| *taken) {
            Some(taken) => Ok(taken),
            None => Err(self.refused("the hash of its state was not taken".to_owned())),
        }
    }

    /// Its state when it was last to be compared.
    #[must_use]
    pub fn likeness(&self) -> Option<Likeness> {
        *self.likeness.borrow()
    }

    /// Waits until its raft has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.clone();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// The bytes of accepted batches of the head, as their producers sent them: of all at `positions`, or of the
    /// first, once what was read from the disk passes [`HEAD_READ_DISK_BYTES_MAX`]. An entry that holds several
    /// in a row is read once. `None` if one of them is released: then the bucket has it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub async fn read_batches(
        &self,
        positions: &[HeadPosition],
    ) -> Result<Option<Vec<Bytes>>, Error> {
        let (mut batches, mut read) = (Vec::with_capacity(positions.len()), 0);
        for of_entry in positions.chunk_by(|one, next| one.index == next.index) {
            let index = of_entry[0].index;
            let in_memory = self.wal.is_in_memory(self.shard, index);
            if read > HEAD_READ_DISK_BYTES_MAX && !in_memory {
                break;
            }
            let Some((_, body)) = self.wal.read_entry(self.shard, index).await? else {
                return Ok(None);
            };
            read += if in_memory { 0 } else { body.weight() };
            let places = of_entry.iter().map(|position| place(&position.batch));
            let Some(slices) = body.slices(&places.collect::<Vec<_>>()) else {
                return Ok(None);
            };
            batches.extend(slices);
        }
        Ok(Some(batches))
    }

    /// Bytes that [`Self::read_accepted`] takes from the disk for the entry at `index`, now: none if it is in memory,
    /// all of the entry otherwise, however little of it was accepted.
    #[must_use]
    pub fn bytes_on_disk(&self, index: RaftIndex) -> u64 {
        self.wal.bytes_on_disk(self.shard, index)
    }

    /// The accepted batches of the entry at `index`, as `entry`, its place in a state's head, names
    /// them; `None` once the entry is released. May read the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`]; [`Error::Raft`] if the entry is not what the head says.
    pub async fn read_accepted(
        &self,
        index: RaftIndex,
        entry: &HeadEntry,
    ) -> Result<Option<Vec<Accepted>>, Error> {
        let Some((id, body)) = self.wal.read_entry(self.shard, index).await? else {
            return Ok(None);
        };
        let differs = || Error::Raft {
            shard: self.shard,
            what: format!("entry {id} is not the append that the head names"),
        };
        let Ok(Command::Append(append)) = command_of(&body).ok_or_else(differs)? else {
            return Err(differs());
        };
        let places: Vec<_> = entry.batches.iter().map(place).collect();
        let slices = body.slices(&places).ok_or_else(differs)?;
        let accepted = entry.batches.iter().zip(slices).map(|(batch, bytes)| {
            let described = append.batches.get(batch.ordinal as usize)?;
            Some(Accepted {
                batch: *batch,
                hash: described.hash,
                bytes,
            })
        });
        accepted
            .collect::<Option<_>>()
            .ok_or_else(differs)
            .map(Some)
    }

    /// Makes a durable checkpoint of the state as it is now, and lets raft forget what lies below
    /// it. Returns its last entry; that of the older one, which stays current, if the disk has no
    /// room for it.
    ///
    /// # Errors
    /// [`Error::Raft`] if raft ended, which a failed disk makes it do.
    pub async fn checkpoint(&self) -> Result<RaftIndex, Error> {
        let refused = |what: &dyn fmt::Display| Error::Raft {
            shard: self.shard,
            what: what.to_string(),
        };
        let wanted = self.view.borrow().applied().index;
        let mut durable = self.durable.clone();
        let postponed = durable.borrow().postponed;
        let last = loop {
            let now = *durable.borrow_and_update();
            let last = now.last.index;
            if last >= wanted || now.postponed > postponed {
                break last;
            }
            self.raft
                .trigger()
                .snapshot()
                .await
                .map_err(|error| refused(&error))?;
            // A build that was under way swallows the request, and may have begun too early: then
            // it is asked again.
            let built = tokio::time::timeout(CHECKPOINT_PATIENCE, durable.changed());
            if let Ok(Err(_)) = built.await {
                return Err(refused(&"it ended"));
            }
        };
        self.forget().await?;
        Ok(last)
    }

    /// Lets raft forget what lies below the durable checkpoint, less what is kept for others. Raft may not
    /// know of the checkpoint yet, and then does less or nothing: it is asked again until it has.
    ///
    /// # Errors
    /// [`Error::Raft`] if raft ended.
    pub async fn forget(&self) -> Result<(), Error> {
        // Who is being sent a snapshot goes on from it by entries.
        let last = self.durable.borrow().last.index;
        let last = self.wal.forget_to(self.shard, last);
        // openraft counts from 0.
        let Some(upto) = last.0.checked_sub(1) else {
            return Ok(());
        };
        if self.wal.bounds(self.shard).purged.index >= last {
            return Ok(());
        }
        let purged = self.raft.trigger().purge_log(upto).await;
        purged.map_err(|error| Error::Raft {
            shard: self.shard,
            what: error.to_string(),
        })
    }

    /// Lets the log go of what neither raft nor the durable checkpoint needs any more. Returns up
    /// to where.
    pub fn release(&self) -> RaftIndex {
        let flushed = self.durable.borrow().flushed;
        self.wal.release(self.shard, flushed)
    }

    /// What the durable checkpoint covers, and up to where it says nothing is unflushed.
    #[must_use]
    pub fn checkpointed(&self) -> (RaftIndex, RaftIndex) {
        let durable = *self.durable.borrow();
        (durable.last.index, durable.flushed)
    }

    /// Bytes of the state in the durable checkpoint.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.durable.borrow().bytes
    }

    /// Entries that are known to be damaged on this disk, and not released yet: it had better not lead.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.wal.damaged(self.shard)
    }

    /// Ends this replica's raft; what it was doing is answered or unknown.
    pub async fn close(&self) {
        // It fails only if the core panicked, and then the process is on its way out.
        let _ = self.raft.shutdown().await;
    }

    /// Of what a task that raft spawns draws.
    pub(crate) fn seed(&self) -> u64 {
        self.entropy.next_u64()
    }

    pub(crate) const fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) const fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    pub(crate) const fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    pub(crate) const fn heard(&self) -> &Heard {
        &self.heard
    }

    pub(crate) const fn caught_up(&self) -> &CaughtUp {
        &self.caught_up
    }

    pub(crate) const fn rounds(&self) -> &Rounds<Result<RaftIndex, ProposeError>> {
        &self.rounds
    }

    pub(crate) const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    pub(crate) const fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(crate) fn unknown(&self, error: &Fatal<TypeConfig>) -> ProposeError {
        unknown(self.shard, error)
    }
}

/// That raft of `shard` ended before it answered.
pub(crate) fn unknown(shard: ShardId, error: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Unknown {
        shard,
        what: error.to_string(),
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

/// openraft as used: checkpoints and purges happen when we say so, and only then.
fn raft_config(shard: ShardId) -> openraft::Config {
    let ms = |time: Duration| u64::try_from(time.as_millis()).expect("seconds at most");
    openraft::Config {
        cluster_name: shard.to_string(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // Followers may hold entries of its term that a leader died before it had synced. Back in that
        // term it would write others under their ids, and logs would differ where ids agree.
        enable_leader_restore: Some(false),
        // What a follower has acknowledged it keeps: a quorum was counted with it.
        allow_log_reversion: Some(false),
        ..openraft::Config::default()
    }
}

/// Where the bytes of `batch` begin in its entry's payload, and how many there are.
const fn place(batch: &HeadBatch) -> (usize, usize) {
    (batch.at as usize, batch.bytes as usize)
}
