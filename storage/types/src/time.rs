//! Two times that must not be mixed: what a record says, and what a shard counts.

use std::fmt;
use std::time::Duration;

/// A record's timestamp: milliseconds since the Unix epoch, as its producer says. May lie in the
/// past or the future; lookup by time goes by it, retention never does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A shard's time: milliseconds since the Unix epoch as its leaders stamped them into entries.
/// Never goes back. Retention and expiry go by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardTime(pub u64);

impl ShardTime {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// This time plus `span`, held at the maximum.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl fmt::Display for ShardTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
impl fmt::Debug for ShardTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_time_neither_wraps_nor_goes_negative() {
        assert_eq!(
            ShardTime(u64::MAX).after(Duration::MAX),
            ShardTime(u64::MAX)
        );
        assert_eq!(ShardTime(5).since(ShardTime(9)), Duration::ZERO);
        assert_eq!(ShardTime(9).since(ShardTime(5)), Duration::from_millis(4));
    }
}
