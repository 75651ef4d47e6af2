//! A checkpoint, and the head that must travel with it.
//!
//! A snapshot may cover batches that no segment holds yet. One that travels carries them, or a
//! quorum could consist of replicas that never had the data. A head may be gigabytes: it goes from log to
//! log piece by piece, and neither end ever holds it whole.
//!
//! ```text
//!   Snapshot ─ hold ─► Held ─ leave ─► Outgoing ── state, then entry by entry ──► Incoming ─ finish ─► Snapshot
//!      here         waits, pinned        │ pinned anew, read a part at a time        │ each part on disk, beside the log
//! ```

use std::io;
use std::sync::Arc;

use esker_env::WorkersExt as _;
use esker_shard::{State, checkpoint};
use esker_types::limits::SNAPSHOT_PART_BYTES;
use esker_types::{EntryId, RaftIndex, RaftRange, ShardId};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::disk::{Body, Checkpoint, Pin, Prepared, Staged, Wal};

/// What openraft hands around as a snapshot. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    checkpoint: Arc<Checkpoint>,
    /// Up to where its state says that nothing is unflushed.
    flushed: RaftIndex,
    head: Head,
}

/// Where the unflushed entries are.
#[derive(Clone, Debug)]
pub(super) enum Head {
    /// In this node's own log.
    Here(Arc<Wal>),
    /// They came along.
    Received(Arc<Received>),
}

/// What came from another node. All of it is on disk, and counts for nothing yet.
#[derive(Debug)]
pub(super) struct Received {
    /// The entries that `state` names.
    pub(super) staged: Arc<Staged>,
    /// The checkpoint.
    pub(super) prepared: Prepared,
    pub(super) state: State,
}

impl Snapshot {
    /// This node's own current checkpoint, of a state that is flushed up to `flushed`.
    pub(crate) fn own(checkpoint: Arc<Checkpoint>, flushed: RaftIndex, wal: Arc<Wal>) -> Self {
        Self {
            checkpoint,
            flushed,
            head: Head::Here(wal),
        }
    }

    /// One that came from another node.
    pub(super) fn received(checkpoint: Arc<Checkpoint>, received: Received) -> Self {
        Self {
            checkpoint,
            flushed: received.state.flushed(),
            head: Head::Received(Arc::new(received)),
        }
    }

    /// The state, encoded, and what raft adds to it.
    #[must_use]
    pub const fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Keeps what is needed to send it, of this node's own, while it waits to be sent: for
    /// [`esker_types::limits::SNAPSHOT_PIN_MAX`] at most.
    ///
    /// # Errors
    /// `NotFound` if the log has released some of its head, or raft has forgotten what follows on it: a newer snapshot
    /// is to be sent instead. `Unsupported` if it is another node's.
    pub fn hold(&self) -> io::Result<Held> {
        let Head::Here(wal) = &self.head else {
            let what = "a snapshot of another node is not passed on";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        };
        let (shard, last) = (self.checkpoint.shard, self.checkpoint.last.index);
        let first = (self.flushed < last).then(|| self.flushed.next());
        let pin = wal.pin(shard, first, last);
        Ok(Held {
            checkpoint: Arc::clone(&self.checkpoint),
            first,
            wal: Arc::clone(wal),
            pin: pin.ok_or_else(|| gone(shard, last))?,
        })
    }
}

/// A snapshot that waits to be sent. What that needs is kept as long as this is, and within bounds.
#[derive(Debug)]
pub struct Held {
    checkpoint: Arc<Checkpoint>,
    /// The first entry of its head.
    first: Option<RaftIndex>,
    wal: Arc<Wal>,
    pin: Pin,
}

