//! The head in this very process.

use std::collections::BTreeMap;

use esker_log::{AcceptedBatch, AcceptedRun, FlushJob, Head, HeadError};
use esker_segment::{PartitionFacts, Tombstone};
use esker_shard::{Command, Data, HeadEntry, Outcome, State};
use esker_types::{OffsetRange, PartitionId, RaftIndex, RaftRange, ShardId};
use esker_wal::{Accepted, Error, ProposeError, Replica};
use futures::future::BoxFuture;

/// The head of the shards whose replicas are here.
#[derive(Clone, Debug)]
pub struct LocalHead {
    replicas: BTreeMap<ShardId, Replica>,
}

impl LocalHead {
    /// The head of the shards of `replicas`.
    #[must_use]
    pub fn new(replicas: impl IntoIterator<Item = Replica>) -> Self {
        let replicas = replicas
            .into_iter()
            .map(|replica| (replica.shard(), replica));
        Self {
            replicas: replicas.collect(),
        }
    }

    fn replica(&self, shard: ShardId) -> Result<&Replica, HeadError> {
        self.replicas
            .get(&shard)
            .ok_or(HeadError::NoShard { shard })
    }
}

impl Head for LocalHead {
    fn flush_job(
        &self,
        shard: ShardId,
        bytes_max: u64,
    ) -> BoxFuture<'_, Result<Option<FlushJob>, HeadError>> {
        Box::pin(async move {
            let state = self.replica(shard)?.state();
            Ok(job(&state, bytes_max))
        })
    }

    fn accepted(
        &self,
        shard: ShardId,
        raft: RaftRange,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<AcceptedRun, HeadError>> {
        Box::pin(async move {
            let replica = self.replica(shard)?;
            let state = replica.state();
            let entries = state
                .data()
                .into_iter()
                .flat_map(|data| data.head_entries(raft));
            let (mut batches, mut bytes) = (Vec::new(), 0);
            for (index, entry) in entries {
                if bytes > bytes_max as u64 {
                    // `index` holds a batch that was not read: the answer ends just below it.
                    return Ok(AcceptedRun {
                        batches,
                        upto: RaftIndex(index.0 - 1),
                    });
                }
                bytes += entry.bytes();
                let read = replica.read_accepted(index, entry).await;
                let read = read.map_err(|error| unreadable(shard, &error))?;
                let read = read.ok_or(HeadError::Released { shard, index })?;
                batches.extend(read.into_iter().map(|accepted| hand_out(entry, accepted)));
            }
            Ok(AcceptedRun {
                batches,
                upto: raft.to,
            })
        })
    }

    fn propose(
        &self,
        shard: ShardId,
        command: Command,
    ) -> BoxFuture<'_, Result<Outcome, HeadError>> {
        Box::pin(async move {
            let outcome = self.replica(shard)?.propose(&command, Vec::new()).await;
            let applied = outcome.map_err(|error| not_proposed(&error))?.await;
            applied
                .map(|(_, outcome)| outcome)
                .map_err(|error| not_proposed(&error))
        })
    }
}

fn hand_out(entry: &HeadEntry, accepted: Accepted) -> AcceptedBatch {
    AcceptedBatch {
        partition: accepted.batch.partition,
        range: accepted.batch.range,
        leader_epoch: entry.epoch,
        append_time: entry.time,
        hash: accepted.hash,
        bytes: accepted.bytes,
    }
}

fn not_proposed(error: &ProposeError) -> HeadError {
    let what = error.to_string();
    match *error {
        ProposeError::NotLeader { shard, .. } => HeadError::NotLeader { shard, what },
        ProposeError::Refused { shard, .. } => HeadError::Refused { shard, what },
        ProposeError::Unknown { shard, .. } => HeadError::Unknown { shard, what },
    }
}

fn unreadable(shard: ShardId, error: &Error) -> HeadError {
    HeadError::Corrupt {
        shard,
        what: error.to_string(),
    }
}

/// What the state says is to be flushed next, with the facts of its partitions.
fn job(state: &State, bytes_max: u64) -> Option<FlushJob> {
    let plan = state.flush_plan(bytes_max, state.applied().index)?;
    let data = state.data()?;
    let facts = |(id, range): &(PartitionId, OffsetRange)| facts(data, *id, *range);
    Some(FlushJob {
        shard: state.shard(),
        incarnation: state.incarnation(),
        raft: plan.raft,
        bytes: plan.bytes,
        partitions: plan.ranges.iter().map(facts).collect::<Option<_>>()?,
        ranges: plan.ranges,
        tombstones: data
            .tombstones()
            .map(|(topic, tombstone)| Tombstone {
                topic,
                version: tombstone.version(),
            })
            .collect(),
    })
}

fn facts(data: &Data, id: PartitionId, range: OffsetRange) -> Option<PartitionFacts> {
    let partition = data.partition(id)?;
    Some(PartitionFacts {
        id,
        topic: data.topic(id.topic)?.name().clone(),
        start: range.start(),
        log_start: partition.log_start(),
        fencing: partition.fencing(),
        producers: Vec::new(),
    })
}
