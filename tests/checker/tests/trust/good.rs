//! A correct log is never flagged, whatever its clients and its network do.

use std::collections::BTreeMap;

use esker_checker::{Call, Counts, History, Options, Outcome, Refusal, View, check};

use crate::story::history;
use crate::world;

const SEEDS: u64 = 3_000;

pub(crate) fn options() -> Options {
    Options {
        final_views: vec![View::new("agent", "head"), View::new("agent", "bucket")],
        retention: false,
    }
}

#[test]
fn a_correct_log_is_never_flagged() {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum = Counts::default();
    for seed in 0..SEEDS {
        let history = history(world::run(seed, 20 + (seed % 100) as usize));
        let report = check(&history, &options());
        assert!(report.is_clean(), "seed {seed}: {report}");
        assert_eq!(report.counts.final_reads, 2, "seed {seed}");
        sum.records_read += report.counts.records_read;
        sum.acked_batches += report.counts.acked_batches;
        note(&history, &mut met);
    }
    assert!(sum.records_read > 100_000, "{sum:?}");
    assert!(sum.acked_batches > 20_000, "{sum:?}");
    // A generator that never meets the hard cases would prove little.
    for hard in [
        "unknown append",
        "retry",
        "expected end",
        "fenced",
        "out of range",
        "trim",
    ] {
        assert!(met.get(hard) > Some(&500), "{hard}: {met:?}");
    }
}

fn note(history: &History, met: &mut BTreeMap<&str, usize>) {
    let mut tried = BTreeMap::new();
    for op in history.ops() {
        let hard = match (&op.call, &op.outcome) {
            (Call::Append(_), Outcome::Unknown) => "unknown append",
            (_, Outcome::Fail(Refusal::ExpectedEnd { .. })) => "expected end",
            (_, Outcome::Fail(Refusal::Fenced { .. })) => "fenced",
            (_, Outcome::Fail(Refusal::OutOfRange { .. })) => "out of range",
            (Call::Trim { .. }, Outcome::Ok(_)) => "trim",
            _ => "plain",
        };
        *met.entry(hard).or_default() += 1;
        if let Call::Append(append) = &op.call {
            let attempts = tried.entry((append.producer, append.sequence)).or_insert(0);
            *attempts += 1;
            *met.entry("retry").or_default() += usize::from(*attempts == 2);
        }
    }
}
