//! Who is to do what, and what is to be flushed. The latter is larger than a message, at the worst: it travels in pieces.

use std::time::Duration;

use bytes::Bytes;
use esker_log::{Bid, FlushJob, Job, WorkerId};
use esker_proto::internal as wire;
use esker_proto::internal::flush_job;
use esker_segment::{PartitionFacts, Tombstone};
use esker_types::{FencingToken, ShardId, TopicVersion};
use prost::Message as _;

use super::Fault;
use super::atoms::{
    each, incarnation, millis, offset, partition, raft, range, read_partition, read_raft,
    read_range, topic_id, topic_name,
};

pub(super) fn bid(bid: Bid) -> wire::question::Bid {
    let job = match bid.job {
        Job::Flush => wire::Job::Flush,
        Job::Checkpoint => wire::Job::Checkpoint,
        Job::Retention => wire::Job::Retention,
        Job::Collection => wire::Job::Collection,
    };
    wire::question::Bid {
        job: job.into(),
        worker: format!("{:032x}", bid.worker.0),
        busy: bid.busy,
        failed: bid.failed,
        again_ms: millis(bid.again),
    }
}

pub(super) fn read_bid(bid: &wire::question::Bid) -> Result<Bid, Fault> {
    let job = match bid.job() {
        wire::Job::Unspecified => return Err("it asks for no job that is known here"),
        wire::Job::Flush => Job::Flush,
        wire::Job::Checkpoint => Job::Checkpoint,
        wire::Job::Retention => Job::Retention,
        wire::Job::Collection => Job::Collection,
    };
    let worker = u128::from_str_radix(&bid.worker, 16);
    Ok(Bid {
        job,
        worker: WorkerId(worker.map_err(|_| "its worker is not 32 hex digits")?),
        busy: bid.busy,
        failed: bid.failed,
        again: Duration::from_millis(bid.again_ms),
    })
}

/// A job as bytes.
///
/// # Errors
/// [`Fault`], if its ranges and its partitions are not the same, or a partition comes with
/// producers, which are the flusher's to find: no head hands out such a job.
pub fn flush_job(job: FlushJob) -> Result<Bytes, Fault> {
    let paired = job.ranges.iter().zip(&job.partitions);
    let alike =
        |((id, _), facts): ((_, _), &PartitionFacts)| id == facts.id && facts.producers.is_empty();
    if job.ranges.len() != job.partitions.len() || !paired.map(|(a, b)| (*a, b)).all(alike) {
        return Err("a flush job has other partitions than ranges, or their producers");
    }
    let paired = job.ranges.into_iter().zip(job.partitions);
    let parts = paired.map(|((id, held), facts)| flush_job::Part {
        partition: partition(id),
        range: range(held),
        topic: facts.topic.as_str().to_owned(),
        start: facts.start.get(),
        log_start: facts.log_start.get(),
        fencing: facts.fencing.map(|token| token.0),
    });
    let tombstones = job.tombstones.iter().map(|of| flush_job::Tombstone {
        topic: of.topic.as_u64(),
        version: of.version.0,
    });
    let job = wire::FlushJob {
        shard: job.shard.0,
        incarnation: job.incarnation.get(),
        raft: raft(job.raft),
        bytes: job.bytes,
        parts: parts.collect(),
        tombstones: tombstones.collect(),
    };
    Ok(job.encode_to_vec().into())
}

/// Reads a job.
///
/// # Errors
/// [`Fault`].
pub fn read_flush_job(bytes: Bytes) -> Result<FlushJob, Fault> {
    let job = wire::FlushJob::decode(bytes).map_err(|_| "a flush job is none")?;
    let mut ranges = Vec::with_capacity(job.parts.len());
    let part = |part: flush_job::Part| {
        let id = read_partition(part.partition)?;
        ranges.push((id, read_range(part.range)?));
        Ok(PartitionFacts {
            id,
            topic: topic_name(&part.topic)?,
            start: offset(part.start)?,
            log_start: offset(part.log_start)?,
            fencing: part.fencing.map(FencingToken),
            producers: Vec::new(),
        })
    };
    let partitions = each(job.parts, part)?;
    let tombstone = |of: flush_job::Tombstone| {
        Ok(Tombstone {
            topic: topic_id(of.topic)?,
            version: TopicVersion(of.version),
        })
    };
    Ok(FlushJob {
        shard: ShardId(job.shard),
        incarnation: incarnation(job.incarnation)?,
        raft: read_raft(job.raft)?,
        ranges,
        bytes: job.bytes,
        partitions,
        tombstones: each(job.tombstones, tombstone)?,
    })
}
