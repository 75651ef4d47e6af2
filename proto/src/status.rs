//! How an error travels: in a stream's reply as it is, with a unary call as a gRPC status whose
//! details hold it, so that any gRPC client sees the code and the text and ours sees the rest.

use std::error::Error as _;

use bytes::Bytes;
use esker_types::Durability;
use prost::Message;
use tonic::Status;

use crate::v1::{self, Code, Error};

/// Type of the one detail of a status, as `google.protobuf.Any` names it.
pub const DETAIL_TYPE: &str = "type.googleapis.com/esker.v1.Error";

/// Bytes of a message in a status, which travels twice in the trailers: they must stay below the
/// 16 KiB that peers take. A longer one is cut.
pub const STATUS_MESSAGE_BYTES_MAX: usize = 2048;

/// `google.rpc.Status`, which `grpc-status-details-bin` holds.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl Error {
    /// An error without limit, value and detail; retriable if its code is.
    #[must_use]
    pub fn new(code: Code, durability: Durability, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            durability: v1::Durability::from(durability).into(),
            message: message.into(),
            retriable: code.is_retriable(),
            limit: None,
            value: None,
            detail: None,
        }
    }

    /// The same, which met `limit` with `value`.
    #[must_use]
    pub fn with_limit(self, limit: u64, value: u64) -> Self {
        Self {
            limit: Some(limit),
            value: Some(value),
            ..self
        }
    }

    /// The same, with a detail.
    #[must_use]
    pub fn with_detail(self, detail: v1::error::Detail) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }
}

impl Code {
    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub const fn is_retriable(self) -> bool {
        matches!(
            self,
            Self::HeadFull
                | Self::DiskFull
                | Self::Overloaded
                | Self::Unavailable
                | Self::OutcomeUnknown
                | Self::BucketUnavailable
        )
    }

    /// The code that a gRPC client without our details goes by.
    #[must_use]
    pub const fn to_grpc(self) -> tonic::Code {
        match self {
            Self::InvalidRequest
            | Self::BatchTooLarge
            | Self::MalformedBatch
            // Not DATA_LOSS: nothing was stored.
            | Self::BatchChecksum
            | Self::SequenceReused => tonic::Code::InvalidArgument,
            Self::UnknownTopic | Self::UnknownPartition => tonic::Code::NotFound,
            Self::TopicExists => tonic::Code::AlreadyExists,
            Self::OffsetOutOfRange => tonic::Code::OutOfRange,
            // Read again, then ask again.
            Self::VersionConflict => tonic::Code::Aborted,
            Self::ExpectedEnd
            | Self::Fenced
            | Self::StaleProducerEpoch
            | Self::SequenceGap
            | Self::DuplicateExpired
            | Self::OtherIncarnation => tonic::Code::FailedPrecondition,
            Self::MessageTooLarge
            | Self::LimitReached
            | Self::HeadFull
            | Self::DiskFull
            | Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::Unavailable | Self::BucketUnavailable => tonic::Code::Unavailable,
            // No client retries this by itself, which is right: it may be done.
            Self::OutcomeUnknown | Self::Unspecified => tonic::Code::Unknown,
            Self::DataLoss => tonic::Code::DataLoss,
            Self::Internal => tonic::Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code().to_grpc();
        error.into_status(code)
    }
}

impl Error {
    /// The error as a status of `code`, where gRPC has a code of its own for what happened.
    #[must_use]
    pub fn into_status(mut self, code: tonic::Code) -> Status {
        cut(&mut self.message);
        let message = self.message.clone();
        let details = RpcStatus {
            code: code.into(),
            message: message.clone(),
            details: vec![Any {
                type_url: DETAIL_TYPE.to_owned(),
                value: self.encode_to_vec().into(),
            }],
        };
        Status::with_details(code, message, details.encode_to_vec().into())
    }
}

/// Shortens `message` to what a status may carry.
fn cut(message: &mut String) {
    if message.len() > STATUS_MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(STATUS_MESSAGE_BYTES_MAX));
    }
}

impl From<&Status> for Error {
    /// What the status tells: the error in its details, else what its code stands for.
    fn from(status: &Status) -> Self {
        let told = RpcStatus::decode(status.details()).ok();
        let ours = told
            .into_iter()
            .flat_map(|told| told.details)
            .find(|any| any.type_url == DETAIL_TYPE)
            .and_then(|any| Self::decode(any.value).ok());
        ours.unwrap_or_else(|| foreign(status))
    }
}

