//! What apply answers to a command.

use esker_proto::internal as wire;
use esker_proto::internal::outcome::{self, Of};
use esker_shard::{AppendOutcome, Outcome};
use esker_types::{RaftIndex, TopicVersion};

use super::Fault;
use super::appends::{append_answer, read_append_answer};
use super::atoms::{
    each, level, need, node_id, offset, producer_id, read_shards, shards, topic_id,
};
use super::refusals::{read_refusal, refusal};

pub(super) fn outcome(outcome: Outcome) -> wire::Outcome {
    let nothing = wire::Nothing {};
    let of = match outcome {
        Outcome::Refused(why) => Of::Refused(refusal(why)),
        Outcome::Ticked => Of::Ticked(nothing),
        Outcome::Level(level) => Of::Level(u32::from(level.get())),
        Outcome::Appended(outcomes) => Of::Appended(appended(outcomes)),
        Outcome::SegmentCommitted { flush_position } => Of::SegmentCommitted(flush_position.0),
        Outcome::Swapped => Of::Swapped(nothing),
        Outcome::GcBoundary(index) => Of::GcBoundary(index.0),
        Outcome::TopicPut { version } => Of::TopicPut(version.0),
        Outcome::TopicEnded => Of::TopicEnded(nothing),
        Outcome::TombstoneDropped => Of::TombstoneDropped(nothing),
        Outcome::Trimmed { log_start } => Of::Trimmed(log_start.get()),
        Outcome::TopicCreated {
            topic,
            version,
            placement,
        } => Of::TopicCreated(wire::Placed {
            topic: topic.as_u64(),
            version: version.0,
            placement: shards(&placement),
        }),
        Outcome::TopicAltered { version } => Of::TopicAltered(version.0),
        Outcome::PartitionsAdded { version, placement } => Of::PartitionsAdded(wire::Placed {
            topic: 0,
            version: version.0,
            placement: shards(&placement),
        }),
        Outcome::TopicDeleted { awaiting } => Of::TopicDeleted(outcome::Shards {
            awaiting: shards(&awaiting),
        }),
        Outcome::Producers { first, count } => Of::Producers(outcome::Producers {
            first: first.as_u64(),
            count,
        }),
        Outcome::Node(node) => Of::Node(node.as_u64()),
    };
    wire::Outcome { of: Some(of) }
}

pub(super) fn read_outcome(outcome: wire::Outcome) -> Result<Outcome, Fault> {
    Ok(match need(outcome.of, "an outcome has no kind")? {
        Of::Refused(why) => Outcome::Refused(read_refusal(why)?),
        Of::Ticked(_) => Outcome::Ticked,
        Of::Level(number) => Outcome::Level(level(number)?),
        Of::Appended(appended) => Outcome::Appended(each(appended.answers, read_appended)?),
        Of::SegmentCommitted(index) => Outcome::SegmentCommitted {
            flush_position: RaftIndex(index),
        },
        Of::Swapped(_) => Outcome::Swapped,
        Of::GcBoundary(index) => Outcome::GcBoundary(RaftIndex(index)),
        Of::TopicPut(version) => Outcome::TopicPut {
            version: TopicVersion(version),
        },
        Of::TopicEnded(_) => Outcome::TopicEnded,
        Of::TombstoneDropped(_) => Outcome::TombstoneDropped,
        Of::Trimmed(log_start) => Outcome::Trimmed {
            log_start: offset(log_start)?,
        },
        Of::TopicCreated(placed) => Outcome::TopicCreated {
            topic: topic_id(placed.topic)?,
            version: TopicVersion(placed.version),
            placement: read_shards(placed.placement),
        },
        Of::TopicAltered(version) => Outcome::TopicAltered {
            version: TopicVersion(version),
        },
        Of::PartitionsAdded(placed) => Outcome::PartitionsAdded {
            version: TopicVersion(placed.version),
            placement: read_shards(placed.placement),
        },
        Of::TopicDeleted(shards) => Outcome::TopicDeleted {
            awaiting: read_shards(shards.awaiting),
        },
        Of::Producers(block) => Outcome::Producers {
            first: producer_id(block.first)?,
            count: block.count,
        },
        Of::Node(raw) => Outcome::Node(node_id(raw)?),
    })
}

fn appended(outcomes: Vec<AppendOutcome>) -> outcome::Appended {
    let numbered = (0..).zip(outcomes);
    let answers = numbered.map(|(number, outcome)| append_answer(number, Ok(outcome)));
    outcome::Appended {
        answers: answers.collect(),
    }
}

fn read_appended(answer: wire::AppendAnswer) -> Result<AppendOutcome, Fault> {
    read_append_answer(answer)?.map_err(|_| "apply answered with an error of the head")
}
