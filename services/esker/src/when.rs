//! Times and offsets as people write them.

use std::str::FromStr;
use std::time::Duration;

use esker_client::{Offset, Timestamp};
use esker_env::WallMs;

use crate::config::Span;

/// Bytes of a date: `2026-11-21`.
const DATE_BYTES: usize = 10;

/// A place in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The first record kept.
    Earliest,
    /// Behind the last record.
    End,
    /// An offset.
    Offset(Offset),
    /// The first record of this time or later.
    Time(When),
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// This one.
    At(Timestamp),
    /// As long before now.
    Ago(Duration),
}

impl When {
    /// The time it is, if it is `now`.
    pub(crate) fn resolve(self, now: WallMs) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => {
                let ago = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                let now = i64::try_from(now.0).unwrap_or(i64::MAX);
                Timestamp(now.saturating_sub(ago))
            }
        }
    }
}

impl FromStr for When {
    type Err = String;

    /// RFC 3339, a date (its first moment, in UTC), `@milliseconds` since 1970, or a span before now
    /// such as `-2h`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no time; write 2026-11-21T15:00:00Z, 2026-11-21 (its first moment, in \
                 UTC), @1795273200000 (ms) or -2h"
            )
        };
        if let Some(ms) = text.strip_prefix('@') {
            return match ms.parse() {
                Ok(ms) => Ok(Self::At(Timestamp(ms))),
                Err(_) => Err(wrong()),
            };
        }
        if let Some(ago) = text.strip_prefix('-') {
            return Span::parse(ago)
                .map(|Span(ago)| Self::Ago(ago))
                .ok_or_else(wrong);
        }
        if text.len() == DATE_BYTES {
            let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
            let day = date
                .to_zoned(jiff::tz::TimeZone::UTC)
                .map_err(|_| wrong())?;
            return Ok(Self::At(Timestamp(day.timestamp().as_millisecond())));
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            let in_utc = format!("{text}Z");
            match in_utc.parse::<jiff::Timestamp>() {
                Ok(_) => format!("`{text}` has no zone: write {in_utc} if it is UTC"),
                Err(_) => wrong(),
            }
        })?;
        Ok(Self::At(Timestamp(time.as_millisecond())))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "end" => Ok(Self::End),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() => {
                let offset = digits.parse().ok().and_then(Offset::new);
                let offset =
                    offset.ok_or_else(|| format!("an offset is at most {}", Offset::MAX))?;
                Ok(Self::Offset(offset))
            }
            _ => text
                .parse()
                .map(Self::Time)
                .map_err(|error| format!("{error}, or earliest, end, or an offset")),
        }
    }
}

/// An offset is of one partition. Else what is to be written instead.
pub(crate) fn check(option: &str, place: Place, partition: Option<u32>) -> Result<(), String> {
    match (place, partition) {
        (Place::Offset(offset), None) => Err(format!(
            "{option} {offset} is the offset of one partition: say which with --partition, or \
             write a time, such as @{offset} (ms) or -2h"
        )),
        _ => Ok(()),
    }
}

/// Who ends before the beginning has mixed them up. Then what is to be done.
pub(crate) fn in_order(from: Place, until: (&str, Place), now: WallMs) -> Result<(), String> {
    let (option, until) = until;
    let is_backward = match (from, until) {
        (Place::Offset(from), Place::Offset(until)) => from > until,
        (Place::Time(from), Place::Time(until)) => from.resolve(now) > until.resolve(now),
        (Place::End, until) => until != Place::End,
        (from, Place::Earliest) => from != Place::Earliest,
        _ => false,
    };
    match is_backward {
        true => Err(format!(
            "--from lies behind {option}: there is nothing between them; swap them"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_place_is_an_edge_an_offset_or_a_time() {
        let at = |ms| Ok(Place::Time(When::At(Timestamp(ms))));
        assert_eq!("earliest".parse(), Ok(Place::Earliest));
        assert_eq!("end".parse(), Ok(Place::End));
        assert_eq!("17".parse(), Ok(Place::Offset(Offset::new(17).unwrap())));
        assert_eq!("@17".parse::<Place>(), at(17));
        assert_eq!("@-17".parse::<Place>(), at(-17));
        assert_eq!("1970-01-01T00:00:01.5Z".parse::<Place>(), at(1500));
        assert_eq!("1970-01-01T02:00:00+02:00".parse::<Place>(), at(0));
        assert_eq!("1970-01-02".parse::<Place>(), at(86_400_000));
        assert_eq!("2026-11-21".parse::<Place>(), at(1_795_219_200_000));
        let ago = Duration::from_millis(2 * HOUR_MS);
        assert_eq!("-2h".parse(), Ok(Place::Time(When::Ago(ago))));
        for text in [
            "",
            "latest",
            "-",
            "@",
            "-5",
            "99999999999999999999",
            "2026-02-30",
            "2026-11-2",
            "2026/11/21",
            "+5",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(!error.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_time_without_zone_is_refused_with_the_same_in_utc() {
        let error = "2026-11-21T23:00:00".parse::<Place>().unwrap_err();
        assert!(error.contains("write 2026-11-21T23:00:00Z if"), "{error}");
    }

    #[test]
    fn a_span_is_counted_back_from_now() {
        let ago = |ms| When::Ago(Duration::from_millis(ms));
        assert_eq!(ago(5).resolve(WallMs(20)), Timestamp(15));
        assert_eq!(ago(50).resolve(WallMs(20)), Timestamp(-30));
        assert_eq!(When::At(Timestamp(3)).resolve(WallMs(20)), Timestamp(3));
    }
}