/// A status that no service of ours made: a proxy did, or the gRPC library on either side.
fn foreign(status: &Status) -> Error {
    use tonic::Code as Grpc;
    let (code, durability) = match status.code() {
        Grpc::Unavailable => (Code::Unavailable, Durability::Unknown),
        Grpc::ResourceExhausted => (Code::Overloaded, Durability::Unknown),
        // What tonic says of a message above its limit, whichever side it was on.
        Grpc::OutOfRange => (Code::MessageTooLarge, Durability::Unknown),
        // No service said it: the connection broke, and HTTP/2 has `INTERNAL_ERROR`, `INADEQUATE_SECURITY` and their
        // like for that.
        Grpc::Internal
        | Grpc::InvalidArgument
        | Grpc::NotFound
        | Grpc::PermissionDenied
        | Grpc::Unauthenticated
        | Grpc::Unimplemented
            if status.source().is_some() =>
        {
            (Code::Unavailable, Durability::Unknown)
        }
        // Refused before any handler saw it.
        Grpc::InvalidArgument
        | Grpc::NotFound
        | Grpc::PermissionDenied
        | Grpc::Unauthenticated
        | Grpc::Unimplemented => (Code::InvalidRequest, Durability::NotWritten),
        Grpc::DataLoss => (Code::DataLoss, Durability::Unknown),
        Grpc::Internal => (Code::Internal, Durability::Unknown),
        Grpc::Ok
        | Grpc::Cancelled
        | Grpc::Unknown
        | Grpc::DeadlineExceeded
        | Grpc::AlreadyExists
        | Grpc::FailedPrecondition
        | Grpc::Aborted => (Code::OutcomeUnknown, Durability::Unknown),
    };
    let text = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    Error::new(code, durability, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code that is not 0.
    fn codes() -> Vec<Code> {
        (1..100).filter_map(|n| Code::try_from(n).ok()).collect()
    }

    #[test]
    fn an_error_survives_a_status() {
        assert_eq!(codes().len(), 26);
        for code in codes() {
            let error = Error::new(code, Durability::NotWritten, "topic `a` is missing")
                .with_limit(3, 4)
                .with_detail(v1::error::Detail::OutOfRange(v1::OffsetOutOfRange {
                    log_start: 5,
                    end: 9,
                }));
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code.to_grpc());
            assert_eq!(status.message(), error.message);
            assert_eq!(Error::from(&status), error);
        }
    }

    #[test]
    fn codes_are_retriable_by_their_group() {
        for code in codes() {
            let in_group = (40..60).contains(&i32::from(code));
            assert_eq!(code.is_retriable(), in_group, "{code:?}");
        }
    }

    #[test]
    fn only_damage_of_ours_is_data_loss() {
        let lossy: Vec<_> = codes()
            .into_iter()
            .filter(|code| code.to_grpc() == tonic::Code::DataLoss)
            .collect();
        assert_eq!(lossy, [Code::DataLoss]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "é".repeat(STATUS_MESSAGE_BYTES_MAX);
        let status = Status::from(Error::new(Code::Internal, Durability::Unknown, long));
        assert_eq!(status.message().len(), STATUS_MESSAGE_BYTES_MAX);
        let trailers = status.details().len() * 4 / 3 + status.message().len() * 3;
        assert!(trailers < 16 << 10, "{trailers}");
    }

    #[test]
    fn a_foreign_status_is_never_durable_and_keeps_its_text() {
        let gone = Error::from(&Status::unavailable("connection closed"));
        assert_eq!(gone.code(), Code::Unavailable);
        assert!(gone.retriable && gone.message == "connection closed");
        for code in 0..17 {
            let status = Status::new(tonic::Code::from(code), "");
            let error = Error::from(&status);
            assert_ne!(error.durability(), v1::Durability::Durable);
            assert!(!error.message.is_empty());
        }
        let refused = Error::from(&Status::permission_denied("no"));
        assert_eq!(refused.durability(), v1::Durability::NotWritten);
        assert!(!refused.retriable);
    }

    #[test]
    fn a_connection_that_breaks_is_no_fault_of_the_service() {
        let told = Error::from(&Status::internal("it failed"));
        assert_eq!(told.code(), Code::Internal);
        for code in 1..17 {
            let mut broken = Status::new(tonic::Code::from(code), "h2 protocol error");
            broken.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
            let error = Error::from(&broken);
            assert_ne!(error.code(), Code::Internal, "{code}");
            assert_ne!(error.code(), Code::InvalidRequest, "{code}");
            assert_eq!(error.durability(), v1::Durability::Unknown, "{code}");
        }
    }

    #[test]
    fn details_of_another_kind_are_passed_over() {
        let details = RpcStatus {
            code: 14,
            message: String::new(),
            details: vec![Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: Bytes::from_static(&[1, 2, 3]),
            }],
        };
        for bytes in [details.encode_to_vec(), vec![0xff; 40]] {
            let status = Status::with_details(tonic::Code::Unavailable, "away", bytes.into());
            assert_eq!(Error::from(&status).code(), Code::Unavailable);
        }
    }
}
