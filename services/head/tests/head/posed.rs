//! A head in front of another one, which does at each step what a test wants it to do.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_log::{
    AcceptedRun, Answer, Bid, Bounds, BucketCheckpoint, FlushJob, Head, HeadError, HeadRead,
    Leader, Listing, Mark, Progress, ReadFrom, ShardTopic, TopicView,
};
use esker_shard::{AppendBatch, AppendOutcome, Command, MixedSegment, Outcome, SegmentPlace};
use esker_types::{
    Incarnation, NodeId, Offset, PartitionId, RaftIndex, RaftRange, ShardId, Timestamp, TopicId,
    TopicName,
};
use futures::future::BoxFuture;

/// Where a call stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It comes in.
    Call,
    /// It asks for the word of a quorum.
    ReadIndex,
    /// A proposal comes in.
    Propose,
    /// It was applied, and nobody knows yet.
    Proposed,
    /// An append comes in.
    Append,
    /// It was taken, and may be lost on its way.
    Taken,
    /// It was applied, and nobody knows yet.
    Appended,
}

/// What happens at a step: it may take its time, and answer in the place of the head.
type Pose = dyn Fn(Step) -> BoxFuture<'static, Option<HeadError>> + Send + Sync;
/// What was lost is so a moment later: those behind it are applied by then.
const LOST_AFTER: Duration = Duration::from_millis(5);

type Stands = dyn Fn(Mark) -> Mark + Send + Sync;

pub(crate) struct Posed {
    inner: Arc<dyn Head>,
    pose: Box<Pose>,
    stands: Box<Stands>,
    calls: AtomicU64,
}

impl Posed {
    pub(crate) fn new(
        inner: &Arc<dyn Head>,
        pose: impl Fn(Step) -> BoxFuture<'static, Option<HeadError>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            pose: Box::new(pose),
            stands: Box::new(|mark| mark),
            calls: AtomicU64::default(),
        })
    }

    /// One that says at each step what `says` says.
    pub(crate) fn saying(
        inner: &Arc<dyn Head>,
        says: impl Fn(Step) -> Option<HeadError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(inner, move |step| Box::pin(std::future::ready(says(step))))
    }

    /// One that does not lead, and says that who does is at `leader`.
    pub(crate) fn following(inner: &Arc<dyn Head>, leader: Option<&'static str>) -> Arc<Self> {
        Self::saying(inner, move |_| Some(elsewhere(leader)))
    }

    /// One that says that it stands where `stands` says.
    pub(crate) fn standing(
        inner: &Arc<dyn Head>,
        stands: impl Fn(Mark) -> Mark + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            pose: Box::new(|_| Box::pin(async { None })),
            stands: Box::new(stands),
            calls: AtomicU64::default(),
        })
    }

    /// Calls so far, appends included.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    async fn pose(&self, step: Step) -> Result<(), HeadError> {
        match (self.pose)(step).await {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn standing_there(&self, mut progress: Progress) -> Progress {
        progress.mark = (self.stands)(progress.mark);
        progress
    }

    async fn call(&self) -> Result<&dyn Head, HeadError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.pose(Step::Call).await?;
        Ok(&*self.inner)
    }
}

pub(crate) fn elsewhere(leader: Option<&str>) -> HeadError {
    HeadError::NotLeader {
        shard: ShardId(1),
        leader: leader.map(|address| Leader {
            node: NodeId::new(Incarnation::FIRST, 2).expect("small"),
            address: address.to_owned(),
        }),
        what: "another one leads".into(),
    }
}

impl fmt::Debug for Posed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Head for Posed {
    fn shards(&self) -> Vec<ShardId> {
        self.inner.shards()
    }

