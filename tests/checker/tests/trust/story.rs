//! Histories told by hand: calls with their times, in any order. `_` in a list of records is an
//! offset that did not come.

use std::ops::Range;

use esker_checker::{
    Append, Call, Event, History, Invoke, Mode, Nanos, Offset, OpId, Producer, Read, Refusal,
    Reply, Sequence, Session, Step, Stream, Token, ValueHash, View,
};

/// When the final reads begin.
const AFTER_ALL: u64 = 1000;

#[derive(Clone, Default)]
pub(crate) struct Story {
    calls: Vec<(Range<u64>, Invoke, Step)>,
    stream: Stream,
    finals: u64,
}

/// Conditions of an append.
#[derive(Clone, Copy, Default)]
pub(crate) struct If {
    pub(crate) expect: Option<u64>,
    pub(crate) token: Option<u64>,
    pub(crate) plain: bool,
}

pub(crate) fn done(base: u64, count: u64) -> Step {
    let base = Offset(base);
    Step::Ok(Reply::Append { base, count })
}

pub(crate) fn ends_at(actual: u64) -> Step {
    let actual = Offset(actual);
    Step::Fail(Refusal::ExpectedEnd { actual })
}

pub(crate) fn fenced_by(current: u64) -> Step {
    let current = Token(current);
    Step::Fail(Refusal::Fenced { current })
}

pub(crate) fn value(name: &str) -> ValueHash {
    ValueHash::of(name.as_bytes())
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What follows is about another log.
    pub(crate) fn stream(mut self, stream: u64) -> Self {
        self.stream = Stream(stream);
        self
    }

    pub(crate) fn call(mut self, at: Range<u64>, session: u64, call: Call, step: Step) -> Self {
        let invoke = Invoke {
            session: Session(session),
            stream: self.stream,
            call,
        };
        self.calls.push((at, invoke, step));
        self
    }

    /// The session of an append is its producer.
    pub(crate) fn append(self, at: Range<u64>, who: (u64, u64), values: &str, step: Step) -> Self {
        self.append_if(at, who, values, If::default(), step)
    }

    pub(crate) fn append_if(
        self,
        at: Range<u64>,
        (producer, sequence): (u64, u64),
        values: &str,
        conditions: If,
        step: Step,
    ) -> Self {
        let call = Call::Append(Append {
            producer: Producer(producer),
            sequence: Sequence(sequence),
            values: values.split_whitespace().map(value).collect(),
            expect: conditions.expect.map(Offset),
            token: conditions.token.map(Token),
            plain: conditions.plain,
        });
        self.call(at, producer, call, step)
    }

    /// A linearizable read of at most 100 records, by a session of its own.
    pub(crate) fn read(self, at: Range<u64>, from: u64, records: &str, tail: Option<u64>) -> Self {
        let session = 100 + self.calls.len() as u64;
        let read = reading(Mode::Linearizable, "head", from, 100);
        self.call(at, session, read, answer(from, records, tail))
    }

    pub(crate) fn tail(self, at: Range<u64>, mode: Mode, session: u64, tail: u64) -> Self {
        let tail = Offset(tail);
        let step = Step::Ok(Reply::Tail { start: None, tail });
        self.call(at, session, Call::CheckTail { mode }, step)
    }

    pub(crate) fn bounds(self, at: Range<u64>, start: u64, tail: u64) -> Self {
        let (start, tail) = (Some(Offset(start)), Offset(tail));
        let mode = Mode::Linearizable;
        let step = Step::Ok(Reply::Tail { start, tail });
        self.call(at, 99, Call::CheckTail { mode }, step)
    }

    pub(crate) fn trim(self, at: Range<u64>, to: u64, start: u64) -> Self {
        let step = Step::Ok(Reply::Trim {
            start: Offset(start),
        });
        self.call(at, 98, Call::Trim { to: Offset(to) }, step)
    }

    /// The final read of a tier, which begins at `from` and tells the end.
    pub(crate) fn finally(mut self, tier: &str, from: u64, records: &str, tail: u64) -> Self {
        let at = AFTER_ALL + 2 * self.finals;
        self.finals += 1;
        let read = reading(Mode::Final, tier, from, 100);
        self.call(at..at + 1, 97, read, answer(from, records, Some(tail)))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let mut calls = self.calls.clone();
        calls.sort_by_key(|(at, ..)| at.start);
        let mut events = Vec::new();
        for (op, (at, invoke, step)) in (0..).zip(calls) {
            let op = OpId(op);
            let began = Nanos(at.start);
            events.push((
                at.start,
                0,
                Event {
                    op,
                    at: began,
                    step: Step::Invoke(invoke),
                },
            ));
            let ended = Nanos(at.end);
            events.push((
                at.end,
                1,
                Event {
                    op,
                    at: ended,
                    step,
                },
            ));
        }
        events.sort_by_key(|(at, end, _)| (*at, *end));
        events.into_iter().map(|(_, _, event)| event).collect()
    }

    pub(crate) fn history(&self) -> History {
        history(self.events())
    }
}

pub(crate) fn history(events: impl IntoIterator<Item = Event>) -> History {
    let mut history = History::default();
    for event in events {
        history.push(event).expect("a well-formed history");
    }
    history
}

pub(crate) fn reading(mode: Mode, tier: &str, from: u64, max: u64) -> Call {
    Call::Read(Read {
        from: Offset(from),
        max,
        mode,
        view: View::new("agent", tier),
    })
}

pub(crate) fn answer(from: u64, records: &str, tail: Option<u64>) -> Step {
    let records = (from..).zip(records.split_whitespace());
    let records = records.filter(|(_, name)| *name != "_");
    Step::Ok(Reply::Read {
        records: records
            .map(|(at, name)| (Offset(at), value(name)))
            .collect(),
        tail: tail.map(Offset),
    })
}
