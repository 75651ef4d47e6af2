//! Errors of the engine, as the wire says them: which code, which limit, whether it is durable.

use esker_log::{AppendError, Error as FlushError, Finding, HeadError, ReadError, TopicError};
use esker_proto::v1::error::Detail;
use esker_proto::v1::{Code, Damage, Error, OffsetOutOfRange};
use esker_record::Error as BatchError;
use esker_shard::{AppendError as Rejection, CatalogRefusal, Refusal};
use esker_types::limits::{MESSAGE_BYTES_MAX, PRODUCERS_PER_PARTITION_MAX, TOPIC_NAME_BYTES_MAX};
use esker_types::{Durability, NameError, OffsetRange, TopicId, TopicName};
use tonic::Status;

use crate::budget::NoShare;

/// A request that is wrong as it stands.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, Durability::NotWritten, message)
}

/// What tonic found wrong with a message on its way in; `None` for what is ours already, or no
/// matter of a message.
pub(crate) fn of_message(status: &Status) -> Option<Error> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        // The length in front of the message, refused before a byte of it was taken in.
        tonic::Code::OutOfRange => {
            let announced = number(status.message()).unwrap_or(u64::MAX);
            let text = format!(
                "nothing is stored: a message of {announced} bytes was announced, the limit is \
                 {MESSAGE_BYTES_MAX}"
            );
            let error = Error::new(Code::MessageTooLarge, Durability::NotWritten, text);
            Some(error.with_limit(MESSAGE_BYTES_MAX as u64, announced))
        }
        // tonic says INTERNAL of what a peer got wrong.
        tonic::Code::Internal => {
            let text = format!("nothing is stored: {}", status.message());
            Some(invalid(text))
        }
        _ => None,
    }
}

/// The first number in `text`.
fn number(text: &str) -> Option<u64> {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).next()
}

/// A topic name that is none.
pub(crate) fn topic_name(text: &str) -> Result<TopicName, Error> {
    TopicName::new(text).map_err(|error| {
        let told = invalid(error.to_string());
        match error {
            NameError::TooLong { bytes } => {
                told.with_limit(TOPIC_NAME_BYTES_MAX as u64, bytes as u64)
            }
            _ => told,
        }
    })
}

/// The id of a topic that somebody has seen, if it is told.
pub(crate) fn topic_id(seen: Option<u64>) -> Result<Option<TopicId>, Error> {
    let id = |seen| {
        let none = || invalid(format!("`topic_id` {seen} is none that a topic is given"));
        TopicId::from_u64(seen).ok_or_else(none)
    };
    seen.map(id).transpose()
}

/// An append for which there is no memory.
pub(crate) fn no_share_to_append(none: NoShare) -> Error {
    let advice = match none {
        NoShare::TooLarge { .. } => "send less at once, or raise agent.append_memory",
        _ => "send it again later",
    };
    let text = format!("nothing is stored: {none}; {advice}");
    no_share(none, Durability::NotWritten, text)
}

/// A read for which there is no memory.
pub(crate) fn no_share_to_read(none: NoShare) -> Error {
    let advice = match none {
        NoShare::TooLarge { .. } => "read it with format BATCHES, or raise agent.read_memory",
        _ => "read on later from the last `next_offset`",
    };
    let text = format!("nothing is lost: {none}; {advice}");
    no_share(none, Durability::Durable, text)
}

fn no_share(none: NoShare, durability: Durability, text: String) -> Error {
    let (limit, value, code) = match none {
        NoShare::TooLarge { asked, limit } => (limit, asked, Code::LimitReached),
        NoShare::Crowded { waiting, limit } => (limit, waiting, Code::Overloaded),
        NoShare::Late { asked, held, limit } => (limit, held + asked, Code::Overloaded),
    };
    Error::new(code, durability, text).with_limit(limit as u64, value as u64)
}

/// A stream for which there is no place.
pub(crate) fn no_place(what: &str, limit: usize) -> Error {
    let text = format!(
        "the call was not begun: {limit} streams of {what} are open, which is the limit; close some, \
         or come back later"
    );
    let error = Error::new(Code::Overloaded, Durability::NotWritten, text);
    error.with_limit(limit as u64, limit as u64 + 1)
}

