//! What waits for the writer, in the order in which it must reach the disk.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use bytes::Bytes;
use esker_types::limits::WAL_ALIGN;
use esker_types::{EntryId, ShardId};

use super::file::Place;
use super::frame::{FRAME_HEADER_BYTES, FrameKind};

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
    pub(crate) done: Option<Done>,
}

impl Item {
    pub(crate) fn new(shard: ShardId, kind: FrameKind, id: EntryId, payload: Vec<Bytes>) -> Self {
        Self {
            shard,
            kind,
            id,
            payload,
            keeps: Vec::new(),
            done: None,
        }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }

    /// Bytes it takes in a group.
    pub(crate) fn framed_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes()
    }
}

/// The waiting line. Its length is bounded by admission: by what a leader lets be in flight, and
/// by what a follower's transport carries.
pub(crate) struct Queue {
    group_bytes: usize,
    items: VecDeque<Item>,
    bytes: usize,
    /// Shards whose committed id moved since it was last written.
    pub(crate) committed: BTreeSet<ShardId>,
    /// A seal was asked for; it is written if nothing else is waiting.
    pub(crate) seal: bool,
    /// The log is damaged or closed: nothing more is taken.
    pub(crate) refusing: bool,
}

impl Queue {
    /// An empty line whose groups carry `group_bytes` at most.
    pub(crate) fn new(group_bytes: usize) -> Self {
        Self {
            group_bytes,
            items: VecDeque::new(),
            bytes: 0,
            committed: BTreeSet::new(),
            seal: false,
            refusing: false,
        }
    }

    /// Adds an item at the end; hands it back if the log takes no more.
    pub(crate) fn push(&mut self, item: Item) -> Result<(), Item> {
        if self.refusing {
            return Err(item);
        }
        self.bytes += item.framed_bytes();
        self.items.push_back(item);
        Ok(())
    }

    /// Takes what one group carries: at least one item if any waits.
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
            self.bytes -= item.framed_bytes();
            taken.push(item);
        }
        taken
    }

    /// Takes everything, to tell its owners that it will not be written.
    pub(crate) fn refuse(&mut self) -> Vec<Item> {
        self.refusing = true;
        self.bytes = 0;
        self.items.drain(..).collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
