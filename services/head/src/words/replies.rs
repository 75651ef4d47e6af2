//! What a head answers.

use std::time::Duration;

use esker_env::WallMs;
use esker_log::{
    AcceptedBatch, AcceptedRun, Bounds, HeadError, HeadRead, HeadRecords, LeaderClock, Listing,
    Mark, Progress, ShardTopic, TopicView,
};
use esker_proto::internal as wire;
use esker_proto::internal::answer::{self, Of};
use esker_proto::internal::{accepted_run, head_read};
use esker_shard::{HeadSize, MixedSegment, Outcome};
use esker_types::{ContentHash, LeaderEpoch, Offset, RaftIndex, ShardTime, Term, TopicId};

use super::Fault;
use super::atoms::{
    bounds, each, mark, need, needed_bounds, needed_mark, node_id, offset, partition, range,
    read_bounds, read_mark, read_partition, read_range, read_wide, wide,
};
use super::errors::{head_error, read_head_error};
use super::listings::{
    manifest, read_manifest, read_shard_topics, read_tombstones, read_topic, read_topics,
    shard_topics, tombstones, topic, topics,
};
use super::outcomes::{outcome, read_outcome};

/// An answer that is no error.
#[derive(Clone, Debug)]
pub enum Reply {
    /// There is no such thing.
    None,
    /// It is done.
    Done,
    /// Nothing new came as long as was waited.
    Same,
    /// What apply says.
    Outcome(Outcome),
    /// Where the shard stands.
    Reached(Mark),
    /// Watermarks of a partition.
    Bounds(Bounds),
    /// Batches of a partition.
    Read(HeadRead),
    /// An offset.
    Offset(Offset),
    /// Segments.
    Manifest(Listing<MixedSegment>),
    /// How the shard stands.
    Progress(Progress),
    /// Batches of entries.
    Accepted(AcceptedRun),
    /// A topic of the catalog.
    Topic(TopicView),
    /// Topics of the catalog.
    Topics(Listing<TopicView>),
    /// Topics of a data shard.
    ShardTopics(Listing<ShardTopic>),
    /// Tombstones.
    Tombstones(Listing<(TopicId, u64)>),
    /// Whether a job is the caller's.
    Turn(bool),
    /// A flush job, of so many bytes, follows.
    FlushJob(u64),
    /// A checkpoint follows.
    Checkpoint {
        /// What it covers.
        mark: Mark,
        /// Its bytes.
        bytes: u64,
    },
}

/// An answer of a shard that stands at `at` by now.
#[must_use]
pub fn answer(at: Option<Mark>, reply: Result<Reply, HeadError>) -> wire::Answer {
    let nothing = wire::Nothing {};
    let of = match reply {
        Err(error) => Of::Error(head_error(error)),
        Ok(Reply::None) => Of::None(nothing),
        Ok(Reply::Done) => Of::Done(nothing),
        Ok(Reply::Same) => Of::Same(nothing),
        Ok(Reply::Outcome(told)) => Of::Outcome(outcome(told)),
        Ok(Reply::Reached(at)) => Of::Reached(mark(at)),
        Ok(Reply::Bounds(of)) => Of::Bounds(bounds(of)),
        Ok(Reply::Read(read)) => Of::Read(head_read(read)),
        Ok(Reply::Offset(offset)) => Of::Offset(offset.get()),
        Ok(Reply::Manifest(page)) => Of::Manifest(manifest(page)),
        Ok(Reply::Progress(told)) => Of::Progress(progress(&told)),
        Ok(Reply::Accepted(run)) => Of::Accepted(accepted(run)),
        Ok(Reply::Topic(view)) => Of::Topic(topic(view)),
        Ok(Reply::Topics(page)) => Of::Topics(topics(page)),
        Ok(Reply::ShardTopics(page)) => Of::ShardTopics(shard_topics(page)),
        Ok(Reply::Tombstones(page)) => Of::Tombstones(tombstones(page)),
        Ok(Reply::Turn(yours)) => Of::Turn(yours),
        Ok(Reply::FlushJob(bytes)) => Of::FlushJob(bytes),
        Ok(Reply::Checkpoint { mark: of, bytes }) => Of::Checkpoint(answer::Checkpoint {
            mark: Some(mark(of)),
            bytes,
        }),
    };
    wire::Answer {
        mark: at.map(mark),
        of: Some(of),
    }
}

