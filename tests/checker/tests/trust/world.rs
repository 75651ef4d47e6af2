//! A correct log, its concurrent clients and a network that loses answers, in simulated time.
//!
//! Each call has three moments: it is sent, it takes effect (or never does), its answer comes (or
//! is given up, and then the effect may come later, even during the final reads).

use std::collections::{BTreeMap, HashMap};

use esker_checker::{
    Append, Call, Event, Invoke, Mode, Nanos, Offset, OpId, Producer, Read, Refusal, Reply,
    Sequence, Session, Step, Stream, Token, ValueHash, View,
};

use crate::dice::Dice;

const TIERS: [&str; 3] = ["head", "bucket", "cold"];
/// When the final reads begin: after the workload, before the last effect.
const AFTER_ALL: u64 = 50_000;

/// The history of one seed: `calls` calls by a few clients on one log, then two final reads.
pub(crate) fn run(seed: u64, calls: usize) -> Vec<Event> {
    let mut world = World::new(seed);
    let clients = 2 + world.dice.below(5);
    for client in 0..clients {
        let at = world.dice.below(50);
        world.at(at, Action::Send(client as usize));
        world.clients.push(Client::default());
    }
    world.calls_left = calls;
    world.at(AFTER_ALL, Action::Finish(0, 0));
    while let Some(((now, _), action)) = world.agenda.pop_first() {
        world.now = now;
        world.act(action);
    }
    world.events
}

#[derive(Clone, Copy)]
enum Action {
    Send(usize),
    Effect(OpId),
    Answer(OpId),
    /// The next part of the final read of a tier, from an offset on.
    Finish(usize, u64),
}

#[derive(Default)]
struct Client {
    sequence: u64,
    /// The end as this client knows it.
    known: u64,
    /// An append whose outcome it does not know, to be tried again.
    again: Option<Append>,
    token: u64,
}

struct Sent {
    client: usize,
    call: Call,
    step: Step,
    lost: bool,
}

struct World {
    dice: Dice,
    now: u64,
    agenda: BTreeMap<(u64, u64), Action>,
    scheduled: u64,
    calls_left: usize,
    clients: Vec<Client>,
    sent: BTreeMap<OpId, Sent>,
    events: Vec<Event>,
    next_op: u64,
    next_value: u64,
    log: Log,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            now: 0,
            agenda: BTreeMap::new(),
            scheduled: 0,
            calls_left: 0,
            clients: Vec::new(),
            sent: BTreeMap::new(),
            events: Vec::new(),
            next_op: 0,
            next_value: seed << 32,
            log: Log::default(),
        }
    }

    fn at(&mut self, time: u64, action: Action) {
        self.scheduled += 1;
        self.agenda.insert((time, self.scheduled), action);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(client) => self.send(client),
            Action::Effect(op) => {
                let sent = self.sent.get_mut(&op).expect("it was sent");
                let known = self.clients[sent.client].known;
                sent.step = self.log.apply(&sent.call, known, &mut self.dice);
            }
            Action::Answer(op) => self.answer(op),
            Action::Finish(tier, from) => self.finish(tier, from),
        }
    }

    fn send(&mut self, client: usize) {
        if self.calls_left == 0 {
            return;
        }
        self.calls_left -= 1;
        let call = self.choose(client);
        let op = self.invoke(client, call.clone());
        let lost = self.dice.chance(15);
        let effect = self.now + 1 + self.dice.below(40);
        let answer = if lost {
            self.now + 20 + self.dice.below(30)
        } else {
            effect + 1 + self.dice.below(20)
        };
        // Some effects never come, some come when nobody waits any more.
        let late = self.dice.below(AFTER_ALL + 40);
        if !lost || self.dice.chance(50) {
            self.at(effect, Action::Effect(op));
        } else if self.dice.chance(50) {
            self.at(effect + late, Action::Effect(op));
        }
        self.at(answer, Action::Answer(op));
        let step = Step::Unknown;
        let sent = Sent {
            client,
            call,
            step,
            lost,
        };
        self.sent.insert(op, sent);
    }

    fn choose(&mut self, client: usize) -> Call {
        if let Some(append) = self.clients[client].again.take() {
            return Call::Append(append);
        }
        let known = self.clients[client].known;
        let mode = if self.dice.chance(70) {
            Mode::Linearizable
        } else {
            Mode::Stale
        };
        match self.dice.below(100) {
            0..45 => Call::Append(self.new_append(client)),
            45..80 => Call::Read(Read {
                from: Offset(self.dice.below(known + 2)),
                max: 1 + self.dice.below(6),
                mode,
                view: View::new("agent", TIERS[self.dice.below(3) as usize]),
            }),
            80..98 => Call::CheckTail { mode },
            _ => Call::Trim {
                to: Offset(self.dice.below(known + 1)),
            },
        }
    }

    fn new_append(&mut self, client: usize) -> Append {
        let records = 1 + self.dice.below(3);
        let values = (0..records)
            .map(|n| ValueHash(self.next_value + n))
            .collect();
        self.next_value += records;
        let this = &mut self.clients[client];
        this.sequence += 1;
        if self.dice.chance(5) {
            this.token += self.dice.below(3);
        }
        let expect = self.dice.chance(20).then_some(Offset(this.known));
        let token = self.dice.chance(30).then_some(Token(this.token));
        let producer = Producer(client as u64);
        let sequence = Sequence(this.sequence);
        Append {
            producer,
            sequence,
            values,
            expect,
            token,
            plain: false,
        }
    }

    fn invoke(&mut self, client: usize, call: Call) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        let invoke = Invoke {
            session: Session(client as u64),
            stream: Stream(0),
            call,
        };
        self.note(op, Step::Invoke(invoke));
        op
    }

    fn note(&mut self, op: OpId, step: Step) {
        let at = Nanos(self.now);
        self.events.push(Event { op, at, step });
    }

    fn answer(&mut self, op: OpId) {
        // Without its answer a call stays, for its effect may be still to come.
        let sent = self.sent.get(&op).expect("it was sent");
        let client = sent.client;
        let step = if sent.lost {
            Step::Unknown
        } else {
            sent.step.clone()
        };
        let call = sent.call.clone();
        let known = match &step {
            Step::Ok(Reply::Append { base, count }) => base.0 + count,
            Step::Ok(Reply::Read { records, tail }) => {
                let read = records.last().map_or(0, |last| last.0.0 + 1);
                read.max(tail.map_or(0, |tail| tail.0))
            }
            Step::Ok(Reply::Tail { tail, .. }) => tail.0,
            Step::Fail(Refusal::ExpectedEnd { actual }) => actual.0,
            Step::Fail(Refusal::OutOfRange { end, .. }) => end.0,
            _ => 0,
        };
        let this = &mut self.clients[client];
        this.known = this.known.max(known);
        if let Step::Fail(Refusal::Fenced { current }) = &step {
            this.token = this.token.max(current.0);
        }
        // Some clients try again though they were told.
        let again = if step == Step::Unknown { 70 } else { 5 };
        if let Call::Append(append) = call
            && self.dice.chance(again)
        {
            this.again = Some(append);
        }
        self.note(op, step);
        if self.dice.chance(95) {
            let pause = 1 + self.dice.below(20);
            self.at(self.now + pause, Action::Send(client));
        } else {
            // A client that stops for long, so that others go on without it.
            self.at(self.now + 500, Action::Send(client));
        }
    }

    fn finish(&mut self, tier: usize, from: u64) {
        let from = from.max(self.log.start);
        let read = Read {
            from: Offset(from),
            max: 7,
            mode: Mode::Final,
            view: View::new("agent", TIERS[tier]),
        };
        let op = self.invoke(96, Call::Read(read.clone()));
        let step = self.log.read(&read, 0, &mut self.dice);
        let next = from + 7;
        self.note(op, step);
        if next < self.log.end() {
            self.at(self.now + 1, Action::Finish(tier, next));
        } else if tier == 0 {
            self.at(self.now + 1, Action::Finish(1, 0));
        }
    }
}

