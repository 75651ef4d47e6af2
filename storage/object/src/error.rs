//! What failed, on which key, after how many attempts, and what the caller should do.

use std::sync::Arc;
use std::time::Duration;

use esker_types::Action;

use crate::request::{Class, Verb};

/// Characters kept of what a store or a library said.
const REASON_CHARS_MAX: usize = 400;

/// An error of this crate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A request failed for good, or its budget of attempts and time is spent. A write that
    /// failed as [`Kind::Unavailable`] may have taken effect, or may yet: its key is never
    /// reused, so doing it again is safe.
    #[error("{verb} `{key}` failed{}: {cause}", after(*attempts))]
    Request {
        /// What was asked.
        verb: Verb,
        /// Of which key, or under which prefix.
        key: String,
        /// How many times it was asked; 0 if it was refused before that.
        attempts: u32,
        /// Why the last attempt failed.
        cause: Cause,
    },
    /// More bytes than one request may carry; nothing was sent.
    #[error("{verb} `{key}` of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What was asked.
        verb: Verb,
        /// Of which key.
        key: String,
        /// Bytes asked for.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// More objects than there ever are of their kind.
    #[error(
        "under `{prefix}` are more than {limit} objects; see what they are, and remove what is not needed"
    )]
    TooMany {
        /// Under which prefix.
        prefix: String,
        /// How many were listed.
        limit: usize,
    },
    /// A range that ends before it starts; nothing was sent.
    #[error("get `{key}` of the range {start}..{end}, which ends before it starts")]
    BackwardRange {
        /// Of which key.
        key: String,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// The URL or a setting is wrong.
    #[error("cannot open the object store `{url}`: {reason}")]
    Open {
        /// As given, without credentials.
        url: String,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The store does not do what we rely on.
    #[error("the object store failed the start-up probe at `{step}`: {reason}")]
    Probe {
        /// The step that failed.
        step: &'static str,
        /// How.
        reason: String,
        /// What to do about it.
        kind: Kind,
    },
}

/// Why one attempt failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// No such object.
    #[error("no such object")]
    NotFound,
    /// The credentials do not allow it.
    #[error("the store denied it: {0}")]
    Denied(String),
    /// The store will never do this.
    #[error("the store rejected it: {0}")]
    Rejected(String),
    /// The store could not be reached or could not serve. A write may have taken effect.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// No answer in time. A write may have taken effect, or may yet.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Fewer (or more) bytes than the range has.
    #[error("the range {start}..{end} was answered with {got} bytes")]
    Short {
        /// Start of the range.
        start: u64,
        /// End of the range.
        end: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The range leaves the object, which is shorter than its writer said.
    #[error("the range {start}..{end} leaves the object, which has {length} bytes")]
    Truncated {
        /// Start of the range.
        start: u64,
        /// End of the range.
        end: u64,
        /// Bytes of the object.
        length: u64,
    },
    /// Not asked: the store failed so often that we gave it a pause.
    #[error("not asked, the circuit is open after {failures} failures in a row; the last: {last}")]
    CircuitOpen {
        /// Failures in a row.
        failures: u32,
        /// Why the last of them failed.
        last: Arc<Self>,
    },
    /// Not asked: too many requests of this class are waiting.
    #[error("not asked, {limit} {class} requests are waiting already, which is the limit")]
    Overloaded {
        /// Which class.
        class: Class,
        /// How many may wait.
        limit: usize,
    },
}

/// What the caller should do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// There is no such object.
    NotFound,
    /// The credentials or the bucket's policy must be changed.
    Denied,
    /// The request or the configuration must be changed.
    Invalid,
    /// Try again later. A write may have taken effect.
    Unavailable,
    /// Too much at once: try again later. Nothing was done.
    Overloaded,
    /// The object is not what its writer wrote.
    Corrupt,
}

impl Error {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request { cause, .. } => cause.kind(),
            Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::BackwardRange { .. }
            | Self::Open { .. } => Kind::Invalid,
            Self::Probe { kind, .. } => *kind,
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self.kind(), Kind::Unavailable | Kind::Overloaded)
    }

    /// The same in the vocabulary that all crates share. An object that is not there is for the
    /// caller to judge: only it knows whether the object should be.
    #[must_use]
    pub fn action(&self) -> Action {
        match self.kind() {
            Kind::NotFound | Kind::Denied | Kind::Invalid => Action::Invalid,
            Kind::Unavailable => Action::Unavailable,
            Kind::Overloaded => Action::Retry,
            Kind::Corrupt => Action::Corrupt,
        }
    }

    pub(crate) fn open(url: &str, reason: impl Into<String>) -> Self {
        Self::Open {
            url: url.to_owned(),
            reason: cut(&reason.into()),
        }
    }
}

impl Cause {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::Denied(_) => Kind::Denied,
            Self::Rejected(_) => Kind::Invalid,
            Self::Unavailable(_)
            | Self::TimedOut(_)
            | Self::Short { .. }
            | Self::CircuitOpen { .. } => Kind::Unavailable,
            Self::Truncated { .. } => Kind::Corrupt,
            Self::Overloaded { .. } => Kind::Overloaded,
        }
    }

    /// Whether another attempt within the same call makes sense. An open circuit and an overload
    /// are answered at once: waiting in line for them is what they exist to prevent.
    pub(crate) fn is_worth_another_attempt(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Short { .. }
        )
    }

    /// Whether the store was asked at all.
    pub(crate) const fn was_asked(&self) -> bool {
        !matches!(self, Self::CircuitOpen { .. } | Self::Overloaded { .. })
    }

    pub(crate) fn unavailable(reason: &dyn std::fmt::Display) -> Self {
        Self::Unavailable(cut(&reason.to_string()))
    }
}

/// The first characters of `text`, on one line: a store's answer may be a page of HTML.
pub(crate) fn cut(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(REASON_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(REASON_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

fn after(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => " after 1 attempt".to_owned(),
        _ => format!(" after {attempts} attempts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_verb_key_attempts_and_cause() {
        for (attempts, after) in [(0, ""), (1, " after 1 attempt"), (3, " after 3 attempts")] {
            let error = Error::Request {
                verb: Verb::Put,
                key: "a/b".into(),
                attempts,
                cause: Cause::Unavailable("503".into()),
            };
            let told = format!("put `a/b` failed{after}: the store is unavailable: 503");
            assert_eq!(error.to_string(), told);
            assert!(error.is_retriable());
        }
    }

    #[test]
    fn a_long_answer_is_cut_to_one_line() {
        let text = cut(&"a\n".repeat(10_000));
        assert_eq!(text.chars().count(), REASON_CHARS_MAX + 1);
        assert!(!text.contains('\n'));
    }
}
