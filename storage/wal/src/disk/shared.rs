//! What the writer and everybody else share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use esker_env::{Lock, Monotonic, Waker};
use esker_types::{EntryId, RaftIndex, ShardId};
use tokio::sync::{Notify, watch};

use super::book::{Books, LogBounds};
use super::file::WalFile;
use super::frame::{FRAME_HEADER_BYTES, FrameKind};
use super::options::{Fatal, OnFatal, Stats, WalOptions};
use super::queue::{Item, Queue};
use super::room::Measures;
use super::spare::Spare;

/// What the writer and everybody else share.
pub(crate) struct Shared {
    pub(super) options: WalOptions,
    pub(super) measures: Measures,
    pub(super) on_fatal: OnFatal,
    pub(super) books: Mutex<Books>,
    pub(super) queue: Mutex<Queue>,
    pub(super) files: Mutex<Files>,
    pub(super) failed: AtomicBool,
    /// Since when the writer has been waiting for a file.
    stalled: Mutex<Option<Monotonic>>,
    /// Entries are being copied to the tail.
    pub(super) moving: AtomicBool,
    /// Nanoseconds of the monotonic clock at which the sync under way began, plus one; 0 if none.
    pub(super) sync_since: AtomicU64,
    pub(super) counts: Counts,
    /// Each shard's last entry that is on disk.
    pub(super) synced: watch::Sender<BTreeMap<ShardId, EntryId>>,
    pub(super) tail: Mutex<Tail>,
    /// Told of what the sealer awaits: a group, a stall that began or ended, the end of the log.
    pub(super) wrote: Notify,
    /// Something that bears on room has changed.
    pub(super) room_changed: Notify,
    /// Bytes promised to a leader's entries that are not queued yet.
    pub(super) let_in: AtomicU64,
    pub(super) make_spare: Waker,
    /// Of the directory: let go with the last of those who share this.
    pub(super) lock: OnceLock<Box<dyn Lock>>,
}

/// What the sealer goes by.
pub(super) struct Tail {
    /// When the last group that is no seal was synced, and none sealed it since.
    pub(super) unsealed: Option<Monotonic>,
    /// The sealer wants to be told of the next group. While it waits for idleness it does not: each
    /// group would wake it for nothing.
    pub(super) awaited: bool,
}

