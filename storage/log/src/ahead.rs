//! Reading ahead: a task plans which blocks come next, starts loading them within a window of
//! bytes, and hands them over in order.
//!
//! ```text
//!   plan:  index pages ─► entries ─► block, block, block │ block, …        runs: one GET each
//!                                      │ window has room?
//!                                      ▼
//!   load:                           [load] [load] [load]                   at the same time
//!   take:  reader ◄── in order ◄───────┘
//! ```
//! The window begins small and grows with every block that is taken, so that a short read costs
//! little and a long one is bound by bandwidth, not by round trips. It grows out of a room that all
//! readers share: once that is used up, windows stay as they are.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use esker_segment::{BlockNumber, Entry};
use esker_types::limits::{
    MIB, READ_AHEAD_BLOCKS_MAX, READ_AHEAD_BYTES_MAX, READ_AHEAD_BYTES_MIN, READ_RUN_BYTES_MAX,
};
use esker_types::{Lane, Offset, PartitionId, ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::ReadError;
use crate::manifest::{Found, Known, Manifests};
use crate::segments::{OpenSegment, Run, Segments};

/// Permits of the window stand for this many bytes each.
const PERMIT_BYTES: usize = 4096;

/// What a tiered read asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) shard: ShardId,
    pub(crate) partition: PartitionId,
    pub(crate) lane: Lane,
    /// From here.
    pub(crate) from: Offset,
    /// To here, which the manifest covers.
    pub(crate) to: Offset,
}

/// What all readers may be ahead together, beyond their first windows. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    permits: usize,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let permits = (bytes / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(permits)),
            permits,
        }
    }

    /// Bytes of it that are taken.
    pub(crate) fn taken(&self) -> usize {
        (self.permits - self.free.available_permits()) * PERMIT_BYTES
    }
}

/// What one reader may be ahead at the moment. Clones share it.
#[derive(Clone, Debug)]
struct Window {
    free: Arc<Semaphore>,
    /// Permits it has in all.
    width: Arc<AtomicUsize>,
}

impl Window {
    fn new() -> Self {
        let width = READ_AHEAD_BYTES_MIN / PERMIT_BYTES;
        Self {
            free: Arc::new(Semaphore::new(width)),
            width: Arc::new(AtomicUsize::new(width)),
        }
    }

    /// Room for a block of so many bytes; all there is for one that is larger, which then is ahead
    /// alone.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Stopped> {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.width());
        let permits = u32::try_from(permits).expect("a few thousand");
        let room = Arc::clone(&self.free).acquire_many_owned(permits).await;
        room.map_err(|_| Stopped)
    }

    fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    fn widen(&self, more: usize) {
        // The permits come first: who sees the new width must not wait for what never comes.
        self.free.add_permits(more);
        self.width.fetch_add(more, Ordering::Relaxed);
    }
}

/// Blocks on their way. Dropping it stops everything.
#[derive(Debug)]
pub(crate) struct Ahead {
    coming: mpsc::Receiver<Result<Coming, ReadError>>,
    /// Taken from `coming`, and not come yet: here, so that a caller may stop waiting for it.
    awaited: Option<Coming>,
    window: Window,
    room: Room,
    /// What the window has grown by.
    grown: Option<OwnedSemaphorePermit>,
    partition: PartitionId,
    _planner: OnDrop,
}

/// A block that is being loaded.
#[derive(Debug)]
struct Coming {
    segment: Arc<OpenSegment>,
    entries: Vec<Entry>,
    load: JoinHandle<Result<Bytes, ReadError>>,
    _stop: OnDrop,
    _room: OwnedSemaphorePermit,
}

/// A block that has come, and the entries asked for in it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) segment: Arc<OpenSegment>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
struct OnDrop(AbortHandle);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ahead {
    /// Begins to read `wanted`.
    pub(crate) fn start(
        segments: Segments,
        manifests: Manifests,
        known: Arc<Known>,
        room: Room,
        wanted: Wanted,
    ) -> Self {
        let (sender, coming) = mpsc::channel(READ_AHEAD_BLOCKS_MAX);
        let partition = wanted.partition;
        let window = Window::new();
        let planner = Planner {
            segments,
            manifests,
            known,
            wanted,
            window: window.clone(),
            coming: sender,
        };
        let task = tokio::spawn(planner.run());
        Self {
            coming,
            awaited: None,
            window,
            room,
            grown: None,
            partition,
            _planner: OnDrop(task.abort_handle()),
        }
    }

    /// The next block in offset order; `None` once all of them were taken. After an error there is
    /// nothing more. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Result<Block, ReadError>> {
        let coming = match &mut self.awaited {
            Some(coming) => coming,
            none => match self.coming.recv().await? {
                Ok(coming) => none.insert(coming),
                Err(error) => return Some(Err(error)),
            },
        };
        let loaded = (&mut coming.load).await;
        let coming = self.awaited.take()?;
        let loaded = loaded.expect("a load neither panics nor is aborted while it is waited for");
        let bytes = match loaded {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(touching(error, self.partition, &coming.entries))),
        };
        self.widen(bytes.len());
        Some(Ok(Block {
            segment: coming.segment,
            entries: coming.entries,
            bytes,
        }))
    }

    fn widen(&mut self, taken: usize) {
        let most = READ_AHEAD_BYTES_MAX / PERMIT_BYTES;
        let more = (taken / PERMIT_BYTES).min(most - self.window.width());
        let wanted = u32::try_from(more).expect("a few thousand");
        let Ok(taken) = Arc::clone(&self.room.free).try_acquire_many_owned(wanted) else {
            return;
        };
        match &mut self.grown {
            Some(grown) => grown.merge(taken),
            none => *none = Some(taken),
        }
        self.window.widen(more);
    }
}

