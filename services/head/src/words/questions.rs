//! What is asked of a head.

use std::time::Duration;

use esker_log::{Bid, Bounds, Mark, ReadFrom};
use esker_proto::internal as wire;
use esker_proto::internal::question::{self, Of};
use esker_shard::{Command, Error, SegmentPlace};
use esker_types::{Offset, PartitionId, RaftIndex, RaftRange, Timestamp, TopicId, TopicName};

use super::Fault;
use super::atoms::{
    bounds, mark, millis, need, needed_bounds, offset, partition, raft, read_mark, read_partition,
    read_raft, topic_id, topic_name,
};
use super::jobs::{bid, read_bid};
use super::listings::{place, read_place};

/// A call of `esker_log::Head`, with what it is called with.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each is named and told of in `esker_log::Head`"
)]
pub enum Question {
    Propose(Command),
    ReadIndex,
    Bounds(PartitionId),
    Read {
        partition: PartitionId,
        from: Offset,
        bytes_max: usize,
        who: ReadFrom,
    },
    ByTime {
        partition: PartitionId,
        time: Timestamp,
        from: Offset,
    },
    /// Answered with `Same` after `patience`.
    Past {
        partition: PartitionId,
        seen: Bounds,
        patience: Duration,
    },
    Manifest {
        after: Option<SegmentPlace>,
        count: usize,
    },
    Progress,
    ProgressPast {
        seen: RaftIndex,
        patience: Duration,
    },
    Tick,
    AcceptTime,
    FlushJob {
        bytes_max: u64,
    },
    Accepted {
        raft: RaftRange,
        bytes_max: usize,
    },
    Checkpoint,
    Topic(TopicName),
    Topics {
        after: Option<TopicId>,
        count: usize,
    },
    Ending {
        name: TopicName,
        after: Option<TopicId>,
        count: usize,
    },
    ShardTopics {
        after: Option<TopicId>,
        count: usize,
    },
    Tombstones {
        after: Option<TopicId>,
        count: usize,
    },
    Turn(Bid),
}

/// A question of somebody who has seen the shard up to `seen`; one that a follower may answer says itself
/// what its reader has seen.
///
/// # Errors
/// If it proposes a command that cannot be encoded.
pub fn question(seen: Option<Mark>, question: &Question) -> Result<wire::Question, Error> {
    let nothing = wire::Nothing {};
    let of = match *question {
        Question::Propose(ref command) => Of::Propose(command.encode()?),
        Question::ReadIndex => Of::ReadIndex(nothing),
        Question::Bounds(id) => Of::Bounds(wire::PartitionRef {
            topic: id.topic.as_u64(),
            index: id.index.0,
        }),
        Question::Read {
            partition: id,
            from,
            bytes_max,
            who,
        } => Of::Read(question::Read {
            partition: partition(id),
            from: from.get(),
            bytes_max: bytes_max as u64,
            follower: who.seen().is_some(),
        }),
        Question::ByTime {
            partition: id,
            time,
            from,
        } => Of::ByTime(question::ByTime {
            partition: partition(id),
            time_ms: time.0,
            from: from.get(),
        }),
        Question::Past {
            partition: id,
            seen,
            patience,
        } => Of::Past(question::Past {
            partition: partition(id),
            seen: Some(bounds(seen)),
            patience_ms: millis(patience),
        }),
        Question::Manifest { after, count } => Of::Manifest(question::SegmentsAfter {
            after: after.map(place),
            count: count as u64,
        }),
        Question::Progress => Of::Progress(nothing),
        Question::ProgressPast { seen, patience } => Of::ProgressPast(question::ProgressPast {
            seen: seen.0,
            patience_ms: millis(patience),
        }),
        Question::Tick => Of::Tick(nothing),
        Question::AcceptTime => Of::AcceptTime(nothing),
        Question::FlushJob { bytes_max } => Of::FlushJob(bytes_max),
        Question::Accepted {
            raft: entries,
            bytes_max,
        } => Of::Accepted(question::Accepted {
            raft: raft(entries),
            bytes_max: bytes_max as u64,
        }),
        Question::Checkpoint => Of::Checkpoint(nothing),
        Question::Topic(ref name) => Of::Topic(name.as_str().to_owned()),
        Question::Topics { after, count } => Of::Topics(topics_after(after, count)),
        Question::Ending {
            ref name,
            after,
            count,
        } => Of::Topics(question::TopicsAfter {
            ending: Some(name.to_string()),
            ..topics_after(after, count)
        }),
        Question::ShardTopics { after, count } => Of::ShardTopics(topics_after(after, count)),
        Question::Tombstones { after, count } => Of::Tombstones(topics_after(after, count)),
        Question::Turn(asked) => Of::Turn(bid(asked)),
    };
    let seen = match *question {
        Question::Read { who, .. } => who.seen().or(seen),
        _ => seen,
    };
    Ok(wire::Question {
        seen: seen.map(mark),
        of: Some(of),
    })
}

