//! openraft's state machine over `shard::State`.
//!
//! A checkpoint, built here or installed, becomes current in one order: every frame up to its
//! entry is synced on this node, then the checkpoint by rename and directory sync, then openraft
//! is told. The builder waits; apply never does, since it works on the state and the builder on a
//! view of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use esker_env::{Env, WorkersExt, is_out_of_room};
use esker_shard::checkpoint::{self, Scope};
use esker_shard::{Command, Data, Genesis, State};
use esker_types::{EntryId, NodeId, RaftIndex, Term};
use futures::{Stream, TryStreamExt as _};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, alias};
use tokio::sync::watch;

use super::membership;
use super::snapshot::{Head, Received, Snapshot, decode, unflushed};
use super::types::{Applied, LogId, Payload, TypeConfig, entry_id, log_id};
use crate::Error;
use crate::disk::{Checkpoint, Checkpoints, Wal};
use crate::peers::Likeness;

type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
type RaftSnapshot = alias::SnapshotOf<TypeConfig, Snapshot>;

/// Entries applied before readers are shown the state and proposers get their answers.
const APPLY_RUN_MAX: usize = 256;

/// A shard's state and all that keeps it.
#[derive(Debug)]
pub struct Machine {
    state: State,
    membership: StoredMembership,
    view: watch::Sender<State>,
    shared: Arc<Shared>,
    /// Up to where it is flushed, as the log was last told.
    unloaded: RaftIndex,
    /// Its state when it was last to be compared.
    likeness: watch::Sender<Option<Likeness>>,
    /// Held while a hash is being taken.
    comparing: Arc<tokio::sync::Mutex<()>>,
    /// Dropped with the machine, at once: the rest is kept by who builds a checkpoint.
    _alive: watch::Sender<()>,
}

/// What the machine and the builder of its checkpoints share.
#[derive(Debug)]
struct Shared {
    env: Env,
    wal: Arc<Wal>,
    checkpoints: Checkpoints,
    /// Held while a checkpoint is made current: builder and installer run side by side.
    turn: tokio::sync::Mutex<()>,
    current: Mutex<Option<Current>>,
    /// Its state's readings that release goes by.
    durable: watch::Sender<Durable>,
    /// The disk had no room for the last one that was to be current; said once.
    postponing: AtomicBool,
}

/// The current checkpoint.
#[derive(Clone, Debug)]
struct Current {
    checkpoint: Arc<Checkpoint>,
    /// Up to where nothing is unflushed in it.
    flushed: RaftIndex,
}

/// What the current, durable checkpoint says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Durable {
    /// Its last entry.
    pub(crate) last: EntryId,
    /// Up to where nothing is unflushed in it.
    pub(crate) flushed: RaftIndex,
    /// Bytes of its state.
    pub(crate) bytes: u64,
    /// Newer ones that the disk had no room for, so far.
    pub(crate) postponed: u64,
}

/// A machine read from disk, and the ends that its replica keeps.
#[derive(Debug)]
pub struct MachineStart {
    /// For openraft.
    pub machine: Machine,
    /// The state as last applied.
    pub view: watch::Receiver<State>,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) likeness: watch::Receiver<Option<Likeness>>,
    /// Never changes, and closes once the machine is gone.
    pub(crate) alive: watch::Receiver<()>,
}

impl Machine {
    /// The shard of `genesis` as its durable checkpoint has it, or before its first entry. Reads
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is a checkpoint that cannot be read; else as
    /// [`Checkpoints::load`].
    pub async fn open(
        env: &Env,
        wal: Arc<Wal>,
        checkpoints: Checkpoints,
        genesis: Genesis,
    ) -> Result<MachineStart, Error> {
        let shard = genesis.shard;
        let load = {
            let checkpoints = checkpoints.clone();
            move || checkpoints.load(shard)
        };
        let current = env.workers.run(load).await?;
        let (state, membership) = match &current {
            None => (State::new(genesis), StoredMembership::default()),
            Some(checkpoint) => {
                read(checkpoint).map_err(|what| Error::Checkpoint { shard, what })?
            }
        };
        let durable = current
            .as_ref()
            .map_or_else(Durable::default, |checkpoint| Durable {
                last: checkpoint.last,
                flushed: state.flushed(),
                bytes: checkpoint.state_bytes(),
                postponed: 0,
            });
        let (view, view_end) = watch::channel(state.clone());
        let (durable, durable_end) = watch::channel(durable);
        let (alive, alive_end) = watch::channel(());
        let (likeness, likeness_end) = watch::channel(None);
        let current = current.map(|checkpoint| Current {
            checkpoint: Arc::new(checkpoint),
            flushed: state.flushed(),
        });
        let shared = Arc::new(Shared {
            env: env.clone(),
            wal,
            checkpoints,
            turn: tokio::sync::Mutex::default(),
            current: Mutex::new(current),
            durable,
            postponing: AtomicBool::new(false),
        });
        let machine = Self {
            state,
            membership,
            view,
            shared,
            unloaded: RaftIndex::ZERO,
            likeness,
            comparing: Arc::default(),
            _alive: alive,
        };
        Ok(MachineStart {
            machine,
            view: view_end,
            durable: durable_end,
            likeness: likeness_end,
            alive: alive_end,
        })
    }

