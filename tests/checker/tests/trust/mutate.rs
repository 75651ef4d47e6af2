//! Good histories with one thing broken. Each mutation is a violation by construction, so each must
//! be flagged; it may break more than one promise, so the ids are not compared here.

use esker_checker::{Append, Call, Event, Invoke, Mode, Offset, Refusal, Reply, Step, ValueHash};
use esker_checker::{Invariant, OpId, check};

use crate::dice::Dice;
use crate::good::options;
use crate::story::history;
use crate::world;

const SEEDS: u64 = 1_500;
/// A value that no run of the world makes.
const STRANGE: ValueHash = ValueHash(u64::MAX);

/// Breaks one thing, or finds nothing to break.
type Mutation = fn(&mut [Event], &mut Dice) -> Option<()>;

const MUTATIONS: &[(&str, Mutation)] = &[
    ("drop an acknowledged record from a final read", drop_record),
    ("swap two records of a final read", swap_records),
    ("read a record twice", duplicate_record),
    ("read a record that nobody appended", phantom),
    ("cut the end of a final read", cut_end),
    ("swap the acknowledgements of two batches", swap_acks),
    ("acknowledge a batch one further on", shift_ack),
    ("call an append failed that is there", deny),
    ("answer a retry with another base", move_retry),
    ("move a tail back behind an acknowledgement", move_tail_back),
    ("move a tail forward beyond the end", move_tail_forward),
    ("begin a read one too late", skip_first),
    ("expect another end", expect_other),
    ("read below the start of the log", untrim),
];

#[test]
fn every_mutation_of_a_good_history_is_flagged() {
    for (name, mutation) in MUTATIONS {
        let mut applied = 0;
        for seed in 0..SEEDS {
            let mut events = world::run(seed, 60);
            let mut dice = Dice::new(seed ^ 0x5eed);
            if mutation(&mut events, &mut dice).is_none() {
                continue;
            }
            applied += 1;
            let report = check(&history(events), &options());
            assert!(!report.is_clean(), "{name}, seed {seed}, was not flagged");
        }
        assert!(
            applied >= 100,
            "{name} found {applied} places in {SEEDS} histories"
        );
    }
}

#[test]
fn a_dropped_acknowledgement_is_a_loss_and_a_phantom_is_a_phantom() {
    for (mutation, invariant) in [
        (drop_record as Mutation, Invariant::I1),
        (phantom as Mutation, Invariant::I2),
    ] {
        let mut applied = 0;
        for seed in 0..SEEDS / 10 {
            let mut events = world::run(seed, 60);
            if mutation(&mut events, &mut Dice::new(seed)).is_some() {
                applied += 1;
                let report = check(&history(events), &options());
                assert!(
                    report.broken().contains(&invariant),
                    "seed {seed}: {report}"
                );
            }
        }
        assert!(applied >= 10, "{invariant} found {applied} places");
    }
}

type Records = Vec<(Offset, ValueHash)>;

/// The call that the answer at `at` belongs to.
fn call_of(events: &[Event], at: usize) -> Option<&Invoke> {
    events.iter().find_map(|event| match &event.step {
        Step::Invoke(invoke) if event.op == events[at].op => Some(invoke),
        _ => None,
    })
}

fn invoked(events: &[Event], op: OpId) -> Option<u64> {
    let invoke = events.iter().find(|event| event.op == op)?;
    Some(invoke.at.0)
}

/// Answers for which `wanted` says yes, by position.
fn answers(events: &[Event], wanted: impl Fn(&Invoke, &Step) -> bool) -> Vec<usize> {
    let places = 0..events.len();
    let places = places.filter(|at| {
        let step = &events[*at].step;
        !matches!(step, Step::Invoke(_))
            && call_of(events, *at).is_some_and(|invoke| wanted(invoke, step))
    });
    places.collect()
}

fn records(step: &mut Step) -> Option<&mut Records> {
    match step {
        Step::Ok(Reply::Read { records, .. }) => Some(records),
        _ => None,
    }
}

/// A final read with at least `least` records.
fn final_read(events: &[Event], dice: &mut Dice, least: usize) -> Option<usize> {
    let found = answers(events, |invoke, step| match (&invoke.call, step) {
        (Call::Read(read), Step::Ok(Reply::Read { records, .. })) => {
            read.mode == Mode::Final && records.len() >= least
        }
        _ => false,
    });
    dice.pick(&found).copied()
}

/// An acknowledged append: its answer and its base.
fn acked(events: &[Event]) -> Vec<(usize, Offset)> {
    let found = answers(events, |_, step| {
        matches!(step, Step::Ok(Reply::Append { .. }))
    });
    let bases = found.into_iter().filter_map(|at| match &events[at].step {
        Step::Ok(Reply::Append { base, .. }) => Some((at, *base)),
        _ => None,
    });
    bases.collect()
}

fn append_of(events: &[Event], at: usize) -> Option<&Append> {
    match &call_of(events, at)?.call {
        Call::Append(append) => Some(append),
        _ => None,
    }
}

/// Where the value lies, as final reads have it.
fn lies_at(events: &[Event], value: ValueHash) -> bool {
    let finals = answers(
        events,
        |invoke, _| matches!(&invoke.call, Call::Read(read) if read.mode == Mode::Final),
    );
    finals.iter().any(|at| match &events[*at].step {
        Step::Ok(Reply::Read { records, .. }) => records.iter().any(|(_, read)| *read == value),
        _ => false,
    })
}

fn drop_record(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let at = final_read(events, dice, 1)?;
    let known: Vec<ValueHash> = acked(events)
        .into_iter()
        .filter_map(|(at, _)| append_of(events, at))
        .flat_map(|append| append.values.clone())
        .collect();
    let records = records(&mut events[at].step)?;
    let found = records
        .iter()
        .position(|(_, value)| known.contains(value))?;
    records.remove(found);
    Some(())
}

