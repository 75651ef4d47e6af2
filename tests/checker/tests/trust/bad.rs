//! Hand-made histories that break one promise each, and beside each a twin that differs as little
//! as possible and breaks none. A case is told once; `bad` picks the one thing that differs.

use std::collections::BTreeSet;

use esker_checker::{Call, Invariant, Mode, Offset, Options, Refusal, Reply, Step, View, check};

use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I14};
use Mode::{Linearizable, Stale};
use Step::Unknown;

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

const ACKS: &[Case] = &[
    (
        I1,
        "what was acknowledged before the final read is not in it",
        |bad| {
            let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
            // The final read begins at 1000: an answer after that is none of its business.
            let story = story.append(990..either(bad, 999, 1001), (2, 0), "b", done(1, 1));
            story.finally("head", 0, "a", 1)
        },
    ),
    (I1, "the last acknowledged record is gone", |bad| {
        let (records, tail) = either(bad, ("a", 1), ("a b", 2));
        two_acked().finally("head", 0, records, tail)
    }),
    (I1, "an acknowledged record in the middle is gone", |bad| {
        let story = two_acked().append(4..5, (1, 2), "c", done(2, 1));
        story.finally("head", 0, either(bad, "a _ c", "a b c"), 3)
    }),
    (I1, "one view of two lost the end", |bad| {
        let (records, tail) = either(bad, ("a", 1), ("a b", 2));
        let story = two_acked().finally("head", 0, "a b", 2);
        // The head is read first, so what the bucket lacks was known and acknowledged.
        story.finally("bucket", 0, records, tail)
    }),
    (I1, "the front is gone without a trim", |bad| {
        let (from, records) = either(bad, (1, "b"), (0, "a b"));
        two_acked().finally("head", from, records, 2)
    }),
    (
        I1,
        "the last record of an acknowledged batch is gone",
        |bad| {
            let (records, tail) = either(bad, ("a", 1), ("a b", 2));
            let story = Story::new().append(0..1, (1, 0), "a b", done(0, 2));
            story.finally("head", 0, records, tail)
        },
    ),
    (I2, "a record that nobody appended", |bad| {
        let story = Story::new().append(0..1, (1, 0), either(bad, "b", "a"), Unknown);
        story.finally("head", 0, "a", 1)
    }),
    (I2, "a record whose append failed", |bad| {
        let step = either(bad, Step::Fail(Refusal::Other), Unknown);
        let story = Story::new().append(0..1, (1, 0), "a", step);
        story.finally("head", 0, "a", 1)
    }),
    (I2, "a record of another log", |bad| {
        let story = Story::new().stream(either(bad, 1, 0));
        let story = story.append(0..1, (1, 0), "a", Unknown);
        story.stream(0).finally("head", 0, "a", 1)
    }),
    (
        I2,
        "an acknowledged record came back with other bytes",
        |bad| two_acked().finally("bucket", 0, either(bad, "a x", "a b"), 2),
    ),
    (I2, "all attempts failed, and yet it is there", |bad| {
        let step = either(bad, Step::Fail(Refusal::Other), Unknown);
        let story = Story::new().append(0..1, (1, 0), "a", step);
        let story = story.append(2..3, (1, 0), "a", Step::Fail(Refusal::Other));
        story.read(4..5, 0, "a", Some(1)).finally("head", 0, "a", 1)
    }),
];