    /// Whether the log holds what the checkpoint leaves to it: raft would take what is missing for
    /// something that never was.
    ///
    /// # Errors
    /// [`Error::Incomplete`].
    pub(crate) fn is_backed(&self, node: NodeId) -> Result<(), Error> {
        let (shard, wal) = (self.state.shard(), &self.shared.wal);
        let (checkpoint, bounds) = (self.state.applied(), wal.bounds(shard));
        let lacks = |what| Err(Error::Incomplete { shard, what });
        if bounds.purged.index > checkpoint.index {
            return lacks(format!(
                "entries up to {} went into a checkpoint, and the newest one is at {checkpoint}",
                bounds.purged
            ));
        }
        // One that was installed may be ahead of the log; who votes alone installs none.
        let single = self.membership.membership().voter_ids().eq([node.as_u64()]);
        if single && bounds.last.index < checkpoint.index {
            return lacks(format!(
                "it ends at {}, below its checkpoint at {checkpoint}",
                bounds.last
            ));
        }
        let mut unflushed = unflushed(&self.state).into_iter();
        match unflushed.find(|index| !wal.holds(shard, *index)) {
            None => Ok(()),
            Some(index) => lacks(format!(
                "entry {index} holds records that are not in the bucket"
            )),
        }
    }

    /// The state as last applied.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    fn apply_one(&mut self, id: LogId, payload: Payload) -> io::Result<Applied> {
        let (entry, due) = (entry_id(&id), self.state.applied().index.next());
        if entry.index != due {
            let shard = self.state.shard();
            let what = format!("entry {entry} of {shard} is to be applied where {due} is due");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        match payload {
            Payload::Normal(proposal) => {
                // Every replica must apply it alike: one that cannot read it must not go on.
                let command = proposal.command().map_err(|error| {
                    let what = format!("entry {entry} of {}: {error}", self.state.shard());
                    io::Error::new(io::ErrorKind::InvalidData, what)
                })?;
                let outcome = self.state.apply(entry, &command);
                if matches!(command, Command::RaiseLevel { .. }) {
                    self.compare();
                }
                return Ok(Applied::Outcome(outcome));
            }
            Payload::Blank => {}
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
        }
        self.state.apply_blank(entry);
        Ok(Applied::Blank)
    }