/// The end of a stream of appends whose agent stops, once all that it took is answered.
pub(crate) fn stops_appends() -> Error {
    let text = "the agent stops: what has no reply was not taken; send it again, to another agent, or to \
                this one once it is back";
    Error::new(Code::Unavailable, Durability::NotWritten, text)
}

/// The end of a read without one whose agent stops.
pub(crate) fn stops_read() -> Error {
    let text = "the agent stops: read on at another agent, or at this one once it is back";
    Error::new(Code::Unavailable, Durability::NotWritten, text)
}

pub(crate) fn of_append(error: AppendError) -> Error {
    let text = error.to_string();
    match error {
        AppendError::Topic(error) => of_topic(error),
        AppendError::Batch(error) => of_batch(&error, text),
        AppendError::Rejected { error, sent, .. } => of_rejection(&error, sent, text),
        AppendError::MadeAnew { .. } => Error::new(Code::Unavailable, Durability::NotWritten, text),
        AppendError::Head(error) => of_head(error),
    }
}

pub(crate) fn of_topic(error: TopicError) -> Error {
    let text = error.to_string();
    let not = |code| Error::new(code, Durability::NotWritten, text.clone());
    match error {
        TopicError::Head(error) => of_head(error),
        TopicError::Unknown { .. } | TopicError::MadeAnew { .. } => not(Code::UnknownTopic),
        TopicError::UnknownPartition {
            partitions, asked, ..
        } => not(Code::UnknownPartition).with_limit(partitions.into(), asked.0.into()),
        TopicError::Exists { .. } => not(Code::TopicExists),
        TopicError::Refused { refusal, .. } => of_refusal(&refusal, text),
        TopicError::Partly { source, .. } => {
            let mut error = of_topic(*source);
            error.message = text;
            error.set_durability(Durability::Unknown.into());
            error
        }
    }
}

fn of_refusal(refusal: &Refusal, text: String) -> Error {
    let code = match refusal {
        Refusal::Catalog(CatalogRefusal::OtherVersion { current, .. }) => {
            let detail = Detail::Version(current.0);
            let error = Error::new(Code::VersionConflict, Durability::NotWritten, text);
            return error.with_detail(detail);
        }
        Refusal::Catalog(
            CatalogRefusal::TooManyTopics
            | CatalogRefusal::TooManyPartitions { .. }
            | CatalogRefusal::NoIdsLeft { .. },
        ) => Code::LimitReached,
        Refusal::UnknownTopic { .. } | Refusal::TopicEnded { .. } => Code::UnknownTopic,
        Refusal::Trim(_) => Code::OffsetOutOfRange,
        _ => Code::InvalidRequest,
    };
    Error::new(code, Durability::NotWritten, text)
}

fn of_batch(error: &BatchError, text: String) -> Error {
    let not = |code| Error::new(code, Durability::NotWritten, text);
    match *error {
        BatchError::TooLarge { bytes, limit } => {
            not(Code::BatchTooLarge).with_limit(limit as u64, bytes as u64)
        }
        BatchError::DecodedTooLarge { at_least, limit } => {
            not(Code::BatchTooLarge).with_limit(limit as u64, at_least as u64)
        }
        BatchError::Checksum { .. } => not(Code::BatchChecksum),
        BatchError::Malformed { .. }
        | BatchError::MalformedRecords { .. }
        | BatchError::Codec { .. }
        | BatchError::Refused(_)
        | BatchError::Empty
        | BatchError::TimestampSpread { .. } => not(Code::MalformedBatch),
    }
}

/// What the deep check would say of records that a client sent plain.
pub(crate) fn of_records(error: &BatchError) -> Error {
    of_batch(error, format!("nothing is stored: {error}"))
}

