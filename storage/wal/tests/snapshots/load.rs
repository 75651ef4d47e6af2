//! Who writes, and who flushes: most entries are as small as one may be, some carry a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use esker_shard::{
    Append, AppendBatch, AppendOutcome, Command, CommitSegment, ObjectChecksum, Outcome, PutTopic,
    State, TopicConfig,
};
use esker_types::{
    ContentHash, Incarnation, PartitionId, PartitionIndex, RaftIndex, SegmentId, ShardId,
    ShardTime, Timestamp, TopicId, TopicName, TopicVersion,
};
use esker_wal::ProposeError;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::node::LOOK;
use crate::ways::Ways;
use crate::{Counts, PATIENCE, shards};

/// Proposals of a shard under way.
const IN_FLIGHT: usize = 64;
/// One entry of so many carries a batch.
const BATCHES_ONE_IN: u64 = 16;
const BATCH_BYTES: usize = 100;
/// Between two flushes of a shard.
const FLUSHES: Duration = Duration::from_secs(3);

fn partition(shard: ShardId) -> PartitionId {
    let topic = TopicId::new(Incarnation::FIRST, 1).expect("a small sequence");
    let index = PartitionIndex(shard.0);
    PartitionId { topic, index }
}

/// Batches that were ever in the log of `shard`.
pub(crate) fn end(state: &State, shard: ShardId) -> u64 {
    let known = state
        .data()
        .and_then(|data| data.partition(partition(shard)));
    known.expect("its only one").end().get()
}

/// Makes the topic, once somebody leads.
pub(crate) async fn put_topic(ways: &Ways, shard: ShardId) {
    let put = Command::PutTopic(PutTopic {
        topic: partition(shard).topic,
        name: TopicName::new("t").expect("a name"),
        version: TopicVersion(1),
        config: TopicConfig::default(),
        partitions: vec![partition(shard).index],
    });
    let made = timeout(PATIENCE, async {
        loop {
            if let Some((_, leader)) = ways.leader(shard)
                && let Ok(outcome) = leader.propose(&put, Vec::new()).await
                && let Ok((_, Outcome::TopicPut { .. })) = outcome.await
            {
                return;
            }
            sleep(LOOK).await;
        }
    });
    made.await.expect("somebody comes to lead");
}

/// Writes to all shards until it is told to stop. Each tells how many batches were acknowledged.
pub(crate) fn begin(
    ways: &Ways,
    counts: &Arc<Counts>,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<u64>> {
    let write = |shard| write(ways.clone(), shard, Arc::clone(counts), Arc::clone(stop));
    shards().map(|shard| tokio::spawn(write(shard))).collect()
}

async fn write(ways: Ways, shard: ShardId, counts: Arc<Counts>, stop: Arc<AtomicBool>) -> u64 {
    let (mut number, mut batches, mut flushed) = (0, 0, Instant::now());
    let (mut leader, mut open) = (None, FuturesUnordered::new());
    while !stop.load(Ordering::Relaxed) || !open.is_empty() {
        if open.len() == IN_FLIGHT || (stop.load(Ordering::Relaxed) && !open.is_empty()) {
            match open.next().await.expect("some are") {
                Ok(more) => {
                    Counts::add(&counts.entries, 1);
                    Counts::add(&counts.batches, more);
                    batches += more;
                }
                // Somebody else leads, or nobody.
                Err(_) => leader = None,
            }
            continue;
        }
        let Some((node, replica)) = leader.clone().or_else(|| ways.leader(shard)) else {
            sleep(LOOK).await;
            continue;
        };
        number += 1;
        let mut command = command(shard, number);
        if flushed.elapsed() > FLUSHES {
            flushed = Instant::now();
            command = commit(&replica.state()).unwrap_or(command);
        }
        let payload = match &command {
            Command::Append(_) => vec![Bytes::from_static(&[7; BATCH_BYTES])],
            _ => Vec::new(),
        };
        match replica.propose(&command, payload).await {
            Ok(outcome) => {
                open.push(async move { outcome.await.map(|(_, outcome)| accepted(&outcome)) });
                leader = Some((node, replica));
            }
            Err(ProposeError::Refused { what, .. }) => unreachable!("{shard}: {what}"),
            Err(_) => leader = None,
        }
    }
    batches
}

fn command(shard: ShardId, number: u64) -> Command {
    let time = ShardTime(number);
    if !number.is_multiple_of(BATCHES_ONE_IN) {
        return Command::Tick { time };
    }
    let batch = AppendBatch {
        partition: partition(shard),
        bytes: u32::try_from(BATCH_BYTES).expect("small"),
        records: 1,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: None,
        hash: ContentHash(u128::from(number)),
        expected_end: None,
        fencing: None,
    };
    let batches = vec![batch];
    Command::Append(Append { time, batches })
}

/// Commits a segment that holds all of the head, as a flusher would once it is in the bucket.
fn commit(state: &State) -> Option<Command> {
    let plan = state.flush_plan(u64::MAX, RaftIndex(u64::MAX))?;
    Some(Command::CommitSegment(CommitSegment {
        segment: SegmentId(u128::from(plan.raft.to.0)),
        length: plan.bytes,
        checksum: ObjectChecksum(7),
        raft: plan.raft,
        ranges: plan.ranges,
    }))
}

/// Batches that it took.
fn accepted(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Appended(batches) => {
            let taken = |batch: &&AppendOutcome| matches!(batch, AppendOutcome::Accepted { .. });
            batches.iter().filter(taken).count() as u64
        }
        _ => 0,
    }
}
