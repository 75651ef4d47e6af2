//! The level: which behaviour and which encoding a shard follows.

use std::fmt;
use std::time::Duration;

use esker_types::limits;

/// Version of a shard's behaviour and encoding. It is part of the state and raised by command
/// once every replica knows it, so that replicas of different builds never decide differently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub(crate) u16);

impl Level {
    /// Where every shard of this build begins.
    pub const FIRST: Self = Self(1);
    /// The highest this build can follow.
    pub const NEWEST: Self = Self(1);

    /// A level from its number; `None` if this build does not know it.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::FIRST.0 || number > Self::NEWEST.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Its number, from 1.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

// Apply decides by these numbers, so level 1 froze them: two builds that disagree about one would
// give two replicas two states. To change one, add a level and choose by it.
const _: () = assert!(limits::PRODUCER_WINDOW == 5);
const _: () = assert!(limits::PRODUCERS_PER_PARTITION_MAX == 4096);
const _: () = assert!(limits::PRODUCER_EXPIRY.as_secs() == Duration::from_hours(24).as_secs());
const _: () = assert!(limits::PRODUCER_ID_BLOCK == 1000);
const _: () = assert!(limits::BATCH_DECODED_BYTES_MAX == 64 * limits::MIB);
const _: () = assert!(limits::RECORD_BYTES_MIN == 7);
const _: () = assert!(limits::LEADER_EPOCHS_PER_PARTITION_MAX == 64);
const _: () = assert!(limits::SEGMENT_RANGES_MAX == 131_072);
const _: () = assert!(limits::MIXED_SEGMENTS_MAX == 1_048_576);
const _: () = assert!(limits::PARTITIONS_PER_TOPIC_MAX == 100_000);
const _: () = assert!(limits::TOPICS_MAX == 100_000);
const _: () = assert!(limits::PARTITIONS_MAX == 1_000_000);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
