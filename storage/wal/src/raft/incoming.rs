//! A snapshot on its way in: its checkpoint and, as it comes, its head go to the disk, beside the current one
//! and beside the log. Let go of before it is whole, it was never there; whole, it needs no more room.

use std::io;
use std::sync::{Arc, Mutex};

use esker_env::WorkersExt as _;
use esker_shard::State;
use esker_types::limits::{SNAPSHOT_BYTES_IN_FLIGHT, SNAPSHOT_PART_BYTES};
use esker_types::{EntryId, RaftIndex, ShardId};
use tokio::sync::Semaphore;

use super::snapshot::{Received, Snapshot, decode, unflushed};
use crate::Error;
use crate::disk::{Body, Checkpoint, Checkpoints, Full, Prepared, Purpose, Staged, Wal};

/// What describes a batch in its entry, and its share of what else the entry says: about, and rather more.
const DESCRIPTION_BYTES: u64 = 256;

/// A snapshot of which some has come.
#[derive(Debug)]
pub struct Incoming {
    wal: Arc<Wal>,
    checkpoint: Arc<Checkpoint>,
    prepared: Prepared,
    state: State,
    /// The entries that its head names, and how many of them have come.
    named: Vec<RaftIndex>,
    came: usize,
    /// Come, and not queued yet.
    part: Vec<(EntryId, Body)>,
    part_bytes: usize,
    staged: Arc<Staged>,
    /// Bytes that may still be queued before some are on disk.
    in_flight: Arc<Semaphore>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Incoming {
    /// Begins to take the snapshot that `checkpoint` is of, and writes that beside the current one of
    /// `checkpoints`. Its head has `head_bytes`, as who sends it says.
    ///
    /// # Errors
    /// `InvalidData` if its state is none, or another's; `StorageFull` if the log has no room for its head,
    /// or the disk none for `checkpoint`; what the disk said. A sync that failed ends the log.
    pub async fn begin(
        wal: Arc<Wal>,
        checkpoints: Checkpoints,
        checkpoint: Checkpoint,
        head_bytes: u64,
    ) -> io::Result<Self> {
        let decode =
            move || decode(&checkpoint).map(|state| (checkpoint, unflushed(&state), state));
        let (checkpoint, named, state) = wal.workers().run(decode).await?;
        // All of it, before any: what was written of one that does not fit would take room from the next.
        let size = state.head_size();
        let described = size.batches.saturating_mul(DESCRIPTION_BYTES);
        // Entries come whole: what was refused in them, or is deleted since, the state counts no more.
        let bytes = size.bytes.saturating_add(described).max(head_bytes);
        // Whatever was said: more than the log is too much already.
        let bytes = bytes.min(wal.disk_bytes_max());
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let needed = wal.step_disk_bytes(named.len(), bytes);
        let shard = checkpoint.shard;
        let room = wal.has_room(Purpose::Installed, needed);
        room.map_err(|full| no_room(shard, &full, needed))?;
        let checkpoint = Arc::new(checkpoint);
        let prepare = {
            let (checkpoint, wal) = (Arc::clone(&checkpoint), Arc::clone(&wal));
            move || {
                let prepared = checkpoints.prepare(&checkpoint);
                prepared.inspect_err(|error| wal.end_at(error))
            }
        };
        let prepared = wal.workers().run(prepare).await?;
        Ok(Self {
            staged: Arc::new(Staged::new(shard)),
            wal,
            checkpoint,
            prepared,
            state,
            named,
            came: 0,
            part: Vec::new(),
            part_bytes: 0,
            in_flight: Arc::new(Semaphore::new(SNAPSHOT_BYTES_IN_FLIGHT)),
            failed: Arc::default(),
        })
    }

    /// Takes the next entry of the head. Waits while [`SNAPSHOT_BYTES_IN_FLIGHT`] are on their way to the
    /// disk, and while the files for it are written ahead.
    ///
    /// # Errors
    /// `InvalidData` if the head names another entry, `StorageFull` if the log has no room for it, what the
    /// disk said.
    pub async fn take(&mut self, id: EntryId, body: Body) -> io::Result<()> {
        let (shard, last) = (self.checkpoint.shard, self.checkpoint.last);
        if self.named.get(self.came) != Some(&id.index) {
            let what = format!("the head of {shard} at {last} does not go on with entry {id}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if body.is_lost() {
            return Err(Error::Lost { shard, id }.into());
        }
        let (bytes, bytes_max) = (body.weight(), self.wal.entry_bytes_max());
        if bytes > bytes_max {
            let what = format!(
                "entry {id} of {shard} has {bytes} bytes, the limit of this WAL is {bytes_max}: it needs as \
                 large files as the sender's"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.came += 1;
        // Whatever the groups are, a part is sure to fit one.
        let part_max = SNAPSHOT_PART_BYTES.min(self.wal.group_bytes() / 4);
        if self.part_bytes + bytes > part_max {
            self.stage().await?;
        }
        self.part.push((id, body));
        self.part_bytes += bytes;
        Ok(())
    }

    /// The snapshot, all of it on disk.
    ///
    /// # Errors
    /// `UnexpectedEof` if entries are missing; as [`Incoming::take`].
    pub async fn finish(mut self) -> io::Result<Snapshot> {
        let (came, named) = (self.came, self.named.len());
        if came != named {
            let (shard, last) = (self.checkpoint.shard, self.checkpoint.last);
            let what =
                format!("the head of {shard} at {last} ends after {came} of {named} entries");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.stage().await?;
        self.room_for(SNAPSHOT_BYTES_IN_FLIGHT).await?.forget();
        self.has_failed()?;
        let received = Received {
            staged: self.staged,
            prepared: self.prepared,
            state: self.state,
        };
        Ok(Snapshot::received(self.checkpoint, received))
    }

    /// Queues what has come.
    async fn stage(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let needed = self.wal.step_disk_bytes(self.part.len(), self.part_bytes);
        let promise = self.wal.promise(Purpose::Installed, needed).await;
        let promise = promise.map_err(|full| no_room(self.checkpoint.shard, &full, needed))?;
        let turn = self.room_for(self.part_bytes).await?;
        self.has_failed()?;
        self.part[0].1.hold(promise);
        self.part_bytes = 0;
        let part = std::mem::take(&mut self.part);
        let failed = Arc::clone(&self.failed);
        self.wal.stage(&self.staged, part, move |written| {
            if let Err(error) = written {
                *failed.lock().expect("nothing panics under this lock") = Some(error.to_string());
            }
            drop(turn);
        });
        Ok(())
    }

    /// Waits until so many bytes may be queued.
    async fn room_for(&self, bytes: usize) -> io::Result<tokio::sync::OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(SNAPSHOT_BYTES_IN_FLIGHT)).expect("a few MiB");
        let turn = Arc::clone(&self.in_flight).acquire_many_owned(bytes).await;
        turn.map_err(|_| io::Error::other("the WAL is closed"))
    }

    fn has_failed(&self) -> io::Result<()> {
        let failed = self.failed.lock().expect("nothing panics under this lock");
        failed
            .clone()
            .map_or(Ok(()), |what| Err(io::Error::other(what)))
    }
}

fn no_room(shard: ShardId, full: &Full, needed: u64) -> io::Error {
    let room = full.room;
    let what = format!(
        "the WAL has {room} bytes of room for the head of {shard}, or a part of it, which needs {needed}; \
         nothing of the snapshot was installed; {}",
        Full::what_to_do(full.disk_full),
    );
    io::Error::new(io::ErrorKind::StorageFull, what)
}