    /// Takes the hash of the state as it is now, beside what goes on, unless another is being taken: of many
    /// such entries in a row, as after a long absence, one is enough.
    fn compare(&self) {
        let Ok(turn) = Arc::clone(&self.comparing).try_lock_owned() else {
            return;
        };
        let (state, workers) = (self.state.clone(), Arc::clone(&self.shared.env.workers));
        let told = self.likeness.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let at = state.applied();
            let hash = workers.run(move || state.hash()).await;
            told.send_if_modified(|last| {
                let newer = last.is_none_or(|last: Likeness| last.at < at);
                if newer {
                    *last = Some(Likeness { at, hash });
                }
                newer
            });
        });
    }

    /// Shows readers the state, then answers those who proposed it.
    fn publish(&mut self, answers: &mut Vec<(ApplyResponder<TypeConfig>, Applied)>) {
        self.view.send_replace(self.state.clone());
        let flushed = self
            .state
            .data()
            .map_or(RaftIndex::ZERO, Data::flush_position);
        if flushed > self.unloaded {
            self.shared.wal.unload(self.state.shard(), flushed);
            self.unloaded = flushed;
        }
        answers
            .drain(..)
            .for_each(|(responder, applied)| responder.send(applied));
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((log_id(self.state.applied()), self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        let mut run = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_one(entry.log_id, entry.payload)?;
            answers.extend(responder.map(|responder| (responder, applied)));
            run += 1;
            if run == APPLY_RUN_MAX {
                self.publish(&mut answers);
                run = 0;
            }
        }
        self.publish(&mut answers);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            membership: self.membership.clone(),
            shared: Arc::clone(&self.shared),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Snapshot,
    ) -> io::Result<()> {
        let current = self.shared.current().clone();
        let current = current.map(|current| current.checkpoint.last);
        let last = meta.last_log_id.as_ref().map(entry_id).unwrap_or_default();
        // What this node started from, handed back to it: there is nothing to do.
        if current == Some(last) && self.state.applied().index >= last.index {
            return Ok(());
        }
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let membership = membership_of(snapshot.checkpoint()).map_err(invalid)?;
        let (state, received) = match snapshot.head() {
            Head::Received(received) => (received.state.clone(), Some(Arc::clone(received))),
            Head::Here(_) => (decode(snapshot.checkpoint())?, None),
        };
        if state.applied() != last || state.shard() != self.state.shard() {
            let (shard, applied) = (state.shard(), state.applied());
            return Err(invalid(format!(
                "a snapshot said to be at {last} is {shard} at {applied}"
            )));
        }
        let checkpoint = Arc::clone(snapshot.checkpoint());
        self.shared
            .make_current(checkpoint, received.clone(), &state)
            .await?;
        // Not before: a part of the log is moved when its file is the oldest, and what was moved counts at a
        // start whether or not its checkpoint came to be.
        if let Some(received) = received {
            self.shared.wal.adopt(&received.staged);
        }

        self.state = state;
        self.membership = membership;
        self.publish(&mut Vec::new());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let current = self.shared.current().clone();
        current
            .map(|current| self.shared.raft_snapshot(current))
            .transpose()
    }
}

/// Makes a checkpoint of one view of the state.
#[derive(Debug)]
pub struct Builder {
    state: State,
    membership: StoredMembership,
    shared: Arc<Shared>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let (shard, last) = (self.state.shard(), self.state.applied());
        // openraft applies what a quorum has, ahead of the local disk; a checkpoint may not.
        if !self.shared.wal.wait_synced(shard, last.index).await {
            return Err(io::Error::other(
                "the WAL failed before a checkpoint could be made",
            ));
        }
        let state = self.state.clone();
        let encode = move || {
            let mut chunks: Vec<Bytes> = Vec::new();
            checkpoint::encode(&state, Scope::Local, |chunk| {
                chunks.push(chunk);
                Ok::<_, std::convert::Infallible>(())
            })
            .map(|()| chunks)
        };
        let Ok(state) = self.shared.env.workers.run(encode).await;
        let membership = encode_membership(&self.membership);
        let checkpoint = Arc::new(Checkpoint {
            shard,
            last,
            membership,
            state,
        });
        let made = self
            .shared
            .make_current(Arc::clone(&checkpoint), None, &self.state);
        match made.await {
            Ok(current) => self.shared.raft_snapshot(current),
            Err(error) if is_out_of_room(&error) => self.shared.postpone(checkpoint, &error),
            Err(error) => Err(error),
        }
    }
}

