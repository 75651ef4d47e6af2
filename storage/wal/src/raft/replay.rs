//! What is known to be committed, applied once more before raft starts.
//!
//! Raft would do it, too, in runs of so many entries, whatever their bytes: it finds nothing left to do.

use std::io;

use futures::TryStreamExt as _;
use openraft::LogIdOptionExt as _;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _, RaftStateMachine as _};

use super::{LogStore, Machine};

/// Has `machine` apply what `log` knows to be committed, of which one bounded run is held at a time.
pub(crate) async fn replay(log: &mut LogStore, machine: &mut Machine) -> io::Result<()> {
    let committed = log.read_committed().await?.next_index();
    let (applied, _) = machine.applied_state().await?;
    let entries = log.entries_stream(applied.next_index()..committed).await;
    let entries = entries.map_ok(|entry| (entry, None));
    machine.apply(Box::pin(entries)).await
}
