//! One splice of three sources, newest to oldest: head, cache, bucket. A reader goes from the log
//! start to the end and on, and never sees where one source ends and the next begins.
//!
//! ```text
//!   log start ──────────────► tiered end ──────────► end
//!        segments, read ahead      │   head, asked     │  waits for more
//!        through the block cache   │   of the shard    │
//! ```
//! The head hands over to the bucket while it is read. Then the reader finds its offset below the
//! tiered end, and goes on there: watermarks never go back, so this cannot go on for ever.

mod doubt; // what comes damaged is read once more
mod unflushed; // what the head has, and who is asked for it
mod time; // the first record of a time

use std::sync::Arc;

use bytes::Bytes;
use esker_segment::Entry;
use esker_types::limits::READ_TURNS_MAX;
use esker_types::{Lane, LeaderEpoch, Offset, OffsetRange, PartitionId, SegmentId, ShardId};

pub use doubt::Damages;
use doubt::Tally;
use unflushed::Answered;
pub use unflushed::FollowerReads;

use crate::ahead::{Ahead, Block, Room, Wanted};
use crate::error::ReadError;
use crate::head::{Bounds, Head, Place};
use crate::manifest::Manifests;
use crate::segments::Segments;

/// Reads partitions. Clones share everything.
#[derive(Clone, Debug)]
pub struct Readers {
    head: Arc<dyn Head>,
    segments: Segments,
    manifests: Manifests,
    room: Room,
    tally: Tally,
    answered: Answered,
}

/// A batch as a reader gets it.
#[derive(Clone, Debug)]
pub struct ReadBatch {
    /// Its offsets. The first batch of a read may begin below the offset asked for.
    pub range: OffsetRange,
    /// The epoch it was appended under.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The batch; base offset and epoch in it are set only if it comes from the bucket.
    pub bytes: Bytes,
}

/// One step of a reader.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Batches in offset order, without a gap. Empty at the end of the partition.
    pub batches: Vec<ReadBatch>,
    /// Where the next step goes on.
    pub next: Offset,
    /// The partition's watermarks as of late; not older than the call if the chunk is empty.
    pub bounds: Bounds,
}

/// A reader of one partition.
#[derive(Debug)]
pub struct Reader {
    readers: Readers,
    shard: ShardId,
    partition: PartitionId,
    lane: Lane,
    next: Offset,
    bounds: Bounds,
    ahead: Option<Ahead>,
    /// The segment whose object was gone at the last try, so that it is tried only once more.
    gone: Option<SegmentId>,
    /// Where something came damaged at the last try, so that it is tried only once more.
    damaged: Option<Offset>,
    /// Nothing at or above is read ahead of the first step: who wants one batch wants no more.
    until: Offset,
    /// Followers may answer what is in the head.
    prefers_followers: bool,
}

impl Readers {
    pub(crate) fn new(
        head: Arc<dyn Head>,
        segments: Segments,
        manifests: Manifests,
        ahead_bytes: usize,
    ) -> Self {
        Self {
            head,
            segments,
            manifests,
            room: Room::new(ahead_bytes),
            tally: Tally::default(),
            answered: Answered::default(),
        }
    }

    /// What came damaged so far, to any of these readers.
    #[must_use]
    pub fn damages(&self) -> Damages {
        self.tally.damages()
    }

    /// Bytes that these readers are ahead together, beyond what each is at first.
    #[must_use]
    pub fn ahead_bytes(&self) -> usize {
        self.room.taken()
    }

    /// Segments of the manifests as these readers know them, in memory: as many as there are, and
    /// for a short time those that were taken out since.
    #[must_use]
    pub fn known_segments(&self) -> usize {
        self.manifests.count()
    }

    /// The watermarks of a partition, not older than the call.
    ///
    /// # Errors
    /// [`ReadError::UnknownPartition`], [`ReadError::Head`].
    pub async fn bounds(
        &self,
        shard: ShardId,
        partition: PartitionId,
    ) -> Result<Bounds, ReadError> {
        let bounds = self.head.bounds(shard, partition).await?;
        bounds.ok_or(ReadError::UnknownPartition { partition })
    }

    /// A reader from `from` on, which may be the end.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] outside `[log_start, end]`; as [`Readers::bounds`].
    pub async fn open(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        lane: Lane,
    ) -> Result<Reader, ReadError> {
        let bounds = self.bounds(shard, partition).await?;
        let reader = Reader {
            readers: self.clone(),
            shard,
            partition,
            lane,
            next: from,
            bounds,
            ahead: None,
            gone: None,
            damaged: None,
            until: Offset::MAX,
            prefers_followers: false,
        };
        match bounds.place(from) {
            Place::Below | Place::Above => Err(reader.out_of_range()),
            Place::Tiered | Place::Head | Place::End => Ok(reader),
        }
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }
}

impl Reader {
    /// Where the next step begins.
    #[must_use]
    pub const fn position(&self) -> Offset {
        self.next
    }

    /// What it reads.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The partition's watermarks as of late.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The next batches: those of a block, or about `READ_HEAD_BYTES` of the head. An empty chunk
    /// says that the partition ends here: [`Reader::grown`] waits for more. Stopped half-way, it
    /// loses nothing.
    ///
    /// # Errors
    /// [`ReadError`]; the reader stands where it stood. A damaged batch is an error with its
    /// range: [`Reader::skip_to`] steps over it.
    pub async fn step(&mut self) -> Result<Chunk, ReadError> {
        for _ in 0..READ_TURNS_MAX {
            match self.bounds.place(self.next) {
                Place::Below | Place::Above => {
                    self.refresh().await?;
                    if matches!(self.bounds.place(self.next), Place::Below | Place::Above) {
                        return Err(self.out_of_range());
                    }
                }
                Place::Tiered => match self.tiered().await {
                    Ok(Some(batches)) => return Ok(self.advance(batches)),
                    Ok(None) => {}
                    Err(error) => self.recover(error).await?,
                },
                Place::Head | Place::End => {
                    if let Some(chunk) = self.of_head().await? {
                        return Ok(chunk);
                    }
                }
            }
        }
        Err(ReadError::Restless {
            partition: self.partition,
            offset: self.next,
        })
    }