impl Held {
    /// Makes it ready to be sent: its head, and what follows on it, is kept from here on, for
    /// [`esker_types::limits::SNAPSHOT_PIN_MAX`] at most. Decodes the state, which takes its memory.
    ///
    /// # Errors
    /// `NotFound` if the log has released some of the head meanwhile, or raft has forgotten what follows on it, before
    /// anything is decoded: a newer snapshot is to be sent instead. `InvalidData` if its state is none.
    pub async fn leave(mut self) -> io::Result<Outgoing> {
        let (shard, last) = (self.checkpoint.shard, self.checkpoint.last.index);
        let keep = |pin: &Pin| {
            let again = self.wal.pin_again(pin, shard, self.first, last);
            again.ok_or_else(|| gone(shard, last))
        };
        keep(&self.pin)?;
        let checkpoint = Arc::clone(&self.checkpoint);
        let decode = move || Ok::<_, io::Error>(unflushed(&decode(&checkpoint)?));
        let head = self.wal.workers().run(decode).await?;
        // That took some of its time.
        keep(&self.pin)?;
        self.pin.leave();
        Ok(Outgoing {
            bytes: self.wal.weigh(shard, &head),
            head: head.into(),
            checkpoint: self.checkpoint,
            wal: self.wal,
            pin: Arc::new(self.pin),
        })
    }
}

/// A snapshot on its way to another node. What that needs is kept while a clone of this is, or of its head.
#[derive(Clone, Debug)]
pub struct Outgoing {
    checkpoint: Arc<Checkpoint>,
    /// The entries of its head.
    head: Arc<[RaftIndex]>,
    bytes: u64,
    wal: Arc<Wal>,
    pin: Arc<Pin>,
}

impl Outgoing {
    /// The state, encoded, and what raft adds to it.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Entries of its head.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.head.len() as u64
    }

    /// Bytes of the entries of its head, whole: with what was refused in them, or is deleted since.
    #[must_use]
    pub const fn head_bytes(&self) -> u64 {
        self.bytes
    }

    /// The entries that hold its unflushed batches, in order. Read from the log as they are asked for,
    /// [`SNAPSHOT_PART_BYTES`] at a time; ends with an error, `NotFound` if the log has released one that
    /// was not kept any longer.
    #[must_use]
    pub fn head(&self) -> BoxStream<'static, io::Result<(EntryId, Body)>> {
        let parts = stream::unfold(Some((self.clone(), 0)), async |next| {
            let (outgoing, at) = next?;
            let rest = outgoing.head.get(at..).unwrap_or_default();
            let first = *rest.first()?;
            let shard = outgoing.checkpoint.shard;
            outgoing.pin.advance(first);
            let read = outgoing.wal.read_each(shard, rest, SNAPSHOT_PART_BYTES);
            let part: Vec<_> = match read.await {
                Ok(part) if part.is_empty() => {
                    return Some((vec![Err(released(shard, first))], None));
                }
                Ok(part) => part.into_iter().map(Ok).collect(),
                Err(error) => return Some((vec![Err(error.into())], None)),
            };
            let at = at + part.len();
            Some((part, Some((outgoing, at))))
        });
        parts.flat_map(stream::iter).boxed()
    }
}

fn gone(shard: ShardId, last: RaftIndex) -> io::Error {
    let what = format!("what the snapshot of {shard} at {last} needs was let go of meanwhile");
    io::Error::new(io::ErrorKind::NotFound, what)
}

fn released(shard: ShardId, index: RaftIndex) -> io::Error {
    let what = format!("entry {index} of {shard} was released meanwhile");
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// The state of `checkpoint`, which says itself whose it is.
pub(super) fn decode(checkpoint: &Checkpoint) -> io::Result<State> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let decoded = checkpoint::decode(&checkpoint.state.concat());
    let decoded = decoded.map_err(|error| invalid(error.to_string()))?;
    if decoded.scope != checkpoint::Scope::Local {
        return Err(invalid(
            "it is a checkpoint for a bucket, without a head".into(),
        ));
    }
    let (shard, applied) = (decoded.state.shard(), decoded.state.applied());
    if (shard, applied) != (checkpoint.shard, checkpoint.last) {
        let (named, last) = (checkpoint.shard, checkpoint.last);
        return Err(invalid(format!(
            "it says {named} at {last} and holds {shard} at {applied}"
        )));
    }
    Ok(decoded.state)
}

/// Indexes of the entries that hold unflushed batches of `state`, in order.
pub(crate) fn unflushed(state: &State) -> Vec<RaftIndex> {
    let all = RaftRange {
        from: RaftIndex::ZERO,
        to: state.applied().index,
    };
    let entries = state
        .data()
        .into_iter()
        .flat_map(|data| data.head_entries(all));
    entries.map(|(index, _)| index).collect()
}
