//! Hand-made histories that break one promise each, and beside each a twin that differs as little
//! as possible and breaks none. A case is told once; `bad` picks the one thing that differs.

mod appends; // what was acknowledged
mod readers; // what is seen
mod writers; // who is held off, and what is trimmed

use std::collections::BTreeSet;

use esker_checker::{Call, Invariant, Mode, Offset, Options, Refusal, Reply, Step, View, check};

use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I14};
use Mode::{Linearizable, Stale};
use Step::Unknown;

use appends::{ACKS, BATCHES, ORDER, VALUES};
use readers::SIGHT;
use writers::{TRIMS, WRITERS};

use crate::story::{If, Story, answer, done, ends_at, fenced_by, reading, value};

/// Which promise, how it is broken, and the story of it.
type Case = (Invariant, &'static str, fn(bool) -> Story);

#[test]
fn each_bad_history_is_flagged_by_its_own_id_and_its_twin_is_not() {
    let mut cases = 0;
    let mut covered = BTreeSet::new();
    let all = [ACKS, VALUES, BATCHES, ORDER, SIGHT, WRITERS, TRIMS];
    for (invariant, name, story) in all.into_iter().flatten() {
        let report = check(&story(true).history(), &Options::default());
        assert_eq!(
            report.broken(),
            BTreeSet::from([*invariant]),
            "{name}: {report}"
        );
        let report = check(&story(false).history(), &Options::default());
        assert!(report.is_clean(), "the twin of: {name}: {report}");
        covered.insert(*invariant);
        cases += 1;
    }
    assert!(cases >= 50, "{cases} cases");
    assert_eq!(covered.len(), 14, "every invariant has a case");
}

#[test]
fn a_view_that_is_never_read_in_the_end_is_a_loss() {
    let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
    let story = story.finally("head", 0, "a", 1);
    let mut options = Options::default();
    options.final_views.push(View::new("agent", "head"));
    assert!(check(&story.history(), &options).is_clean());
    options.final_views.push(View::new("agent", "bucket"));
    let report = check(&story.history(), &options);
    assert_eq!(report.broken(), BTreeSet::from([I1]), "{report}");
}

#[test]
fn retention_may_take_what_nobody_asked_for() {
    let story = two_acked().bounds(6..7, 1, 2).finally("head", 1, "b", 2);
    let mut options = Options::default();
    assert!(!check(&story.history(), &options).is_clean());
    options.retention = true;
    let report = check(&story.history(), &options);
    assert!(report.is_clean(), "{report}");
}

/// Two appends, one after the other.
fn two_acked() -> Story {
    let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
    story.append(2..3, (1, 1), "b", done(1, 1))
}

/// Two appends at the same time, by two producers.
fn two_at_once() -> Story {
    let story = Story::new().append(0..10, (1, 0), "a", done(0, 1));
    story.append(1..11, (2, 0), "b", done(1, 1))
}

fn either<T>(bad: bool, if_bad: T, if_good: T) -> T {
    if bad { if_bad } else { if_good }
}

#[test]
fn an_answer_of_nothing_says_nothing() {
    let step = Step::Ok(Reply::Read {
        records: Vec::new(),
        tail: None,
    });
    let story = two_acked().call(4..5, 5, reading(Linearizable, "head", 0, 1), step);
    let report = check(
        &story.finally("head", 0, "a b", 2).history(),
        &Options::default(),
    );
    assert!(report.is_clean(), "{report}");
}
