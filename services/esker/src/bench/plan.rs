//! What a load is made of.

use std::time::Duration;

use clap::ArgAction;

use crate::config::{Size, Span};
use crate::failure::Failure;
use crate::produce::Codec;

/// Batches in flight that may be asked for.
const IN_FLIGHT_MAX: u64 = 4096;
/// Bytes of records that may be asked for in one batch; encoded, they still fit into the largest.
const BATCH_BYTES_MAX: u64 = 6 << 20;

/// What is written before it is measured, unless somebody says otherwise.
const WARMUP: Duration = Duration::from_secs(3);

/// Append at a rate, read along, read it all again; tell latencies and rates
///
/// The load is open: a batch is due at its time whether or not those before it are done, and its
/// latency counts from then on, so a service that stalls is not asked less because of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to; made if it is not there [default: one of its own, deleted afterwards]
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Partitions of a topic that is made
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) partitions: u32,
    /// Batches a second, or with a unit bytes of values a second, such as 20MB; 0: as fast as
    /// --in-flight allows, latency then counting from when there was room
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = rate)]
    pub(crate) rate: Rate,
    /// Values of one batch, about
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = batch_size)]
    pub(crate) batch_bytes: u64,
    /// Values of so many bytes that no codec makes smaller [default: made-up log lines]
    #[arg(long, value_name = "SIZE", value_parser = batch_size)]
    pub(crate) record_bytes: Option<u64>,
    /// Batches that may be unanswered; 1 shows what a single append takes
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    pub(crate) in_flight: u64,
    /// How batches are compressed [default: as the topic says]
    #[arg(long, value_enum)]
    pub(crate) compression: Option<Codec>,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = stretch)]
    pub(crate) seconds: Duration,
    /// How long to write before that, unmeasured: a warm-up
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = span)]
    pub(crate) warmup: Duration,
    /// Do not read along
    #[arg(long = "no-tail", action = ArgAction::SetFalse)]
    pub(crate) tail: bool,
    /// Do not read it again
    #[arg(long = "no-replay", action = ArgAction::SetFalse)]
    pub(crate) replay: bool,
    /// Keep the topic although it was made here
    #[arg(long)]
    pub(crate) keep: bool,
    /// Of which lines or bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// How much is asked for a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rate {
    /// As much as there is room for.
    Any,
    Batches(u64),
    Bytes(u64),
}

fn rate(text: &str) -> Result<Rate, String> {
    match (text.parse(), Size::parse(text)) {
        (Ok(0), _) => Ok(Rate::Any),
        (Ok(batches), _) => Ok(Rate::Batches(batches)),
        (_, Some(Size(bytes))) if bytes > 0 => Ok(Rate::Bytes(bytes)),
        _ => Err("write batches a second, or bytes such as 20MB".to_owned()),
    }
}

pub(crate) fn batch_size(text: &str) -> Result<u64, String> {
    match Size::parse(text) {
        Some(Size(bytes)) if (1..=BATCH_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "write a size such as 64KiB, at most {BATCH_BYTES_MAX} bytes"
        )),
    }
}

/// A time in which something can happen.
pub(crate) fn stretch(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("write more than no time".to_owned()),
        span => Ok(span),
    }
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let whole = text.parse().ok().map(Duration::from_secs);
    let span = whole.or_else(|| Span::parse(text).map(|Span(span)| span));
    span.ok_or_else(|| "write seconds, or a time such as 500ms".to_owned())
}

impl Args {
    /// As fast as there is room, to a topic that is kept.
    pub(crate) fn full_speed(topic: &str, partitions: u32, seconds: Duration) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partitions,
            rate: Rate::Any,
            batch_bytes: 64 << 10,
            record_bytes: None,
            in_flight: 64,
            compression: None,
            seconds,
            warmup: WARMUP.min(seconds),
            tail: false,
            replay: false,
            keep: true,
            seed: 1,
        }
    }

    /// Time between two batches, of which each has `batch_bytes`; `None` if none is asked for.
    pub(crate) fn interval(&self, batch_bytes: u64) -> Result<Option<Duration>, Failure> {
        const SECOND: u128 = 1_000_000_000;
        let nanos = match self.rate {
            Rate::Any => return Ok(None),
            Rate::Batches(batches) => SECOND / u128::from(batches),
            Rate::Bytes(bytes) => SECOND * u128::from(batch_bytes) / u128::from(bytes),
        };
        match u64::try_from(nanos) {
            Ok(nanos) if nanos >= 1000 => Ok(Some(Duration::from_nanos(nanos))),
            _ => Err(Failure::usage(
                "--rate is beyond a million batches a second; write 0 for as many as there is \
                 room for",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn of(rate: &str) -> Option<Duration> {
        let line = Line::try_parse_from(["load", "--rate", rate]).unwrap();
        line.args.interval(1 << 20).unwrap()
    }

    #[test]
    fn a_rate_is_batches_or_bytes_a_second() {
        assert_eq!(of("0"), None);
        assert_eq!(of("200"), Some(Duration::from_millis(5)));
        assert_eq!(of("4MiB"), Some(Duration::from_millis(250)));
        assert!(Line::try_parse_from(["load", "--rate", "fast"]).is_err());
        let mad = Line::try_parse_from(["load", "--rate", "2000000"]).unwrap();
        assert!(mad.args.interval(1).is_err());
    }
}
