//! A head in front of another one: what a test wants to happen just before a call happens then.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_log::{
    AcceptedRun, Answer, Bid, Bounds, BucketCheckpoint, FlushJob, Head, HeadError, HeadRead,
    Listing, Mark, Progress, ReadFrom, ShardTopic, TopicView,
};
use esker_shard::{AppendBatch, AppendOutcome, Command, MixedSegment, Outcome, SegmentPlace};
use esker_types::{
    Offset, PartitionId, RaftIndex, RaftRange, ShardId, Timestamp, TopicId, TopicName,
};

type Answering = dyn Fn(ShardId, &Command) -> Option<Result<Outcome, HeadError>> + Send + Sync;
type Stands = dyn Fn(Progress) -> Progress + Send + Sync;
type Runs = dyn Fn(AcceptedRun) -> AcceptedRun + Send + Sync;
type Listed =
    dyn Fn(ShardId, Option<SegmentPlace>, usize) -> Option<Vec<MixedSegment>> + Send + Sync;
type Before = dyn Fn(&'static str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

pub struct Hooked {
    pub inner: Arc<dyn Head>,
    /// Answers a proposal in the place of the head, which then never sees it.
    pub answer: Box<Answering>,
    /// Runs before these calls, by their names: `accepted`, `append`, `bounds`, `by_time`,
    /// `manifest`, `propose`, `shard_topics`.
    pub before: Box<Before>,
    /// What the head says of how a shard stands, as it is to be heard.
    pub stands: Box<Stands>,
    /// What the head answers of a run, as it is to be heard.
    pub runs: Box<Runs>,
    /// Segments that the head lists in the place of its own: of which shard, after which, how many.
    pub listed: Box<Listed>,
}

impl Hooked {
    pub fn over(inner: Arc<dyn Head>) -> Self {
        Self {
            inner,
            answer: Box::new(|_, _| None),
            before: Box::new(|_| Box::pin(async {})),
            stands: Box::new(|progress| progress),
            runs: Box::new(|run| run),
            listed: Box::new(|_, _, _| None),
        }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Head for Hooked {
    fn propose(&self, shard: ShardId, command: Command) -> Answer<'_, Outcome> {
        match (self.answer)(shard, &command) {
            Some(answer) => Box::pin(async { answer }),
            None => Box::pin(async move {
                (self.before)("propose").await;
                self.inner.propose(shard, command).await
            }),
        }
    }

    fn by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    ) -> Answer<'_, Option<Offset>> {
        Box::pin(async move {
            (self.before)("by_time").await;
            self.inner.by_time(shard, partition, time, from).await
        })
    }

    fn manifest(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        count: usize,
    ) -> Answer<'_, Listing<MixedSegment>> {
        Box::pin(async move {
            (self.before)("manifest").await;
            let listing = self.inner.manifest(shard, after, count).await?;
            Ok(match (self.listed)(shard, after, count) {
                Some(items) => Listing {
                    more: items.len() == count,
                    items,
                    ..listing
                },
                None => listing,
            })
        })
    }

    fn shards(&self) -> Vec<ShardId> {
        self.inner.shards()
    }

    fn append(
        &self,
        shard: ShardId,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Answer<'_, Answer<'static, AppendOutcome>> {
        Box::pin(async move {
            (self.before)("append").await;
            self.inner.append(shard, batch, bytes).await
        })
    }

    fn read_index(&self, shard: ShardId) -> Answer<'_, Mark> {
        self.inner.read_index(shard)
    }

    fn bounds(&self, shard: ShardId, partition: PartitionId) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move {
            (self.before)("bounds").await;
            self.inner.bounds(shard, partition).await
        })
    }

    fn read(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        who: ReadFrom,
    ) -> Answer<'_, Option<HeadRead>> {
        self.inner.read(shard, partition, from, bytes_max, who)
    }

    fn past(
        &self,
        shard: ShardId,
        partition: PartitionId,
        seen: Bounds,
    ) -> Answer<'_, Option<Bounds>> {
        self.inner.past(shard, partition, seen)
    }

    fn turn(&self, shard: ShardId, bid: Bid) -> Answer<'_, bool> {
        self.inner.turn(shard, bid)
    }

    fn mark(&self, shard: ShardId) -> Option<Mark> {
        self.inner.mark(shard)
    }

    fn leader(&self, shard: ShardId) -> Option<String> {
        self.inner.leader(shard)
    }

    fn progress(&self, shard: ShardId) -> Answer<'_, Progress> {
        Box::pin(async move { Ok((self.stands)(self.inner.progress(shard).await?)) })
    }

    fn progress_past(
        &self,
        shard: ShardId,
        seen: RaftIndex,
        patience: Duration,
    ) -> Answer<'_, Progress> {
        Box::pin(async move {
            let progress = self.inner.progress_past(shard, seen, patience).await?;
            Ok((self.stands)(progress))
        })
    }

    fn tick(&self, shard: ShardId) -> Answer<'_, ()> {
        self.inner.tick(shard)
    }

    fn accept_time(&self, shard: ShardId) -> Answer<'_, ()> {
        self.inner.accept_time(shard)
    }

    fn flush_job(&self, shard: ShardId, bytes_max: u64) -> Answer<'_, Option<FlushJob>> {
        self.inner.flush_job(shard, bytes_max)
    }

    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> Answer<'_, AcceptedRun> {
        Box::pin(async move {
            (self.before)("accepted").await;
            let run = self.inner.accepted(shard, raft, bytes_max).await?;
            Ok((self.runs)(run))
        })
    }

    fn checkpoint(&self, shard: ShardId) -> Answer<'_, BucketCheckpoint> {
        self.inner.checkpoint(shard)
    }

    fn topic(&self, name: &TopicName) -> Answer<'_, Option<TopicView>> {
        self.inner.topic(name)
    }

    fn topics(&self, after: Option<TopicId>, count: usize) -> Answer<'_, Listing<TopicView>> {
        self.inner.topics(after, count)
    }

    fn ending(
        &self,
        name: &TopicName,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<TopicView>> {
        self.inner.ending(name, after, count)
    }

    fn shard_topics(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<ShardTopic>> {
        Box::pin(async move {
            (self.before)("shard_topics").await;
            self.inner.shard_topics(shard, after, count).await
        })
    }

    fn tombstones(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<(TopicId, u64)>> {
        self.inner.tombstones(shard, after, count)
    }
}
