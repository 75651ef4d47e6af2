//! The whole: what the rest of the crate calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Env, Monotonic, Waker, WorkersExt};
use esker_types::limits::{
    FSYNC_FATAL, HEAD_DISK_BYTES_DEV, HEAD_MEMORY_BYTES, LOG_READ_BYTES_MAX, WAL_ALIGN,
    WAL_FILE_BYTES, WAL_GROUP_BYTES_MAX, WAL_SEAL_IDLE,
};
use esker_types::{EntryId, RaftIndex, ShardId};
use tokio::sync::{Notify, watch};

use super::body::Body;
use super::book::{Books, Found, LogBounds, Vote};
use super::file::{Place, WalFile};
use super::frame::FrameKind;
use super::queue::{Done, Item, Queue};
use super::scan::Recovery;
use super::spare::{self, Spare};
use crate::Error;

/// Spares kept ready.
const SPARES_READY: usize = 1;
/// Files that must fit the budget: one active, one spare, one being released, one as reserve.
pub(crate) const FILES_MIN: u64 = 4;
/// Files kept free for what must get through when appends are refused: the flush commands of what
/// was in flight, votes, and moved frames.
const RESERVE_FILES: u64 = 2;

/// What a group adds to a single entry: its own header, the frame's, and padding.
const ENTRY_FRAMING_BYTES: usize = 2 * WAL_ALIGN;

/// How a WAL is laid out.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Bytes of one file. Default: [`WAL_FILE_BYTES`].
    pub file_bytes: u64,
    /// Bytes of one group: what one write and one sync carry. An entry must fit one. Default:
    /// [`WAL_GROUP_BYTES_MAX`], which is also the most.
    pub group_bytes: usize,
    /// Bytes of all files together, spares included. Default: [`HEAD_DISK_BYTES_DEV`].
    pub disk_bytes: u64,
    /// Bytes of entries kept in memory once they are on disk. Default: [`HEAD_MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// Idleness after which the tail is sealed. Default: [`WAL_SEAL_IDLE`].
    pub seal_idle: Duration,
    /// A sync that takes longer ends the process. Default: [`FSYNC_FATAL`].
    pub sync_fatal: Duration,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            file_bytes: WAL_FILE_BYTES,
            group_bytes: WAL_GROUP_BYTES_MAX,
            disk_bytes: HEAD_DISK_BYTES_DEV,
            memory_bytes: HEAD_MEMORY_BYTES,
            seal_idle: WAL_SEAL_IDLE,
            sync_fatal: FSYNC_FATAL,
        }
    }
}

/// Why the log failed. Whoever hears of it ends the process.
#[derive(Clone, Debug)]
pub struct Fatal {
    /// What was being done.
    pub doing: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the system said.
    pub error: String,
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { doing, path, error } = self;
        write!(f, "the WAL failed {doing} {}: {error}", path.display())
    }
}

/// Called once, when the log fails.
pub type OnFatal = Arc<dyn Fn(&Fatal) + Send + Sync>;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups written, seals included.
    pub groups: u64,
    /// Bytes written in groups, padding included.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Nanoseconds spent in fdatasync.
    pub sync_nanos: u64,
    /// The longest of them.
    pub sync_nanos_max: u64,
    /// Files in the sequence.
    pub files: u64,
    /// Files ready to be used.
    pub spares: u64,
    /// Bytes of entries in memory.
    pub cached_bytes: u64,
    /// Bytes waiting for the writer.
    pub queued_bytes: u64,
}

/// What the writer and everybody else share.
pub(crate) struct Shared {
    options: WalOptions,
    on_fatal: OnFatal,
    books: Mutex<Books>,
    queue: Mutex<Queue>,
    files: Mutex<Files>,
    failed: AtomicBool,
    stalled: AtomicBool,
    /// Entries are being copied to the tail.
    moving: AtomicBool,
    /// Nanoseconds of the monotonic clock at which the sync under way began, plus one; 0 if none.
    sync_since: AtomicU64,
    counts: Counts,
    /// Each shard's last entry that is on disk.
    synced: watch::Sender<BTreeMap<ShardId, EntryId>>,
    /// When the last group that is no seal was synced, and none sealed it since.
    unsealed: Mutex<Option<Monotonic>>,
    wrote: Notify,
    make_spare: Waker,
}