fn of_rejection(error: &Rejection, sent: Option<u64>, text: String) -> Error {
    let not = |code| Error::new(code, Durability::NotWritten, text.clone());
    let met = |code, limit: u64| match sent {
        Some(sent) => not(code).with_limit(limit, sent),
        None => not(code),
    };
    match *error {
        Rejection::UnknownPartition | Rejection::PartitionEnded => not(Code::UnknownTopic),
        Rejection::TooLarge { bytes, limit } => {
            not(Code::BatchTooLarge).with_limit(limit.into(), bytes.into())
        }
        Rejection::RecordCount { .. } => not(Code::MalformedBatch),
        Rejection::SequenceReused => not(Code::SequenceReused),
        Rejection::Fenced { current } => {
            met(Code::Fenced, current.0).with_detail(Detail::FencingToken(current.0))
        }
        Rejection::StaleProducerEpoch { current } => {
            let current = u32::from(current.as_i16().cast_unsigned());
            met(Code::StaleProducerEpoch, current.into())
                .with_detail(Detail::ProducerEpoch(current))
        }
        Rejection::SequenceGap { expected } => {
            let expected = expected.as_i32().cast_unsigned();
            met(Code::SequenceGap, expected.into()).with_detail(Detail::ExpectedSequence(expected))
        }
        // It may have been written once: what would tell is forgotten.
        Rejection::DuplicateExpired => {
            Error::new(Code::DuplicateExpired, Durability::Unknown, text)
        }
        Rejection::ExpectedEnd { actual } => {
            met(Code::ExpectedEnd, actual.get()).with_detail(Detail::End(actual.get()))
        }
        Rejection::OffsetsExhausted { .. } => not(Code::LimitReached),
        Rejection::TooManyProducers => {
            let limit = PRODUCERS_PER_PARTITION_MAX as u64;
            not(Code::LimitReached).with_limit(limit, limit + 1)
        }
    }
}

