//! One pass over a history: split by log, gather the evidence, ask every invariant.

use std::collections::BTreeMap;

use crate::event::Reply;
use crate::evidence::Evidence;
use crate::history::{History, Op, Outcome};
use crate::invariants;
use crate::name::{Stream, View};
use crate::report::{Counts, Report};

/// What a history is expected to hold, and what the log was allowed to do by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Views that must have a final read of every log with an acknowledged append. Without it a
    /// driver that forgets to read would look like a log that loses nothing.
    pub final_views: Vec<View>,
    /// The log may trim by itself, by age or size: more may be gone than any call asked for.
    pub retention: bool,
}

/// Judges a history. O(n log n) in its calls and records.
#[must_use]
pub fn check(history: &History, options: &Options) -> Report {
    let mut streams: BTreeMap<Stream, Vec<&Op>> = BTreeMap::new();
    for op in history.ops() {
        streams.entry(op.stream).or_default().push(op);
    }
    let mut report = Report {
        counts: count(history, streams.len()),
        ..Report::default()
    };
    for ops in streams.into_values() {
        let evidence = Evidence::gather(history, ops);
        let acked = evidence
            .batches
            .iter()
            .filter(|batch| batch.acked.is_some());
        report.counts.acked_batches += acked.count();
        report.counts.final_reads += evidence.remains.len();
        for judge in invariants::ALL {
            judge(&evidence, options, &mut report);
        }
    }
    report
}

fn count(history: &History, streams: usize) -> Counts {
    let mut counts = Counts {
        ops: history.ops().len(),
        streams,
        ..Counts::default()
    };
    for op in history.ops() {
        match &op.outcome {
            Outcome::Ok(reply) => {
                counts.ok += 1;
                if let Reply::Read { records, .. } = reply {
                    counts.records_read += records.len();
                }
            }
            Outcome::Fail(_) => counts.failed += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
    }
    counts
}
