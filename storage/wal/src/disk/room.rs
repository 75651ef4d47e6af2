//! Room on disk: how much may still be written, and who may count on it.
//!
//! ```text
//!   certain: what the files that are there take, however groups fall ──────────────────────┐
//!   │ being written, queued │ promised │ room for appends │ commands │ moved │ raft's own │
//!                                                         └────────── the reserve ────────┘
//! ```
//! One ordered stream carries all shards: a frame that finds no file holds up the purges and the
//! flush commands behind it, which alone make room. So nobody may write what was not there when he
//! asked. Three lines, each asked for in one step with what is owed to others:
//!
//! - an append leaves the whole reserve behind it;
//! - a command that makes room leaves what a file's worth of moved entries takes;
//! - moved entries leave what raft itself writes without asking: votes, truncations, purges,
//!   blank and membership entries, seals, and the framing of promised entries;
//! - so does the head of a snapshot, which is asked for as a whole before any of it is written: a log
//!   that is full to the brim, of a node that fell behind, is let go of by it alone.
//!
//! A follower's entries ask at the door, before raft sees them, which takes an entry that its log
//! refuses for a broken disk: they may take what commands may, and no more.
//!
//! Only files that are there count: the disk may hold fewer than the budget says. Whoever finds
//! room in the budget and none yet in files waits until they are written.
//!
//! What waits for the disk is in memory, and a vote would wait behind it: while more than
//! [`WAL_QUEUED_BYTES_MAX`] do, batches and a leader's entries are not let in, and their senders wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_types::limits::{COMMAND_BYTES_MAX, ENTRIES_IN_FLIGHT, WAL_ALIGN, WAL_QUEUED_BYTES_MAX};

use super::frame::FRAME_HEADER_BYTES;
use super::group::GROUP_HEADER_BYTES;
use super::options::WalOptions;
use super::preamble::Preamble;
use super::queue::Queue;
use super::shared::{Files, Shared};

/// Bytes of an append's entry beside payload and descriptions of batches.
const APPEND_FIXED_BYTES: usize = 64;

/// Who asks for room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Producers' batches, and every command that makes no room.
    Append,
    /// A command that makes room, once a checkpoint knows of it.
    Command,
    /// What a leader has written already, whatever it is.
    Replicated,
    /// The head of a snapshot.
    Installed,
}

/// There is no room. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full {
    /// Bytes that were left for whoever asked.
    pub(crate) room: u64,
    /// The file system had no room for a file that the budget allows.
    pub(crate) disk_full: bool,
}

impl Full {
    /// What to do about it, for who was refused.
    pub(crate) const fn what_to_do(disk_full: bool) -> &'static str {
        if disk_full {
            "the file system that it is on is full: make room on it, or retry once the bucket has \
             taken some"
        } else {
            "retry once the bucket has taken some"
        }
    }
}

/// What lies in the reserve, in bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reserve {
    /// A command of each shard.
    commands: u64,
    /// What still holds one file, written once more.
    moved: u64,
    /// What raft writes without asking.
    raft: u64,
}

impl Reserve {
    pub(crate) fn total(self) -> u64 {
        self.commands + self.moved + self.raft
    }

    fn behind(self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Append => self.total(),
            Purpose::Command | Purpose::Replicated => self.moved + self.raft,
            Purpose::Installed => self.raft,
        }
    }
}

/// How groups fill files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measures {
    file: u64,
    group: u64,
    /// Preamble of a file.
    preamble: u64,
    /// What a group adds to its items, at most: header, padding, a committed id of each shard.
    pub(crate) overhead: u64,
    pub(crate) files_max: u64,
    pub(crate) reserve: Reserve,
}

impl Measures {
    pub(crate) fn of(options: &WalOptions) -> Self {
        let shards = options.shards.max(1);
        let overhead = GROUP_HEADER_BYTES + WAL_ALIGN - 1 + shards * FRAME_HEADER_BYTES;
        let (file, group) = (options.file_bytes, options.group_bytes as u64);
        let mut measures = Self {
            file,
            group,
            preamble: Preamble::bytes_for(shards) as u64,
            overhead: overhead as u64,
            files_max: options.disk_bytes / file.max(1),
            reserve: Reserve {
                commands: 0,
                moved: 0,
                raft: 0,
            },
        };
        let shards = shards as u64;
        let command = (COMMAND_BYTES_MAX as u64).min(group);
        measures.reserve = Reserve {
            commands: shards * measures.queued(1, command),
            moved: measures.moved(file),
            raft: group + shards * ENTRIES_IN_FLIGHT as u64 * measures.framing(),
        };
        measures
    }

