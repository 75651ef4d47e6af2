//! The checker against the search, on small histories of which about half are broken somewhere.
//! Both must say the same of every one: a fault that the checker misses shows here as much as one
//! that it invents.

use std::ops::Range;

use esker_checker::{
    Append, Call, Mode, Offset, Options, Producer, Refusal, Reply, Sequence, Step, ValueHash, check,
};

use crate::dice::Dice;
use crate::search::is_explained;
use crate::story::{Story, reading};

const HISTORIES: u64 = 40_000;
/// All calls but the final read begin and end in this time.
const SPAN: u64 = 14;

#[test]
fn the_checker_agrees_with_a_search_over_all_orders() {
    let mut explained = 0;
    for seed in 0..HISTORIES {
        let mut dice = Dice::new(seed);
        let mut calls = perform(&mut dice);
        if seed % 2 == 1 {
            for _ in 0..=dice.below(2) {
                disturb(&mut calls, &mut dice);
            }
        }
        let mut story = Story::new();
        for (session, call) in (0..).zip(calls) {
            story = story.call(call.at, session, call.call, call.step);
        }
        let history = story.history();
        let searched = is_explained(history.ops());
        let report = check(&history, &Options::default());
        let ops = history.ops();
        assert_eq!(
            report.is_clean(),
            searched,
            "seed {seed}: {report}\n{ops:#?}"
        );
        assert!(
            seed % 2 == 1 || searched,
            "seed {seed} was performed by a correct log"
        );
        explained += u64::from(searched);
    }
    let broken = HISTORIES - explained;
    assert!(
        broken > HISTORIES / 5,
        "{broken} of {HISTORIES} were broken"
    );
    assert!(
        explained > HISTORIES / 2,
        "{explained} of {HISTORIES} were explained"
    );
}

struct Performed {
    at: Range<u64>,
    call: Call,
    step: Step,
}

/// One to eight calls on a correct log, each done at some moment of its time, and a final read.
fn perform(dice: &mut Dice) -> Vec<Performed> {
    let mut moments: Vec<(u64, Range<u64>)> = (0..=dice.below(8))
        .map(|_| {
            let start = dice.below(SPAN - 2);
            let end = start + 1 + dice.below(SPAN - start - 1);
            (start + dice.below(end - start), start..end)
        })
        .collect();
    moments.sort_by_key(|(moment, _)| *moment);
    let mut log = Vec::new();
    let mut ends = vec![0];
    let mut performed = Vec::new();
    for (n, (_, at)) in (0..).zip(moments) {
        let call = choose(n, &ends, dice);
        let step = answer(&call, &mut log, &mut ends, dice);
        performed.push(Performed { at, call, step });
    }
    performed.push(Performed {
        at: SPAN + 1..SPAN + 2,
        call: reading(Mode::Final, "head", 0, 100),
        step: Step::Ok(Reply::Read {
            records: slice(&log, 0, log.len() as u64),
            tail: Some(Offset(log.len() as u64)),
        }),
    });
    performed
}

fn choose(n: u64, ends: &[u64], dice: &mut Dice) -> Call {
    let mode = if dice.chance(70) {
        Mode::Linearizable
    } else {
        Mode::Stale
    };
    let end = ends[ends.len() - 1];
    match dice.below(10) {
        0..5 => Call::Append(Append {
            producer: Producer(n),
            sequence: Sequence(0),
            values: (0..=dice.below(2))
                .map(|at| ValueHash(10 * n + at))
                .collect(),
            expect: dice.chance(25).then(|| Offset(dice.below(end + 2))),
            token: None,
            plain: false,
        }),
        5..7 => Call::CheckTail { mode },
        _ => reading(mode, "head", dice.below(end + 1), 100),
    }
}

fn answer(call: &Call, log: &mut Vec<ValueHash>, ends: &mut Vec<u64>, dice: &mut Dice) -> Step {
    let end = log.len() as u64;
    let seen = |mode: &Mode, dice: &mut Dice| match mode {
        Mode::Stale => *dice.pick(ends).expect("a log ends somewhere"),
        Mode::Linearizable | Mode::Final => end,
    };
    match call {
        Call::CheckTail { mode } => Step::Ok(Reply::Tail {
            start: None,
            tail: Offset(seen(mode, dice)),
        }),
        Call::Read(read) => {
            let tail = seen(&read.mode, dice);
            let from = read.from.0;
            let until = tail.max(from) - dice.below(tail.saturating_sub(from) + 1);
            Step::Ok(Reply::Read {
                records: slice(log, from, until),
                tail: dice.chance(50).then_some(Offset(tail)),
            })
        }
        Call::Append(append) => {
            let actual = Offset(end);
            if append.expect.is_some_and(|expect| expect != actual) {
                return Step::Fail(Refusal::ExpectedEnd { actual });
            }
            if dice.chance(10) {
                return Step::Unknown;
            }
            log.extend(&append.values);
            ends.push(log.len() as u64);
            if dice.chance(20) {
                return Step::Unknown;
            }
            let count = append.values.len() as u64;
            Step::Ok(Reply::Append {
                base: actual,
                count,
            })
        }
        Call::Trim { .. } => Step::Unknown,
    }
}

fn slice(log: &[ValueHash], from: u64, until: u64) -> Vec<(Offset, ValueHash)> {
    let log = (0..).map(Offset).zip(log.iter().copied());
    log.filter(|(at, _)| (from..until).contains(&at.0))
        .collect()
}

/// Changes one time or one answer. The outcome may still be explained; the search knows.
fn disturb(calls: &mut [Performed], dice: &mut Dice) {
    let chosen = dice.below(calls.len() as u64) as usize;
    let last = chosen + 1 == calls.len();
    let Performed { at, step, .. } = &mut calls[chosen];
    if !last && dice.chance(30) {
        let start = dice.below(SPAN - 2);
        *at = start..start + 1 + dice.below(3);
        return;
    }
    let nudge = |offset: &mut Offset, dice: &mut Dice| {
        offset.0 = if dice.chance(50) {
            offset.0 + 1
        } else {
            offset.0.saturating_sub(1)
        };
    };
    match step {
        Step::Ok(Reply::Append { base, .. }) if dice.chance(80) => nudge(base, dice),
        Step::Ok(Reply::Append { .. }) => *step = Step::Unknown,
        Step::Ok(Reply::Tail { tail, .. }) => nudge(tail, dice),
        Step::Fail(Refusal::ExpectedEnd { actual }) => nudge(actual, dice),
        Step::Ok(Reply::Read { records, tail }) => match dice.below(3) {
            0 => tail.iter_mut().for_each(|tail| nudge(tail, dice)),
            1 if records.len() > 1 => {
                let place = dice.below(records.len() as u64 - 1) as usize;
                (records[place].1, records[place + 1].1) = (records[place + 1].1, records[place].1);
            }
            _ => {
                let gone = records.pop();
                if last {
                    *tail = gone.map(|(offset, _)| offset).or(*tail);
                }
            }
        },
        _ => {}
    }
}
