//! Ids. Those that a cluster hands out carry the incarnation that gave them, so that no id is
//! ever given twice, not even by a cluster rebuilt from its bucket.

use std::fmt;

/// One life of a cluster. `recover` begins the next. The first is 1.
///
/// Bounded by [`Incarnation::MAX`], because a [`ProducerId`] carries it in the upper 23 bits of a
/// non-negative 64-bit integer (Kafka's wire type).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u32);

impl Incarnation {
    /// The incarnation that `init` claims on an empty bucket.
    pub const FIRST: Self = Self(1);
    /// The last one there can be: 2^23 − 1.
    pub const MAX: Self = Self((1 << 23) - 1);

    /// An incarnation from its number; `None` for 0 and above [`Incarnation::MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Its number, in `1..=MAX`.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next life; `None` after [`Incarnation::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// Defines an id made of an incarnation (upper bits) and a sequence within it (lower bits).
macro_rules! id_of_incarnation {
    ($(#[$doc:meta])* $name:ident, $sequence_bits:expr, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            const SEQUENCE_BITS: u32 = $sequence_bits;
            /// The largest sequence within one incarnation.
            pub const SEQUENCE_MAX: u64 = (1 << Self::SEQUENCE_BITS) - 1;

            /// The id of `sequence` in `incarnation`; `None` above `SEQUENCE_MAX`.
            #[must_use]
            pub const fn new(incarnation: Incarnation, sequence: u64) -> Option<Self> {
                if sequence > Self::SEQUENCE_MAX {
                    return None;
                }
                Some(Self(((incarnation.get() as u64) << Self::SEQUENCE_BITS) | sequence))
            }

            /// An id from its stored form; `None` if it carries no valid incarnation.
            #[must_use]
            pub const fn from_u64(raw: u64) -> Option<Self> {
                let incarnation = raw >> Self::SEQUENCE_BITS;
                if incarnation == 0 || incarnation > Incarnation::MAX.get() as u64 {
                    return None;
                }
                Some(Self(raw))
            }

            /// The stored form.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The life of the cluster that gave this id.
            #[must_use]
            pub const fn incarnation(self) -> Incarnation {
                // In range by construction.
                Incarnation(((self.0 >> Self::SEQUENCE_BITS) & (Incarnation::MAX.0 as u64)) as u32)
            }

            /// The number within its incarnation.
            #[must_use]
            pub const fn sequence(self) -> u64 {
                self.0 & Self::SEQUENCE_MAX
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}.{}"), self.incarnation(), self.sequence())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id_of_incarnation! {
    /// A topic, for ever: a topic deleted and created again under the same name has another id.
    TopicId, 32, "t"
}
id_of_incarnation! {
    /// A WAL node, for ever: a node that lost its disk returns under a new id.
    NodeId, 32, "n"
}
id_of_incarnation! {
    /// An idempotent producer. Never negative as an `i64`, which is Kafka's wire type.
    ProducerId, 40, "p"
}

impl TopicId {
    /// The id that a listing goes on behind, for this topic to come first; `None` for the beginning.
    #[must_use]
    pub const fn before(self) -> Option<Self> {
        match self.sequence().checked_sub(1) {
            Some(sequence) => Self::new(self.incarnation(), sequence),
            None => None,
        }
    }
}

/// Number of a partition within its topic, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub u32);

/// Version of a topic's settings and partitions. Counts per topic, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicVersion(pub u64);

impl TopicVersion {
    /// The version a topic is created with.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A partition: one ordered log of records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic it belongs to.
    pub topic: TopicId,
    /// Its number in the topic.
    pub index: PartitionIndex,
}

/// A raft group. Shard 0 is the catalog; shards `1..` carry data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The shard of topics, configuration, placement and principals.
    pub const CATALOG: Self = Self(0);

    /// Whether this shard carries the heads of partitions.
    #[must_use]
    pub const fn carries_data(self) -> bool {
        self.0 != Self::CATALOG.0
    }
}

/// An object in the bucket, for ever. A ULID: 48 bits of milliseconds, 80 bits of entropy, so
/// that ids made later sort later, and no two flushers ever make the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u128);

/// One cluster, for ever: drawn at random when it claims its bucket or is rebuilt from one.
/// Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// Parses the 32 digits that `Display` writes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 32 || !text.bytes().all(canonical) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Crockford's base 32, the alphabet of ULIDs (<https://github.com/ulid/spec>).
const ULID_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a ULID: 128 bits at 5 bits each, rounded up.
const ULID_CHARS: usize = 26;

impl SegmentId {
    /// An id from the wall clock and 80 bits of entropy (`entropy` beyond that is cut).
    #[must_use]
    pub const fn from_parts(wall_ms: u64, entropy: u128) -> Self {
        let time = (wall_ms & ((1 << 48) - 1)) as u128;
        Self((time << 80) | (entropy & ((1 << 80) - 1)))
    }

    /// Parses the 26 characters that `Display` writes; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != ULID_CHARS {
            return None;
        }
        let mut value: u128 = 0;
        for (at, &byte) in text.iter().enumerate() {
            let digit = ULID_ALPHABET.iter().position(|&c| c == byte)?;
            // 26 × 5 = 130 bits: the first character may use only three of its five.
            if at == 0 && digit > 7 {
                return None;
            }
            value = (value << 5) | digit as u128;
        }
        Some(Self(value))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ULID_CHARS];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = ULID_ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

/// `Display` as written, `Debug` the same: ids are read by people in logs and test transcripts.
macro_rules! display_as {
    ($($name:ident => $format:literal),+ $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}

display_as!(
    Incarnation => "{}",
    PartitionIndex => "{}",
    ShardId => "s{}",
    TopicVersion => "v{}",
);

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_keeps_its_incarnation_and_sequence() {
        let id = TopicId::new(Incarnation::new(7).unwrap(), 42).unwrap();
        assert_eq!((id.incarnation().get(), id.sequence()), (7, 42));
        assert_eq!(TopicId::from_u64(id.as_u64()), Some(id));
        assert_eq!(id.to_string(), "t7.42");
        assert_eq!(id.before(), TopicId::new(Incarnation::new(7).unwrap(), 41));
        let first = TopicId::new(Incarnation::FIRST, 0).unwrap();
        assert_eq!(first.before(), None);
    }

    #[test]
    fn ids_without_an_incarnation_are_refused() {
        assert_eq!(TopicId::from_u64(42), None);
        assert_eq!(ProducerId::from_u64(u64::MAX), None);
        assert_eq!(Incarnation::new(0), None);
        assert_eq!(Incarnation::MAX.next(), None);
    }

    #[test]
    fn the_largest_producer_id_is_not_negative_on_the_kafka_wire() {
        let id = ProducerId::new(Incarnation::MAX, ProducerId::SEQUENCE_MAX).unwrap();
        assert_eq!(i64::try_from(id.as_u64()), Ok(i64::MAX));
        assert_eq!(
            ProducerId::new(Incarnation::MAX, ProducerId::SEQUENCE_MAX + 1),
            None
        );
    }

    #[test]
    fn segment_ids_sort_by_time_and_survive_their_text() {
        let early = SegmentId::from_parts(1_000, u128::MAX);
        let late = SegmentId::from_parts(1_001, 0);
        assert!(early < late && early.to_string() < late.to_string());
        for id in [early, late, SegmentId(0), SegmentId(u128::MAX)] {
            assert_eq!(SegmentId::parse(&id.to_string()), Some(id));
        }
        assert_eq!(
            SegmentId::parse("8ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
            None,
            "131st bit"
        );
        assert_eq!(SegmentId::parse("short"), None);
    }

    #[test]
    fn a_cluster_id_has_one_text() {
        let id = ClusterId(0xab);
        let text = id.to_string();
        assert_eq!(ClusterId::parse(&text), Some(id));
        assert_eq!(ClusterId::parse(&text.to_uppercase()), None);
        assert_eq!(ClusterId::parse(&format!("+{}", &text[1..])), None);
    }
}
