//! The head that asks the nodes.

mod asking; // questions, until somebody answers
mod following; // a read that a follower may answer
mod backlog; // appends of a shard that have no answer, in order
mod gate; // what has left, and what can no longer
mod link; // one stream of appends
mod pump; // the appends of a shard, through its breaks
mod queue; // the way to the pump
mod search; // whom to ask next
mod ways; // the nodes: connections, leaders, marks

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use esker_env::Env;
use esker_log::{
    AcceptedRun, Answer, Bid, Bounds, BucketCheckpoint, FlushJob, Head, HeadError, HeadRead,
    Listing, Mark, Progress, ReadFrom, ShardTopic, TopicView,
};
use esker_shard::{AppendBatch, AppendOutcome, Command, MixedSegment, Outcome, SegmentPlace};
use esker_types::limits::{
    BATCH_BYTES_MAX, HEAD_CALLS_MAX, HEAD_FOLLOWER_CALLS_MAX, HEAD_PATIENCE, HEAD_POLL_MAX,
    HEAD_POLLS_MAX,
};
use esker_types::{
    ClusterId, Offset, PartitionId, RaftIndex, RaftRange, ShardId, Timestamp, TopicId, TopicName,
};
use tokio::sync::Semaphore;

use crate::words::{self, Question, Reply};
use queue::Queue;
use ways::Ways;

/// The head of every shard, wherever it is led. Clones share connections, marks, and what is under
/// way; with the last of them all of that ends.
#[derive(Clone)]
pub struct Calling(Arc<Inner>);

struct Inner {
    ways: Arc<Ways>,
    data_shards: u32,
    queues: Mutex<BTreeMap<ShardId, Arc<Queue>>>,
    /// By shard, from the catalog on.
    calls: Vec<Semaphore>,
    polls: Semaphore,
    /// Reads that wait for a follower.
    followers: Semaphore,
}

impl Calling {
    /// The head of the `data_shards` of `cluster`, as its WAL nodes have it: found from `nodes`,
    /// `host:port` of each that is known. They are called when somebody asks.
    #[must_use]
    pub fn new(env: &Env, cluster: ClusterId, data_shards: u32, nodes: Vec<String>) -> Self {
        Self(Arc::new(Inner {
            ways: Arc::new(Ways::new(env.clone(), cluster, nodes)),
            data_shards,
            queues: Mutex::default(),
            calls: (0..=data_shards)
                .map(|_| Semaphore::new(HEAD_CALLS_MAX))
                .collect(),
            polls: Semaphore::new(HEAD_POLLS_MAX),
            followers: Semaphore::new(HEAD_FOLLOWER_CALLS_MAX),
        }))
    }

    fn check(&self, shard: ShardId) -> Result<(), HeadError> {
        self.calls(shard).map(drop)
    }

    /// Places for questions about `shard`.
    fn calls(&self, shard: ShardId) -> Result<&Semaphore, HeadError> {
        let calls = self.0.calls.get(shard.0 as usize);
        calls.ok_or(HeadError::NoShard { shard })
    }

    async fn ask(&self, shard: ShardId, question: Question) -> Result<Reply, HeadError> {
        self.ask_within(shard, question, HEAD_PATIENCE).await
    }

    async fn ask_within(
        &self,
        shard: ShardId,
        mut question: Question,
        patience: Duration,
    ) -> Result<Reply, HeadError> {
        let calls = self.calls(shard)?;
        let (ways, began) = (&self.0.ways, self.0.ways.now());
        if let Some(reply) = following::ask(ways, shard, &question, &self.0.followers).await {
            return Ok(reply);
        }
        if let Question::Read { who, .. } = &mut question {
            *who = ReadFrom::Leader;
        }
        let turns = if asking::waits(&question) {
            &self.0.polls
        } else {
            calls
        };
        let _turn = turns.acquire().await.expect("nobody closes it");
        let (reply, _) = asking::ask(ways, shard, &question, (began, patience)).await?;
        Ok(reply)
    }

    /// The same for what comes in pieces.
    async fn fetch(
        &self,
        shard: ShardId,
        question: Question,
    ) -> Result<(Reply, Vec<Bytes>), HeadError> {
        let calls = self.calls(shard)?;
        let _turn = calls.acquire().await.expect("nobody closes it");
        let ways = &self.0.ways;
        asking::ask(ways, shard, &question, (ways.now(), HEAD_PATIENCE)).await
    }

