//! What the writer and everybody else share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use esker_env::{Monotonic, Waker};
use esker_types::{EntryId, RaftIndex, ShardId};
use tokio::sync::{Notify, watch};

use super::book::{Books, LogBounds};
use super::file::WalFile;
use super::frame::FrameKind;
use super::options::{Fatal, OnFatal, Stats, WalOptions};
use super::queue::{Item, Queue};
use super::spare::Spare;

/// Spares kept ready.
const SPARES_READY: usize = 1;
/// Files that must fit the budget: one active, one spare, one being released, one as reserve.
pub(crate) const FILES_MIN: u64 = 4;
/// Files kept free for what must get through when appends are refused: the flush commands of what
/// was in flight, votes, and moved frames.
const RESERVE_FILES: u64 = 2;
/// What the writer and everybody else share.
pub(crate) struct Shared {
    pub(super) options: WalOptions,
    pub(super) on_fatal: OnFatal,
    pub(super) books: Mutex<Books>,
    pub(super) queue: Mutex<Queue>,
    pub(super) files: Mutex<Files>,
    pub(super) failed: AtomicBool,
    pub(super) stalled: AtomicBool,
    /// Entries are being copied to the tail.
    pub(super) moving: AtomicBool,
    /// Nanoseconds of the monotonic clock at which the sync under way began, plus one; 0 if none.
    pub(super) sync_since: AtomicU64,
    pub(super) counts: Counts,
    /// Each shard's last entry that is on disk.
    pub(super) synced: watch::Sender<BTreeMap<ShardId, EntryId>>,
    /// When the last group that is no seal was synced, and none sealed it since.
    pub(super) unsealed: Mutex<Option<Monotonic>>,
    pub(super) wrote: Notify,
    pub(super) make_spare: Waker,
}

#[derive(Default)]
pub(super) struct Files {
    /// The sequence, oldest first; the last is active.
    pub(super) sequence: Vec<Arc<WalFile>>,
    pub(super) spares: Vec<Spare>,
    /// Spares being prewritten.
    pub(super) coming: u64,
    /// What the active file's preamble, or frames synced since, say was purged.
    pub(super) purged: BTreeMap<ShardId, RaftIndex>,
    /// Bytes of the active file that are written.
    pub(super) active_end: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    groups: AtomicU64,
    bytes: AtomicU64,
    frames: AtomicU64,
    sync_nanos: AtomicU64,
    sync_nanos_max: AtomicU64,
}

/// The parts of an opened log.
pub(crate) struct Start {
    pub(crate) books: Books,
    pub(crate) sequence: Vec<Arc<WalFile>>,
    pub(crate) active_end: u64,
    pub(crate) spares: Vec<Spare>,
    pub(crate) on_fatal: OnFatal,
    pub(crate) make_spare: Waker,
    /// When the log was opened: what the scan found last counts as unsealed since then.
    pub(crate) now: Monotonic,
}

impl Shared {
    pub(crate) fn new(options: WalOptions, start: Start) -> Self {
        let bounds: Vec<_> = start
            .books
            .iter()
            .map(|(shard, book)| (shard, book.bounds))
            .collect();
        let purged = bounds
            .iter()
            .map(|(shard, bounds)| (*shard, bounds.purged.index))
            .collect();
        let synced = bounds
            .iter()
            .map(|(shard, bounds)| (*shard, bounds.last))
            .collect();
        let group_bytes = options.group_bytes;
        let files = Files {
            sequence: start.sequence,
            spares: start.spares,
            coming: 0,
            purged,
            active_end: start.active_end,
        };
        Self {
            options,
            on_fatal: start.on_fatal,
            books: Mutex::new(start.books),
            queue: Mutex::new(Queue::new(group_bytes)),
            files: Mutex::new(files),
            failed: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            moving: AtomicBool::new(false),
            sync_since: AtomicU64::new(0),
            counts: Counts::default(),
            synced: watch::Sender::new(synced),
            unsealed: Mutex::new(Some(start.now)),
            wrote: Notify::new(),
            make_spare: start.make_spare,
        }
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books
            .lock()
            .expect("a panic under this lock has ended the process")
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .expect("a panic under this lock has ended the process")
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files
            .lock()
            .expect("a panic under this lock has ended the process")
    }

