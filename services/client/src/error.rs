//! What a call came to, if not to what was asked for.

use std::fmt;

use esker_proto::{FieldError, v1};
use esker_types::Durability;
use tonic::Status;

pub use esker_proto::v1::Code;
pub use esker_proto::v1::error::Detail;

/// An error: of the service, as it was sent, or of this client, in the same words.
#[derive(Clone, PartialEq)]
pub struct Error(Box<v1::Error>);

impl Error {
    /// An error that this client found.
    pub(crate) fn new(code: Code, durability: Durability, message: impl Into<String>) -> Self {
        Self(Box::new(v1::Error::new(code, durability, message)))
    }

    /// Nothing was sent, because what was asked for is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, Durability::NotWritten, message)
    }

    /// A reply that no service of this version gives.
    pub(crate) fn odd_reply(message: impl fmt::Display) -> Self {
        let text = format!("the service's reply makes no sense: {message}");
        Self::new(Code::Internal, Durability::Unknown, text)
    }

    /// The same, with the durability that this client knows better, and what led to it.
    pub(crate) fn with_durability(mut self, durability: Durability) -> Self {
        self.0.durability = v1::Durability::from(durability).into();
        self
    }

    /// The same of a call that changes nothing: that is known, whatever became of it.
    pub(crate) fn of_a_read(self) -> Self {
        let code = match self.code() {
            Code::OutcomeUnknown | Code::Unavailable => Code::Unavailable,
            Code::Internal | Code::Overloaded => self.code(),
            _ => return self,
        };
        if self.durability() != Durability::Unknown {
            return self;
        }
        let text = format!(
            "{}; nothing was changed, it can be tried again",
            self.message()
        );
        Self::new(code, Durability::NotWritten, text)
    }

    pub(crate) fn with_limit(self, limit: usize, value: usize) -> Self {
        let number = |n| u64::try_from(n).unwrap_or(u64::MAX);
        Self(Box::new(self.0.with_limit(number(limit), number(value))))
    }

    /// What kind of error.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// Whether what was asked for has been written.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.0.durability().into()
    }

    /// For a person: names the thing, the limit, the value, and what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later, unchanged. It may then be done twice, unless
    /// [`Error::durability`] is [`Durability::NotWritten`] or the call recognises its like.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.0.retriable
    }

    /// The limit that was met and the value that met it, in the unit that the message names.
    #[must_use]
    pub fn limit_and_value(&self) -> Option<(u64, u64)> {
        self.0.limit.zip(self.0.value)
    }

    /// What else a program may want to know.
    #[must_use]
    pub fn detail(&self) -> Option<&Detail> {
        self.0.detail.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code().as_str_name();
        write!(f, "{} ({code}; {})", self.message(), self.durability())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<v1::Error> for Error {
    fn from(error: v1::Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self(Box::new(v1::Error::from(&status)))
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::odd_reply(error)
    }
}
