//! Appends and their answers.

use bytes::Bytes;
use esker_log::{HeadError, Mark};
use esker_proto::internal as wire;
use esker_proto::internal::append_answer::{self, Of};
use esker_proto::internal::{append_call, append_rejection};
use esker_shard::{AppendBatch, AppendError, AppendOutcome};
use esker_types::{ContentHash, FencingToken, LeaderEpoch, Timestamp};

use super::Fault;
use super::atoms::{
    epoch, mark, need, offset, partition, range, read_epoch, read_mark, read_partition, read_range,
    read_sequence, read_stamp, read_wide, sequence, stamp, wide,
};
use super::errors::{head_error, read_head_error};

/// How a stream of appends begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beginning {
    /// Whose appends they are.
    pub session: u128,
    /// Which attempt of the session it is; it ends every lower one.
    pub attempt: u64,
    /// The newest that the caller saw of the shard.
    pub seen: Option<Mark>,
}

/// An append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// The caller's number of it.
    pub number: u64,
    /// What it is.
    pub batch: AppendBatch,
    /// Its bytes, as many as `batch` says.
    pub bytes: Bytes,
}

/// What a caller sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// First.
    Beginning(Beginning),
    /// Then.
    Append(Append),
}

/// A beginning.
#[must_use]
pub fn beginning(beginning: Beginning) -> wire::AppendCall {
    let of = append_call::Of::Beginning(append_call::Beginning {
        session: wide(beginning.session),
        attempt: beginning.attempt,
        seen: beginning.seen.map(mark),
    });
    wire::AppendCall { of: Some(of) }
}

/// An append. Its bytes are shared, not copied.
#[must_use]
pub fn append_call(append: Append) -> wire::AppendCall {
    let batch = append.batch;
    let of = append_call::Of::Append(append_call::Append {
        number: append.number,
        partition: partition(batch.partition),
        records: batch.records,
        base_timestamp_ms: batch.base_timestamp.0,
        max_timestamp_ms: batch.max_timestamp.0,
        producer: batch.producer.map(stamp),
        hash: wide(batch.hash.0),
        expected_end: batch.expected_end.map(|end| end.get()),
        fencing: batch.fencing.map(|token| token.0),
        batch: append.bytes,
    });
    wire::AppendCall { of: Some(of) }
}

/// Reads what a caller sent.
///
/// # Errors
/// [`Fault`].
pub fn read_call(call: wire::AppendCall) -> Result<Call, Fault> {
    match need(call.of, "it asks for nothing")? {
        append_call::Of::Beginning(beginning) => Ok(Call::Beginning(Beginning {
            session: read_wide(&beginning.session)?,
            attempt: beginning.attempt,
            seen: beginning.seen.map(read_mark).transpose()?,
        })),
        append_call::Of::Append(append) => {
            let bytes = u32::try_from(append.batch.len()).map_err(|_| "a batch is too large")?;
            let batch = AppendBatch {
                partition: read_partition(append.partition)?,
                bytes,
                records: append.records,
                base_timestamp: Timestamp(append.base_timestamp_ms),
                max_timestamp: Timestamp(append.max_timestamp_ms),
                producer: append.producer.map(read_stamp).transpose()?,
                hash: ContentHash(read_wide(&append.hash)?),
                expected_end: append.expected_end.map(offset).transpose()?,
                fencing: append.fencing.map(FencingToken),
            };
            Ok(Call::Append(Append {
                number: append.number,
                batch,
                bytes: append.batch,
            }))
        }
    }
}

