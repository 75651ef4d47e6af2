//! One request, its answer, and the trait that every layer between them implements.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::Cause;

/// A layer: takes one request, gives its answer. A request whose future is dropped may still take
/// effect; every request is idempotent, because no key is written with two contents.
pub(crate) trait Bucket: Send + Sync + fmt::Debug {
    /// Does `request` once. The answer's variant is that of the request.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>>;
}

/// What we ask of a bucket. Cloning copies no payload.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Put {
        path: String,
        parts: Vec<Bytes>,
    },
    /// `range` is not empty.
    Get {
        path: String,
        range: Range<u64>,
        class: Class,
    },
    Head {
        path: String,
    },
    /// At most `limit` names under `prefix` and after `after`, in ascending order.
    List {
        prefix: String,
        after: Option<String>,
        limit: usize,
    },
    Delete {
        path: String,
    },
}

/// What a bucket answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a put or a delete.
    Done,
    /// To a get.
    Body(Bytes),
    /// To a head.
    Length(u64),
    /// To a list.
    Names(Listing),
}

/// A run of names in ascending order.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Path and length.
    pub(crate) entries: Vec<(String, u64)>,
    /// Whether names follow the last one.
    pub(crate) more: bool,
}

/// The verbs, as errors and counters name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// Writes an object.
    Put,
    /// Reads a range of an object.
    Get,
    /// Asks for an object's length.
    Head,
    /// Lists names.
    List,
    /// Removes an object.
    Delete,
}

/// Who competes with whom for permits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Reads that somebody waits for at the tail.
    Foreground,
    /// Reads of history.
    Background,
    /// Writes.
    Write,
    /// What keeps the bucket: what was written read back, heads, listings, deletes. It stands in no
    /// line with what readers ask for, however many they are.
    Upkeep,
}

impl Request {
    pub(crate) fn verb(&self) -> Verb {
        match self {
            Self::Put { .. } => Verb::Put,
            Self::Get { .. } => Verb::Get,
            Self::Head { .. } => Verb::Head,
            Self::List { .. } => Verb::List,
            Self::Delete { .. } => Verb::Delete,
        }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Put { .. } => Class::Write,
            Self::Get { class, .. } => *class,
            Self::Head { .. } | Self::List { .. } | Self::Delete { .. } => Class::Upkeep,
        }
    }

    /// The path, or the prefix of a listing.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Put { path, .. }
            | Self::Get { path, .. }
            | Self::Head { path }
            | Self::Delete { path } => path,
            Self::List { prefix, .. } => prefix,
        }
    }

    /// Payload bytes that travel either way, as far as they are known beforehand.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self {
            Self::Put { parts, .. } => parts.iter().map(|part| part.len() as u64).sum(),
            Self::Get { range, .. } => range.end.saturating_sub(range.start),
            Self::Head { .. } | Self::List { .. } | Self::Delete { .. } => 0,
        }
    }

    /// Refuses an answer that is not as long as what was asked for, and a listing out of order.
    pub(crate) fn check(&self, answer: Answer) -> Result<Answer, Cause> {
        match (self, &answer) {
            (Self::Get { range, .. }, Answer::Body(body))
                if body.len() as u64 != range.end - range.start =>
            {
                Err(Cause::Short {
                    start: range.start,
                    end: range.end,
                    got: body.len() as u64,
                })
            }
            (Self::List { after, .. }, Answer::Names(listing)) => {
                let names = || listing.entries.iter().map(|(name, _)| name);
                let ascending = names().is_sorted_by(|a, b| a < b)
                    && after.as_ref().is_none_or(|a| names().all(|n| n > a));
                if ascending {
                    Ok(answer)
                } else {
                    Err(Cause::Rejected(
                        "its listing is not in ascending order, which paging needs".into(),
                    ))
                }
            }
            _ => Ok(answer),
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreground => "foreground",
            Self::Background => "background",
            Self::Write => "write",
            Self::Upkeep => "upkeep",
        })
    }
}