/// What a verification found.
pub(crate) fn of_finding(finding: &Finding) -> Error {
    let text = finding.to_string();
    let lost = |text| Error::new(Code::DataLoss, Durability::Durable, text);
    match finding {
        Finding::Segment {
            error: ReadError::Bucket { source, .. },
            ..
        } if source.kind() != esker_object::Kind::Corrupt => {
            Error::new(Code::BucketUnavailable, Durability::Durable, text)
        }
        Finding::Segment { key, .. } | Finding::Other { key, .. } => {
            lost(text).with_detail(Detail::Damage(Damage {
                object: key.to_string(),
                ..Damage::default()
            }))
        }
        Finding::Uncovered {
            topic,
            partition,
            range,
        } => lost(text).with_detail(Detail::Damage(Damage {
            topic: topic.as_str().to_owned(),
            partition: partition.index.0,
            start: range.start().get(),
            end: range.end().get(),
            object: String::new(),
        })),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it goes into `map_err`")]
pub(crate) fn of_head(error: HeadError) -> Error {
    let durability = error.durability();
    let text = error.to_string();
    let as_is = |code| Error::new(code, durability, text);
    match error {
        HeadError::HeadFull { limit, held, .. } => as_is(Code::HeadFull).with_limit(limit, held),
        HeadError::DiskFull { room, needed, .. } => as_is(Code::DiskFull).with_limit(room, needed),
        HeadError::Unknown { .. } => as_is(Code::OutcomeUnknown),
        HeadError::Corrupt { .. } => as_is(Code::DataLoss),
        HeadError::NoShard { .. }
        | HeadError::NotLeader { .. }
        | HeadError::Released { .. }
        | HeadError::Refused { .. } => as_is(Code::Unavailable),
    }
}

/// What a failed flush means to whoever asked for one.
pub(crate) fn of_flush(error: FlushError) -> Error {
    let text = error.to_string();
    // Whatever fails, what was acknowledged is in the head.
    let code = match error {
        FlushError::Head(error) => return of_head(error),
        FlushError::Bucket { .. }
        | FlushError::NotOurs { .. }
        | FlushError::NotStored { .. }
        | FlushError::NotConfirmed { .. } => Code::BucketUnavailable,
        FlushError::Batch { .. } => Code::DataLoss,
        FlushError::Segment(_) | FlushError::Job { .. } => Code::Internal,
        FlushError::Refused { .. } | FlushError::ManifestFull { .. } => Code::Unavailable,
    };
    Error::new(code, Durability::Durable, text)
}

/// What a failed read means, of a partition of `topic`.
pub(crate) fn of_read(error: &ReadError, topic: &TopicName) -> Error {
    let text = named(error, topic);
    let told = |code| Error::new(code, Durability::Durable, text.clone());
    match error {
        ReadError::Head(error) => of_head(error.clone()),
        ReadError::UnknownPartition { .. } => told(Code::UnknownPartition),
        ReadError::OutOfRange { log_start, end, .. } => {
            let detail = Detail::OutOfRange(OffsetOutOfRange {
                log_start: log_start.get(),
                end: end.get(),
            });
            told(Code::OffsetOutOfRange).with_detail(detail)
        }
        ReadError::Bucket { segment, source } if source.kind() == esker_object::Kind::Corrupt => {
            told(Code::DataLoss).with_detail(Detail::Damage(Damage {
                topic: topic.as_str().to_owned(),
                object: segment.to_string(),
                ..Damage::default()
            }))
        }
        ReadError::Bucket { .. } => told(Code::BucketUnavailable),
        ReadError::Restless { .. } => told(Code::Unavailable),
        ReadError::Gone { segment } => told(Code::DataLoss).with_detail(Detail::Damage(Damage {
            topic: topic.as_str().to_owned(),
            object: segment.to_string(),
            ..Damage::default()
        })),
        ReadError::Uncovered { .. } => told(Code::DataLoss),
        ReadError::Damaged(_) | ReadError::Lost { .. } | ReadError::Batch { .. } => {
            let error_ = told(Code::DataLoss);
            match damaged(error) {
                Some((partition, range)) => error_.with_detail(Detail::Damage(Damage {
                    topic: topic.as_str().to_owned(),
                    partition,
                    start: range.start().get(),
                    end: range.end().get(),
                    object: object(error),
                })),
                // Nobody knows yet which offsets: the segment itself cannot be opened.
                None => error_.with_detail(Detail::Damage(Damage {
                    topic: topic.as_str().to_owned(),
                    object: object(error),
                    ..Damage::default()
                })),
            }
        }
    }
}

/// What it says, with topic and partition called as their users call them.
fn named(error: &ReadError, topic: &TopicName) -> String {
    let text = error.to_string();
    let named = match error {
        ReadError::UnknownPartition { partition }
        | ReadError::OutOfRange { partition, .. }
        | ReadError::Batch { partition, .. }
        | ReadError::Lost { partition, .. }
        | ReadError::Uncovered { partition, .. }
        | ReadError::Restless { partition, .. } => {
            let index = partition.index;
            let name = match error {
                ReadError::UnknownPartition { .. } => format!("{index} of topic {topic}"),
                _ => format!("partition {index} of topic {topic}"),
            };
            text.replace(&partition.to_string(), &name)
        }
        _ => format!("topic {topic}: {text}"),
    };
    match error {
        ReadError::OutOfRange { log_start, end, .. } => {
            let range = format!("has [{log_start}, {end})");
            let held = match end
                .get()
                .checked_sub(1)
                .filter(|last| *last >= log_start.get())
            {
                Some(last) => format!("holds {log_start} to {last}, and {end} comes next"),
                None => format!("holds none, and {end} comes next"),
            };
            named.replace(&range, &held)
        }
        _ => named,
    }
}

/// The offsets that cannot be read, if the damage is known to touch only these.
pub(crate) fn damaged(error: &ReadError) -> Option<(u32, OffsetRange)> {
    match error {
        ReadError::Batch {
            partition, range, ..
        }
        | ReadError::Lost {
            partition, range, ..
        } => Some((partition.index.0, *range)),
        ReadError::Damaged(esker_segment::Error::Damaged(damage)) => damage
            .touches
            .map(|(partition, range)| (partition.index.0, range)),
        _ => None,
    }
}

fn object(error: &ReadError) -> String {
    match error {
        ReadError::Damaged(esker_segment::Error::Damaged(damage)) => damage.segment.to_string(),
        ReadError::Gone { segment } | ReadError::Bucket { segment, .. } => segment.to_string(),
        ReadError::Lost { source, .. } => object(source),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::{Incarnation, Offset, PartitionId, PartitionIndex};

    #[test]
    fn a_partition_is_called_as_its_users_call_it() {
        let partition = PartitionId {
            topic: TopicId::new(Incarnation::FIRST, 2).unwrap(),
            index: PartitionIndex(3),
        };
        let at = |n| Offset::new(n).unwrap();
        let out = ReadError::OutOfRange {
            partition,
            offset: at(7),
            log_start: at(0),
            end: at(5),
        };
        let unknown = ReadError::UnknownPartition { partition };
        let topic = TopicName::new("gravel").unwrap();
        for (error, words) in [
            (
                out,
                "7 is out of range: partition 3 of topic gravel holds 0 to 4, and 5",
            ),
            (unknown, "there is no partition 3 of topic gravel;"),
        ] {
            let text = of_read(&error, &topic).message;
            assert!(text.contains(words), "{text}");
            assert!(!text.contains(&partition.to_string()), "{text}");
        }
    }
}
