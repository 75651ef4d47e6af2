//! The head in this very process: of the shards that are led here. Of any other it says who leads, and
//! gives what it has to those who let a follower answer.

mod flushing; // what a flush asks for
mod following; // what a replica gives that does not lead
mod refusals; // what goes wrong below, as the head says it

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Clock, Workers, WorkersExt};
use esker_log::{
    AcceptedRun, Answer, Bid, Bounds, BucketCheckpoint, FlushJob, Head, HeadError, HeadRead,
    HeadRecords, LeaderClock, Listing, Mark, Place, Progress, ReadFrom, ShardTopic, TopicView,
};
use esker_shard::checkpoint::{self, Scope};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, Data, HeadPosition, MixedSegment, Outcome, SegmentPlace,
    State,
};
use esker_types::limits::{HEAD_READS_MAX, HEAD_RUNS_AT_ONCE};
use esker_types::{
    Offset, PartitionId, RaftIndex, RaftRange, ShardId, Timestamp, TopicId, TopicName,
};
use esker_wal::disk::Wal;
use esker_wal::{Appender, Holders, ProposeError, Replica, Stamp};
use tokio::sync::{Semaphore, watch};

use self::refusals::{ended, not_appended, not_proposed, unreadable};
use crate::early::Early;
use crate::turns::Turns;
use crate::view;

/// The head of the shards whose replicas are here, while they lead. Clones share it.
#[derive(Clone, Debug)]
pub struct LocalHead {
    shards: BTreeMap<ShardId, Led>,
    /// Shards that hold the oldest WAL file, as the keeper last saw it.
    holders: watch::Receiver<Arc<Holders>>,
    wal: Arc<Wal>,
    workers: Arc<dyn Workers>,
    clock: Arc<dyn Clock>,
    turns: Arc<Turns>,
    early: Arc<Early>,
    /// Runs that are read for flushes.
    runs: Arc<Semaphore>,
}

/// A shard that may be led here.
#[derive(Clone, Debug)]
pub struct Led {
    /// Its replica.
    pub replica: Replica,
    /// Its queue; the catalog has none.
    pub appender: Option<Appender>,
}

impl LocalHead {
    /// The head of `shards`, whose log is `wal`. `holders` is what [`esker_wal::Keeper::holders`] hands out.
    #[must_use]
    pub fn new(
        shards: impl IntoIterator<Item = Led>,
        holders: watch::Receiver<Arc<Holders>>,
        wal: Arc<Wal>,
        workers: Arc<dyn Workers>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let shards = shards.into_iter().map(|led| (led.replica.shard(), led));
        Self {
            shards: shards.collect(),
            holders,
            wal,
            workers,
            clock,
            turns: Arc::default(),
            early: Arc::default(),
            runs: Arc::new(Semaphore::new(HEAD_RUNS_AT_ONCE)),
        }
    }

    /// Takes the offices of all shards, which this node leads.
    pub(crate) async fn take_offices(&self) -> Result<(), ProposeError> {
        for queue in self.shards.values().filter_map(|led| led.appender.as_ref()) {
            queue.take_office().await?;
        }
        Ok(())
    }

    /// The shard, if it is led here as far as this node knows.
    fn led(&self, shard: ShardId) -> Result<&Led, HeadError> {
        let led = self
            .shards
            .get(&shard)
            .ok_or(HeadError::NoShard { shard })?;
        match led.replica.leads_in() {
            Some(_) => Ok(led),
            None => Err(not_proposed(&led.replica.not_leader())),
        }
    }

    fn replica(&self, shard: ShardId) -> Result<&Replica, HeadError> {
        Ok(&self.led(shard)?.replica)
    }

    /// The state, by the word of a quorum.
    async fn fresh(&self, shard: ShardId) -> Result<State, HeadError> {
        let replica = self.replica(shard)?;
        let asked = replica.read_index().await;
        asked.map_err(|error| not_proposed(&error))?;
        Ok(replica.state())
    }

    fn stand(&self, shard: ShardId) -> Result<Progress, HeadError> {
        let led = self.led(shard)?;
        let state = led.replica.state();
        let data = state.data();
        let share = led.appender.as_ref().map(|queue| queue.share());
        let stopped = match led.appender.as_ref().and_then(Appender::time) {
            Some(Stamp::Stopped { skew, ahead, .. }) => Some((skew, ahead)),
            _ => None,
        };
        Ok(Progress {
            mark: view::mark(&state),
            term: state.applied().term,
            checkpointed: led.replica.checkpointed().0,
            time: state.time(),
            clock_skew: stopped.map(|(skew, _)| skew),
            leader_clock: stopped.and_then(|(_, ahead)| self.clock_of(led, ahead)),
            flush_position: data.map_or(RaftIndex::ZERO, Data::flush_position),
            flushed: state.flushed(),
            head: state.head_size(),
            head_bytes_max: share.map_or(0, |share| share.bytes),
            head_batches_max: share.map_or(0, |share| share.batches),
            segments: data.map_or(0, |data| data.segment_count() as u64),
            gc_boundary: data.map_or(RaftIndex::ZERO, Data::gc_boundary),
            flush_early: self.flush_early(&state),
        })
    }