    pub(super) fn unsealed(&self) -> MutexGuard<'_, Option<Monotonic>> {
        self.unsealed
            .lock()
            .expect("nothing panics under this lock")
    }

    pub(super) fn sync_age(&self, now: Monotonic) -> Option<Duration> {
        let since = self.sync_since.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.since(Monotonic(Duration::from_nanos(since))))
    }

    pub(super) fn active_path(&self) -> PathBuf {
        self.files()
            .sequence
            .last()
            .map(|file| file.path.clone())
            .unwrap_or_default()
    }

    pub(crate) fn set_stalled(&self, stalled: bool) {
        if self.stalled.swap(stalled, Ordering::AcqRel) != stalled {
            self.wrote.notify_one();
        }
    }

    /// Frames that say how far the given shards have committed.
    pub(crate) fn committed_frames(&self, shards: BTreeSet<ShardId>) -> Vec<Item> {
        let books = self.books();
        let frames = shards.into_iter().filter_map(|shard| {
            let id = books.book(shard)?.bounds.committed;
            Some(Item::new(shard, FrameKind::Committed, id, Vec::new()))
        });
        frames.collect()
    }

    pub(crate) fn sync_began(&self, at: Monotonic) {
        let nanos = u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX - 1);
        self.sync_since.store(nanos + 1, Ordering::Release);
    }

    pub(crate) fn sync_gave_up(&self) {
        self.sync_since.store(0, Ordering::Release);
    }

    pub(crate) fn sync_ended(&self, took: Duration, bytes: usize) {
        self.sync_since.store(0, Ordering::Release);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts.groups.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counts.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counts
            .sync_nanos_max
            .fetch_max(nanos, Ordering::Relaxed);
        self.files().active_end += bytes as u64;
    }

    /// A group is on disk.
    pub(crate) fn wrote(
        &self,
        written: &BTreeMap<ShardId, LogBounds>,
        items: &[Item],
        now: Monotonic,
        sealed: bool,
    ) {
        self.counts
            .frames
            .fetch_add(items.len() as u64, Ordering::Relaxed);
        let purges = items.iter().filter(|item| item.kind == FrameKind::Purge);
        let mut files = self.files();
        for item in purges {
            let purged = files.purged.entry(item.shard).or_default();
            *purged = item.id.index.max(*purged);
        }
        drop(files);
        self.synced.send_if_modified(|synced| {
            let mut moved = false;
            for item in items {
                let last = written
                    .get(&item.shard)
                    .map(|bounds| bounds.last)
                    .unwrap_or_default();
                moved |= synced.insert(item.shard, last) != Some(last);
            }
            moved
        });
        *self.unsealed() = (!sealed).then_some(now);
        self.wrote.notify_one();
    }

    pub(crate) fn take_spare(&self) -> Option<Spare> {
        let spare = self.files().spares.pop();
        self.make_spare.wake();
        spare
    }

    /// Whether one more file fits the budget.
    pub(crate) fn may_grow(&self) -> bool {
        let files = self.files();
        files.count() < self.options.disk_bytes / self.options.file_bytes
    }

    /// Reserves the right to prewrite one spare, if one is wanted and fits.
    pub(crate) fn wants_spare(&self) -> bool {
        let mut files = self.files();
        let wanted = files.spares.len() as u64 + files.coming < SPARES_READY as u64;
        let fits = files.count() < self.options.disk_bytes / self.options.file_bytes;
        if wanted && fits {
            files.coming += 1;
        }
        wanted && fits
    }

    pub(crate) fn spare_came(&self, spare: Option<Spare>) {
        let mut files = self.files();
        files.coming -= 1;
        files.spares.extend(spare);
        drop(files);
        self.wrote.notify_one();
    }

    pub(crate) fn add_spare(&self, spare: Spare) {
        self.files().spares.push(spare);
        self.wrote.notify_one();
    }

    pub(crate) fn began_file(&self, file: &Arc<WalFile>, end: u64) {
        let mut files = self.files();
        files.sequence.push(Arc::clone(file));
        files.active_end = end;
    }

    /// The oldest file, taken out of the sequence, if nothing refers to it any more.
    pub(crate) fn take_unreferenced(&self) -> Option<Arc<WalFile>> {
        let mut files = self.files();
        let unreferenced = files.sequence.len() > 1 && Arc::strong_count(&files.sequence[0]) == 1;
        unreferenced.then(|| files.sequence.remove(0))
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Ends the log; whoever is first says why.
    pub(crate) fn fail(&self, fatal: &Fatal) {
        self.fail_with(fatal, &self.on_fatal);
    }

    pub(super) fn fail_with(&self, fatal: &Fatal, told: &OnFatal) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = self.queue().refuse();
        for done in waiting.into_iter().filter_map(|item| item.done) {
            done(Err(io::Error::other(fatal.to_string())));
        }
        self.synced.send_modify(|_| {});
        self.wrote.notify_one();
        told(fatal);
    }

    pub(super) fn room(&self) -> u64 {
        let files = self.files();
        let all = self.options.disk_bytes / self.options.file_bytes;
        let free = all.saturating_sub(files.sequence.len() as u64 + RESERVE_FILES);
        let queued = self.queue().bytes() as u64;
        let active = self.options.file_bytes.saturating_sub(files.active_end);
        (free * self.options.file_bytes + active).saturating_sub(queued)
    }

    pub(super) fn stats(&self) -> Stats {
        let (files, spares) = {
            let files = self.files();
            (files.sequence.len() as u64, files.spares.len() as u64)
        };
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            groups: load(&self.counts.groups),
            bytes: load(&self.counts.bytes),
            frames: load(&self.counts.frames),
            sync_nanos: load(&self.counts.sync_nanos),
            sync_nanos_max: load(&self.counts.sync_nanos_max),
            files,
            spares,
            cached_bytes: self.books().cached_bytes() as u64,
            queued_bytes: self.queue().bytes() as u64,
        }
    }
}

impl Files {
    fn count(&self) -> u64 {
        self.sequence.len() as u64 + self.spares.len() as u64 + self.coming
    }
}
