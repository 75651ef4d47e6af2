//! The batches of a partition out of its segments, planned and fetched ahead of who reads.

use std::fmt;
use std::sync::Arc;

use esker_env::Env;
use esker_proto::v1;
use esker_segment::{Entry, IndexPage};
use esker_types::limits::MIB;
use esker_types::{Durability, Incarnation, Offset, PartitionId, Timestamp};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinHandle};

use super::bucket::{Bucket, Share};
use super::load::{Blocks, Load, by_block, decoded, runs};
use super::survey::{OPENS_AHEAD, Shard};
use crate::error::{Code, Detail, Error};
use crate::reader::batch::{Batch, Scratches};

/// Bytes of decoded records, about, that are fetched ahead of the reader.
const AHEAD_BYTES: usize = 64 * MIB;
/// Runs of blocks that are fetched ahead, however small.
const RUNS_AHEAD_MAX: usize = 64;
/// Permits of the window stand for this many bytes each.
const PERMIT_BYTES: usize = 4096;

/// What is read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) topic: String,
    pub(super) partition: PartitionId,
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) mark: v1::Mark,
}

/// How it is read.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) env: Env,
    pub(super) bucket: Bucket,
    pub(super) incarnation: Incarnation,
    /// `None` if no segment holds anything of the partition.
    pub(super) shard: Option<Arc<Shard>>,
    /// Why there may be more than can be read.
    pub(super) broken: Option<String>,
    pub(super) wanted: Wanted,
}

/// The records of one partition out of a bucket, a batch at a time.
pub struct DirectReader {
    coming: mpsc::Receiver<Result<Run, Error>>,
    /// Kept here, so that a call of [`DirectReader::next`] may be dropped.
    run: Option<Run>,
    ready: std::vec::IntoIter<Batch>,
    next: Offset,
    end: Offset,
    planner: AbortHandle,
}

/// Blocks that one GET brings, on their way to be batches.
#[derive(Debug)]
struct Run {
    load: JoinHandle<Result<Vec<Batch>, Error>>,
    _stop: OnDrop,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct OnDrop(AbortHandle);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl DirectReader {
    /// The next batch; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// [`Code::DataLoss`] with the offsets that cannot be read, if an object is missing or damaged
    /// or the shard's log is broken behind the last batch; [`Code::OffsetOutOfRange`] with the range
    /// if they were trimmed since the bucket was opened, [`Code::UnknownTopic`] if the topic was
    /// deleted; [`Code::BucketUnavailable`]. The reader has ended then; [`DirectReader::next_offset`] is where to go on.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if let Some(batch) = self.ready.next() {
                self.next = batch.range().end();
                return Ok(Some(batch));
            }
            if self.run.is_none() {
                self.run = match self.coming.recv().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(self.ended(error)),
                    Some(Ok(run)) => Some(run),
                };
            }
            let Some(run) = self.run.as_mut() else {
                return Ok(None);
            };
            let loaded = (&mut run.load).await;
            self.run = None;
            match loaded {
                Ok(Ok(batches)) => self.ready = batches.into_iter(),
                Ok(Err(error)) => return Err(self.ended(error)),
                Err(error) => {
                    let text = format!("decoding ended: {error}");
                    let error = Error::new(Code::Internal, Durability::Unknown, text);
                    return Err(self.ended(error));
                }
            }
        }
    }

    /// Where to go on after what [`DirectReader::next`] has given.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.next
    }

    /// Where the read ends.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.end
    }

    /// After an error there is nothing more.
    fn ended(&mut self, error: Error) -> Error {
        self.coming.close();
        while self.coming.try_recv().is_ok() {}
        error
    }
}

impl Drop for DirectReader {
    fn drop(&mut self) {
        self.planner.abort();
    }
}