    /// The clock by which the time of a shard stands still that is led here.
    fn clock_of(&self, led: &Led, ahead: bool) -> Option<LeaderClock> {
        let node = led.replica.leader()?.node;
        Some(LeaderClock {
            node,
            wall: self.clock.wall(),
            ahead,
        })
    }

    /// Batches of the head from `from` on. Starts over from a newer state if the head lets go of
    /// one while it is read.
    async fn batches(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        who: ReadFrom,
    ) -> Result<Option<HeadRead>, HeadError> {
        let replica = match who {
            ReadFrom::Leader => self.replica(shard)?,
            ReadFrom::Follower { seen } => self.caught_up(shard, seen).await?,
        };
        let by_follower = replica.leads_in().is_none();
        for _ in 0..HEAD_READS_MAX {
            let state = replica.state();
            let place = view::bounds(&state, partition).map(|bounds| bounds.place(from));
            let told_by_anybody = match who {
                ReadFrom::Leader => place == Some(Place::Head),
                // What was flushed meanwhile is applied, and the reader finds it in the bucket.
                ReadFrom::Follower { .. } => {
                    matches!(place, Some(Place::Head | Place::Tiered))
                }
            };
            let state = if !told_by_anybody {
                // A follower names who leads instead: absence is not for it to tell.
                self.fresh(shard).await?
            } else {
                state
            };
            let Some(bounds) = view::bounds(&state, partition) else {
                return Ok(None);
            };
            let positions = match bounds.place(from) {
                Place::Head => run(&state, partition, from, bytes_max),
                _ => Vec::new(),
            };
            if let Some(batches) = read_all(replica, shard, &positions).await? {
                return Ok(Some(HeadRead {
                    bounds,
                    batches,
                    by_follower,
                }));
            }
        }
        Err(HeadError::Refused {
            shard,
            what: format!("the head moved {HEAD_READS_MAX} times while it was read; read again"),
        })
    }
}

impl Head for LocalHead {
    fn shards(&self) -> Vec<ShardId> {
        let shards = self.shards.keys().copied();
        shards.filter(|shard| shard.carries_data()).collect()
    }