#[derive(Default)]
struct Files {
    /// The sequence, oldest first; the last is active.
    sequence: Vec<Arc<WalFile>>,
    spares: Vec<Spare>,
    /// Spares being prewritten.
    coming: u64,
    /// What the active file's preamble, or frames synced since, say was purged.
    purged: BTreeMap<ShardId, RaftIndex>,
    /// Bytes of the active file that are written.
    active_end: u64,
}

#[derive(Default)]
struct Counts {
    groups: AtomicU64,
    bytes: AtomicU64,
    frames: AtomicU64,
    sync_nanos: AtomicU64,
    sync_nanos_max: AtomicU64,
}

/// The log of all shards of a node, on disk. Every method is cheap and returns at once unless it
/// says otherwise; what it adds reaches the disk in the order of the calls.
pub struct Wal {
    shared: Arc<Shared>,
    env: Env,
    writer: Waker,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the log in `directory` (made if missing), reading it back first. `checkpointed` says
    /// what each shard's durable checkpoint covers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where damage could hide what was acknowledged, [`Error::FailedBefore`]
    /// on a disk that failed twice, [`Error::Io`], [`Error::Version`], [`Error::BudgetTooSmall`].
    pub async fn open(
        env: &Env,
        directory: &Path,
        options: WalOptions,
        checkpointed: BTreeMap<ShardId, RaftIndex>,
        on_fatal: OnFatal,
    ) -> Result<(Arc<Self>, Recovery), Error> {
        let files = options.disk_bytes / options.file_bytes.max(1);
        if files < FILES_MIN {
            let (disk_bytes, file_bytes) = (options.disk_bytes, options.file_bytes);
            return Err(Error::BudgetTooSmall {
                disk_bytes,
                file_bytes,
                files,
                files_min: FILES_MIN,
            });
        }
        let fits = 2 * options.group_bytes as u64 <= options.file_bytes;
        if !fits || options.group_bytes > WAL_GROUP_BYTES_MAX {
            let (group_bytes, file_bytes) = (options.group_bytes, options.file_bytes);
            return Err(Error::GroupTooLarge {
                group_bytes,
                file_bytes,
            });
        }
        super::open::open(env, directory, options, checkpointed, on_fatal).await
    }

    pub(crate) fn from_parts(shared: Arc<Shared>, env: Env, writer: Waker) -> Arc<Self> {
        Arc::new(Self {
            shared,
            env,
            writer,
        })
    }

    /// Adds entries at the end of a shard's log. They can be read at once; `done` is called when
    /// all of them are on disk, or never will be.
    ///
    /// # Errors
    /// [`Error::Hole`] if an entry does not follow, [`Error::EntryTooLarge`]; the ones before it
    /// were added.
    pub fn append(
        &self,
        shard: ShardId,
        entries: impl IntoIterator<Item = (EntryId, Body)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), Error> {
        let mut items = Vec::new();
        let mut outcome = Ok(());
        // The order in the queue is the order in the books: one lock spans both.
        let mut books = self.shared.books();
        let bytes_max = self.shared.options.group_bytes - ENTRY_FRAMING_BYTES;
        for (id, body) in entries {
            let bytes = body.weight();
            outcome = if bytes > bytes_max {
                Err(Error::EntryTooLarge {
                    shard,
                    bytes,
                    bytes_max,
                })
            } else {
                books.append(shard, id, body.clone())
            };
            if outcome.is_err() {
                break;
            }
            items.push(frame(shard, FrameKind::Entry, id, body.into_parts()));
        }
        self.enqueue(items, done);
        drop(books);
        outcome
    }

    /// Adds entries below the log's end that came with a snapshot. They count once a checkpoint
    /// that covers them is current.
    pub fn install(
        &self,
        shard: ShardId,
        entries: impl IntoIterator<Item = (EntryId, Body)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let mut books = self.shared.books();
        let mut items = Vec::new();
        for (id, body) in entries {
            books.install(shard, id, body.clone());
            items.push(frame(shard, FrameKind::Installed, id, body.into_parts()));
        }
        self.enqueue(items, done);
    }