/// Reads a question, and how far the caller has seen the shard.
///
/// # Errors
/// [`Fault`].
pub fn read_question(question: wire::Question) -> Result<(Option<Mark>, Question), Fault> {
    let seen = question.seen.map(read_mark).transpose()?;
    let question = match need(question.of, "it asks for nothing")? {
        Of::Propose(command) => {
            let command = Command::decode(&command);
            Question::Propose(command.map_err(|_| "a command is none that is known here")?)
        }
        Of::ReadIndex(_) => Question::ReadIndex,
        Of::Bounds(id) => Question::Bounds(read_partition(Some(id))?),
        Of::Read(read) => Question::Read {
            partition: read_partition(read.partition)?,
            from: offset(read.from)?,
            bytes_max: size(read.bytes_max),
            who: match read.follower {
                true => ReadFrom::Follower {
                    seen: need(seen, "a follower is asked by somebody who has seen nothing")?,
                },
                false => ReadFrom::Leader,
            },
        },
        Of::ByTime(by) => Question::ByTime {
            partition: read_partition(by.partition)?,
            time: Timestamp(by.time_ms),
            from: offset(by.from)?,
        },
        Of::Past(past) => Question::Past {
            partition: read_partition(past.partition)?,
            seen: needed_bounds(past.seen)?,
            patience: Duration::from_millis(past.patience_ms),
        },
        Of::Manifest(page) => Question::Manifest {
            after: page.after.map(read_place).transpose()?,
            count: size(page.count),
        },
        Of::Progress(_) => Question::Progress,
        Of::ProgressPast(past) => Question::ProgressPast {
            seen: RaftIndex(past.seen),
            patience: Duration::from_millis(past.patience_ms),
        },
        Of::Tick(_) => Question::Tick,
        Of::AcceptTime(_) => Question::AcceptTime,
        Of::FlushJob(bytes_max) => Question::FlushJob { bytes_max },
        Of::Accepted(accepted) => Question::Accepted {
            raft: read_raft(accepted.raft)?,
            bytes_max: size(accepted.bytes_max),
        },
        Of::Checkpoint(_) => Question::Checkpoint,
        Of::Topic(name) => Question::Topic(topic_name(&name)?),
        Of::Topics(page) => {
            let (after, count) = (page.after.map(topic_id).transpose()?, size(page.count));
            match page.ending {
                None => Question::Topics { after, count },
                Some(name) => Question::Ending {
                    name: topic_name(&name)?,
                    after,
                    count,
                },
            }
        }
        Of::ShardTopics(page) => Question::ShardTopics {
            after: page.after.map(topic_id).transpose()?,
            count: size(page.count),
        },
        Of::Tombstones(page) => Question::Tombstones {
            after: page.after.map(topic_id).transpose()?,
            count: size(page.count),
        },
        Of::Turn(asked) => Question::Turn(read_bid(&asked)?),
    };
    Ok((seen, question))
}

fn topics_after(after: Option<TopicId>, count: usize) -> question::TopicsAfter {
    question::TopicsAfter {
        after: after.map(TopicId::as_u64),
        count: count as u64,
        ending: None,
    }
}

/// What a caller would have at most: whoever answers has a bound of its own.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