impl fmt::Debug for DirectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectReader")
            .field("next_offset", &self.next)
            .field("end_offset", &self.end)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Starts to read `[from, to)`. `whole`: the reader asked for all there is, so that a log that
    /// is broken behind `to` is an error.
    pub(super) fn start(mut self, from: Offset, to: Offset, whole: bool) -> DirectReader {
        (self.wanted.from, self.wanted.to) = (from, to);
        let (sender, coming) = mpsc::channel(RUNS_AHEAD_MAX);
        let planner = Planner {
            plan: self,
            whole,
            window: Arc::new(Semaphore::new(AHEAD_BYTES / PERMIT_BYTES)),
            scratches: Scratches::default(),
            coming: sender,
        };
        let planner = tokio::spawn(planner.run()).abort_handle();
        DirectReader {
            coming,
            run: None,
            ready: Vec::new().into_iter(),
            next: from,
            end: to,
            planner,
        }
    }

    /// For each of `times`, the first record in offset order of that time or later.
    pub(super) async fn by_time(&self, times: &[Timestamp]) -> Result<Vec<Option<Offset>>, Error> {
        match self.look_for(times).await {
            Ok(found) => Ok(found),
            Err(error) => Err(self.or_trimmed(error, self.wanted.from).await),
        }
    }

    async fn look_for(&self, times: &[Timestamp]) -> Result<Vec<Option<Offset>>, Error> {
        let mut found = vec![None; times.len()];
        let missing = |found: &[Option<Offset>]| found.iter().any(Option::is_none);
        // As in a read: a segment that is lost may hold nothing of this partition.
        let (mut next, mut lost) = (self.wanted.from, None);
        let mut shares = std::pin::pin!(self.shares(next));
        while missing(&found)
            && let Some(share) = shares.next().await
        {
            let share = match share {
                Ok(Some(share)) => share,
                Ok(None) => continue,
                Err(error) if error.code() == Code::DataLoss => {
                    lost.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if share.partition.range.start() > next
                && let Some(error) = lost
            {
                return Err(error);
            }
            next = next.max(share.partition.range.end());
            for (time, found) in times.iter().zip(&mut found) {
                if found.is_none() {
                    *found = self.in_share(&share, *time).await?;
                }
            }
        }
        if missing(&found)
            && next < self.wanted.to
            && let Some(error) = lost
        {
            return Err(error);
        }
        Ok(found)
    }

    async fn in_share(&self, share: &Share, time: Timestamp) -> Result<Option<Offset>, Error> {
        let from = self.wanted.from;
        for (number, place) in share.partition.pages.iter().enumerate() {
            if place.max_timestamp < time {
                continue;
            }
            let page = share.index_page(number).await?;
            let entries = page.map_or(Vec::new(), IndexPage::into_entries);
            let mut entries = entries.into_iter();
            let found = entries.find(|e| e.max_timestamp >= time && e.range().end() > from);
            if let Some(entry) = found {
                return self.in_batch(share, &entry, time).await.map(Some);
            }
        }
        Ok(None)
    }

    /// The first record of a batch that is of `time` or later.
    async fn in_batch(
        &self,
        share: &Share,
        entry: &Entry,
        time: Timestamp,
    ) -> Result<Offset, Error> {
        let load = Load {
            plan: self.clone(),
            share: share.clone(),
            from: self.wanted.from,
            scratches: Scratches::default(),
        };
        let batches = load.run(vec![(entry.block, vec![entry.clone()])]).await?;
        let mut records = batches.iter().flat_map(Batch::records);
        let found = records.find(|record| record.timestamp >= time);
        Ok(found.map_or(entry.offset.max(self.wanted.from), |record| record.offset))
    }

    /// What the shard's segments hold of the partition at `from` and above, in order; `None` of a
    /// segment that holds nothing of it.
    fn shares(&self, from: Offset) -> impl Stream<Item = Result<Option<Share>, Error>> + Send + '_ {
        let count = self.shard.as_ref().map_or(0, |shard| shard.segments.len());
        let share = move |number: usize| async move {
            let Some(shard) = &self.shard else {
                return Ok(None);
            };
            let open = self.bucket.open(&shard.segments[number]).await?;
            let share = open.share(self.wanted.partition).await?;
            Ok(share.filter(|share| share.partition.range.end() > from))
        };
        futures::stream::iter(0..count)
            .map(share)
            .buffered(OPENS_AHEAD)
    }

    /// `[from, wanted.to)` cannot be read.
    pub(super) fn lost(&self, from: Offset, to: Offset, object: &str, why: &str) -> Error {
        let Wanted {
            topic, partition, ..
        } = &self.wanted;
        let index = partition.index.0;
        let text = format!("offsets {from} to {to} of {topic}/{index} cannot be read: {why}");
        let error = v1::Error::new(Code::DataLoss, Durability::Unknown, text);
        let damage = v1::Damage {
            topic: topic.clone(),
            partition: index,
            start: from.get(),
            end: to.get(),
            object: object.to_owned(),
        };
        error.with_detail(Detail::Damage(damage)).into()
    }
}

