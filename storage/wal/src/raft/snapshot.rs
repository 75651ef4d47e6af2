//! A checkpoint, and the head that must travel with it.
//!
//! A snapshot may cover batches that no segment holds yet. One that travels carries them, or a
//! quorum could consist of replicas that never had the data.

use std::io;
use std::sync::Arc;

use esker_shard::State;
use esker_types::{EntryId, RaftIndex, RaftRange};

use crate::disk::{Body, Checkpoint, Wal};

/// What openraft hands around as a snapshot. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    checkpoint: Arc<Checkpoint>,
    head: Head,
}

/// Where the unflushed entries are.
#[derive(Clone, Debug)]
enum Head {
    /// In this node's own log.
    Here(Arc<Wal>),
    /// They came along.
    Carried(Arc<Vec<(EntryId, Body)>>),
}

impl Snapshot {
    /// This node's own current checkpoint.
    pub(crate) fn own(checkpoint: Arc<Checkpoint>, wal: Arc<Wal>) -> Self {
        Self {
            checkpoint,
            head: Head::Here(wal),
        }
    }

    /// One that came from another node, with the entries its head names.
    #[must_use]
    pub fn received(checkpoint: Checkpoint, head: Vec<(EntryId, Body)>) -> Self {
        Self {
            checkpoint: Arc::new(checkpoint),
            head: Head::Carried(Arc::new(head)),
        }
    }

    /// The state, encoded, and what raft adds to it.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The entries that hold the unflushed batches of `state`, which is this snapshot's. Reads
    /// them from this node's log, unless they came along.
    ///
    /// # Errors
    /// `NotFound` if the log has released one meanwhile: a newer checkpoint is to be sent instead,
    /// whose head is shorter. Else what reading said.
    pub async fn head(&self, state: &State) -> io::Result<Vec<(EntryId, Body)>> {
        let wal = match &self.head {
            Head::Carried(head) => return Ok(head.to_vec()),
            Head::Here(wal) => wal,
        };
        let mut head = Vec::new();
        for index in unflushed(state) {
            let entry = wal.read_entry(state.shard(), index).await?;
            let released = || {
                let what = format!("entry {index} of {} was released meanwhile", state.shard());
                io::Error::new(io::ErrorKind::NotFound, what)
            };
            head.push(entry.ok_or_else(released)?);
        }
        Ok(head)
    }
}

/// Indexes of the entries that hold unflushed batches of `state`.
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
