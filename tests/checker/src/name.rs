//! Names and numbers of a history. They are the checker's own: a driver translates into them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One call of a client, from its invocation to its answer. Rises in order of invocation.
    OpId
}
number! {
    /// Nanoseconds on the driver's one monotonic clock.
    Nanos
}
number! {
    /// One client as the user sees it: what it has seen, it does not unsee.
    Session
}
number! {
    /// One log: a topic partition.
    Stream
}
number! {
    /// One writer of one or more logs.
    Producer
}
number! {
    /// The n-th batch of a producer in a log. A retry repeats it, nothing else does.
    Sequence
}
number! {
    /// Position of a record in its log.
    Offset
}
number! {
    /// Fencing token of an append.
    Token
}

impl Nanos {
    /// Later than every time: an answer that never came.
    pub const NEVER: Self = Self(u64::MAX);
}

impl Offset {
    /// The first position of a log.
    pub const ZERO: Self = Self(0);

    /// The position `count` further on; the largest one where numbers end, which no log reaches.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// A word that a driver chose, such as `agent-2` or `bucket`. Only compared, never understood.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(Arc<str>);

impl Label {
    /// The label `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a read was served from: which agent, and which tier or state of it (head, bucket, cold
/// cache, after restart).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The process that answered.
    pub agent: Label,
    /// The tier it answered from.
    pub tier: Label,
}

impl View {
    /// The view of `agent` on `tier`.
    #[must_use]
    pub fn new(agent: &str, tier: &str) -> Self {
        Self {
            agent: Label::new(agent),
            tier: Label::new(tier),
        }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.agent, self.tier)
    }
}
