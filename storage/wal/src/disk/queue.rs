//! What waits for the writer, in the order in which it must reach the disk.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use esker_types::limits::WAL_ALIGN;
use esker_types::{EntryId, ShardId};

use super::file::Place;
use super::frame::{FRAME_HEADER_BYTES, FrameKind};
use super::room::Measures;
use super::staged::Staged;

/// Called once a frame is on disk, or never will be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A frame to write.
pub(crate) struct Item {
    pub(crate) shard: ShardId,
    pub(crate) kind: FrameKind,
    pub(crate) id: EntryId,
    pub(crate) payload: Vec<Bytes>,
    /// What must stay readable until this is on disk: the entries that a truncation cuts off.
    pub(crate) keeps: Vec<Place>,
    /// The snapshot that it came with, and is told where it lies.
    pub(crate) staged: Option<Arc<Staged>>,
    pub(crate) done: Option<Done>,
    /// What the groups of the step it ends add on disk, at most.
    overhead: u64,
}

impl Item {
    pub(crate) fn new(shard: ShardId, kind: FrameKind, id: EntryId, payload: Vec<Bytes>) -> Self {
        Self {
            shard,
            kind,
            id,
            payload,
            keeps: Vec::new(),
            staged: None,
            done: None,
            overhead: 0,
        }
    }

    /// The same, with `keeps` to stay readable until it is on disk.
    pub(crate) fn keeping(self, keeps: Vec<Place>) -> Self {
        Self { keeps, ..self }
    }

    /// The same, as a part of `staged`.
    pub(crate) fn of(self, staged: &Arc<Staged>) -> Self {
        let staged = Some(Arc::clone(staged));
        Self { staged, ..self }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// Bytes it takes in a group.
    pub(crate) fn framed_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes()
    }
}

/// The waiting line, and what is owed to whoever may still join it. Its length is bounded by admission
/// (`room`): who has batches or entries to write waits while it is long.
pub(crate) struct Queue {
    group_bytes: usize,
    measures: Measures,
    items: VecDeque<Item>,
    /// Bytes of frames, those that are being written included.
    bytes: usize,
    /// What groups add to them on disk, at most.
    overhead: u64,
    /// What of both the group has that is being written.
    taken_bytes: usize,
    taken_overhead: u64,
    /// What the step under way has given back already: each group of it one share.
    step_given: u64,
    /// Bytes on disk promised to frames that are not queued yet.
    pub(crate) promised: u64,
    /// Shards whose committed id moved since it was last written.
    pub(crate) committed: BTreeSet<ShardId>,
    /// A seal was asked for; it is written if nothing else is waiting.
    pub(crate) seal: bool,
    /// The log is damaged or closed: nothing more is taken.
    pub(crate) refusing: bool,
}

impl Queue {
    /// An empty line whose groups carry `group_bytes` at most.
    pub(crate) fn new(group_bytes: usize, measures: Measures) -> Self {
        Self {
            group_bytes,
            measures,
            items: VecDeque::new(),
            bytes: 0,
            overhead: 0,
            taken_bytes: 0,
            taken_overhead: 0,
            step_given: 0,
            promised: 0,
            committed: BTreeSet::new(),
            seal: false,
            refusing: false,
        }
    }

    /// Adds items at the end, for which `promised` bytes were kept; hands them back if the log takes
    /// no more. What was promised to them is owed to them as queued ones from here on.
    pub(crate) fn push(&mut self, mut items: Vec<Item>, promised: u64) -> Result<(), Vec<Item>> {
        self.take_back(promised);
        if self.refusing {
            return Err(items);
        }
        let bytes: usize = items.iter().map(Item::framed_bytes).sum();
        let on_disk = self.measures.queued(items.len() as u64, bytes as u64);
        if let Some(last) = items.last_mut() {
            // A bound for all their groups together.
            last.overhead = on_disk - bytes as u64;
            self.overhead += last.overhead;
        }
        self.bytes += bytes;
        self.items.extend(items);
        Ok(())
    }

    /// Room that was promised and is not used.
    pub(crate) fn take_back(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(bytes);
    }

    /// Bytes on disk that others count on: queued, being written, promised.
    pub(crate) fn owed(&self) -> u64 {
        self.bytes as u64 + self.overhead + self.promised
    }

    /// Takes what one group carries: at least one item if any waits. It is owed until
    /// [`Queue::wrote`].
    pub(crate) fn take_group(&mut self) -> Vec<Item> {
        // Frames that say how far shards have committed join the group afterwards.
        let reserved = WAL_ALIGN + FRAME_HEADER_BYTES * self.committed.len();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.items.front() {
            bytes += next.framed_bytes();
            if bytes + reserved > self.group_bytes && !taken.is_empty() {
                break;
            }
            let item = self.items.pop_front().expect("it was just seen");
            self.taken_bytes += item.framed_bytes();
            if item.overhead > 0 {
                self.taken_overhead += item.overhead - std::mem::take(&mut self.step_given);
            }
            taken.push(item);
        }
        if taken.last().is_some_and(|last| last.overhead == 0) {
            // The step goes on in the next group: there is at least one share left for that.
            self.taken_overhead += self.measures.overhead;
            self.step_given += self.measures.overhead;
        }
        taken
    }

    /// What was taken last is on disk, and the files say so.
    pub(crate) fn wrote(&mut self) {
        self.bytes -= std::mem::take(&mut self.taken_bytes);
        self.overhead -= std::mem::take(&mut self.taken_overhead);
    }

    /// Takes everything, to tell its owners that it will not be written.
    pub(crate) fn refuse(&mut self) -> Vec<Item> {
        self.refusing = true;
        (self.bytes, self.taken_bytes) = (0, 0);
        (self.overhead, self.taken_overhead, self.step_given) = (0, 0, 0);
        self.items.drain(..).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