    /// Whether two groups fit a file.
    pub(crate) fn fit(&self) -> bool {
        2 * self.group + self.preamble <= self.file
    }

    /// What a file takes for certain: a group that does not fit its tail goes to the next.
    pub(crate) fn usable(&self) -> u64 {
        self.file.saturating_sub(self.preamble + self.group)
    }

    /// Files that `bytes` need beside the one being written, of which nothing may be left.
    pub(crate) fn files_for(&self, bytes: u64) -> u64 {
        1 + bytes.div_ceil(self.usable().max(1))
    }

    /// What is needed before the first append: the reserve, and an entry of any size in flight.
    pub(crate) fn at_least(&self) -> u64 {
        self.reserve.total() + self.group
    }

    /// Bytes on disk, at most, of `items` frames of `bytes` that are queued in one step. Two groups
    /// that follow one another among them carry more than half a group together, so that there are
    /// at most as many as items, and as many as quarters of a group, and two.
    pub(crate) fn queued(&self, items: u64, bytes: u64) -> u64 {
        bytes + items.min(2 + 4 * bytes / self.group) * self.overhead
    }

    /// What an entry takes beside what each append in it was promised.
    fn framing(&self) -> u64 {
        (FRAME_HEADER_BYTES + APPEND_FIXED_BYTES) as u64 + self.overhead
    }

    /// What `bytes` of frames take when they are moved, half a group at a time: two pieces that
    /// follow one another make more than that together, each falls into two groups at most, and
    /// while one is queued it is counted for four.
    fn moved(&self, bytes: u64) -> u64 {
        let pieces = 1 + 4 * bytes / self.group;
        bytes + (2 * pieces + 2) * self.overhead
    }

    /// What the active file and `behind` others take for certain.
    fn certain(&self, active_end: u64, behind: u64) -> u64 {
        let active = self.file.saturating_sub(active_end + self.group);
        active + behind * self.usable()
    }

    /// What the files take that are there.
    fn there(&self, files: &Files) -> u64 {
        self.certain(files.active_end, files.spares.len() as u64)
    }

    /// What they take once all that the budget allows are there, as far as the disk is known to
    /// hold them.
    fn in_the_end(&self, files: &Files) -> u64 {
        let budget = self.files_max.saturating_sub(files.sequence.len() as u64);
        let spares = files.spares.len() as u64;
        let behind = if files.disk_full {
            spares + files.coming
        } else {
            budget.max(spares)
        };
        self.certain(files.active_end, behind)
    }
}

impl Shared {
    /// Takes `bytes` for `purpose`: waits while the files for them are being written, or too much waits for
    /// the disk.
    pub(crate) async fn promise(
        self: &Arc<Self>,
        purpose: Purpose,
        bytes: u64,
    ) -> Result<Promise, Full> {
        // More fits no group, and is refused as what it is.
        let bytes = bytes.min(self.measures.group);
        loop {
            let mut changed = std::pin::pin!(self.room_changed.notified());
            changed.as_mut().enable();
            let asked = self.ask(purpose, bytes);
            self.wake_maker();
            let room = match asked {
                Asked::Taken => return Ok(Promise::new(self, purpose, bytes)),
                Asked::Full { room } => return Err(self.full(room)),
                Asked::Coming { room } => room,
            };
            // A file takes no longer than a sync may take before it counts as hanging.
            if tokio::time::timeout(self.options.sync_fatal, changed)
                .await
                .is_err()
            {
                return Err(self.full(room));
            }
        }
    }

    /// Whether there is room for `bytes`, or will be once the files are written that the budget allows.
    /// Takes nothing.
    pub(crate) fn has_room(&self, purpose: Purpose, bytes: u64) -> Result<(), Full> {
        let room = {
            let queue = self.queue();
            let kept = queue.owed() + self.measures.reserve.behind(purpose);
            self.measures.in_the_end(&self.files()).saturating_sub(kept)
        };
        match bytes <= room {
            true => Ok(()),
            false => Err(self.full(room)),
        }
    }

