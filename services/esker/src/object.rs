//! A record as a JSON object: what `--format json` takes and `--json-records` prints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use esker_client::{Header, Record, Timestamp};
use serde::{Deserialize, Serialize};

use crate::when::When;

/// One line of `--format json`. Of text and `_base64` one may be there; neither is none at all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    headers: Vec<GivenHeader>,
    timestamp: Option<GivenTime>,
    /// Printed by consume, of no meaning here.
    #[serde(rename = "partition")]
    _partition: Option<u32>,
    /// Printed by consume, of no meaning here.
    #[serde(rename = "offset")]
    _offset: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenHeader {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GivenTime {
    Milliseconds(i64),
    Text(String),
}

/// The record that `line` describes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<Record, String> {
    let given: Given = serde_json::from_slice(line).map_err(|error| misspelt(&error))?;
    let headers = given.headers.into_iter().map(|header| {
        Ok(Header {
            key: Bytes::from(header.key),
            value: bytes("a header's value", header.value, header.value_base64)?,
        })
    });
    Ok(Record {
        partition: None,
        key: bytes("key", given.key, given.key_base64)?,
        value: bytes("value", given.value, given.value_base64)?,
        headers: headers.collect::<Result<_, String>>()?,
        timestamp: given.timestamp.map(time).transpose()?,
    })
}

/// What is wrong, and where in the line. Which line it is, is for who knows of others.
fn misspelt(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let at = format!(" at line {} column {column}", error.line());
    match text.strip_suffix(&at) {
        Some(what) => format!("{what}, at column {column}"),
        None => text,
    }
}

fn bytes(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("{name} is there as text and as base64")),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) => Err(format!("{name} is no base64: {error}")),
        },
        (None, None) => Ok(None),
    }
}

fn time(given: GivenTime) -> Result<Timestamp, String> {
    match given {
        GivenTime::Milliseconds(ms) => Ok(Timestamp(ms)),
        GivenTime::Text(text) => match text.parse()? {
            When::At(time) => Ok(time),
            When::Ago(_) => Err(format!("timestamp `{text}` is no point in time")),
        },
    }
}

/// A record, as it is printed.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    partition: u32,
    offset: u64,
    timestamp: i64,
    #[serde(flatten)]
    key: Option<Key<'a>>,
    #[serde(flatten)]
    value: Option<Value<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<PrintedHeader<'a>>,
}

#[derive(Debug, Serialize)]
enum Key<'a> {
    #[serde(rename = "key")]
    Text(&'a str),
    #[serde(rename = "key_base64")]
    Base64(String),
}

#[derive(Debug, Serialize)]
enum Value<'a> {
    #[serde(rename = "value")]
    Text(&'a str),
    #[serde(rename = "value_base64")]
    Base64(String),
}

#[derive(Debug, Serialize)]
struct PrintedHeader<'a> {
    key: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    value: Option<Value<'a>>,
}

/// Writes `record` of `partition` as one line.
pub(crate) fn print(partition: u32, record: &esker_record::Record<'_>, out: &mut Vec<u8>) {
    let value = |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text),
        Err(_) => Value::Base64(STANDARD.encode(bytes)),
    };
    let key = |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Key::Text(text),
        Err(_) => Key::Base64(STANDARD.encode(bytes)),
    };
    let headers = record.headers.map(|header| PrintedHeader {
        key: String::from_utf8_lossy(header.key),
        value: header.value.map(value),
    });
    let printed = Printed {
        partition,
        offset: record.offset.get(),
        timestamp: record.timestamp.0,
        key: record.key.map(key),
        value: record.value.map(value),
        headers: headers.collect(),
    };
    serde_json::to_writer(&mut *out, &printed).expect("memory takes it, and keys are text");
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record() {
        assert_eq!(parse(b"{}"), Ok(Record::default()));
        assert_eq!(
            parse(br#"{"key":"k","value":"v"}"#),
            Ok(Record::keyed("k", "v"))
        );
        let full = parse(
            br#"{"key_base64":"/w==","value":"","timestamp":"1970-01-01T00:00:01Z",
                "headers":[{"key":"a"},{"key":"a","value_base64":"AA=="}],"offset":9}"#,
        );
        let header = |value: Option<&'static [u8]>| Header {
            key: Bytes::from_static(b"a"),
            value: value.map(Bytes::from_static),
        };
        let expected = Record {
            headers: vec![header(None), header(Some(b"\0"))],
            timestamp: Some(Timestamp(1000)),
            ..Record::keyed(vec![0xff], "")
        };
        assert_eq!(full, Ok(expected));
    }

    #[test]
    fn what_is_no_record_is_said() {
        for (line, word) in [
            (&b"x"[..], "expected"),
            (b"{\"valu\":1}", "valu"),
            (b"{\"value\":1}", "string"),
            (b"{\"value\":\"a\",\"value_base64\":\"\"}", "both"),
            (b"{\"value_base64\":\"?\"}", "base64"),
            (b"{\"timestamp\":\"-2h\"}", "point in time"),
        ] {
            let error = parse(line).unwrap_err();
            let said = error.contains(word) || word == "both" && error.contains("and as");
            assert!(said, "{error}");
        }
    }
}