const VALUES: &[Case] = &[
    (I3, "one offset was acknowledged twice", |bad| {
        let story = Story::new().append(0..10, (1, 0), "a", done(0, 1));
        let story = story.append(1..9, (2, 0), "b", done(either(bad, 0, 1), 1));
        let (records, tail) = either(bad, ("a", 1), ("a b", 2));
        story.finally("head", 0, records, tail)
    }),
    (
        I3,
        "a read has another order than the acknowledgements",
        |bad| two_at_once().finally("head", 0, either(bad, "b a", "a b"), 2),
    ),
    (I3, "two reads of one tier differ", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.append(0..1, (2, 0), "b", Unknown);
        let story = story.read(2..3, 0, either(bad, "a", "b"), None);
        story.finally("head", 0, "b", 1)
    }),
    (I3, "an append that was sent once is there twice", |bad| {
        let (records, tail) = either(bad, ("a a", 2), ("a", 1));
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        story.finally("head", 0, records, tail)
    }),
    (
        I3,
        "an append that nobody was told of is there twice",
        |bad| {
            let (records, tail) = either(bad, ("a a", 2), ("a", 1));
            let story = Story::new().append(0..1, (1, 0), "a", Unknown);
            story.finally("head", 0, records, tail)
        },
    ),
    (I12, "the bucket has another value than the head", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append(0..1, (2, 0), "b", Unknown);
        let story = story.finally("head", 0, "a", 1);
        story.finally("bucket", 0, either(bad, "b", "a"), 1)
    }),
    (
        I12,
        "a restart changed a value that nobody was told of",
        |bad| {
            let story = Story::new().append(0..1, (1, 0), "a", Unknown);
            let story = story.append(0..1, (2, 0), "b", Unknown);
            let story = story.read(2..3, 0, "a", Some(1));
            story.finally("after restart", 0, either(bad, "b", "a"), 1)
        },
    ),
    (
        I12,
        "a cold cache has another value than a warm one",
        |bad| {
            let story = two_acked().append(0..1, (2, 0), "c", Unknown);
            let warm = reading(Linearizable, "warm", 1, 1);
            let story = story.call(6..7, 5, warm, answer(1, "b", None));
            let cold = reading(Stale, "cold", 1, 1);
            let story = story.call(8..9, 6, cold, answer(1, either(bad, "c", "b"), None));
            story.finally("warm", 0, "a b", 2)
        },
    ),
    (I13, "a retry was acknowledged elsewhere", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append(2..3, (1, 0), "a", done(either(bad, 1, 0), 1));
        let (records, tail) = either(bad, ("a a", 2), ("a", 1));
        story.finally("head", 0, records, tail)
    }),
    (
        I13,
        "the lost first attempt and its retry are both there",
        |bad| {
            let story = Story::new().append(0..1, (1, 0), "a", Unknown);
            let story = story.append(2..3, (1, 0), "a", done(either(bad, 1, 0), 1));
            let (records, tail) = either(bad, ("a a", 2), ("a", 1));
            story.finally("head", 0, records, tail)
        },
    ),
    (I13, "two lost attempts are both there", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.append(2..3, (1, 0), "a", Unknown);
        let (records, tail) = either(bad, ("a a", 2), ("a", 1));
        story.finally("head", 0, records, tail)
    }),
];

const BATCHES: &[Case] = &[
    (I4, "the front is gone, of which nobody was told", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.append(2..3, (2, 0), "b", done(1, 1));
        let (from, records) = either(bad, (1, "b"), (0, "a b"));
        story.finally("head", from, records, 2)
    }),
    (I4, "a hole that nobody was told of", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append(2..3, (2, 0), "b", Unknown);
        let story = story.append(4..5, (1, 1), "c", done(2, 1));
        story.finally("head", 0, either(bad, "a _ c", "a b c"), 3)
    }),
    (I4, "another record lies within a batch", |bad| {
        let story = Story::new().append(0..10, (1, 0), "a b", Unknown);
        let story = story.append(1..9, (2, 0), "c", done(either(bad, 1, 2), 1));
        story.finally("head", 0, either(bad, "a c b", "a b c"), 3)
    }),
    (
        I4,
        "another record has the place of a batch's second",
        |bad| {
            let story = Story::new().append(0..10, (1, 0), "a b", Unknown);
            let story = story.append(1..9, (2, 0), "c", done(either(bad, 1, 2), 1));
            let (records, tail) = either(bad, ("a c", 2), ("a b c", 3));
            story.finally("head", 0, records, tail)
        },
    ),
    (I4, "half of a batch remains", |bad| {
        let (records, tail) = either(bad, ("a", 1), ("a b", 2));
        let story = Story::new().append(0..1, (1, 0), "a b", Unknown);
        story.finally("head", 0, records, tail)
    }),
    (I4, "the log ended within a batch", |bad| {
        let story = Story::new().append(0..10, (1, 0), "a b", done(0, 2));
        let story = story.tail(1..9, Linearizable, 5, either(bad, 1, 2));
        story.finally("head", 0, "a b", 2)
    }),
    (I4, "a stale end lies within a batch", |bad| {
        let story = Story::new().append(0..10, (1, 0), "a b", done(0, 2));
        let story = story.tail(11..12, Stale, 5, either(bad, 1, 0));
        story.finally("head", 0, "a b", 2)
    }),
    (I4, "fewer records were acknowledged than sent", |bad| {
        let step = done(0, either(bad, 1, 2));
        let story = Story::new().append(0..1, (1, 0), "a b", step);
        story.finally("head", 0, "a b", 2)
    }),
    (
        I4,
        "a batch lies in another order than it was sent",
        |bad| {
            let story = Story::new().append(0..1, (1, 0), "a b", Unknown);
            story.finally("head", 0, either(bad, "b a", "a b"), 2)
        },
    ),
];