    fn append(
        &self,
        shard: ShardId,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Answer<'_, Answer<'static, AppendOutcome>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.pose(Step::Append).await?;
            if let Err(lost) = self.pose(Step::Taken).await {
                let answer: Answer<'static, AppendOutcome> = Box::pin(async move {
                    tokio::time::sleep(LOST_AFTER).await;
                    Err(lost)
                });
                return Ok(answer);
            }
            let answer = self.inner.append(shard, batch, bytes).await?;
            let after = (self.pose)(Step::Appended);
            let answer: Answer<'static, AppendOutcome> = Box::pin(async move {
                let outcome = answer.await?;
                match after.await {
                    Some(error) => Err(error),
                    None => Ok(outcome),
                }
            });
            Ok(answer)
        })
    }

    fn propose(&self, shard: ShardId, command: Command) -> Answer<'_, Outcome> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.pose(Step::Propose).await?;
            let outcome = self.inner.propose(shard, command).await?;
            self.pose(Step::Proposed).await?;
            Ok(outcome)
        })
    }

    fn read_index(&self, shard: ShardId) -> Answer<'_, Mark> {
        Box::pin(async move {
            let inner = self.call().await?;
            self.pose(Step::ReadIndex).await?;
            inner.read_index(shard).await
        })
    }

    fn bounds(&self, shard: ShardId, partition: PartitionId) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move { self.call().await?.bounds(shard, partition).await })
    }

    fn read(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        most: usize,
        who: ReadFrom,
    ) -> Answer<'_, Option<HeadRead>> {
        Box::pin(async move {
            let inner = self.call().await?;
            inner.read(shard, partition, from, most, who).await
        })
    }

    fn by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    ) -> Answer<'_, Option<Offset>> {
        Box::pin(async move {
            let inner = self.call().await?;
            inner.by_time(shard, partition, time, from).await
        })
    }

    fn past(
        &self,
        shard: ShardId,
        partition: PartitionId,
        seen: Bounds,
    ) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move { self.call().await?.past(shard, partition, seen).await })
    }

    fn manifest(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        count: usize,
    ) -> Answer<'_, Listing<MixedSegment>> {
        Box::pin(async move { self.call().await?.manifest(shard, after, count).await })
    }

    fn turn(&self, shard: ShardId, bid: Bid) -> Answer<'_, bool> {
        Box::pin(async move { self.call().await?.turn(shard, bid).await })
    }

    fn mark(&self, shard: ShardId) -> Option<Mark> {
        Some((self.stands)(self.inner.mark(shard)?))
    }

    fn leader(&self, shard: ShardId) -> Option<String> {
        self.inner.leader(shard)
    }

    fn progress(&self, shard: ShardId) -> Answer<'_, Progress> {
        Box::pin(async move {
            self.pose(Step::Call).await?;
            Ok(self.standing_there(self.inner.progress(shard).await?))
        })
    }

    fn progress_past(
        &self,
        shard: ShardId,
        seen: RaftIndex,
        patience: Duration,
    ) -> Answer<'_, Progress> {
        Box::pin(async move {
            self.pose(Step::Call).await?;
            let progress = self.inner.progress_past(shard, seen, patience).await?;
            Ok(self.standing_there(progress))
        })
    }

    fn tick(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move { self.call().await?.tick(shard).await })
    }

    fn accept_time(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move { self.call().await?.accept_time(shard).await })
    }

    fn flush_job(&self, shard: ShardId, most: u64) -> Answer<'_, Option<FlushJob>> {
        Box::pin(async move { self.call().await?.flush_job(shard, most).await })
    }

    fn accepted(&self, shard: ShardId, raft: RaftRange, most: usize) -> Answer<'_, AcceptedRun> {
        Box::pin(async move { self.call().await?.accepted(shard, raft, most).await })
    }

    fn checkpoint(&self, shard: ShardId) -> Answer<'_, BucketCheckpoint> {
        Box::pin(async move { self.call().await?.checkpoint(shard).await })
    }

    fn topic(&self, name: &TopicName) -> Answer<'_, Option<TopicView>> {
        let name = name.clone();
        Box::pin(async move { self.call().await?.topic(&name).await })
    }

    fn topics(&self, after: Option<TopicId>, count: usize) -> Answer<'_, Listing<TopicView>> {
        Box::pin(async move { self.call().await?.topics(after, count).await })
    }

    fn ending(
        &self,
        name: &TopicName,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<TopicView>> {
        let name = name.clone();
        Box::pin(async move { self.call().await?.ending(&name, after, count).await })
    }

    fn shard_topics(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<ShardTopic>> {
        Box::pin(async move { self.call().await?.shard_topics(shard, after, count).await })
    }

    fn tombstones(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<(TopicId, u64)>> {
        Box::pin(async move { self.call().await?.tombstones(shard, after, count).await })
    }
}