#[derive(Default)]
pub(super) struct Files {
    /// The sequence, oldest first; the last is active.
    pub(super) sequence: Vec<Arc<WalFile>>,
    pub(super) spares: Vec<Spare>,
    /// Spares being prewritten.
    pub(super) coming: u64,
    /// Files in the writer's hands, neither spare nor in the sequence: one being begun, or one
    /// being taken back.
    pub(super) in_hand: u64,
    /// The disk had no room for the last spare, whatever the budget says.
    pub(super) disk_full: bool,
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
        let measures = Measures::of(&options);
        let queue = Queue::new(options.group_bytes, measures);
        let files = Files {
            sequence: start.sequence,
            spares: start.spares,
            coming: 0,
            in_hand: 0,
            disk_full: false,
            purged,
            active_end: start.active_end,
        };
        Self {
            options,
            measures,
            on_fatal: start.on_fatal,
            books: Mutex::new(start.books),
            queue: Mutex::new(queue),
            files: Mutex::new(files),
            failed: AtomicBool::new(false),
            stalled: Mutex::new(None),
            lock: OnceLock::new(),
            moving: AtomicBool::new(false),
            sync_since: AtomicU64::new(0),
            counts: Counts::default(),
            synced: watch::Sender::new(synced),
            tail: Mutex::new(Tail {
                unsealed: Some(start.now),
                awaited: false,
            }),
            wrote: Notify::new(),
            room_changed: Notify::new(),
            let_in: AtomicU64::new(0),
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

    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("nothing panics under this lock")
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

    /// Since when the writer has been waiting for a file.
    pub(super) fn stalled(&self) -> Option<Monotonic> {
        *self.stalled.lock().expect("nothing panics under this lock")
    }

    /// The writer waits for a file, from `since` on; or goes on.
    pub(crate) fn set_stalled(&self, since: Option<Monotonic>) {
        let mut stalled = self.stalled.lock().expect("nothing panics under this lock");
        if stalled.is_some() != since.is_some() {
            *stalled = since;
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
        let mut tail = self.tail();
        tail.unsealed = (!sealed).then_some(now);
        let awaited = std::mem::take(&mut tail.awaited);
        drop(tail);
        if awaited {
            self.wrote.notify_one();
        }
    }

    /// A spare to begin a file in, which is in hand from here on.
    pub(crate) fn take_spare(&self) -> Option<Spare> {
        let spare = {
            let mut files = self.files();
            let spare = files.spares.pop();
            files.in_hand += u64::from(spare.is_some());
            spare
        };
        self.make_spare.wake();
        spare
    }

    /// Whether one more file fits the budget; it is in hand from here on.
    pub(crate) fn may_grow(&self) -> bool {
        let mut files = self.files();
        let fits = files.count() < self.measures.files_max;
        files.in_hand += u64::from(fits);
        fits
    }

    /// The file in hand could not be made.
    pub(crate) fn not_grown(&self) {
        self.files().in_hand -= 1;
    }

    /// A spare was prewritten, or failed to be. Returns whether the disk is found full, and was not
    /// before.
    pub(crate) fn spare_came(&self, spare: Option<Spare>) -> bool {
        let mut files = self.files();
        files.coming -= 1;
        let was_full = std::mem::replace(&mut files.disk_full, spare.is_none());
        files.spares.extend(spare);
        let (came, found_full) = (!files.disk_full, files.disk_full && !was_full);
        drop(files);
        // Only for what came: a writer that waits for a file asks for one each time it is woken.
        if came {
            self.wrote.notify_one();
        }
        self.room_changed.notify_waiters();
        found_full
    }

    /// The file in hand is a spare.
    pub(crate) fn add_spare(&self, spare: Spare) {
        let mut files = self.files();
        files.in_hand -= 1;
        files.spares.push(spare);
        drop(files);
        self.wrote.notify_one();
        self.room_changed.notify_waiters();
    }

    /// The group taken last is on disk: what it was owed is free, less what it took.
    pub(crate) fn group_written(&self) {
        self.queue().wrote();
        self.room_changed.notify_waiters();
        self.wake_maker();
    }

    /// What an entry of `bytes`, queued alone, takes on disk at most.
    pub(crate) fn entry_disk_bytes(&self, bytes: usize) -> u64 {
        self.measures.queued(1, (FRAME_HEADER_BYTES + bytes) as u64)
    }

    /// The file in hand is the active one.
    pub(crate) fn began_file(&self, file: &Arc<WalFile>, end: u64) {
        let mut files = self.files();
        files.in_hand -= 1;
        files.sequence.push(Arc::clone(file));
        files.active_end = end;
    }

    /// The oldest file, taken out of the sequence and in hand, if nothing refers to it any more.
    pub(crate) fn take_unreferenced(&self) -> Option<Arc<WalFile>> {
        let mut files = self.files();
        let unreferenced = files.sequence.len() > 1 && Arc::strong_count(&files.sequence[0]) == 1;
        files.in_hand += u64::from(unreferenced);
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
        self.room_changed.notify_waiters();
        told(fatal);
    }

    pub(super) fn stats(&self) -> Stats {
        let (files, spares, disk_full) = {
            let files = self.files();
            let spares = files.spares.len() as u64;
            (files.sequence.len() as u64, spares, files.disk_full)
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
            disk_full,
            cached_bytes: self.books().cached_bytes() as u64,
            queued_bytes: self.queue().bytes() as u64,
        }
    }
}

impl Files {
    pub(super) fn count(&self) -> u64 {
        self.sequence.len() as u64 + self.spares.len() as u64 + self.coming + self.in_hand
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use esker_env::Env;
    use esker_types::limits::WAL_QUEUED_BYTES_MAX;
    use tokio::time::timeout;

    use super::super::room::Purpose;
    use super::super::spare::prewrite;
    use super::*;

    /// A log of which nothing is written, with so many spares.
    fn shared(env: &Env, options: &WalOptions, spares: u64) -> Arc<Shared> {
        let directory = Path::new("/wal");
        env.files.create_dir_all(directory).expect("made");
        let spare = || prewrite(env, directory, options.file_bytes).expect("written");
        Arc::new(Shared::new(
            options.clone(),
            Start {
                books: Books::new(1 << 20),
                sequence: Vec::new(),
                active_end: 0,
                spares: (0..spares).map(|_| spare()).collect(),
                on_fatal: Arc::new(|_: &_| {}),
                make_spare: env.workers.start("idle", Box::new(|| {})),
                now: env.clock.monotonic(),
            },
        ))
    }

    /// What is queued is in memory, on a node that follows as on one that leads.
    #[tokio::test(start_paused = true)]
    async fn who_has_more_waits_while_too_much_waits_for_the_disk() {
        let (env, _, _) = Env::simulated(1);
        let options = WalOptions {
            file_bytes: 24 << 20,
            group_bytes: 1 << 20,
            disk_bytes: 240 << 20,
            ..WalOptions::default()
        };
        let shared = shared(&env, &options, 6);
        let promise = |purpose| shared.promise(purpose, 1 << 20);
        let now = Duration::from_millis(1);
        // Let in and not queued yet, these count with what is.
        let mut let_in = Vec::new();
        while let Ok(promise) = timeout(now, promise(Purpose::Replicated)).await {
            let_in.push(promise.expect("there is room"));
        }
        let bound = WAL_QUEUED_BYTES_MAX >> 20;
        assert_eq!(let_in.len(), bound + 1);
        drop(
            timeout(now, promise(Purpose::Append))
                .await
                .expect("none is queued"),
        );
        let id = EntryId::default();
        for promise in let_in {
            let payload = vec![vec![0; 1 << 20].into()];
            let item = Item::new(ShardId(1), FrameKind::Entry, id, payload);
            let pushed = shared.queue().push(vec![item], promise.spend());
            assert!(pushed.is_ok());
        }
        for purpose in [Purpose::Append, Purpose::Replicated] {
            timeout(now, promise(purpose)).await.expect_err("it waits");
        }
        // What makes room does not.
        for purpose in [Purpose::Command, Purpose::Installed] {
            let asked = timeout(now, promise(purpose)).await;
            drop(asked.expect("at once").expect("there is room"));
        }
        let written = async {
            for _ in 0..2 {
                assert!(!shared.queue().take_group().is_empty());
                shared.group_written();
            }
        };
        let (waited, ()) = tokio::join!(promise(Purpose::Append), written);
        waited.expect("there is room");
    }

    #[tokio::test]
    async fn a_file_in_hand_is_one_of_those_that_the_budget_allows() {
        let (env, _, _) = Env::simulated(1);
        let options = WalOptions {
            file_bytes: 256 << 10,
            group_bytes: 64 << 10,
            disk_bytes: 1 << 20,
            ..WalOptions::default()
        };
        let shared = shared(&env, &options, 4);
        assert!(!shared.may_grow(), "four files of four");
        let in_hand = shared.take_spare().expect("there are four");
        assert!(!shared.may_grow() && !shared.wants_spare());
        shared.add_spare(in_hand);
        assert!(!shared.may_grow());
        // One that could not be made leaves its place to another.
        shared.files().spares.pop();
        assert!(shared.may_grow() && !shared.may_grow());
        shared.not_grown();
        assert!(shared.may_grow());
    }
}
