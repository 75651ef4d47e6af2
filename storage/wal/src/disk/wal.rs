//! The whole: what the rest of the crate calls.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use esker_env::{Env, FailedSync, Lock, Waker, Workers, WorkersExt};
use esker_types::limits::{LOG_READ_BYTES_MAX, WAL_ALIGN};
use esker_types::{EntryId, RaftIndex, ShardId};

use super::body::Body;
use super::book::{Book, Books, Found, LogBounds, Vote};
use super::frame::{FRAME_HEADER_BYTES, FrameKind};
use super::memory::Memory;
use super::options::{Fatal, OnFatal, Stats, WalOptions};
use super::queue::{Done, Item};
use super::room::{Full, Promise, Purpose};
use super::scan::Recovery;
use super::shared::Shared;
use super::staged::Staged;
use crate::Error;
use crate::raft::runtime::Step;

/// What a group adds to a single entry: its own header, the frame's, and padding.
pub(super) const ENTRY_FRAMING_BYTES: usize = 2 * WAL_ALIGN;

/// The log of all shards of a node, on disk. Every method is cheap and returns at once unless it
/// says otherwise; what it adds reaches the disk in the order of the calls.
pub struct Wal {
    pub(super) shared: Arc<Shared>,
    pub(super) env: Env,
    writer: Waker,
    step: Step,
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
        options.check()?;
        super::open::open(env, directory, options, checkpointed, on_fatal).await
    }

    pub(crate) fn from_parts(shared: Arc<Shared>, env: Env, writer: Waker) -> Arc<Self> {
        Arc::new(Self {
            shared,
            env,
            writer,
            step: Step::now(),
        })
    }

    /// In which all shards that have their log here look at the time.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Keeps `lock` until the last thread that may write to the log has ended.
    pub fn hold(&self, lock: Box<dyn Lock>) {
        // A second lock would be dropped here: a log has one directory.
        let _ = self.shared.lock.set(lock);
    }

    /// Bytes of one file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shared.options.file_bytes
    }

    /// Bytes of the largest entry that this log takes, head and payload together.
    #[must_use]
    pub fn entry_bytes_max(&self) -> usize {
        self.shared.options.group_bytes - ENTRY_FRAMING_BYTES
    }

    /// Adds entries at the end of a shard's log. They can be read at once; `done` is called when
    /// all of them are on disk, or never will be.
    ///
    /// # Errors
    /// [`Error::Hole`] if an entry does not follow, [`Error::EntryTooLarge`], [`Error::Lost`]; the ones
    /// before it were added.
    pub fn append(
        &self,
        shard: ShardId,
        entries: impl IntoIterator<Item = (EntryId, Body)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), Error> {
        let (mut items, mut promises) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        // The order in the queue is the order in the books: one lock spans both.
        let mut books = self.shared.books();
        let bytes_max = self.entry_bytes_max();
        for (id, mut body) in entries {
            promises.extend(body.take_promise());
            let bytes = body.weight();
            outcome = if body.is_lost() {
                Err(Error::Lost { shard, id })
            } else if bytes > bytes_max {
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
            items.push(Item::new(shard, FrameKind::Entry, id, body.into_parts()));
        }
        // What is in front of one that is refused is written, and is not all that was asked for.
        let refused = outcome.is_err();
        self.enqueue(books, items, &promises, move |written| {
            done(written.and_then(|()| match refused {
                true => Err(io::Error::other("the log has refused one of the entries")),
                false => Ok(()),
            }));
        });
        outcome
    }

    /// Writes entries that come with a snapshot, beside the log and no part of it. None is larger than
    /// [`Wal::entry_bytes_max`].
    pub fn stage(
        &self,
        staged: &Arc<Staged>,
        entries: impl IntoIterator<Item = (EntryId, Body)>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let (mut items, mut promises) = (Vec::new(), Vec::new());
        for (id, mut body) in entries {
            promises.extend(body.take_promise());
            let parts = body.into_parts();
            items.push(Item::new(staged.shard(), FrameKind::Installed, id, parts).of(staged));
        }
        self.enqueue(self.shared.books(), items, &promises, done);
    }

    /// Makes what is staged part of the log, all of it in one step. It counts at the next start once a
    /// checkpoint that covers it is current.
    pub fn adopt(&self, staged: &Staged) {
        let mut books = self.shared.books();
        for (id, place) in staged.take() {
            books.restore(staged.shard(), id, place);
        }
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
        self.enqueue(
            books,
            vec![Item::new(shard, FrameKind::Vote, id, vec![payload])],
            &[],
            done,
        );
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
        let item = Item::new(shard, FrameKind::Truncate, last, Vec::new());
        self.enqueue(books, vec![item.keeping(keeps)], &[], done);
        Ok(())
    }

    /// Whether `shard` is led here from now on: where memory is short, what is led stays there longer.
    pub(crate) fn lead(&self, shard: ShardId, leads: bool) {
        self.shared.books().lead(shard, leads);
    }

    /// Raft needs no entry up to `id` any more. Entries stay until [`Wal::release`].
    pub fn purge(&self, shard: ShardId, id: EntryId) {
        let mut books = self.shared.books();
        books.book_mut(shard).bounds.purge(id);
        self.enqueue(
            books,
            vec![Item::new(shard, FrameKind::Purge, id, Vec::new())],
            &[],
            |_| {},
        );
    }

    /// Notes that a shard has committed up to `id`; written along with the next group.
    pub fn set_committed(&self, shard: ShardId, id: EntryId) {
        self.shared.books().book_mut(shard).bounds.committed = id;
        self.shared.queue().committed.insert(shard);
    }

    /// Nobody needs a shard's entries up to `upto` any more: the bucket has them, and a durable
    /// checkpoint says so. Held back to what is durably purged, and by who is being sent some. Returns what it released up to.
    pub fn release(&self, shard: ShardId, upto: RaftIndex) -> RaftIndex {
        let purged = self
            .shared
            .files()
            .purged
            .get(&shard)
            .copied()
            .unwrap_or_default();
        let (now, pins) = (self.env.clock.monotonic(), self.keeps_pinned());
        // At once: a pin that comes in between would keep what is gone.
        let mut books = self.shared.books();
        let (unpinned, _) = books.unpinned(shard, now);
        let upto = match pins {
            true => upto.min(purged).min(unpinned),
            false => upto.min(purged),
        };
        books.release(shard, upto);
        drop(books);
        self.writer.wake();
        upto
    }

    /// A shard is flushed up to `upto`: memory is for what is not.
    pub(crate) fn unload(&self, shard: ShardId, upto: RaftIndex) {
        // What was as large as a flush is freed once others have the log again.
        let unloaded = self.shared.books().unload(shard, upto);
        drop(unloaded);
    }

    /// Bytes of disk that the log may take.
    #[must_use]
    pub fn disk_bytes_max(&self) -> u64 {
        self.shared.options.disk_bytes
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

    /// Whether an entry of a shard is held.
    pub(crate) fn holds(&self, shard: ShardId, index: RaftIndex) -> bool {
        self.shared.books().find(shard, index).is_some()
    }

    /// Index of the oldest entry of a shard that is still held.
    #[must_use]
    pub fn oldest(&self, shard: ShardId) -> Option<RaftIndex> {
        self.shared.books().book(shard).and_then(Book::oldest)
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
        let found = self.run(shard, range, bytes_max.unwrap_or(usize::MAX));
        whole(self.resolve(shard, found).await)
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
        let read = self.resolve(shard, found.into_iter().collect());
        Ok(whole(read.await)?.pop())
    }

    /// Bytes of what is led here that stay in memory, however much is followed; older ones are read from the disk.
    #[must_use]
    pub fn memory_of_led(&self) -> u64 {
        Memory::of_led(self.shared.options.memory_bytes) as u64
    }

    /// Whether an entry of a shard need not be read from the disk.
    pub(crate) fn is_in_memory(&self, shard: ShardId, index: RaftIndex) -> bool {
        let found = self.shared.books().find(shard, index);
        matches!(found, Some((_, Found::Cached(_))))
    }

    /// The entries of a shard at `indexes`, in order, until their bytes pass `bytes_max` (at least one),
    /// or one is released. May read the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub(crate) async fn read_each(
        &self,
        shard: ShardId,
        indexes: &[RaftIndex],
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Body)>, Error> {
        let found = self.shared.books().find_each(shard, indexes, bytes_max);
        whole(self.resolve(shard, found).await)
    }

    /// Bytes that reading the entry of a shard at `index` takes from the disk: none if it is in memory, or not held.
    pub(crate) fn bytes_on_disk(&self, shard: ShardId, index: RaftIndex) -> u64 {
        self.shared.books().bytes_on_disk(shard, index)
    }

    /// Bytes of the entries of a shard at `indexes` that are held.
    pub(crate) fn weigh(&self, shard: ShardId, indexes: &[RaftIndex]) -> u64 {
        self.shared.books().weigh(shard, indexes)
    }

    /// Where work is done off the async threads.
    pub(crate) fn workers(&self) -> &Arc<dyn Workers> {
        &self.env.workers
    }

    /// Bytes one read of the log returns at most, one entry aside.
    pub const READ_BYTES_MAX: usize = LOG_READ_BYTES_MAX;

    /// As [`Wal::read`], but in place of a damaged entry its id stands alone.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn read_or_lost(
        &self,
        shard: ShardId,
        range: RangeInclusive<RaftIndex>,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Option<Body>)>, Error> {
        let found = self.run(shard, range, bytes_max);
        let read = self.resolve(shard, found).await.into_iter();
        let read = read.map(|(id, body)| match body {
            Ok(body) => Ok((id, Some(body))),
            Err(Error::Corrupt { .. }) => Ok((id, None)),
            Err(error) => Err(error),
        });
        read.collect()
    }

    /// What raft may read of `range`.
    fn run(
        &self,
        shard: ShardId,
        range: RangeInclusive<RaftIndex>,
        bytes_max: usize,
    ) -> Vec<(EntryId, Found)> {
        let books = self.shared.books();
        let purged = books
            .book(shard)
            .map(|book| book.bounds.purged.index)
            .unwrap_or_default();
        let range = *range.start().max(&purged.next())..=*range.end();
        books.find_run(shard, range, bytes_max)
    }

    async fn resolve(
        &self,
        shard: ShardId,
        found: Vec<(EntryId, Found)>,
    ) -> Vec<(EntryId, Result<Body, Error>)> {
        let cached = |(_, found): &(_, Found)| matches!(found, Found::Cached(_));
        let in_memory = found.iter().all(cached);
        let shared = Arc::clone(&self.shared);
        let load = move || {
            let found = found.into_iter();
            let load = found.map(|(id, found)| (id, found.load(&shared, shard, id)));
            load.collect()
        };
        if in_memory {
            return load();
        }
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

    /// Ends the log if `error` is a sync that failed beside it, on this node: nothing is acked after
    /// that either. Writes the note for the next start; blocks.
    pub(crate) fn end_at(&self, error: &Error) {
        if let Error::Io {
            doing,
            path,
            source,
        } = error
            && FailedSync::is(source)
        {
            let (path, error) = (path.clone(), source.to_string());
            self.shared.fail(&Fatal { doing, path, error });
        }
    }

    /// How long the writer has been waiting for the disk, if it is.
    #[must_use]
    pub fn sync_age(&self) -> Option<Duration> {
        self.shared.sync_age(self.env.clock.monotonic())
    }

    /// Bytes that appends may still take before they touch the reserve, net of what was promised
    /// to others; what files take for certain, however groups fall in them.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.shared.room()
    }

    /// Takes `bytes` of room on disk, in one step for all shards. Waits while the files for them
    /// are being written ahead; dropping the future takes nothing.
    pub(crate) async fn promise(&self, purpose: Purpose, bytes: u64) -> Result<Promise, Full> {
        self.shared.promise(purpose, bytes).await
    }

    /// Whether there is room for `bytes`, or will be. Takes nothing.
    pub(crate) fn has_room(&self, purpose: Purpose, bytes: u64) -> Result<(), Full> {
        self.shared.has_room(purpose, bytes)
    }

    /// What `entries` that weigh `bytes` together, queued in one step, take on disk at most.
    pub(crate) fn step_disk_bytes(&self, entries: usize, bytes: usize) -> u64 {
        let framed = entries * FRAME_HEADER_BYTES + bytes;
        self.shared.measures.queued(entries as u64, framed as u64)
    }

    /// Bytes of a group.
    pub(crate) fn group_bytes(&self) -> usize {
        self.shared.options.group_bytes
    }

    /// What an entry of `bytes`, head and payload together, takes on disk at most.
    pub(crate) fn entry_disk_bytes(&self, bytes: usize) -> u64 {
        self.shared.entry_disk_bytes(bytes)
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Adds `items` to the queue, for which `promises` were made; `done` is called with the last.
    /// `books` are held until then, so that both tell the same order, and no longer: the writer that
    /// is woken wants them.
    pub(super) fn enqueue(
        &self,
        books: MutexGuard<'_, Books>,
        mut items: Vec<Item>,
        promises: &[Arc<Promise>],
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let done: Done = Box::new(done);
        let Some(last) = items.last_mut() else {
            done(Ok(()));
            return;
        };
        last.done = Some(done);
        let refused = {
            let mut queue = self.shared.queue();
            // In one step: at no moment do both, or neither, count.
            let promised = promises.iter().map(|promise| promise.spend()).sum();
            queue.push(items, promised).err().unwrap_or_default()
        };
        drop(books);
        for done in refused.into_iter().filter_map(|item| item.done) {
            done(Err(io::Error::other("the WAL has failed or is closed")));
        }
        self.writer.wake();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.queue().refusing = true;
        self.shared.wrote.notify_one();
    }
}

impl Found {
    fn load(self, shared: &Shared, shard: ShardId, id: EntryId) -> Result<Body, Error> {
        match self {
            Self::Cached(body) => Ok(body),
            Self::Placed(place) => {
                let bytes = shared.read(shard, id, &place)?;
                let none = || Error::Corrupt {
                    path: place.file.path.clone(),
                    offset: place.offset,
                    what: "the payload of a frame is no entry".into(),
                };
                let body = Body::decode(bytes).ok_or_else(none);
                body.inspect_err(|error| shared.note(shard, id, &place, error))
            }
        }
    }
}

/// All of them, or why one of them is not whole.
fn whole(read: Vec<(EntryId, Result<Body, Error>)>) -> Result<Vec<(EntryId, Body)>, Error> {
    let read = read.into_iter();
    read.map(|(id, body)| Ok((id, body?))).collect()
}
