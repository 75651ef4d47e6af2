//! What readers see, and in which order.

use super::*;

pub(super) const SIGHT: &[Case] = &[
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
                plain: false,
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