    /// Stores a shard's vote.
    pub fn save_vote(
        &self,
        shard: ShardId,
        vote: Vote,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let mut books = self.shared.books();
        books.book_mut(shard).bounds.vote = Some(vote);
        let (id, payload) = vote.encode();
        self.enqueue(vec![frame(shard, FrameKind::Vote, id, vec![payload])], done);
    }

    /// Ends a shard's log at `last`.
    ///
    /// # Errors
    /// [`Error::Hole`] if the log does not hold `last`.
    pub fn truncate(
        &self,
        shard: ShardId,
        last: EntryId,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), Error> {
        let mut books = self.shared.books();
        let end = books.book_mut(shard).bounds.last;
        let keeps = books.truncate(shard, last).ok_or(Error::Hole {
            shard,
            last: end,
            id: last,
        })?;
        let item = frame(shard, FrameKind::Truncate, last, Vec::new());
        self.enqueue(vec![Item { keeps, ..item }], done);
        Ok(())
    }

    /// Raft needs no entry up to `id` any more. Entries stay until [`Wal::release`].
    pub fn purge(&self, shard: ShardId, id: EntryId) {
        let mut books = self.shared.books();
        books.book_mut(shard).bounds.purge(id);
        self.enqueue(vec![frame(shard, FrameKind::Purge, id, Vec::new())], |_| {});
    }

    /// Notes that a shard has committed up to `id`; written along with the next group.
    pub fn set_committed(&self, shard: ShardId, id: EntryId) {
        self.shared.books().book_mut(shard).bounds.committed = id;
        self.shared.queue().committed.insert(shard);
    }

    /// Nobody needs a shard's entries up to `upto` any more: the bucket has them, and a durable
    /// checkpoint says so. Held back to what is durably purged. Returns what it released up to.
    pub fn release(&self, shard: ShardId, upto: RaftIndex) -> RaftIndex {
        let purged = self
            .shared
            .files()
            .purged
            .get(&shard)
            .copied()
            .unwrap_or_default();
        let upto = upto.min(purged);
        self.shared.books().release(shard, upto);
        self.writer.wake();
        upto
    }

    /// A shard's bounds, with what is queued.
    #[must_use]
    pub fn bounds(&self, shard: ShardId) -> LogBounds {
        self.shared
            .books()
            .book(shard)
            .map(|book| book.bounds)
            .unwrap_or_default()
    }

    /// Index of the oldest entry of a shard that is still held.
    #[must_use]
    pub fn oldest(&self, shard: ShardId) -> Option<RaftIndex> {
        self.shared
            .books()
            .book(shard)
            .and_then(super::book::Book::oldest)
    }