/// What became of append `number`.
#[must_use]
pub fn append_answer(number: u64, answer: Result<AppendOutcome, HeadError>) -> wire::AppendAnswer {
    let of = match answer {
        Err(error) => Of::Error(head_error(error)),
        Ok(AppendOutcome::Accepted {
            range: at,
            leader_epoch,
        }) => Of::Accepted(append_answer::Accepted {
            range: range(at),
            leader_epoch: leader_epoch.0,
        }),
        Ok(AppendOutcome::Duplicate { range: at }) => Of::Duplicate(wire::OffsetSpan {
            start: at.start().get(),
            end: at.end().get(),
        }),
        Ok(AppendOutcome::Rejected(error)) => Of::Rejected(rejection(&error)),
    };
    wire::AppendAnswer {
        number,
        of: Some(of),
    }
}

/// Reads what became of an append.
///
/// # Errors
/// [`Fault`]: then it is unknown.
pub fn read_append_answer(
    answer: wire::AppendAnswer,
) -> Result<Result<AppendOutcome, HeadError>, Fault> {
    Ok(match need(answer.of, "an append is not answered")? {
        Of::Error(error) => Err(read_head_error(error)?),
        Of::Accepted(accepted) => Ok(AppendOutcome::Accepted {
            range: read_range(accepted.range)?,
            leader_epoch: LeaderEpoch(accepted.leader_epoch),
        }),
        Of::Duplicate(at) => Ok(AppendOutcome::Duplicate {
            range: read_range(Some(at))?,
        }),
        Of::Rejected(error) => Ok(AppendOutcome::Rejected(read_rejection(error)?)),
    })
}

fn rejection(error: &AppendError) -> wire::AppendRejection {
    use append_rejection::Of;
    let nothing = wire::Nothing {};
    let of = match *error {
        AppendError::UnknownPartition => Of::UnknownPartition(nothing),
        AppendError::PartitionEnded => Of::PartitionEnded(nothing),
        AppendError::TooLarge { bytes, limit } => {
            Of::TooLarge(append_rejection::TooLarge { bytes, limit })
        }
        AppendError::RecordCount { records } => Of::RecordCount(records),
        AppendError::SequenceReused => Of::SequenceReused(nothing),
        AppendError::Fenced { current } => Of::Fenced(current.0),
        AppendError::StaleProducerEpoch { current } => Of::StaleProducerEpoch(epoch(current)),
        AppendError::SequenceGap { expected } => Of::SequenceGap(sequence(expected)),
        AppendError::DuplicateExpired => Of::DuplicateExpired(nothing),
        AppendError::ExpectedEnd { actual } => Of::ExpectedEnd(actual.get()),
        AppendError::OffsetsExhausted { end } => Of::OffsetsExhausted(end.get()),
        AppendError::TooManyProducers => Of::TooManyProducers(nothing),
    };
    wire::AppendRejection { of: Some(of) }
}

fn read_rejection(error: wire::AppendRejection) -> Result<AppendError, Fault> {
    use append_rejection::Of;
    Ok(match need(error.of, "a rejection has no kind")? {
        Of::UnknownPartition(_) => AppendError::UnknownPartition,
        Of::PartitionEnded(_) => AppendError::PartitionEnded,
        Of::TooLarge(append_rejection::TooLarge { bytes, limit }) => {
            AppendError::TooLarge { bytes, limit }
        }
        Of::RecordCount(records) => AppendError::RecordCount { records },
        Of::SequenceReused(_) => AppendError::SequenceReused,
        Of::Fenced(current) => AppendError::Fenced {
            current: FencingToken(current),
        },
        Of::StaleProducerEpoch(current) => AppendError::StaleProducerEpoch {
            current: read_epoch(current)?,
        },
        Of::SequenceGap(expected) => AppendError::SequenceGap {
            expected: read_sequence(expected)?,
        },
        Of::DuplicateExpired(_) => AppendError::DuplicateExpired,
        Of::ExpectedEnd(actual) => AppendError::ExpectedEnd {
            actual: offset(actual)?,
        },
        Of::OffsetsExhausted(end) => AppendError::OffsetsExhausted { end: offset(end)? },
        Of::TooManyProducers(_) => AppendError::TooManyProducers,
    })
}