    fn full(&self, room: u64) -> Full {
        let disk_full = self.files().disk_full;
        Full { room, disk_full }
    }

    /// One step: two who ask at the same time never get the same room.
    fn ask(&self, purpose: Purpose, bytes: u64) -> Asked {
        let mut queue = self.queue();
        // What follows is refused by the log itself, for a better reason.
        if queue.refusing {
            queue.promised += bytes;
            return Asked::Taken;
        }
        let files = self.files();
        let kept = queue.owed() + self.measures.reserve.behind(purpose);
        let there = self.measures.there(&files).saturating_sub(kept);
        let to_come = self.measures.in_the_end(&files).saturating_sub(kept);
        if bytes <= there && !self.is_long(&queue, purpose) {
            queue.promised += bytes;
            Asked::Taken
        } else if bytes <= to_come {
            Asked::Coming { room: there }
        } else {
            Asked::Full { room: to_come }
        }
    }

    /// Whether who has something for `purpose` waits until some of what is queued is on disk.
    fn is_long(&self, queue: &Queue, purpose: Purpose) -> bool {
        let queued = queue.bytes() as u64;
        let ahead = match purpose {
            Purpose::Append => queued,
            // Raft has them, and queues them before long.
            Purpose::Replicated => queued + self.let_in.load(Ordering::Relaxed),
            // Bounded by who proposes, or sends, them; what makes room does not wait.
            Purpose::Command | Purpose::Installed => return false,
        };
        ahead > WAL_QUEUED_BYTES_MAX as u64
    }

    pub(super) fn room(&self) -> u64 {
        let queue = self.queue();
        let kept = queue.owed() + self.measures.reserve.total();
        self.measures.in_the_end(&self.files()).saturating_sub(kept)
    }

    /// Whether the files are there, and free, that a move of `bytes` of frames takes.
    pub(super) fn can_move(&self, bytes: u64) -> bool {
        let queue = self.queue();
        let kept = queue.owed() + self.measures.reserve.raft;
        let there = self.measures.there(&self.files());
        self.measures.moved(bytes) + kept <= there
    }

    /// Reserves the right to prewrite one spare, if one is wanted and fits the budget: the reserve
    /// is there before anybody leans on it, and a group beyond.
    pub(crate) fn wants_spare(&self) -> bool {
        let queue = self.queue();
        let mut files = self.files();
        let wanted = self.is_short(queue.owed(), &files);
        files.coming += u64::from(wanted);
        wanted
    }

    pub(super) fn wake_maker(&self) {
        let short = {
            let queue = self.queue();
            self.is_short(queue.owed(), &self.files())
        };
        if short {
            self.make_spare.wake();
        }
    }

    fn is_short(&self, owed: u64, files: &Files) -> bool {
        let fits = files.count() < self.measures.files_max;
        fits && files.coming == 0 && self.measures.there(files) < owed + self.measures.at_least()
    }
}

/// What became of a request for room.
enum Asked {
    Taken,
    /// There will be once files, or what is queued, are written.
    Coming {
        room: u64,
    },
    Full {
        room: u64,
    },
}

/// Room that its holder may count on. It passes to the frame that it was asked for when that is
/// queued; what was never used goes back when this is dropped.
pub(crate) struct Promise {
    shared: Arc<Shared>,
    bytes: AtomicU64,
    /// Bytes of it that count as let in.
    let_in: AtomicU64,
}

impl Promise {
    fn new(shared: &Arc<Shared>, purpose: Purpose, bytes: u64) -> Self {
        let let_in = if purpose == Purpose::Replicated {
            bytes
        } else {
            0
        };
        shared.let_in.fetch_add(let_in, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            bytes: AtomicU64::new(bytes),
            let_in: AtomicU64::new(let_in),
        }
    }