    /// Entries of a shard that raft may read, from `range`, in order: all of them if `bytes_max`
    /// is `None`, else until their bytes pass it (at least one). May read the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub async fn read(
        &self,
        shard: ShardId,
        range: RangeInclusive<RaftIndex>,
        bytes_max: Option<usize>,
    ) -> Result<Vec<(EntryId, Body)>, Error> {
        let found = {
            let books = self.shared.books();
            let purged = books
                .book(shard)
                .map(|book| book.bounds.purged.index)
                .unwrap_or_default();
            let range = *range.start().max(&purged.next())..=*range.end();
            books.find_run(shard, range, bytes_max.unwrap_or(usize::MAX))
        };
        self.resolve(found).await
    }

    /// One entry of a shard, purged or not; `None` once it is released. May read the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub async fn read_entry(
        &self,
        shard: ShardId,
        index: RaftIndex,
    ) -> Result<Option<(EntryId, Body)>, Error> {
        let found = self.shared.books().find(shard, index);
        Ok(self.resolve(found.into_iter().collect()).await?.pop())
    }

    /// Bytes one read of the log returns at most, one entry aside.
    pub const READ_BYTES_MAX: usize = LOG_READ_BYTES_MAX;

    async fn resolve(&self, found: Vec<(EntryId, Found)>) -> Result<Vec<(EntryId, Body)>, Error> {
        if found
            .iter()
            .all(|(_, found)| matches!(found, Found::Cached(_)))
        {
            return found
                .into_iter()
                .map(|(id, found)| Ok((id, found.load()?)))
                .collect();
        }
        let load = move || {
            found
                .into_iter()
                .map(|(id, found)| Ok((id, found.load()?)))
                .collect()
        };
        self.env.workers.run(load).await
    }

    /// Waits until a shard's entries up to `upto` are on this node's disk. False if the log failed
    /// first.
    pub async fn wait_synced(&self, shard: ShardId, upto: RaftIndex) -> bool {
        let mut synced = self.shared.synced.subscribe();
        let reached = synced.wait_for(|synced| {
            let there = synced.get(&shard).is_some_and(|id| id.index >= upto);
            there || self.has_failed()
        });
        reached.await.is_ok() && !self.has_failed()
    }

    /// Whether the log has failed. Nothing is written any more.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.has_failed()
    }

    /// How long the sync under way has taken so far, if one is.
    #[must_use]
    pub fn sync_age(&self) -> Option<Duration> {
        let since = self
            .shared
            .sync_since
            .load(Ordering::Acquire)
            .checked_sub(1)?;
        Some(
            self.env
                .clock
                .monotonic()
                .since(Monotonic(Duration::from_nanos(since))),
        )
    }

    /// Bytes that may still be written before the reserve is touched. Appends are refused when
    /// what they need is not there.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.shared.room()
    }

    /// Shards that hold the oldest file, if the log has more files than `files`: they are to be
    /// checkpointed and flushed out of turn.
    #[must_use]
    pub fn holders_of_oldest(&self, files: usize) -> Vec<ShardId> {
        let oldest = {
            let held = self.shared.files();
            if held.sequence.len() <= files {
                return Vec::new();
            }
            held.sequence[0].sequence
        };
        let entries = self.shared.books().entries_in(oldest, usize::MAX);
        let shards: BTreeSet<_> = entries.into_iter().map(|(shard, ..)| shard).collect();
        shards.into_iter().collect()
    }

    /// Copies what still holds the oldest file to the tail, one group's worth at most, so that the
    /// file can be released. Returns how many entries were copied. Reads the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub async fn move_oldest(&self) -> Result<usize, Error> {
        // A disk that hangs must not be handed the same entries again and again.
        if self.shared.moving.load(Ordering::Acquire) {
            return Ok(0);
        }
        let Some(oldest) = self
            .shared
            .files()
            .sequence
            .first()
            .map(|file| file.sequence)
        else {
            return Ok(0);
        };
        let entries = self
            .shared
            .books()
            .entries_in(oldest, self.shared.options.group_bytes / 2);
        let load = move || {
            let read = |(shard, id, place): (ShardId, EntryId, Place)| {
                Ok(frame(shard, FrameKind::Moved, id, vec![place.read()?]))
            };
            entries
                .into_iter()
                .map(read)
                .collect::<Result<Vec<_>, Error>>()
        };
        let mut items = self.env.workers.run(load).await?;
        let books = self.shared.books();
        // Raft may have cut off and written anew what was read meanwhile.
        items.retain(|item| books.lies_in(item.shard, item.id, oldest));
        let count = items.len();
        let shared = Arc::clone(&self.shared);
        shared.moving.store(true, Ordering::Release);
        self.enqueue(items, move |_| {
            shared.moving.store(false, Ordering::Release)
        });
        Ok(count)
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Adds `items` to the queue; `done` is called with the last. The caller holds the books, so
    /// that both tell the same order.
    fn enqueue(&self, mut items: Vec<Item>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        let done: Done = Box::new(done);
        let Some(last) = items.last_mut() else {
            done(Ok(()));
            return;
        };
        last.done = Some(done);
        let mut refused = Vec::new();
        {
            let mut queue = self.shared.queue();
            for item in items {
                refused.extend(queue.push(item).err());
            }
        }
        for done in refused.into_iter().filter_map(|item| item.done) {
            done(Err(io::Error::other("the WAL has failed or is closed")));
        }
        self.writer.wake();
    }

    /// Ends the log, and so the process, when a sync hangs past the bound: half-alive is worse than
    /// dead, and nobody else can lead while this node keeps its lease. Runs as a task, since the
    /// writer itself is what hangs.
    pub(crate) async fn watch_syncs(shared: Arc<Shared>, env: Env, on_hang: OnFatal) {
        let bound = shared.options.sync_fatal;
        while !shared.has_failed() && !shared.queue().refusing {
            tokio::time::sleep(bound / 8).await;
            let now = env.clock.monotonic();
            let Some(age) = shared.sync_age(now).filter(|age| *age > bound) else {
                continue;
            };
            let path = shared.active_path();
            let error = format!("no answer for {} ms", age.as_millis());
            // Not by way of the note for the next start: the disk that hangs would hang that too.
            let fatal = Fatal {
                doing: "syncing",
                path,
                error,
            };
            shared.fail_with(&fatal, &on_hang);
        }
    }

    /// Seals the tail when it has been idle, until the log is closed. Runs as a task.
    pub(crate) async fn keep_sealed(shared: Arc<Shared>, env: Env, writer: Waker) {
        let idle = shared.options.seal_idle;
        while !shared.has_failed() && !shared.queue().refusing {
            let unsealed = *shared.unsealed();
            let stalled = shared.stalled.load(Ordering::Acquire);
            let Some(since) = unsealed.filter(|_| !stalled) else {
                // A stalled writer is woken now and then: room may come from outside.
                let nap = if stalled {
                    idle.max(Duration::from_millis(100))
                } else {
                    Duration::MAX
                };
                let _ = tokio::time::timeout(nap, shared.wrote.notified()).await;
                if stalled {
                    writer.wake();
                }
                continue;
            };
            let age = env.clock.monotonic().since(since);
            if age < idle {
                tokio::time::sleep(idle - age).await;
                continue;
            }
            shared.queue().seal = true;
            writer.wake();
            shared.wrote.notified().await;
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.queue().refusing = true;
        self.shared.wrote.notify_one();
    }
}