const ORDER: &[Case] = &[
    (
        I5,
        "a producer's appends, one after the other, were swapped",
        |bad| {
            let (first, second) = either(bad, (1, 0), (0, 1));
            let story = Story::new().append(0..1, (1, 0), "a", done(first, 1));
            let story = story.append(2..3, (1, 1), "b", done(second, 1));
            story.finally("head", 0, either(bad, "b a", "a b"), 2)
        },
    ),
    (I5, "two appends under way were swapped", |bad| {
        let (first, second) = either(bad, (1, 0), (0, 1));
        let story = Story::new().append(0..10, (1, 0), "a", done(first, 1));
        let story = story.append(1..9, (1, 1), "b", done(second, 1));
        story.finally("head", 0, either(bad, "b a", "a b"), 2)
    }),
    (I5, "a lost append got in behind its successor", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.append(2..3, (1, 1), "b", done(either(bad, 0, 1), 1));
        story.finally("head", 0, either(bad, "b a", "a b"), 2)
    }),
    (I6, "an append that began later lies below", |bad| {
        let (first, second) = either(bad, (1, 0), (0, 1));
        let story = Story::new().append(0..1, (1, 0), "a", done(first, 1));
        let story = story.append(2..3, (2, 0), "b", done(second, 1));
        story.finally("head", 0, either(bad, "b a", "a b"), 2)
    }),
    (I6, "a lost append that began later lies below", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", done(either(bad, 1, 0), 1));
        let story = story.append(2..3, (2, 0), "b", Unknown);
        story.finally("head", 0, either(bad, "b a", "a b"), 2)
    }),
    (
        I6,
        "the attempt that failed does not make a batch older",
        |bad| {
            let first = either(bad, Step::Fail(Refusal::Other), Unknown);
            let story = Story::new().append(0..5, (2, 0), "b", first);
            let story = story.append(3..4, (1, 0), "a", done(1, 1));
            let story = story.append(6..7, (2, 0), "b", done(0, 1));
            story.finally("head", 0, "b a", 2)
        },
    ),
];