    /// The way to the pump of `shard`, which is started with the first append.
    fn queue(&self, shard: ShardId) -> Arc<Queue> {
        let queues = self.0.queues.lock();
        let mut queues = queues.expect("nothing panics under this lock");
        let queue = queues
            .entry(shard)
            .or_insert_with(|| Arc::new(Queue::start(shard, Arc::clone(&self.0.ways))));
        Arc::clone(queue)
    }
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling")
            .field("data_shards", &self.0.data_shards)
            .field("ways", &self.0.ways)
            .finish_non_exhaustive()
    }
}

/// The reply to a question, if it is one of those that there may be.
macro_rules! reply {
    ($shard:expr, $asked:expr, $($pattern:pat => $value:expr),+ $(,)?) => {
        match $asked {
            $($pattern => Ok($value),)+
            other => Err(odd($shard, &other)),
        }
    };
}

/// An answer to another question. For what was proposed this is unknown, and so it is for all.
fn odd(shard: ShardId, reply: &Reply) -> HeadError {
    let mut what = format!("the node answered something else: {reply:?}");
    what.truncate(what.floor_char_boundary(256));
    HeadError::Unknown { shard, what }
}

impl Head for Calling {
    fn shards(&self) -> Vec<ShardId> {
        (1..=self.0.data_shards).map(ShardId).collect()
    }