fn frame(shard: ShardId, kind: FrameKind, id: EntryId, payload: Vec<Bytes>) -> Item {
    Item {
        shard,
        kind,
        id,
        payload,
        keeps: Vec::new(),
        done: None,
    }
}

impl Found {
    fn load(self) -> Result<Body, Error> {
        match self {
            Self::Cached(body) => Ok(body),
            Self::Placed(place) => Body::decode(place.read()?).ok_or_else(|| Error::Corrupt {
                path: place.file.path.clone(),
                offset: place.offset,
                what: "the payload of a frame is no entry".into(),
            }),
        }
    }
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

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files
            .lock()
            .expect("a panic under this lock has ended the process")
    }

    fn unsealed(&self) -> MutexGuard<'_, Option<Monotonic>> {
        self.unsealed
            .lock()
            .expect("nothing panics under this lock")
    }

    fn sync_age(&self, now: Monotonic) -> Option<Duration> {
        let since = self.sync_since.load(Ordering::Acquire).checked_sub(1)?;
        Some(now.since(Monotonic(Duration::from_nanos(since))))
    }

    fn active_path(&self) -> PathBuf {
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
            Some(frame(shard, FrameKind::Committed, id, Vec::new()))
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

    fn fail_with(&self, fatal: &Fatal, told: &OnFatal) {
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

    fn room(&self) -> u64 {
        let files = self.files();
        let all = self.options.disk_bytes / self.options.file_bytes;
        let free = all.saturating_sub(files.sequence.len() as u64 + RESERVE_FILES);
        let queued = self.queue().bytes() as u64;
        let active = self.options.file_bytes.saturating_sub(files.active_end);
        (free * self.options.file_bytes + active).saturating_sub(queued)
    }

    fn stats(&self) -> Stats {
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

/// Prewrites a spare whenever one is wanted. Runs on a thread of its own.
pub(crate) fn spare_maker(
    env: Env,
    directory: PathBuf,
    file_bytes: u64,
    shared: std::sync::Weak<Shared>,
) -> impl FnMut() + Send {
    move || {
        while let Some(shared) = shared.upgrade().filter(|shared| shared.wants_spare()) {
            let spare = spare::prewrite(&env, &directory, file_bytes);
            let failed = spare.is_err();
            match &spare {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(%error, "a WAL file could not be prewritten: the disk is full");
                }
                Err(error) => {
                    let (path, error) = (directory.clone(), error.to_string());
                    shared.fail(&Fatal {
                        doing: "prewriting a file in",
                        path,
                        error,
                    });
                }
                Ok(_) => {}
            }
            shared.spare_came(spare.ok());
            if failed {
                break;
            }
        }
    }
}
