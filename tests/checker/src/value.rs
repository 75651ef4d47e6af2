//! Values that are unique by construction, known by their hash.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_64;

use crate::name::{Producer, Stream};

/// XXH3-64 of a record as the driver sees it; 16 hex digits in a file, since a JSON number does not
/// hold 64 bits everywhere.
///
/// Ten million values collide with a probability below 10⁻⁵, and a collision is refused when it is
/// recorded ([`crate::Error::ValueReused`]), so it cannot hide a fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueHash(pub u64);

impl ValueHash {
    /// The hash of `bytes`. A driver that wants key, headers and timestamp compared as well
    /// includes them.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_64(bytes))
    }
}

impl fmt::Display for ValueHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for ValueHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ValueHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Hex;
        impl de::Visitor<'_> for Hex {
            type Value = ValueHash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 hex digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ValueHash, E> {
                // `from_str_radix` alone would take a sign.
                let hex = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
                let parsed = u64::from_str_radix(text, 16).ok().filter(|_| hex);
                parsed
                    .map(ValueHash)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_str(Hex)
    }
}

/// The values of one producer in one log: numbered, never given twice, made again from the number
/// alone, so that no payload need be kept.
#[derive(Clone, Debug)]
pub struct Values {
    stream: Stream,
    producer: Producer,
    next: u64,
}

impl Values {
    /// Values from number 0 on.
    #[must_use]
    pub const fn new(stream: Stream, producer: Producer) -> Self {
        Self {
            stream,
            producer,
            next: 0,
        }
    }

    /// The next value, of `bytes` bytes or as many as its name takes (up to 63).
    pub fn next(&mut self, bytes: usize) -> Vec<u8> {
        let payload = self.payload(self.next, bytes);
        self.next += 1;
        payload
    }

    /// Value number `n`: its name, a space, then bytes that no codec shrinks much and that differ
    /// between values, so that a splice of two is neither.
    #[must_use]
    pub fn payload(&self, n: u64, bytes: usize) -> Vec<u8> {
        let mut payload = format!("{}/{}/{n} ", self.stream, self.producer).into_bytes();
        let mut state = xxh3_64(&payload);
        while payload.len() < bytes {
            state = xxh3_64(&state.to_le_bytes());
            let missing = bytes - payload.len();
            payload.extend(state.to_le_bytes().iter().take(missing));
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unique_by_stream_producer_and_number_and_made_again_alike() {
        let mut seen = std::collections::BTreeSet::new();
        for stream in 0..3 {
            for producer in 0..3 {
                let mut values = Values::new(Stream(stream), Producer(producer));
                for n in 0..100 {
                    let payload = values.next(40);
                    assert_eq!(payload.len(), 40);
                    assert_eq!(payload, values.payload(n, 40));
                    assert!(seen.insert(ValueHash::of(&payload)));
                }
            }
        }
    }

    #[test]
    fn the_hash_of_a_value_is_stable_between_versions() {
        let values = Values::new(Stream(1), Producer(2));
        let hash = ValueHash::of(&values.payload(3, 100));
        assert_eq!(hash.to_string(), GOLDEN);
    }

    const GOLDEN: &str = "e53d7551879888cb";
}