const SIGHT: &[Case] = &[
    (I9, "a final read comes in another order", |bad| {
        let (one, two) = ((Offset(0), value("a")), (Offset(1), value("b")));
        let (first, second) = either(bad, (two, one), (one, two));
        let records = vec![first, second];
        let step = Step::Ok(Reply::Read {
            records,
            tail: None,
        });
        two_acked().call(1000..1001, 5, reading(Mode::Final, "head", 0, 2), step)
    }),
    (I9, "a part of a final read begins too early", |bad| {
        let step = answer(0, "a b", None);
        let from = either(bad, 1, 0);
        let story = two_acked().finally("head", 0, "a b", 2);
        story.call(1010..1011, 5, reading(Mode::Final, "head", from, 2), step)
    }),
    (
        I8,
        "an answer in the same instant came before or after",
        |bad| {
            let at = either(bad, 4..5, 3..5);
            let story = two_acked().tail(at, Stale, 1, 1);
            story.finally("head", 0, "a b", 2)
        },
    ),
    (I7, "the end fell back behind an acknowledgement", |bad| {
        let story = two_acked().tail(4..5, Linearizable, 5, either(bad, 1, 2));
        story.finally("head", 0, "a b", 2)
    }),
    (I7, "the end fell back behind another session's", |bad| {
        let (first, second) = either(bad, (1, 0), (0, 1));
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.tail(2..3, Linearizable, 5, first);
        let story = story.tail(4..5, Linearizable, 6, second);
        story.finally("head", 0, "a", 1)
    }),
    (I7, "the end fell back behind what was read", |bad| {
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        let story = story.read(2..3, 0, "a", None);
        let story = story.tail(4..5, Linearizable, 6, either(bad, 0, 1));
        story.finally("head", 0, "a", 1)
    }),
    (I7, "a record was read before its append began", |bad| {
        let story = Story::new().append(either(bad, 4, 0)..7, (1, 0), "a", done(0, 1));
        story.read(2..3, 0, "a", None).finally("head", 0, "a", 1)
    }),
    (
        I7,
        "a read shows the first half of a batch before it began",
        |bad| {
            let story = Story::new().append(either(bad, 4, 0)..7, (1, 0), "a b", Unknown);
            let one = reading(Stale, "head", 0, 1);
            let story = story.call(2..3, 5, one, answer(0, "a", None));
            story.finally("head", 0, "a b", 2)
        },
    ),
    (
        I7,
        "a conditional append was refused for an old end",
        |bad| {
            let five = If {
                expect: Some(5),
                token: None,
            };
            let step = ends_at(either(bad, 1, 2));
            let story = two_acked().append_if(4..5, (2, 0), "c", five, step);
            story.finally("head", 0, "a b", 2)
        },
    ),
    (I7, "an offset was out of range of an old end", |bad| {
        let (start, end) = (Offset(0), Offset(either(bad, 1, 2)));
        let step = Step::Fail(Refusal::OutOfRange { start, end });
        let story = two_acked().call(4..5, 5, reading(Linearizable, "head", 9, 1), step);
        story.finally("head", 0, "a b", 2)
    }),
    (
        I8,
        "a session was told an end below its own append",
        |bad| {
            let story = two_acked().tail(4..5, Stale, either(bad, 1, 2), 1);
            story.finally("head", 0, "a b", 2)
        },
    ),
    (
        I8,
        "a session was told an end below the last it was told",
        |bad| {
            let (first, second) = either(bad, (2, 1), (1, 2));
            let story = two_acked().tail(4..5, Stale, 5, first);
            let story = story.tail(6..7, Stale, 5, second);
            story.finally("head", 0, "a b", 2)
        },
    ),
    (
        I8,
        "a session was told an end below what it had read",
        |bad| {
            let stale = |max| reading(Stale, "head", 0, max);
            let story = two_acked().call(4..5, 5, stale(100), answer(0, "a b", None));
            let tail = either(bad, 1, 2);
            let story = story.call(6..7, 5, stale(1), answer(0, "a", Some(tail)));
            story.finally("head", 0, "a b", 2)
        },
    ),
    (I9, "a read leaves one out", |bad| {
        let story = two_acked().append(4..5, (1, 2), "c", done(2, 1));
        let story = story.read(6..7, 0, either(bad, "a _ c", "a b c"), None);
        story.finally("head", 0, "a b c", 3)
    }),
    (I9, "a read begins too late", |bad| {
        let story = two_acked().read(4..5, 0, either(bad, "_ b", "a b"), None);
        story.finally("head", 0, "a b", 2)
    }),
    (I9, "a read has more records than were asked for", |bad| {
        let read = reading(Linearizable, "head", 0, either(bad, 1, 2));
        let story = two_acked().call(4..5, 5, read, answer(0, "a b", None));
        story.finally("head", 0, "a b", 2)
    }),
    (I9, "a read has records beyond the end it tells", |bad| {
        let story = two_at_once().read(2..9, 0, "a b", Some(either(bad, 1, 2)));
        story.finally("head", 0, "a b", 2)
    }),
    (I9, "what was read and never acknowledged vanished", |bad| {
        let (records, tail) = either(bad, ("", 0), ("a", 1));
        let story = Story::new().append(0..1, (1, 0), "a", Unknown);
        story
            .read(2..3, 0, "a", None)
            .finally("head", 0, records, tail)
    }),
    (I9, "an end that was told is not reached again", |bad| {
        let story = two_acked().tail(4..5, Linearizable, 5, either(bad, 3, 2));
        story.finally("head", 0, "a b", 2)
    }),
    (
        I9,
        "one view lacks an unacknowledged record of another",
        |bad| {
            let (records, tail) = either(bad, ("", 0), ("a", 1));
            let story = Story::new().append(0..1, (1, 0), "a", Unknown);
            let story = story.finally("head", 0, "a", 1);
            story.finally("bucket", 0, records, tail)
        },
    ),
];