    fn append(
        &self,
        shard: ShardId,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Answer<'_, Answer<'static, AppendOutcome>> {
        Box::pin(async move {
            let queue = self.led(shard)?.appender.as_ref();
            let queue = queue.ok_or(HeadError::NoShard { shard })?;
            let answer = queue.append(batch, bytes).await;
            let answer = answer.map_err(|refusal| not_appended(shard, &refusal))?;
            let answer: Answer<'static, AppendOutcome> = Box::pin(async move {
                let answer = answer.await;
                answer
                    .map(|(_, outcome)| outcome)
                    .map_err(|refusal| not_appended(shard, &refusal))
            });
            Ok(answer)
        })
    }

    fn propose(&self, shard: ShardId, command: Command) -> Answer<'_, Outcome> {
        Box::pin(async move {
            let outcome = self.replica(shard)?.propose(&command, Vec::new()).await;
            let applied = outcome.map_err(|error| not_proposed(&error))?.await;
            applied
                .map(|(_, outcome)| outcome)
                .map_err(|error| not_proposed(&error))
        })
    }

    fn read_index(&self, shard: ShardId) -> Answer<'_, Mark> {
        Box::pin(async move { Ok(view::mark(&self.fresh(shard).await?)) })
    }

    fn bounds(&self, shard: ShardId, partition: PartitionId) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move { Ok(view::bounds(&self.fresh(shard).await?, partition)) })
    }

    fn read(
        &self,
        shard: ShardId,
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        who: ReadFrom,
    ) -> Answer<'_, Option<HeadRead>> {
        Box::pin(self.batches(shard, partition, from, bytes_max, who))
    }

    fn by_time(
        &self,
        shard: ShardId,
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    ) -> Answer<'_, Option<Offset>> {
        Box::pin(async move {
            let state = self.fresh(shard).await?;
            Ok(view::by_time(&state, partition, time, from))
        })
    }

    fn past(
        &self,
        shard: ShardId,
        partition: PartitionId,
        seen: Bounds,
    ) -> Answer<'_, Option<Bounds>> {
        Box::pin(async move {
            let mut states = self.replica(shard)?.watch();
            loop {
                let bounds = view::bounds(&states.borrow_and_update(), partition);
                let left = |now: &Bounds| now.end > seen.end || now.log_start > seen.log_start;
                if bounds.as_ref().is_none_or(left) {
                    return Ok(bounds);
                }
                states.changed().await.map_err(|_| ended(shard))?;
                // Who leads by now has news, and tells what is not there.
                self.led(shard)?;
            }
        })
    }

    fn manifest(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        count: usize,
    ) -> Answer<'_, Listing<MixedSegment>> {
        Box::pin(async move { Ok(view::manifest(&self.replica(shard)?.state(), after, count)) })
    }

    fn turn(&self, shard: ShardId, bid: Bid) -> Answer<'_, bool> {
        Box::pin(async move {
            self.led(shard)?;
            Ok(self.turns.ask(self.clock.monotonic(), shard, bid))
        })
    }

    fn mark(&self, shard: ShardId) -> Option<Mark> {
        Some(view::mark(&self.shards.get(&shard)?.replica.state()))
    }

    fn leader(&self, shard: ShardId) -> Option<String> {
        let leader = self.shards.get(&shard)?.replica.leader()?;
        // One that is alone has none.
        Some(leader.address).filter(|address| !address.is_empty())
    }

    fn progress(&self, shard: ShardId) -> Answer<'_, Progress> {
        Box::pin(async move { self.stand(shard) })
    }

    fn progress_past(
        &self,
        shard: ShardId,
        seen: RaftIndex,
        patience: Duration,
    ) -> Answer<'_, Progress> {
        Box::pin(async move {
            let mut states = self.replica(shard)?.watch();
            let above = states.wait_for(|state| state.applied().index > seen);
            if let Ok(Err(_)) = tokio::time::timeout(patience, above).await {
                return Err(ended(shard));
            }
            self.stand(shard)
        })
    }

    fn tick(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move {
            match &self.led(shard)?.appender {
                Some(queue) => queue.tick().await.map_err(|error| not_proposed(&error)),
                None => Ok(()),
            }
        })
    }

    fn accept_time(&self, shard: ShardId) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Some(queue) = &self.led(shard)?.appender {
                let accepted = queue.accept_time().await;
                let accepted = accepted.map_err(|error| not_proposed(&error))?;
                accepted.map_err(|behind| HeadError::Refused {
                    shard,
                    what: behind.to_string(),
                })?;
            }
            Ok(())
        })
    }

    fn flush_job(&self, shard: ShardId, bytes_max: u64) -> Answer<'_, Option<FlushJob>> {
        Box::pin(async move { Ok(view::flush_job(&self.replica(shard)?.state(), bytes_max)) })
    }

    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> Answer<'_, AcceptedRun> {
        Box::pin(self.accepted_run(shard, raft, bytes_max))
    }

    fn checkpoint(&self, shard: ShardId) -> Answer<'_, BucketCheckpoint> {
        Box::pin(async move {
            let state = self.fresh(shard).await?;
            let mark = view::mark(&state);
            let encode = move || {
                let mut chunks = Vec::new();
                let Ok(()) = checkpoint::encode(&state, Scope::Bucket, |chunk| {
                    chunks.push(chunk);
                    Ok::<_, std::convert::Infallible>(())
                });
                chunks
            };
            let chunks = self.workers.run(encode).await;
            Ok(BucketCheckpoint { mark, chunks })
        })
    }

    fn topic(&self, name: &TopicName) -> Answer<'_, Option<TopicView>> {
        let name = name.clone();
        Box::pin(async move {
            // Who was deposed and does not know it has the settings as they were.
            let state = self.fresh(ShardId::CATALOG).await?;
            let found = state
                .catalog()
                .and_then(|catalog| catalog.find(name.as_str()));
            Ok(found.map(|(id, topic)| view::topic(id, topic)))
        })
    }

    fn topics(&self, after: Option<TopicId>, count: usize) -> Answer<'_, Listing<TopicView>> {
        Box::pin(async move {
            let state = self.fresh(ShardId::CATALOG).await?;
            Ok(view::topics(&state, after, count))
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
            let state = self.fresh(ShardId::CATALOG).await?;
            Ok(view::ending(&state, &name, after, count))
        })
    }

    fn shard_topics(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<ShardTopic>> {
        Box::pin(async move { Ok(view::shard_topics(&self.fresh(shard).await?, after, count)) })
    }

    fn tombstones(
        &self,
        shard: ShardId,
        after: Option<TopicId>,
        count: usize,
    ) -> Answer<'_, Listing<(TopicId, u64)>> {
        Box::pin(async move { Ok(view::tombstones(&self.fresh(shard).await?, after, count)) })
    }
}

/// Places of the batches from the one that holds `from` on, until they pass `bytes_max`.
fn run(state: &State, partition: PartitionId, from: Offset, bytes_max: usize) -> Vec<HeadPosition> {
    let mut bytes = 0;
    let batches = state
        .data()
        .into_iter()
        .flat_map(|data| data.head_batches(partition, from));
    let fits = batches.take_while(|position| {
        let first = bytes == 0;
        bytes += position.batch.bytes as usize;
        first || bytes <= bytes_max
    });
    fits.collect()
}

/// Reads them, or the first of them; `None` if one was released meanwhile.
async fn read_all(
    replica: &Replica,
    shard: ShardId,
    positions: &[HeadPosition],
) -> Result<Option<Vec<HeadRecords>>, HeadError> {
    let read = replica.read_batches(positions).await;
    let read = read.map_err(|error| unreadable(shard, &error))?;
    let records = |(position, bytes): (&HeadPosition, Bytes)| HeadRecords {
        range: position.batch.range,
        leader_epoch: position.epoch,
        bytes,
    };
    Ok(read.map(|read| positions.iter().zip(read).map(records).collect()))
}
