//! What holds writers off, and what is trimmed.

use super::*;

pub(super) const WRITERS: &[Case] = &[
    (I10, "a conditional append lies elsewhere", |bad| {
        let when = If {
            expect: Some(either(bad, 0, 1)),
            token: None,
            plain: false,
        };
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", when, done(1, 1));
        story.finally("head", 0, "a b", 2)
    }),
    (I10, "a lost conditional append lies elsewhere", |bad| {
        let when = If {
            expect: Some(either(bad, 2, 1)),
            token: None,
            plain: false,
        };
        let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
        let story = story.append_if(2..3, (2, 0), "b", when, Unknown);
        story.finally("head", 0, "a b", 2)
    }),
    (I10, "refused though the log ended as expected", |bad| {
        let when = If {
            expect: Some(either(bad, 2, 1)),
            token: None,
            plain: false,
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
        plain: false,
    }
}

pub(super) const TRIMS: &[Case] = &[
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