const WRITERS: &[Case] = &[
    (I10, "a conditional append lies elsewhere", |bad| {
        let when = If {
            expect: Some(either(bad, 0, 1)),
            token: None,
        };
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", when, done(1, 1));
        story.finally("head", 0, "a b", 2)
    }),
    (I10, "a lost conditional append lies elsewhere", |bad| {
        let when = If {
            expect: Some(either(bad, 2, 1)),
            token: None,
        };
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", when, Unknown);
        story.finally("head", 0, "a b", 2)
    }),
    (I10, "refused though the log ended as expected", |bad| {
        let when = If {
            expect: Some(either(bad, 2, 1)),
            token: None,
        };
        let story = two_acked().append_if(4..5, (2, 0), "c", when, ends_at(2));
        story.finally("head", 0, "a b", 2)
    }),
    (I11, "an old token behind a new one", |bad| {
        let (old, new) = (token(1), token(2));
        let (first, second) = either(bad, (new, old), (old, new));
        let story = Story::new().append_if(0..1, (1, 0), "a", first, done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", second, done(1, 1));
        story.finally("head", 0, "a b", 2)
    }),
    (
        I11,
        "an old token behind a new one, with none between",
        |bad| {
            let (old, new) = (token(1), token(2));
            let (first, third) = either(bad, (new, old), (old, new));
            let story = Story::new().append_if(0..1, (1, 0), "a", first, done(0, 1));
            let story = story.append(2..3, (3, 0), "b", done(1, 1));
            let story = story.append_if(4..5, (2, 0), "c", third, Unknown);
            story.finally("head", 0, "a b c", 3)
        },
    ),
    (I11, "fenced by its own token", |bad| {
        let story = Story::new().append_if(0..1, (1, 0), "a", token(2), done(0, 1));
        let mine = token(either(bad, 2, 1));
        let story = story.append_if(2..3, (2, 0), "b", mine, fenced_by(2));
        story.finally("head", 0, "a", 1)
    }),
    (I11, "fenced by a token that nobody used", |bad| {
        let story = Story::new().append_if(0..1, (1, 0), "a", token(2), done(0, 1));
        let step = fenced_by(either(bad, 3, 2));
        let story = story.append_if(2..3, (2, 0), "b", token(1), step);
        story.finally("head", 0, "a", 1)
    }),
    (I11, "fenced by a token that came later", |bad| {
        let at = either(bad, 4..5, 0..1);
        let story = Story::new().append_if(at, (1, 0), "a", token(2), done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", token(1), fenced_by(2));
        story.finally("head", 0, "a", 1)
    }),
    (I11, "an old token got in after one was refused", |bad| {
        let story = Story::new().append_if(0..9, (1, 0), "a", token(2), Unknown);
        let story = story.append_if(1..2, (2, 0), "b", token(1), fenced_by(2));
        let late = token(either(bad, 1, 2));
        let story = story.append_if(3..4, (3, 0), "c", late, done(0, 1));
        story.finally("head", 0, "c a", 2)
    }),
];

const fn token(token: u64) -> If {
    If {
        expect: None,
        token: Some(token),
    }
}

const TRIMS: &[Case] = &[
    (
        I14,
        "a fresh read may not show what a stale one may",
        |bad| {
            let mode = either(bad, Linearizable, Stale);
            let story = two_acked().trim(4..5, 1, 1);
            let story = story.call(6..7, 5, reading(mode, "head", 0, 2), answer(0, "a b", None));
            story.finally("head", 1, "b", 2)
        },
    ),
    (
        I14,
        "a fresh start may not fall back as a stale one may",
        |bad| {
            let mode = either(bad, Linearizable, Stale);
            let (start, tail) = (Some(Offset(0)), Offset(2));
            let step = Step::Ok(Reply::Tail { start, tail });
            let story = two_acked().trim(4..5, 1, 1);
            let story = story.call(6..7, 5, Call::CheckTail { mode }, step);
            story.finally("head", 1, "b", 2)
        },
    ),
    (I14, "a trim kept what it was to take", |bad| {
        let story = two_acked().trim(4..5, 1, either(bad, 0, 1));
        story.finally("head", 1, "b", 2)
    }),
    (I14, "a trim took more than asked", |bad| {
        let start = either(bad, 2, 1);
        let story = two_acked().trim(4..5, 1, start);
        story.finally("head", start, either(bad, "", "b"), 2)
    }),
    (I14, "the log begins above what was asked", |bad| {
        let start = either(bad, 2, 1);
        let story = two_acked().trim(4..5, 1, 1);
        story.finally("head", start, either(bad, "", "b"), 2)
    }),
    (I14, "a trim that failed took something", |bad| {
        let step = either(bad, Step::Fail(Refusal::Other), Unknown);
        let one = Offset(1);
        let story = two_acked().call(4..5, 5, Call::Trim { to: one }, step);
        let story = story.bounds(6..7, 1, 2);
        // A second trim makes the missing front one that was asked for.
        story.trim(8..9, 1, 1).finally("head", 1, "b", 2)
    }),
    (I14, "trimmed records came back", |bad| {
        let (from, records) = either(bad, (0, "a b"), (1, "b"));
        let story = two_acked().trim(4..5, 1, 1);
        let story = story.read(6..7, from, records, Some(2));
        story.finally("head", 1, "b", 2)
    }),
    (I14, "the start of the log fell back", |bad| {
        let story = two_acked().trim(4..5, 1, 1);
        let story = story.bounds(6..7, either(bad, 0, 1), 2);
        story.finally("head", 1, "b", 2)
    }),
    (I14, "an offset was refused that is there", |bad| {
        let (start, end) = (Offset(0), Offset(2));
        let step = Step::Fail(Refusal::OutOfRange { start, end });
        let from = either(bad, 1, 3);
        let story = two_acked().call(4..5, 5, reading(Linearizable, "head", from, 1), step);
        story.finally("head", 0, "a b", 2)
    }),
];

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