/// What is wrong with a block touches the batches that were asked for in it.
fn touching(error: ReadError, partition: PartitionId, entries: &[Entry]) -> ReadError {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => error.touching(partition, first.offset, last.range().end()),
        _ => error,
    }
}

/// Finds out what comes next.
struct Planner {
    segments: Segments,
    manifests: Manifests,
    known: Arc<Known>,
    wanted: Wanted,
    window: Window,
    coming: mpsc::Sender<Result<Coming, ReadError>>,
}

/// The reader has gone, or an error was handed over.
struct Stopped;

impl Planner {
    async fn run(self) {
        if let Err(error) = self.plan().await {
            // Nobody listens if the reader has gone.
            let _ = self.coming.send(Err(error)).await;
        }
    }

    async fn plan(&self) -> Result<(), ReadError> {
        let Wanted { from, to, .. } = self.wanted;
        let (manifests, known) = (&self.manifests, &self.known);
        let mut found = manifests.holding(known, &self.wanted).await?;
        let mut next = from;
        loop {
            match self.of_segment(&found, next, to).await? {
                Err(Stopped) => return Ok(()),
                Ok(reached) => next = reached,
            }
            if next >= to {
                return Ok(());
            }
            let after = manifests.after(known, &self.wanted, found.place, next);
            found = after.await?;
        }
    }

    /// Plans the entries of one segment from `next` on; returns where it ends.
    async fn of_segment(
        &self,
        found: &Found,
        next: Offset,
        to: Offset,
    ) -> Result<Result<Offset, Stopped>, ReadError> {
        let partition = found.share.partition();
        let pages = partition.pages.iter();
        let first = partition.page_by_offset(next).map(|page| page.first);
        for place in pages.skip_while(|page| Some(page.first) != first) {
            if place.first >= to {
                break;
            }
            let lane = self.wanted.lane;
            let page = self.segments.index_page(&found.share, place, lane).await?;
            let entries = page.into_entries().into_iter();
            let wanted = entries.filter(|entry| entry.range().end() > next && entry.offset < to);
            for run in runs(by_block(wanted), &found.share.segment) {
                if let Err(stopped) = self.start(&found.share.segment, run).await {
                    return Ok(Err(stopped));
                }
            }
        }
        Ok(Ok(partition.range.end().min(to)))
    }

    /// Starts the loads of one run, each once the window has room for it.
    async fn start(&self, segment: &Arc<OpenSegment>, run: PlannedRun) -> Result<(), Stopped> {
        let shared = Arc::new(run.fetch);
        for (number, entries) in run.blocks {
            let raw = segment.segment().blocks()[number.0 as usize].raw_bytes as usize;
            let room = self.window.room(raw).await?;
            let load = self.load(segment, number, &shared);
            let load = tokio::spawn(load);
            let coming = Coming {
                segment: Arc::clone(segment),
                entries,
                _stop: OnDrop(load.abort_handle()),
                load,
                _room: room,
            };
            self.coming.send(Ok(coming)).await.map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn load(
        &self,
        segment: &Arc<OpenSegment>,
        number: BlockNumber,
        run: &Arc<Run>,
    ) -> impl Future<Output = Result<Bytes, ReadError>> + Send + use<> {
        let (segments, lane) = (self.segments.clone(), self.wanted.lane);
        let (segment, run) = (Arc::clone(segment), Arc::clone(run));
        async move { segments.block(&segment, number, &run, lane).await }
    }
}

/// Blocks that lie side by side, and what one GET of all of them brings.
struct PlannedRun {
    fetch: Run,
    blocks: Vec<(BlockNumber, Vec<Entry>)>,
}

/// Entries by block, both in order. A batch lies in one block.
fn by_block(entries: impl Iterator<Item = Entry>) -> Vec<(BlockNumber, Vec<Entry>)> {
    let mut blocks: Vec<(BlockNumber, Vec<Entry>)> = Vec::new();
    for entry in entries {
        match blocks.last_mut() {
            Some((number, of_block)) if *number == entry.block => of_block.push(entry),
            _ => blocks.push((entry.block, vec![entry])),
        }
    }
    blocks
}

/// Joins neighbours into runs of at most `READ_RUN_BYTES_MAX` stored bytes.
fn runs(
    blocks: Vec<(BlockNumber, Vec<Entry>)>,
    segment: &OpenSegment,
) -> impl Iterator<Item = PlannedRun> {
    let mut blocks = blocks.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = blocks.next()?;
        let (begin, mut last) = (first.0, first.0);
        let mut run = vec![first];
        while let Some(next) = blocks.next_if(|(number, _)| {
            let span = segment.segment().block_span(begin..=*number);
            number.0 == last.0 + 1
                && span.is_some_and(|span| span.end - span.start <= READ_RUN_BYTES_MAX as u64)
        }) {
            last = next.0;
            run.push(next);
        }
        let fetch = segment.run(begin, last);
        let fetch = fetch.expect("an index page names blocks that exist");
        Some(PlannedRun { fetch, blocks: run })
    })
}

const _: () = assert!(READ_AHEAD_BYTES_MIN <= READ_AHEAD_BYTES_MAX && READ_AHEAD_BYTES_MIN >= MIB);
