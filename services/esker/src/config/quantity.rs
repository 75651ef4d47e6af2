//! Sizes and times as people write them.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A number of bytes: `67108864`, or `64MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Size(pub(crate) u64);

/// A length of time: `10s`, `250ms`, `2h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Span(pub(crate) Duration);

const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

const SPANS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Size {
    /// Reads `text`; `None` if it is no size.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(bytes) => Some(Self(bytes)),
            Err(_) => scaled(text, &SIZES).map(Self),
        }
    }
}

impl Span {
    /// Reads `text`; `None` if it is no length of time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        scaled(text, &SPANS).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZES[..4].iter().rev();
        let mut whole = whole.filter(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match whole.next() {
            Some((name, unit)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let mut whole = SPANS.iter().rev();
        let whole = whole.find(|(_, unit)| ms > 0 && ms.is_multiple_of(u128::from(*unit)));
        let (name, unit) = whole.unwrap_or(&("ms", 1));
        write!(f, "{} {name}", ms / u128::from(*unit))
    }
}

/// A whole number and a unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = units.iter().find_map(|(name, unit)| {
        let number: u64 = text.strip_suffix(name)?.trim_end().parse().ok()?;
        Some((number, unit))
    })?;
    number.checked_mul(*unit)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, such as 67108864 or \"64MiB\"")
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
                let size = u64::try_from(bytes).map(Size);
                size.map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = "a time, such as \"10s\" or \"250ms\"";
        Self::parse(&text).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_written() {
        for (text, bytes) in [("7", 7), ("7B", 7), ("2KiB", 2048), ("3 MB", 3_000_000)] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "20000000000TiB", "7 bytes"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("2h", 7_200_000)] {
            let span = Span(Duration::from_millis(ms));
            assert_eq!(Span::parse(text), Some(span), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1 fortnight"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_told_as_they_are_written() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (7, "7 bytes"),
            (2048, "2 KiB"),
            (4 << 20, "4 MiB"),
            ((4 << 20) - 1, "4194303 bytes"),
            (3 << 30, "3 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for (ms, text) in [
            (0, "0 ms"),
            (250, "250 ms"),
            (999, "999 ms"),
            (61_000, "61 s"),
            (3_600_000, "1 h"),
            (25 * 3_600_000, "25 h"),
            (86_400_000, "1 d"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