/// Finds out what comes next.
struct Planner {
    plan: Plan,
    whole: bool,
    window: Arc<Semaphore>,
    scratches: Scratches,
    coming: mpsc::Sender<Result<Run, Error>>,
}

/// Why planning ends before its end.
enum Stop {
    /// The reader has gone.
    Gone,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Planner {
    async fn run(self) {
        if let Err(Stop::Failed(error)) = self.all().await {
            let error = self.plan.or_trimmed_there(error).await;
            // Nobody listens if the reader has gone.
            let _ = self.coming.send(Err(error)).await;
        }
    }

    async fn all(&self) -> Result<(), Stop> {
        let plan = &self.plan;
        let (mut next, to) = (plan.wanted.from, plan.wanted.to);
        // A segment that is lost may hold nothing of this partition: the next one's range tells.
        let mut lost = None;
        if next < to {
            let mut shares = std::pin::pin!(plan.shares(next));
            while next < to
                && let Some(share) = shares.next().await
            {
                let share = match share {
                    Ok(Some(share)) if share.partition.range.end() > next => share,
                    Ok(_) => continue,
                    Err(error) if error.code() == Code::DataLoss => {
                        lost.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let start = share.partition.range.start();
                if start > next {
                    return Err(self.gap(next, start.min(to), lost.as_ref()).into());
                }
                next = self.of_share(&share, next).await?;
            }
            if next < to {
                return Err(self.gap(next, to, lost.as_ref()).into());
            }
        }
        match plan.broken.as_ref().filter(|_| self.whole) {
            Some(why) => Err(plan.lost(to, Offset::MAX, "", why).into()),
            None => Ok(()),
        }
    }

    fn gap(&self, from: Offset, to: Offset, lost: Option<&Error>) -> Error {
        let why = lost.map_or_else(
            || "no segment of the bucket holds them".to_owned(),
            |error| error.message().to_owned(),
        );
        self.plan.lost(from, to, "", &why)
    }

    /// Plans the batches of one segment from `next` on; returns where it ends.
    async fn of_share(&self, share: &Share, next: Offset) -> Result<Offset, Stop> {
        let to = self.plan.wanted.to;
        let pages = &share.partition.pages;
        let first = pages.partition_point(|page| page.first <= next);
        for (number, page) in pages.iter().enumerate().skip(first.saturating_sub(1)) {
            if page.first >= to {
                break;
            }
            let from = next.max(page.first);
            let page = share.index_page(number).await;
            let page = page.map_err(|error| match error.code() {
                Code::DataLoss => {
                    let (end, key) = (share.partition.range.end(), share.open.key.to_string());
                    self.plan.lost(from, end.min(to), &key, error.message())
                }
                _ => error,
            });
            let entries = page?.map_or(Vec::new(), IndexPage::into_entries);
            let entries = entries.into_iter();
            let wanted = entries.filter(|entry| entry.range().end() > next && entry.offset < to);
            for blocks in runs(by_block(wanted), &share.open.segment) {
                self.fetch(share, blocks, next).await?;
            }
        }
        Ok(share.partition.range.end().min(to))
    }

    /// Starts to fetch `blocks` once the window has room for what they come to.
    async fn fetch(&self, share: &Share, blocks: Blocks, next: Offset) -> Result<(), Stop> {
        let segment = &share.open.segment;
        let decoded: usize = blocks
            .iter()
            .map(|(number, _)| decoded(segment, *number))
            .sum();
        let permits = decoded.clamp(PERMIT_BYTES, AHEAD_BYTES) / PERMIT_BYTES;
        let permits = u32::try_from(permits).expect("a few thousand");
        let room = Arc::clone(&self.window).acquire_many_owned(permits).await;
        let room = room.map_err(|_| Stop::Gone)?;
        let load = Load {
            plan: self.plan.clone(),
            share: share.clone(),
            from: next,
            scratches: self.scratches.clone(),
        };
        let load = tokio::spawn(load.run(blocks));
        let run = Run {
            _stop: OnDrop(load.abort_handle()),
            load,
            _room: room,
        };
        let sent = self.coming.send(Ok(run)).await;
        sent.map_err(|_| Stop::Gone)
    }
}