    fn append(
        &self,
        shard: ShardId,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Answer<'_, Answer<'static, AppendOutcome>> {
        Box::pin(async move {
            self.check(shard)?;
            if !shard.carries_data() {
                return Err(HeadError::NoShard { shard });
            }
            if bytes.len() > BATCH_BYTES_MAX || bytes.len() != batch.bytes as usize {
                let what = format!(
                    "a batch of {} bytes, said to be of {}; the limit is {BATCH_BYTES_MAX}",
                    bytes.len(),
                    batch.bytes
                );
                return Err(HeadError::Refused { shard, what });
            }
            self.queue(shard).append(batch, bytes).await
        })
    }

    fn propose(&self, shard: ShardId, command: Command) -> Answer<'_, Outcome> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::Propose(command)).await?;
            reply!(shard, asked, Reply::Outcome(outcome) => outcome)
        })
    }

    fn read_index(&self, shard: ShardId) -> Answer<'_, Mark> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::ReadIndex).await?;
            reply!(shard, asked, Reply::Reached(mark) => mark)
        })
    }

    fn bounds(&self, shard: ShardId, partition: PartitionId) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::Bounds(partition)).await?;
            reply!(shard, asked, Reply::Bounds(bounds) => Some(bounds), Reply::None => None)
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
        Box::pin(async move {
            let question = Question::Read {
                partition,
                from,
                bytes_max,
                who,
            };
            let asked = self.ask(shard, question).await?;
            reply!(shard, asked, Reply::Read(read) => Some(read), Reply::None => None)
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
            let question = Question::ByTime {
                partition,
                time,
                from,
            };
            let asked = self.ask(shard, question).await?;
            reply!(shard, asked, Reply::Offset(offset) => Some(offset), Reply::None => None)
        })
    }

    fn past(
        &self,
        shard: ShardId,
        partition: PartitionId,
        seen: Bounds,
    ) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move {
            loop {
                let question = Question::Past {
                    partition,
                    seen,
                    patience: HEAD_POLL_MAX,
                };
                match self.ask(shard, question).await? {
                    Reply::Same => {}
                    asked => {
                        return reply!(
                            shard, asked,
                            Reply::Bounds(bounds) => Some(bounds),
                            Reply::None => None,
                        );
                    }
                }
            }
        })
    }

    fn manifest(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        count: usize,
    ) -> Answer<'_, Listing<MixedSegment>> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::Manifest { after, count }).await?;
            reply!(shard, asked, Reply::Manifest(page) => page)
        })
    }

    fn turn(&self, shard: ShardId, bid: Bid) -> Answer<'_, bool> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::Turn(bid)).await?;
            reply!(shard, asked, Reply::Turn(yours) => yours)
        })
    }

    fn mark(&self, shard: ShardId) -> Option<Mark> {
        self.0.ways.seen(shard)
    }

    fn leader(&self, shard: ShardId) -> Option<String> {
        let leader = self.0.ways.leader(shard);
        leader.map(|address| address.to_string())
    }

    fn progress(&self, shard: ShardId) -> Answer<'_, Progress> {
        self.progress_within(shard, HEAD_PATIENCE)
    }

    fn progress_within(&self, shard: ShardId, patience: Duration) -> Answer<'_, Progress> {
        Box::pin(async move {
            let asked = self.ask_within(shard, Question::Progress, patience).await?;
            reply!(shard, asked, Reply::Progress(progress) => progress)
        })
    }

    fn progress_past(
        &self,
        shard: ShardId,
        seen: RaftIndex,
        patience: Duration,
    ) -> Answer<'_, Progress> {
        Box::pin(async move {
            let mut left = patience;
            loop {
                let patience = left.min(HEAD_POLL_MAX);
                left -= patience;
                let question = Question::ProgressPast { seen, patience };
                let asked = self.ask(shard, question).await?;
                let progress = reply!(shard, asked, Reply::Progress(progress) => progress)?;
                if progress.mark.index > seen || left.is_zero() {
                    return Ok(progress);
                }
            }
        })
    }

    fn tick(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::Tick).await?;
            reply!(shard, asked, Reply::Done => ())
        })
    }

    fn accept_time(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move {
            let asked = self.ask(shard, Question::AcceptTime).await?;
            reply!(shard, asked, Reply::Done => ())
        })
    }

    fn flush_job(&self, shard: ShardId, bytes_max: u64) -> Answer<'_, Option<FlushJob>> {
        Box::pin(async move {
            let question = Question::FlushJob { bytes_max };
            match self.fetch(shard, question).await? {
                (Reply::None, _) => Ok(None),
                (Reply::FlushJob(_), pieces) => {
                    let job = words::read_flush_job(pieces.concat().into());
                    job.map(Some).map_err(|fault| HeadError::Refused {
                        shard,
                        what: format!("the node gave an answer that is none: {fault}"),
                    })
                }
                (other, _) => Err(odd(shard, &other)),
            }
        })
    }

    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> Answer<'_, AcceptedRun> {
        Box::pin(async move {
            let asked = self
                .ask(shard, Question::Accepted { raft, bytes_max })
                .await?;
            reply!(shard, asked, Reply::Accepted(run) => run)
        })
    }

    fn checkpoint(&self, shard: ShardId) -> Answer<'_, BucketCheckpoint> {
        Box::pin(async move {
            match self.fetch(shard, Question::Checkpoint).await? {
                (Reply::Checkpoint { mark, .. }, chunks) => Ok(BucketCheckpoint { mark, chunks }),
                (other, _) => Err(odd(shard, &other)),
            }
        })
    }

    fn topic(&self, name: &TopicName) -> Answer<'_, Option<TopicView>> {
        let question = Question::Topic(name.clone());
        Box::pin(async move {
            let asked = self.ask(ShardId::CATALOG, question).await?;
            reply!(ShardId::CATALOG, asked, Reply::Topic(topic) => Some(topic), Reply::None => None)
        })
    }

    fn topics(&self, after: Option<TopicId>, count: usize) -> Answer<'_, Listing<TopicView>> {
        Box::pin(async move {
            let question = Question::Topics { after, count };
            let asked = self.ask(ShardId::CATALOG, question).await?;
            reply!(ShardId::CATALOG, asked, Reply::Topics(page) => page)
        })
    }

    fn ending(
        &self,
        name: &TopicName,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<TopicView>> {
        let name = name.clone();
        Box::pin(async move {
            let question = Question::Ending { name, after, count };
            let asked = self.ask(ShardId::CATALOG, question).await?;
            reply!(ShardId::CATALOG, asked, Reply::Topics(page) => page)
        })
    }

    fn shard_topics(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<ShardTopic>> {
        Box::pin(async move {
            let question = Question::ShardTopics { after, count };
            let asked = self.ask(shard, question).await?;
            reply!(shard, asked, Reply::ShardTopics(page) => page)
        })
    }

    fn tombstones(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<(TopicId, u64)>> {
        Box::pin(async move {
            let question = Question::Tombstones { after, count };
            let asked = self.ask(shard, question).await?;
            reply!(shard, asked, Reply::Tombstones(page) => page)
        })
    }
}
