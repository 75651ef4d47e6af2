//! What was acknowledged: kept, once, whole, and in order.

use super::*;

pub(super) const ACKS: &[Case] = &[
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

pub(super) const VALUES: &[Case] = &[
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

pub(super) const BATCHES: &[Case] = &[
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

pub(super) const ORDER: &[Case] = &[
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
    (
        I5,
        "a lost append with a producer id got in behind its successor",
        |bad| {
            let plain = If {
                plain: !bad,
                ..If::default()
            };
            let story = Story::new().append_if(0..1, (1, 0), "a", plain, Unknown);
            let story = story.append(2..3, (1, 1), "b", done(0, 1));
            story.finally("head", 0, "b a", 2)
        },
    ),
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