/// Reads an answer, and where the shard stood afterwards.
///
/// # Errors
/// [`Fault`]: then it is unknown what was answered.
pub fn read_answer(
    answer: wire::Answer,
) -> Result<(Option<Mark>, Result<Reply, HeadError>), Fault> {
    let at = answer.mark.map(read_mark).transpose()?;
    let reply = match need(answer.of, "it answers nothing")? {
        Of::Error(error) => return Ok((at, Err(read_head_error(error)?))),
        Of::None(_) => Reply::None,
        Of::Done(_) => Reply::Done,
        Of::Same(_) => Reply::Same,
        Of::Outcome(told) => Reply::Outcome(read_outcome(told)?),
        Of::Reached(at) => Reply::Reached(read_mark(at)?),
        Of::Bounds(of) => Reply::Bounds(read_bounds(of)?),
        Of::Read(read) => Reply::Read(read_head_read(read)?),
        Of::Offset(number) => Reply::Offset(offset(number)?),
        Of::Manifest(page) => Reply::Manifest(read_manifest(page)?),
        Of::Progress(told) => Reply::Progress(read_progress(&told)?),
        Of::Accepted(run) => Reply::Accepted(read_accepted(run)?),
        Of::Topic(view) => Reply::Topic(read_topic(view)?),
        Of::Topics(page) => Reply::Topics(read_topics(page)?),
        Of::ShardTopics(page) => Reply::ShardTopics(read_shard_topics(page)?),
        Of::Tombstones(page) => Reply::Tombstones(read_tombstones(page)?),
        Of::Turn(yours) => Reply::Turn(yours),
        Of::FlushJob(bytes) => Reply::FlushJob(bytes),
        Of::Checkpoint(beginning) => Reply::Checkpoint {
            mark: needed_mark(beginning.mark)?,
            bytes: beginning.bytes,
        },
    };
    Ok((at, Ok(reply)))
}

fn head_read(read: HeadRead) -> wire::HeadRead {
    let batches = read.batches.into_iter().map(|batch| head_read::Records {
        range: range(batch.range),
        leader_epoch: batch.leader_epoch.0,
        batch: batch.bytes,
    });
    wire::HeadRead {
        bounds: Some(bounds(read.bounds)),
        batches: batches.collect(),
        by_follower: read.by_follower,
    }
}

fn read_head_read(read: wire::HeadRead) -> Result<HeadRead, Fault> {
    let batch = |batch: head_read::Records| {
        Ok(HeadRecords {
            range: read_range(batch.range)?,
            leader_epoch: LeaderEpoch(batch.leader_epoch),
            bytes: batch.batch,
        })
    };
    Ok(HeadRead {
        bounds: needed_bounds(read.bounds)?,
        batches: each(read.batches, batch)?,
        by_follower: read.by_follower,
    })
}

fn accepted(run: AcceptedRun) -> wire::AcceptedRun {
    let batches = run.batches.into_iter().map(|batch| accepted_run::Batch {
        partition: partition(batch.partition),
        range: range(batch.range),
        leader_epoch: batch.leader_epoch.0,
        append_time_ms: batch.append_time.0,
        hash: wide(batch.hash.0),
        batch: batch.bytes,
    });
    wire::AcceptedRun {
        batches: batches.collect(),
        upto: run.upto.0,
    }
}

fn read_accepted(run: wire::AcceptedRun) -> Result<AcceptedRun, Fault> {
    let batch = |batch: accepted_run::Batch| {
        Ok(AcceptedBatch {
            partition: read_partition(batch.partition)?,
            range: read_range(batch.range)?,
            leader_epoch: LeaderEpoch(batch.leader_epoch),
            append_time: ShardTime(batch.append_time_ms),
            hash: ContentHash(read_wide(&batch.hash)?),
            bytes: batch.batch,
        })
    };
    Ok(AcceptedRun {
        batches: each(run.batches, batch)?,
        upto: RaftIndex(run.upto),
    })
}

fn progress(told: &Progress) -> wire::Progress {
    let nanos = |skew: Duration| u64::try_from(skew.as_nanos()).unwrap_or(u64::MAX);
    wire::Progress {
        mark: Some(mark(told.mark)),
        term: told.term.0,
        checkpointed: told.checkpointed.0,
        time_ms: told.time.0,
        clock_skew_ns: told.clock_skew.map(nanos),
        leader_clock: told.leader_clock.map(|clock| wire::progress::LeaderClock {
            node: clock.node.as_u64(),
            wall_ms: clock.wall.0,
            ahead: clock.ahead,
        }),
        flush_position: told.flush_position.0,
        flushed: told.flushed.0,
        head_bytes: told.head.bytes,
        head_batches: told.head.batches,
        head_oldest_ms: told.head.oldest.map(|time| time.0),
        head_bytes_max: told.head_bytes_max,
        head_batches_max: told.head_batches_max,
        segments: told.segments,
        gc_boundary: told.gc_boundary.0,
        flush_early: told.flush_early,
    }
}

fn leader_clock(told: wire::progress::LeaderClock) -> Result<LeaderClock, Fault> {
    Ok(LeaderClock {
        node: node_id(told.node)?,
        wall: WallMs(told.wall_ms),
        ahead: told.ahead,
    })
}

fn read_progress(told: &wire::Progress) -> Result<Progress, Fault> {
    Ok(Progress {
        mark: needed_mark(told.mark)?,
        term: Term(told.term),
        checkpointed: RaftIndex(told.checkpointed),
        time: ShardTime(told.time_ms),
        clock_skew: told.clock_skew_ns.map(Duration::from_nanos),
        leader_clock: told.leader_clock.map(leader_clock).transpose()?,
        flush_position: RaftIndex(told.flush_position),
        flushed: RaftIndex(told.flushed),
        head: HeadSize {
            bytes: told.head_bytes,
            batches: told.head_batches,
            oldest: told.head_oldest_ms.map(ShardTime),
        },
        head_bytes_max: told.head_bytes_max,
        head_batches_max: told.head_batches_max,
        segments: told.segments,
        gc_boundary: RaftIndex(told.gc_boundary),
        flush_early: told.flush_early,
    })
}