fn swap_records(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let at = final_read(events, dice, 2)?;
    let records = records(&mut events[at].step)?;
    let first = dice.below(records.len() as u64 - 1) as usize;
    (records[first].1, records[first + 1].1) = (records[first + 1].1, records[first].1);
    Some(())
}

fn duplicate_record(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let at = final_read(events, dice, 2)?;
    let records = records(&mut events[at].step)?;
    records[1].1 = records[0].1;
    Some(())
}

fn phantom(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let at = final_read(events, dice, 1)?;
    let records = records(&mut events[at].step)?;
    let place = dice.below(records.len() as u64) as usize;
    records[place].1 = STRANGE;
    Some(())
}

/// The last part of the last final read ends one record earlier, and says so.
fn cut_end(events: &mut [Event], _: &mut Dice) -> Option<()> {
    let at = events.len() - 1;
    let before = events[..at].iter();
    // It must have been read before: a log may grow between two final reads.
    let known: Vec<Offset> = before
        .filter_map(|event| match &event.step {
            Step::Ok(Reply::Read { records, .. }) => Some(records),
            _ => None,
        })
        .flat_map(|records| records.iter().map(|(offset, _)| *offset))
        .collect();
    let Step::Ok(Reply::Read { records, tail }) = &mut events[at].step else {
        return None;
    };
    let (end, _) = records.pop()?;
    *tail = Some(end);
    known.contains(&end).then_some(())
}

fn swap_acks(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let acked = acked(events);
    let (one, base) = *dice.pick(&acked)?;
    let (other, other_base) = *acked.iter().find(|(_, other)| *other != base)?;
    lies_at(events, append_of(events, one)?.values[0]).then_some(())?;
    set_base(events, one, other_base);
    set_base(events, other, base);
    Some(())
}

fn shift_ack(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let (at, base) = *dice.pick(&acked(events))?;
    let value = append_of(events, at)?.values[0];
    lies_at(events, value).then_some(())?;
    set_base(events, at, base.plus(1));
    Some(())
}

fn set_base(events: &mut [Event], at: usize, to: Offset) {
    if let Step::Ok(Reply::Append { base, .. }) = &mut events[at].step {
        *base = to;
    }
}

fn deny(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let (at, _) = *dice.pick(&acked(events))?;
    let append = append_of(events, at)?;
    let value = append.values[0];
    let attempts = events.iter().filter(|event| {
        matches!(&event.step, Step::Invoke(invoke)
            if matches!(&invoke.call, Call::Append(other) if other.values[0] == value))
    });
    (attempts.count() == 1 && lies_at(events, value)).then_some(())?;
    events[at].step = Step::Fail(Refusal::Other);
    Some(())
}

fn move_retry(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let acked = acked(events);
    let (at, base) = *dice.pick(&acked)?;
    let (retry, _) = *acked
        .iter()
        .find(|(retry, _)| *retry != at && append_of(events, *retry) == append_of(events, at))?;
    set_base(events, retry, base.plus(1));
    Some(())
}

/// Linearizable tails with the call's beginning.
fn tails(events: &[Event]) -> Vec<(usize, u64)> {
    let found = answers(events, |invoke, step| {
        let linearizable = Mode::Linearizable;
        matches!(&invoke.call, Call::CheckTail { mode } if *mode == linearizable)
            && matches!(step, Step::Ok(_))
    });
    let found = found.into_iter();
    found
        .filter_map(|at| Some((at, invoked(events, events[at].op)?)))
        .collect()
}

fn set_tail(events: &mut [Event], at: usize, to: Offset) {
    if let Step::Ok(Reply::Tail { tail, .. }) = &mut events[at].step {
        *tail = to;
    }
}

fn move_tail_back(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let acked = acked(events);
    let (at, began) = *dice.pick(&tails(events))?;
    let before = acked.iter().filter(|(ack, _)| events[*ack].at.0 < began);
    let (_, base) = *before.max_by_key(|(_, base)| *base)?;
    set_tail(events, at, base);
    Some(())
}

fn move_tail_forward(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let (at, _) = *dice.pick(&tails(events))?;
    set_tail(events, at, Offset(1 << 20));
    Some(())
}

fn skip_first(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let found = answers(events, |invoke, step| match (&invoke.call, step) {
        (Call::Read(read), Step::Ok(Reply::Read { records, .. })) => {
            read.mode != Mode::Final && records.len() >= 2
        }
        _ => false,
    });
    let at = *dice.pick(&found)?;
    records(&mut events[at].step)?.remove(0);
    Some(())
}

fn expect_other(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let (at, base) = *dice.pick(&acked(events))?;
    let wanted = append_of(events, at)?.clone();
    wanted.expect?;
    for event in events {
        if let Step::Invoke(invoke) = &mut event.step
            && let Call::Append(append) = &mut invoke.call
            && *append == wanted
        {
            append.expect = Some(base.plus(1));
        }
    }
    Some(())
}

/// A read after a trim was told serves a record from below it.
fn untrim(events: &mut [Event], dice: &mut Dice) -> Option<()> {
    let trims = answers(
        events,
        |_, step| matches!(step, Step::Ok(Reply::Trim { start }) if *start > Offset::ZERO),
    );
    let told = events[*dice.pick(&trims)?].at.0;
    let tails = tails(events);
    let (at, _) = *tails.iter().find(|(_, began)| *began > told)?;
    if let Step::Ok(Reply::Tail { start, .. }) = &mut events[at].step {
        *start = Some(Offset::ZERO);
    }
    Some(())
}