    /// Waits until the partition grows beyond `next`, or its log start moves.
    ///
    /// # Errors
    /// [`ReadError::UnknownPartition`] once the topic is deleted; [`ReadError::Head`].
    pub async fn grown(&mut self) -> Result<(), ReadError> {
        let (shard, partition) = (self.shard, self.partition);
        let past = self
            .readers
            .head
            .past(shard, partition, self.bounds)
            .await?;
        self.bounds = past.ok_or(ReadError::UnknownPartition { partition })?;
        Ok(())
    }

    /// Goes on at `offset`, which a person or a program has decided to skip to.
    pub fn skip_to(&mut self, offset: Offset) {
        self.ahead = None;
        self.next = offset;
    }

    /// The next block's batches; `None` if the bucket is read up to where it was known to reach.
    async fn tiered(&mut self) -> Result<Option<Vec<ReadBatch>>, ReadError> {
        if self.ahead.is_none() {
            let readers = &self.readers;
            let known = readers
                .manifests
                .known(self.shard, self.bounds.mark)
                .await?;
            let wanted = Wanted {
                shard: self.shard,
                partition: self.partition,
                lane: self.lane,
                from: self.next,
                to: self.bounds.tiered_end.min(self.until),
            };
            let (segments, manifests) = (readers.segments.clone(), readers.manifests.clone());
            let room = readers.room.clone();
            self.ahead = Some(Ahead::start(segments, manifests, known, room, wanted));
        }
        let ahead = self.ahead.as_mut().expect("it was just made");
        let block = ahead.next().await;
        let batches = match block {
            None => {
                self.ahead = None;
                return Ok(None);
            }
            Some(Ok(block)) => {
                let (batches, damaged) = batches(self.partition, &block);
                match damaged {
                    Some(error) => {
                        let segment = block.segment.segment().id();
                        let forget = |entry: &Entry| {
                            self.readers.segments.forget_block(segment, entry.block);
                        };
                        block.entries.first().map(forget);
                        self.ahead = None;
                        // What is good before the damage is handed out; the next step runs into it.
                        if batches.is_empty() {
                            Err(error)
                        } else {
                            Ok(batches)
                        }
                    }
                    None => Ok(batches),
                }
            }
            Some(Err(error)) => Err(error),
        };
        if batches.is_err() {
            self.ahead = None;
        }
        batches.map(Some)
    }

    fn advance(&mut self, batches: Vec<ReadBatch>) -> Chunk {
        if let Some(last) = batches.last() {
            self.next = last.range.end();
            (self.gone, self.damaged) = (None, None);
        }
        Chunk {
            batches,
            next: self.next,
            bounds: self.bounds,
        }
    }

    /// An object that is gone may have left the manifest since: it is looked up once more. What
    /// came damaged is asked for once more, and is cached nowhere by now.
    async fn recover(&mut self, error: ReadError) -> Result<(), ReadError> {
        let (gone, tally) = (error.gone(), &self.readers.tally);
        let retry = match gone {
            Some(segment) => self.gone.replace(segment) != Some(segment),
            None if error.is_loss() => {
                let first = self.damaged.take() != Some(self.next);
                if first {
                    self.damaged = Some(self.next);
                    tally.again();
                }
                first
            }
            None => matches!(error, ReadError::Uncovered { .. }),
        };
        if !retry {
            if error.is_loss() {
                tally.lost();
            }
            return Err(error);
        }
        if let Some(segment) = gone {
            self.readers.segments.forget(segment);
        }
        self.readers.manifests.reload(self.shard).await?;
        self.refresh().await
    }

    async fn refresh(&mut self) -> Result<(), ReadError> {
        self.bounds = self.readers.bounds(self.shard, self.partition).await?;
        Ok(())
    }

    fn out_of_range(&self) -> ReadError {
        ReadError::OutOfRange {
            partition: self.partition,
            offset: self.next,
            log_start: self.bounds.log_start,
            end: self.bounds.end,
        }
    }
}

/// The batches of a block that were asked for, each checked, up to the first that is damaged.
fn batches(partition: PartitionId, block: &Block) -> (Vec<ReadBatch>, Option<ReadError>) {
    let mut batches = Vec::with_capacity(block.entries.len());
    let segment = block.segment.segment();
    // Replies that wait for their clients are weighed by their batches: the rest of a block must not
    // stay in memory with them once the cache has let go of it.
    let wanted = block.entries.iter().map(|entry| entry.bytes as usize);
    let apart = wanted.sum::<usize>() < block.bytes.len() / 2;
    for entry in &block.entries {
        let batch = match segment.batch(partition, entry, &block.bytes) {
            Ok(batch) => batch,
            Err(error) => return (batches, Some(error.into())),
        };
        batches.push(ReadBatch {
            range: entry.range(),
            leader_epoch: batch.header().leader_epoch,
            bytes: match batch.into_bytes() {
                small if apart => Bytes::copy_from_slice(&small),
                most => most,
            },
        });
    }
    (batches, None)
}
