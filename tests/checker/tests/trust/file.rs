//! Bytes of a history, and what is refused.

use std::io::Cursor;

use esker_checker::{
    Call, Error, Event, History, Mode, Nanos, Offset, OpId, Outcome, Recorder, Refusal, Reply,
    Session, Step, Stream, Values, read_history, write_event,
};

use crate::story::{If, Story, answer, done, ends_at, fenced_by, history, reading};
use crate::world;

const GOLDEN: &str = include_str!("../golden/every-event.jsonl");

/// One of every kind of event.
fn every_event() -> Vec<Event> {
    let conditions = If {
        expect: Some(0),
        token: Some(7),
        plain: false,
    };
    let (start, end) = (Offset(1), Offset(2));
    let out_of_range = Step::Fail(Refusal::OutOfRange { start, end });
    let other = Step::Fail(Refusal::Other);
    let story = Story::new().append_if(0..1, (1, 0), "a b", conditions, done(0, 2));
    let story = story.append_if(2..3, (1, 1), "c", conditions, ends_at(2));
    let story = story.append_if(4..5, (1, 2), "d", conditions, fenced_by(8));
    let story = story.append(6..7, (1, 3), "e", Step::Unknown);
    let story = story
        .read(8..9, 0, "a b", Some(2))
        .read(10..11, 0, "a", None);
    let story = story.call(
        12..13,
        5,
        reading(Mode::Stale, "bucket", 0, 1),
        out_of_range,
    );
    let story = story.tail(14..15, Mode::Stale, 5, 2).bounds(16..17, 0, 2);
    let story = story.trim(18..19, 1, 1).finally("cold", 1, "b", 2);
    story
        .call(20..21, 5, Call::Trim { to: Offset(1) }, other)
        .events()
}

#[test]
fn the_bytes_of_every_event_are_pinned() {
    let mut written = Vec::new();
    for event in every_event() {
        write_event(&mut written, &event).expect("memory takes it");
    }
    assert_eq!(String::from_utf8(written).expect("JSON is UTF-8"), GOLDEN);
    let read = read_history(&mut Cursor::new(GOLDEN)).expect("it is a history");
    assert_eq!(read.ops(), history(every_event()).ops());
}

#[test]
fn a_history_reads_back_as_it_was_written() {
    for seed in 0..50 {
        let events = world::run(seed, 100);
        let mut written = Vec::new();
        for event in &events {
            write_event(&mut written, event).expect("memory takes it");
        }
        let read = read_history(&mut Cursor::new(&written)).expect("it is a history");
        assert_eq!(read.ops(), history(events).ops(), "seed {seed}");
    }
}

#[test]
fn a_torn_last_line_is_a_call_without_an_answer() {
    let torn = &GOLDEN[..GOLDEN.len() - 10];
    let read = read_history(&mut Cursor::new(torn)).expect("the rest is a history");
    let last = read.ops().last().expect("it has calls");
    assert_eq!(
        (&last.outcome, last.completed),
        (&Outcome::Unknown, Nanos::NEVER)
    );
}

