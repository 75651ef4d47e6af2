//! Long histories: a quadratic step somewhere would not end.

use esker_checker::{
    Append, Call, History, Mode, Nanos, Offset, Op, OpId, Options, Producer, Reply, Sequence,
    Session, Step, Stream, ValueHash, View, check,
};
use esker_checker::{Event, Invoke, Read};

use crate::dice::Dice;

const OPS: u64 = 200_000;
const STREAMS: u64 = 4;
const READ_RECORDS: u64 = 1_000;

#[test]
fn two_hundred_thousand_calls_are_judged_in_one_go() {
    let history = long(OPS);
    let report = check(&history, &options());
    assert!(report.is_clean(), "{report}");
    assert!(report.counts.ops > OPS as usize);
    assert!(report.counts.records_read > OPS as usize);
}

#[test]
fn a_long_history_that_is_broken_everywhere_is_judged_too() {
    // Every second record of the final reads is gone: a hole for each is the worst case of I1, I4.
    let good = long(OPS);
    let mut history = History::default();
    for event in events(good.ops()) {
        history
            .push(thin(event))
            .expect("it was well-formed before");
    }
    let report = check(&history, &options());
    let found: usize = report.counts.violations.values().sum();
    // Half of the calls append, half of those records are gone.
    assert!(found >= OPS as usize / 4, "{found} violations");
    assert!(report.violations.len() < 2_000, "a report is bounded");
}

fn options() -> Options {
    Options {
        final_views: vec![View::new("agent", "bucket")],
        retention: false,
    }
}

fn thin(mut event: Event) -> Event {
    if let Step::Ok(Reply::Read {
        records,
        tail: Some(_),
    }) = &mut event.step
    {
        records.retain(|(offset, _)| offset.0 % 2 == 0);
    }
    event
}

/// The events of calls that do not overlap.
fn events(ops: &[Op]) -> impl Iterator<Item = Event> {
    ops.iter().flat_map(|op| {
        let invoke = Step::Invoke(Invoke {
            session: op.session,
            stream: op.stream,
            call: op.call.clone(),
        });
        let step = match &op.outcome {
            esker_checker::Outcome::Ok(reply) => Step::Ok(reply.clone()),
            esker_checker::Outcome::Fail(refusal) => Step::Fail(*refusal),
            esker_checker::Outcome::Unknown => Step::Unknown,
        };
        let (began, ended) = (op.invoked, op.completed.min(Nanos(op.invoked.0 + 1)));
        let op = op.id;
        [
            Event {
                op,
                at: began,
                step: invoke,
            },
            Event {
                op,
                at: ended,
                step,
            },
        ]
    })
}

/// Half appends, a quarter reads of a few records, a quarter tails, then full reads.
fn long(ops: u64) -> History {
    let mut pen = Pen::default();
    let mut dice = Dice::new(7);
    for n in 0..ops {
        let stream = n % STREAMS;
        let end = pen.logs[stream as usize].len() as u64;
        match n / STREAMS % 4 {
            0 | 2 => {
                let value = ValueHash(n);
                pen.logs[stream as usize].push(value);
                let call = Call::Append(Append {
                    producer: Producer(dice.below(8)),
                    sequence: Sequence(n),
                    values: vec![value],
                    expect: None,
                    token: None,
                    plain: false,
                });
                let base = Offset(end);
                let done = Step::Ok(Reply::Append { base, count: 1 });
                // Every tenth answer is lost.
                pen.write(stream, call, if n % 10 == 0 { Step::Unknown } else { done });
            }
            1 => {
                let from = dice.below(end);
                let mode = Mode::Linearizable;
                pen.read(stream, from, end.min(from + 8), (mode, "head", None));
            }
            _ => {
                let tail = Offset(end);
                let mode = Mode::Linearizable;
                let step = Step::Ok(Reply::Tail { start: None, tail });
                pen.write(stream, Call::CheckTail { mode }, step);
            }
        }
    }
    for stream in 0..STREAMS {
        let end = pen.logs[stream as usize].len() as u64;
        for from in (0..end).step_by(READ_RECORDS as usize) {
            let until = end.min(from + READ_RECORDS);
            pen.read(
                stream,
                from,
                until,
                (Mode::Final, "bucket", Some(Offset(end))),
            );
        }
    }
    pen.history
}

/// Writes calls that do not overlap.
#[derive(Default)]
struct Pen {
    history: History,
    logs: [Vec<ValueHash>; STREAMS as usize],
    calls: u64,
}

impl Pen {
    fn write(&mut self, stream: u64, call: Call, step: Step) {
        let op = OpId(self.calls);
        let at = Nanos(10 * self.calls);
        self.calls += 1;
        let invoke = Step::Invoke(Invoke {
            session: Session(0),
            stream: Stream(stream),
            call,
        });
        for event in [
            Event {
                op,
                at,
                step: invoke,
            },
            Event {
                op,
                at: Nanos(at.0 + 1),
                step,
            },
        ] {
            self.history.push(event).expect("a well-formed history");
        }
    }

    fn read(
        &mut self,
        stream: u64,
        from: u64,
        until: u64,
        (mode, tier, tail): (Mode, &str, Option<Offset>),
    ) {
        let log = &self.logs[stream as usize];
        let records = (from..until)
            .map(|at| (Offset(at), log[at as usize]))
            .collect();
        let call = Call::Read(Read {
            from: Offset(from),
            max: READ_RECORDS,
            mode,
            view: View::new("agent", tier),
        });
        self.write(stream, call, Step::Ok(Reply::Read { records, tail }));
    }
}