impl Shared {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().expect("nothing panics under this lock")
    }

    /// Makes `checkpoint`, which is of `state`, durable and current; one that was `received` is on disk. An
    /// older one than the current is left aside: builder and installer may overtake each other.
    async fn make_current(
        &self,
        checkpoint: Arc<Checkpoint>,
        received: Option<Arc<Received>>,
        state: &State,
    ) -> io::Result<Current> {
        let _turn = self.turn.lock().await;
        let newer = self
            .current()
            .clone()
            .filter(|current| current.checkpoint.last.index > checkpoint.last.index);
        if let Some(newer) = newer {
            return Ok(newer);
        }
        let save = {
            let (checkpoints, checkpoint) = (self.checkpoints.clone(), Arc::clone(&checkpoint));
            let wal = Arc::clone(&self.wal);
            move || {
                let saved = match received {
                    Some(received) => received.prepared.make_current(),
                    None => checkpoints.save(&checkpoint),
                };
                saved.inspect_err(|error| wal.end_at(error))
            }
        };
        self.env.workers.run(save).await?;
        let current = Current {
            checkpoint,
            flushed: state.flushed(),
        };
        *self.current() = Some(current.clone());
        let checkpoint = &current.checkpoint;
        self.durable.send_modify(|durable| {
            (durable.last, durable.flushed) = (checkpoint.last, current.flushed);
            durable.bytes = checkpoint.state_bytes();
        });
        if self.postponing.swap(false, Ordering::Relaxed) {
            let shard = checkpoint.shard;
            tracing::info!(%shard, "the disk has room for a checkpoint again");
        }
        Ok(current)
    }

    /// `checkpoint` found no room on the disk: nothing is lost by that, only nothing is let go of.
    /// Raft is handed what is current, or, if nothing is, what covers nothing.
    fn postpone(&self, checkpoint: Arc<Checkpoint>, error: &io::Error) -> io::Result<RaftSnapshot> {
        if !self.postponing.swap(true, Ordering::Relaxed) {
            let shard = checkpoint.shard;
            tracing::warn!(%shard, %error, "the disk has no room for a checkpoint: the WAL lets go of nothing, appends are refused once it is full, and it is tried again; make room on the disk");
        }
        self.durable
            .send_modify(|durable| durable.postponed = durable.postponed.saturating_add(1));
        let current = self.current().clone();
        current.map_or_else(
            || {
                Ok(RaftSnapshot {
                    meta: SnapshotMeta::default(),
                    snapshot: Snapshot::own(checkpoint, RaftIndex::ZERO, Arc::clone(&self.wal)),
                })
            },
            |current| self.raft_snapshot(current),
        )
    }

    fn raft_snapshot(&self, current: Current) -> io::Result<RaftSnapshot> {
        let meta = snapshot_meta(&current.checkpoint)?;
        let wal = Arc::clone(&self.wal);
        let snapshot = Snapshot::own(current.checkpoint, current.flushed, wal);
        Ok(RaftSnapshot { meta, snapshot })
    }
}

/// What openraft is told of a checkpoint.
pub(crate) fn snapshot_meta(checkpoint: &Checkpoint) -> io::Result<SnapshotMeta> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "its membership is unreadable");
    let last_membership = decode_membership(&checkpoint.membership).ok_or_else(unreadable)?;
    Ok(SnapshotMeta {
        last_log_id: log_id(checkpoint.last),
        last_membership,
    })
}

/// State and membership of a checkpoint, or what is wrong with it.
fn read(checkpoint: &Checkpoint) -> Result<(State, StoredMembership), String> {
    let state = decode(checkpoint).map_err(|error| error.to_string())?;
    Ok((state, membership_of(checkpoint)?))
}

fn membership_of(checkpoint: &Checkpoint) -> Result<StoredMembership, String> {
    let read = decode_membership(&checkpoint.membership);
    read.ok_or_else(|| "its membership is unreadable".into())
}

/// Term and index of the entry that set it (0, 0 for none), then the membership itself.
fn encode_membership(stored: &StoredMembership) -> Bytes {
    let set_by: EntryId = stored.log_id().as_ref().map(entry_id).unwrap_or_default();
    let mut bytes = set_by.term.0.to_le_bytes().to_vec();
    bytes.extend(set_by.index.0.to_le_bytes());
    membership::encode(stored.membership(), &mut bytes);
    bytes.into()
}

fn decode_membership(bytes: &[u8]) -> Option<StoredMembership> {
    let (term, rest) = bytes.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let set_by = EntryId {
        term: Term(u64::from_le_bytes(*term)),
        index: RaftIndex(u64::from_le_bytes(*index)),
    };
    Some(StoredMembership::new(
        log_id(set_by),
        membership::decode(rest)?,
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use esker_types::{Incarnation, LeaderEpoch, ShardId};

    use super::*;
    use crate::disk::WalOptions;

    #[tokio::test]
    async fn a_machine_that_is_gone_is_known_to_be_while_a_checkpoint_of_it_is_built() {
        let (env, _, _) = Env::simulated(1);
        let options = WalOptions::default();
        let opened = Wal::open(
            &env,
            Path::new("/w"),
            options,
            BTreeMap::new(),
            Arc::new(|_| {}),
        );
        let (wal, _) = opened.await.expect("an empty log");
        let checkpoints = Checkpoints::open(&env, Path::new("/c")).expect("none");
        let genesis = Genesis {
            shard: ShardId(1),
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        };
        let start = Machine::open(&env, wal, checkpoints, genesis).await;
        let (mut machine, mut alive) = start.map(|it| (it.machine, it.alive)).expect("empty");
        let builder = machine.get_snapshot_builder().await;
        assert!(alive.has_changed().is_ok());
        drop(machine);
        alive.changed().await.expect_err("it is gone");
        drop(builder);
    }
}