#[test]
fn a_line_that_is_no_event_is_refused_by_its_number() {
    for bad in [
        "",
        "{}",
        "null",
        r#"{"op":99,"at":5000,"step":"maybe"}"#,
        r#"{"op":99,"at":5000,"step":"unknown","more":1}"#,
        r#"{"op":-1,"at":5000,"step":"unknown"}"#,
        r#"{"op":99,"at":5000,"step":{"invoke":{"session":0,"stream":0,"call":{"append":{"producer":0,"sequence":0,"values":["+0123456789abcde"]}}}}}"#,
    ] {
        let text = format!("{GOLDEN}{bad}\n");
        let error = read_history(&mut Cursor::new(&text)).expect_err(bad);
        let lines = GOLDEN.lines().count() as u64 + 1;
        assert!(
            matches!(error, Error::Line { number, .. } if number == lines),
            "{error}"
        );
    }
    let text = format!("{GOLDEN}{}\n", r#"{"op":99,"at":5000,"step":"unknown"}"#);
    let error = read_history(&mut Cursor::new(&text)).expect_err("nobody called");
    assert!(matches!(error, Error::Event { .. }), "{error}");
}

/// Why the last event of a story does not fit; what comes before does.
fn refusal(story: &Story, change: impl FnOnce(&mut Event)) -> Error {
    let mut events = story.events();
    let mut last = events.pop().expect("a story has events");
    change(&mut last);
    let mut history = history(events);
    let before = history.ops().to_vec();
    let error = history.push(last).expect_err("it does not fit");
    assert_eq!(history.ops(), before, "a refused event leaves no trace");
    error
}

/// Why an append after that of `a` is refused when it begins.
fn second_append(who: (u64, u64), values: &str) -> Error {
    let story = Story::new().append(0..1, (1, 0), "a", done(0, 1));
    let mut events = story.append(2..3, who, values, Step::Unknown).events();
    events.pop();
    let last = events.pop().expect("a story has events");
    history(events).push(last).expect_err("it does not fit")
}

#[test]
fn events_that_do_not_fit_are_refused() {
    let one = Story::new().append(1..2, (1, 0), "a", done(0, 1));
    let error = refusal(&one, |event| event.at = Nanos(0));
    assert!(matches!(error, Error::ClockBack { .. }), "{error}");
    let error = refusal(&one, |event| event.op = OpId(5));
    assert!(matches!(error, Error::NotOpen { op: OpId(5) }), "{error}");
    for wrong in [
        answer(0, "a", None),
        ends_at(3),
        fenced_by(3),
        Step::Ok(Reply::Trim { start: Offset(0) }),
    ] {
        let error = refusal(&one, |event| event.step = wrong);
        assert!(matches!(error, Error::WrongAnswer { .. }), "{error}");
    }
    let repeated = one.events().remove(0);
    let error = refusal(&one, |event| event.step = repeated.step);
    assert!(matches!(error, Error::OpOrder { .. }), "{error}");

    let error = second_append((1, 0), "b");
    assert!(
        matches!(error, Error::RetryDiffers { first: OpId(0), .. }),
        "{error}"
    );
    let error = second_append((2, 0), "b a");
    assert!(matches!(error, Error::ValueReused { .. }), "{error}");
    let error = second_append((2, 0), "b b");
    assert!(matches!(error, Error::ValueReused { .. }), "{error}");
    let error = second_append((2, 0), "");
    assert!(
        matches!(error, Error::BatchSize { values: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_recorder_writes_what_it_keeps() {
    let mut now = 0;
    let clock = || {
        now += 10;
        now
    };
    let mut values = Values::new(Stream(0), esker_checker::Producer(1));
    let mut recorder = Recorder::new(clock, Vec::new());
    let call = Call::Append(esker_checker::Append {
        producer: esker_checker::Producer(1),
        sequence: esker_checker::Sequence(0),
        values: vec![esker_checker::ValueHash::of(&values.next(100))],
        expect: None,
        token: None,
        plain: false,
    });
    let first = recorder
        .invoke(Session(1), Stream(0), call.clone())
        .expect("it fits");
    recorder
        .complete(first, Outcome::Unknown)
        .expect("it is open");
    let second = recorder
        .invoke(Session(1), Stream(0), call)
        .expect("a retry fits");
    let base = Offset(0);
    let done = Outcome::Ok(Reply::Append { base, count: 1 });
    recorder.complete(second, done.clone()).expect("it is open");
    // What does not fit gets into neither.
    recorder
        .complete(second, done)
        .expect_err("it has its answer");
    assert_eq!(recorder.history().ops().len(), 2);
    let (kept, written) = recorder.finish().expect("memory takes it");
    let read = read_history(&mut Cursor::new(written)).expect("it is a history");
    assert_eq!(read.ops(), kept.ops());
    let times: Vec<_> = kept
        .ops()
        .iter()
        .map(|op| (op.invoked, op.completed))
        .collect();
    assert_eq!(times, [(Nanos(10), Nanos::NEVER), (Nanos(30), Nanos(40))]);
}

#[test]
fn an_empty_history_proves_nothing_and_says_so() {
    let report = esker_checker::check(&History::default(), &esker_checker::Options::default());
    assert!(report.is_clean());
    assert_eq!(report.counts, esker_checker::Counts::default());
}