/// The log itself: what every promise is about, kept.
#[derive(Default)]
struct Log {
    records: Vec<ValueHash>,
    /// Ends of batches.
    ends: Vec<u64>,
    start: u64,
    token: Option<Token>,
    done: HashMap<(Producer, Sequence), u64>,
    last: HashMap<Producer, Sequence>,
}

impl Log {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// What `call` does and says, to a client that knows of an end at `known`.
    fn apply(&mut self, call: &Call, known: u64, dice: &mut Dice) -> Step {
        match call {
            Call::Append(append) => self.append(append),
            Call::Read(read) => self.read(read, known, dice),
            Call::CheckTail { mode } => {
                let tail = Offset(self.tail(*mode, known, dice));
                let start = (*mode == Mode::Linearizable).then_some(Offset(self.start));
                Step::Ok(Reply::Tail { start, tail })
            }
            Call::Trim { to } => {
                self.start = self.start.max(to.0);
                Step::Ok(Reply::Trim {
                    start: Offset(self.start),
                })
            }
        }
    }

    fn append(&mut self, append: &Append) -> Step {
        let key = (append.producer, append.sequence);
        let count = append.values.len() as u64;
        if let Some(base) = self.done.get(&key) {
            return Step::Ok(Reply::Append {
                base: Offset(*base),
                count,
            });
        }
        if let (Some(token), Some(current)) = (append.token, self.token)
            && token < current
        {
            return Step::Fail(Refusal::Fenced { current });
        }
        if self.last.get(&append.producer) >= Some(&append.sequence) {
            return Step::Fail(Refusal::Other);
        }
        let base = self.end();
        if append.expect.is_some_and(|expect| expect.0 != base) {
            return Step::Fail(Refusal::ExpectedEnd {
                actual: Offset(base),
            });
        }
        self.token = append.token.or(self.token);
        self.done.insert(key, base);
        self.last.insert(append.producer, append.sequence);
        self.records.extend(&append.values);
        self.ends.push(self.end());
        Step::Ok(Reply::Append {
            base: Offset(base),
            count,
        })
    }

    /// The end, or for a stale answer one that was, not below `known`.
    fn tail(&self, mode: Mode, known: u64, dice: &mut Dice) -> u64 {
        let ends = [0].into_iter().chain(self.ends.iter().copied());
        let ends: Vec<u64> = ends.filter(|end| *end >= known).collect();
        match mode {
            Mode::Stale => *dice.pick(&ends).expect("what a client knows of is there"),
            Mode::Linearizable | Mode::Final => self.end(),
        }
    }

    fn read(&self, read: &Read, known: u64, dice: &mut Dice) -> Step {
        let from = read.from.0;
        let end = self.tail(read.mode, known, dice);
        if from < self.start || from > end {
            let (start, end) = (Offset(self.start), Offset(end));
            return Step::Fail(Refusal::OutOfRange { start, end });
        }
        let short = if read.mode == Mode::Final {
            0
        } else {
            dice.below(read.max)
        };
        let until = end.min(from + read.max - short);
        let records = (from..until)
            .map(|at| (Offset(at), self.records[at as usize]))
            .collect();
        let tells = read.mode == Mode::Final || dice.chance(50);
        let tail = tells.then_some(Offset(end));
        Step::Ok(Reply::Read { records, tail })
    }
}
