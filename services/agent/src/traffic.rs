//! What goes through an agent, counted for whoever watches it.

use std::time::Duration;

use esker_log::Appended;
use esker_proto::v1;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::budget::Held;

/// Upper bounds of the append latency's buckets, in seconds: a group commit on a fast disk to an
/// election.
const APPEND_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Counters of one agent. Clones share them.
#[derive(Clone, Debug)]
pub struct Traffic {
    appends: Family<Ended, Counter>,
    appended_bytes: Counter,
    append_seconds: Histogram,
    appends_held: Held,
    reads: Gauge,
    read_bytes: Counter,
    reads_held: Held,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Ended {
    result: Result,
}

/// How an append ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
enum Result {
    Appended,
    Duplicate,
    NotWritten,
    Unknown,
}

impl Result {
    const ALL: [Self; 4] = [
        Self::Appended,
        Self::Duplicate,
        Self::NotWritten,
        Self::Unknown,
    ];
}

impl Default for Traffic {
    fn default() -> Self {
        let appends: Family<Ended, Counter> = Family::default();
        for result in Result::ALL {
            // There from the start: a rate takes a counter that comes with its first count for nothing.
            drop(appends.get_or_create(&Ended { result }));
        }
        Self {
            appends,
            appended_bytes: Counter::default(),
            append_seconds: Histogram::new(APPEND_SECONDS),
            appends_held: Held::default(),
            reads: Gauge::default(),
            read_bytes: Counter::default(),
            reads_held: Held::default(),
        }
    }
}

impl Traffic {
    /// Names the counters in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            appends,
            appended_bytes,
            append_seconds,
            appends_held,
            reads,
            read_bytes,
            reads_held,
        } = self.clone();
        registry.register("append_batches", "Appends answered, by result", appends);
        registry.register_with_unit(
            "appended",
            "Payload of batches appended",
            Unit::Bytes,
            appended_bytes,
        );
        registry.register_with_unit(
            "append_latency",
            "From an append's arrival to its answer",
            Unit::Seconds,
            append_seconds,
        );
        registry.register_with_unit(
            "append_held",
            "Memory that appends on their way hold",
            Unit::Bytes,
            appends_held.now,
        );
        registry.register_with_unit(
            "append_held_most",
            "The most of it since the start",
            Unit::Bytes,
            appends_held.most,
        );
        registry.register("reads_open", "Streams of reads", reads);
        registry.register_with_unit("read", "Payload sent to readers", Unit::Bytes, read_bytes);
        registry.register_with_unit(
            "read_held",
            "Memory that replies to readers and batches being decoded for them hold",
            Unit::Bytes,
            reads_held.now,
        );
        registry.register_with_unit(
            "read_held_most",
            "The most of it since the start",
            Unit::Bytes,
            reads_held.most,
        );
    }

    pub(crate) fn append(
        &self,
        bytes: usize,
        took: Duration,
        answer: &core::result::Result<Appended, v1::Error>,
    ) {
        let result = match answer {
            Ok(appended) if appended.duplicate => Result::Duplicate,
            Ok(_) => Result::Appended,
            Err(error) if error.durability() == v1::Durability::Unknown => Result::Unknown,
            Err(_) => Result::NotWritten,
        };
        self.appends.get_or_create(&Ended { result }).inc();
        if matches!(result, Result::Appended) {
            self.appended_bytes.inc_by(bytes as u64);
        }
        self.append_seconds.observe(took.as_secs_f64());
    }

    /// Where it is told what appends hold.
    pub(crate) fn appends_held(&self) -> Held {
        self.appends_held.clone()
    }

    /// Where it is told what reads hold.
    pub(crate) fn reads_held(&self) -> Held {
        self.reads_held.clone()
    }

    /// A stream of reads is open until this is dropped.
    pub(crate) fn read(&self) -> OpenRead {
        self.reads.inc();
        OpenRead(self.clone())
    }
}

/// A stream of reads that is open.
#[derive(Debug)]
pub(crate) struct OpenRead(Traffic);

impl OpenRead {
    pub(crate) fn sent(&self, bytes: usize) {
        self.0.read_bytes.inc_by(bytes as u64);
    }
}

impl Drop for OpenRead {
    fn drop(&mut self) {
        self.0.reads.dec();
    }
}