    /// Takes over the room of `other`.
    pub(crate) fn join(&self, other: &Self) {
        let bytes = other.bytes.swap(0, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Makes it enough for an entry of `bytes`. What is missing is the framing, which was promised
    /// to no append in it: it is taken without asking, from the part of the reserve that has it.
    pub(crate) fn cover(&self, bytes: usize) {
        let needed = self.shared.entry_disk_bytes(bytes);
        let missing = needed.saturating_sub(self.bytes.load(Ordering::Acquire));
        self.shared.queue().promised += missing;
        self.bytes.fetch_add(missing, Ordering::AcqRel);
    }

    /// The bytes, once: whoever queues the frame owes them from here on.
    pub(crate) fn spend(&self) -> u64 {
        let let_in = self.let_in.swap(0, Ordering::AcqRel);
        self.shared.let_in.fetch_sub(let_in, Ordering::Relaxed);
        self.bytes.swap(0, Ordering::AcqRel)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let bytes = self.spend();
        if bytes > 0 {
            self.shared.queue().take_back(bytes);
            self.shared.room_changed.notify_waiters();
        }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise({:?} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use esker_env::sim::SeededEntropy;
    use esker_types::{EntryId, ShardId};

    use super::super::frame::FrameKind;
    use super::super::group::padded_bytes;
    use super::super::queue::Item;
    use super::*;

    fn measures(shards: usize) -> (Measures, WalOptions) {
        let options = WalOptions {
            file_bytes: 256 << 10,
            group_bytes: 64 << 10,
            disk_bytes: 4 << 20,
            shards,
            ..WalOptions::default()
        };
        (Measures::of(&options), options)
    }

    fn item(bytes: usize) -> Item {
        let payload = vec![0; bytes].into();
        let (shard, id) = (ShardId(1), EntryId::default());
        Item::new(shard, FrameKind::Entry, id, vec![payload])
    }

    /// Whatever the sizes and however they come, what is owed is never less than what the groups
    /// take, and what is certain is never more than the files hold.
    #[test]
    fn what_is_owed_and_what_is_certain_are_bounds_for_any_groups() {
        for seed in 0..300 {
            let random = SeededEntropy::new(seed);
            let below = |bound: usize| usize::try_from(random.below(bound as u64)).expect("small");
            let shards = 1 + below(60);
            let (measures, options) = measures(shards);
            let mut queue = Queue::new(options.group_bytes, measures);
            let mut end = Preamble::bytes_for(shards) as u64;
            let behind = random.below(6);
            let (mut rolled, mut left) = (0, measures.certain(end, behind));
            let largest = options.group_bytes - 2 * WAL_ALIGN - FRAME_HEADER_BYTES;
            loop {
                let sizes: Vec<_> = (0..below(40))
                    .map(|_| below(if random.chance(10) { largest } else { 300 }))
                    .collect();
                let owed = queue.owed();
                queue
                    .push(sizes.into_iter().map(item).collect(), 0)
                    .unwrap_or_else(|_| unreachable!("it takes more"));
                if queue.owed() > left {
                    break;
                }
                assert!(queue.owed() >= owed);
                while random.chance(60) {
                    queue.committed = (0..u32::try_from(shards).expect("few"))
                        .map(ShardId)
                        .collect();
                    let taken = queue.take_group();
                    if taken.is_empty() {
                        break;
                    }
                    let committed = shards * FRAME_HEADER_BYTES;
                    let framed: usize = taken.iter().map(Item::framed_bytes).sum();
                    let group = padded_bytes(framed + committed) as u64;
                    if end + group > options.file_bytes {
                        rolled += 1;
                        assert!(rolled <= behind, "seed {seed}: no file is left");
                        end = Preamble::bytes_for(shards) as u64;
                    }
                    end += group;
                    queue.wrote();
                    left = measures.certain(end, behind - rolled);
                    assert!(
                        queue.owed() <= left,
                        "seed {seed}: more is owed than is there"
                    );
                }
            }
            while !queue.take_group().is_empty() {
                queue.wrote();
            }
            assert_eq!(queue.owed(), 0, "seed {seed}: nothing is owed for nothing");
        }
    }

    #[test]
    fn the_reserve_of_a_default_log_leaves_most_of_it() {
        for (disk_gib, shards) in [(1, 5), (8, 17)] {
            let options = WalOptions {
                disk_bytes: disk_gib << 30,
                shards,
                ..WalOptions::default()
            };
            let measures = Measures::of(&options);
            let files = measures.files_for(measures.at_least());
            assert!(files * 3 < measures.files_max, "{files} of {disk_gib} GiB");
        }
    }
}
