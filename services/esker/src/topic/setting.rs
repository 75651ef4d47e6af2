//! Settings of a topic as people write them.

use std::time::Duration;

use crate::config::{Size, Span};

/// How a setting says that there is no limit.
const UNLIMITED: &str = "-1";

/// Key and value of `KEY=VALUE`, the value as the service takes it.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), plain(key, value)?)),
        _ => Err("write KEY=VALUE, such as retention.ms=7d".to_owned()),
    }
}

/// What the service takes for `value`, which may be written as people write times and sizes.
fn plain(key: &str, value: &str) -> Result<String, String> {
    let (number, write) = match key {
        "retention.ms" if value == "forever" => (Some(UNLIMITED.to_owned()), ""),
        "retention.bytes" if value == "unlimited" => (Some(UNLIMITED.to_owned()), ""),
        "retention.ms" => {
            let span = Span::parse(value).map(|Span(span)| span.as_millis().to_string());
            (span, "a time such as 36h or 7d, milliseconds, or forever")
        }
        "retention.bytes" => (bytes(value), "a size such as 10GiB, bytes, or unlimited"),
        "max_batch_bytes" => (bytes(value), "a size such as 4MiB, or bytes"),
        _ => return Ok(value.to_owned()),
    };
    // Nothing stands for the default, and a number for itself: its bounds are the service's.
    let is_plain = value.is_empty() || value.parse::<i128>().is_ok();
    let number = number.or_else(|| is_plain.then(|| value.to_owned()));
    number.ok_or_else(|| format!("{key} is {value:?}; write {write}"))
}

fn bytes(text: &str) -> Option<String> {
    Size::parse(text).map(|Size(bytes)| bytes.to_string())
}

/// The value of a setting, and what a person would call it.
pub(super) fn told(key: &str, value: &str) -> String {
    let name = match (key, value) {
        ("retention.ms", UNLIMITED) => Some("forever".to_owned()),
        ("retention.bytes", UNLIMITED) => Some("unlimited".to_owned()),
        ("retention.ms", _) => {
            let span = value.parse().ok().map(|ms| Span(Duration::from_millis(ms)));
            span.map(|span| span.to_string())
        }
        ("retention.bytes" | "max_batch_bytes", _) => {
            value.parse().ok().map(|bytes| Size(bytes).to_string())
        }
        _ => None,
    };
    match name {
        Some(name) => format!("{value} ({name})"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_cut_at_its_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(setting("retention.ms=1"), pair("retention.ms", "1"));
        assert_eq!(setting("a=b=c"), pair("a", "b=c"));
        assert_eq!(setting("a="), pair("a", ""));
        assert!(setting("a").is_err() && setting("=a").is_err());
    }

    #[test]
    fn settings_are_written_and_told_as_people_do() {
        for (written, value, shown) in [
            ("retention.ms=1h", "3600000", "3600000 (1 h)"),
            ("retention.ms=7d", "604800000", "604800000 (7 d)"),
            ("retention.ms=forever", "-1", "-1 (forever)"),
            ("retention.ms=-1", "-1", "-1 (forever)"),
            ("retention.ms=", "", ""),
            ("retention.bytes=unlimited", "-1", "-1 (unlimited)"),
            (
                "retention.bytes=10GiB",
                "10737418240",
                "10737418240 (10 GiB)",
            ),
            ("max_batch_bytes=4MiB", "4194304", "4194304 (4 MiB)"),
            ("compression=7d", "7d", "7d"),
        ] {
            let (key, plain) = setting(written).unwrap();
            assert_eq!(plain, value, "{written}");
            assert_eq!(told(&key, &plain), shown, "{written}");
        }
        for wrong in [
            "retention.ms=soon",
            "retention.ms=1GiB",
            "max_batch_bytes=unlimited",
        ] {
            let error = setting(wrong).unwrap_err();
            assert!(error.contains("; write a "), "{error}");
        }
    }
}
