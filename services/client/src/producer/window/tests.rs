use std::collections::BTreeSet;

use esker_env::sim::SeededEntropy;
use esker_types::Incarnation;
use esker_types::limits::PRODUCER_WINDOW;

use super::*;

fn session() -> Session {
    let id = ProducerId::new(Incarnation::FIRST, 1).unwrap();
    Session::new(id, ProducerEpoch::FIRST)
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn refusal(code: Code, durability: Durability) -> Refusal {
    Refusal {
        code,
        durability,
        retriable: code.is_retriable(),
    }
}

const BUSY: Refusal = Refusal {
    code: Code::Overloaded,
    durability: Durability::NotWritten,
    retriable: true,
};

/// As the service says it.
fn said(code: Code) -> Refusal {
    let durability = match code {
        Code::DuplicateExpired => Durability::Unknown,
        _ => Durability::NotWritten,
    };
    refusal(code, durability)
}

fn gap() -> Refusal {
    refusal(Code::SequenceGap, Durability::NotWritten)
}

fn too_large() -> Refusal {
    refusal(Code::BatchTooLarge, Durability::NotWritten)
}

/// A window of `count` batches, named 0, 1, 2, of one record each, all in flight.
fn in_flight(session: Option<Session>, count: u32) -> (Window<u32>, Vec<Serial>) {
    let mut window = Window::new(session);
    for name in 0..count {
        window.push(name, 1, at(100));
    }
    let serials = std::iter::from_fn(|| window.next_to_send(at(0)).map(|(serial, _)| serial));
    let serials = serials.collect();
    (window, serials)
}

fn sent(window: &mut Window<u32>) -> Vec<u32> {
    std::iter::from_fn(|| window.next_to_send(at(1)).map(|(_, &name)| name)).collect()
}

#[test]
fn a_refusal_goes_back_and_the_rest_is_answered_first() {
    let (mut window, serials) = in_flight(Some(session()), 3);
    assert!(window.refused(serials[0], BUSY).is_none());
    assert_eq!(sent(&mut window), [0_u32; 0], "two are still in flight");
    assert!(window.refused(serials[1], gap()).is_none());
    assert!(window.refused(serials[2], gap()).is_none());
    assert_eq!(sent(&mut window), [0, 1, 2], "all again, in order");
    assert!(!window.is_between_sessions());
}

/// The service remembers the last batches only: what is not settled must stay among them.
#[test]
fn nothing_is_sent_that_would_make_the_service_forget_what_is_in_doubt() {
    let (mut window, serials) = in_flight(Some(session()), 5);
    let unknown = refusal(Code::OutcomeUnknown, Durability::Unknown);
    assert!(window.refused(serials[0], unknown).is_none());
    for (name, &serial) in (1..).zip(&serials[1..]) {
        assert_eq!(window.acked(serial), Some(name));
    }
    window.push(5, 1, at(100));
    assert_eq!(sent(&mut window), [0], "5 would be the sixth since");
    assert_eq!(window.acked(serials[0]), Some(0));
    assert_eq!(sent(&mut window), [5]);
}

#[test]
fn a_rest_is_kept() {
    let (mut window, serials) = in_flight(Some(session()), 1);
    assert!(window.refused(serials[0], BUSY).is_none());
    window.rest(at(0), |failures| {
        Duration::from_secs(u64::from(failures) * 5)
    });
    assert!(!window.wants_to_send(at(4)) && window.wants_to_send(at(5)));
    assert_eq!(window.next_dues(), [Some(at(100)), Some(at(5))]);
}

#[test]
fn what_lacks_a_predecessor_begins_the_next_session() {
    let (mut window, serials) = in_flight(Some(session()), 3);
    let failed = window.refused(serials[0], too_large()).unwrap();
    assert_eq!(
        (failed.batch, failed.durability),
        (0, Durability::NotWritten)
    );
    assert!(!window.has_room() && !window.is_between_sessions());
    assert!(window.refused(serials[1], gap()).is_none());
    assert!(!window.is_between_sessions(), "one is in flight");
    assert!(window.refused(serials[2], gap()).is_none());
    assert!(window.is_between_sessions());
    assert_eq!(sent(&mut window), [0_u32; 0], "not in the old session");
    let mut stamps = Vec::new();
    let failed = window.begin_session(|&mut name, stamp| {
        stamps.push((name, stamp.epoch.as_i16(), stamp.sequence.as_i32()));
        true
    });
    assert!(failed.is_empty());
    assert_eq!(stamps, [(1, 1, 0), (2, 1, 1)]);
    assert_eq!(window.stamp().unwrap().sequence.as_i32(), 2);
    assert_eq!(sent(&mut window), [1, 2]);
}

#[test]
fn what_is_in_doubt_is_never_stamped_anew() {
    let (mut window, _) = in_flight(Some(session()), 2);
    assert!(window.cut().is_empty());
    let (first, _) = window.next_to_send(at(1)).unwrap();
    let failed = window.refused(first, too_large()).unwrap();
    assert_eq!(
        failed.durability,
        Durability::Unknown,
        "its first try is not heard of"
    );
    assert!(!window.is_between_sessions());
    let (second, &name) = window.next_to_send(at(1)).unwrap();
    assert_eq!(name, 1, "asked about once more, as it is");
    let failed = window.refused(second, gap()).unwrap();
    assert_eq!((failed.batch, failed.durability), (1, Durability::Unknown));
    assert!(window.is_between_sessions());
}

#[test]
fn a_session_that_the_service_forgot_is_begun_anew_a_few_times() {
    let mut window = Window::new(Some(session()));
    window.push(0, 1, at(100));
    for _ in 0..SESSIONS_PER_BATCH_MAX {
        let (serial, _) = window.next_to_send(at(0)).unwrap();
        assert!(
            window
                .refused(serial, said(Code::DuplicateExpired))
                .is_none()
        );
        assert!(window.is_between_sessions());
        window.begin_session(|_, _| true);
    }
    let (serial, _) = window.next_to_send(at(0)).unwrap();
    let failed = window.refused(serial, gap()).unwrap();
    assert_eq!(failed.durability, Durability::NotWritten);
}

#[test]
fn what_is_in_doubt_and_forgotten_stays_unknown_and_is_not_asked_about_again() {
    let (mut window, _) = in_flight(Some(session()), 1);
    assert!(window.cut().is_empty());
    let (serial, _) = window.next_to_send(at(1)).unwrap();
    let failed = window.refused(serial, said(Code::DuplicateExpired));
    assert_eq!(failed.unwrap().durability, Durability::Unknown);
}

#[test]
fn epochs_end() {
    let id = ProducerId::new(Incarnation::FIRST, 1).unwrap();
    let last = ProducerEpoch::from_i16(i16::MAX).unwrap();
    let (mut window, serials) = in_flight(Some(Session::new(id, last)), 2);
    assert!(window.refused(serials[0], too_large()).is_some());
    assert!(window.refused(serials[1], gap()).is_none());
    let failed = window.begin_session(|_, _| true);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].durability, Durability::NotWritten);
    assert!(!window.has_room(), "and nothing more is taken");
}

#[test]
fn without_an_id_one_is_in_flight_and_a_break_settles_it() {
    let mut window = Window::new(None);
    window.push(0, 1, at(100));
    window.push(1, 1, at(100));
    let (first, _) = window.next_to_send(at(0)).unwrap();
    assert!(!window.wants_to_send(at(0)));
    assert!(
        window.refused(first, BUSY).is_none(),
        "nothing was written: again"
    );
    assert_eq!(sent(&mut window), [0]);
    let failed = window.cut();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].batch, failed[0].durability),
        (0, Durability::Unknown)
    );
    assert_eq!(sent(&mut window), [1]);
    let unknown = refusal(Code::OutcomeUnknown, Durability::Unknown);
    let (serial, _) = (window.entries[0].serial, ());
    assert_eq!(
        window.refused(serial, unknown).unwrap().durability,
        Durability::Unknown
    );
}

#[test]
fn what_never_left_is_not_in_doubt() {
    for session in [Some(session()), None] {
        let (mut window, serials) = in_flight(session, 1);
        window.recalled(serials[0]);
        assert!(window.cut().is_empty());
        assert_eq!(sent(&mut window), [0]);
        window.recalled(serials[0]);
        assert_eq!(window.expire(at(100))[0].durability, Durability::NotWritten);
    }
}

#[test]
fn time_over_is_unknown_only_for_what_was_sent() {
    let (mut window, serials) = in_flight(Some(session()), 1);
    window.push(1, 1, at(200));
    assert!(window.expire(at(99)).is_empty());
    let failed = window.expire(at(100));
    assert_eq!(failed[0].durability, Durability::Unknown);
    assert!(window.acked(serials[0]).is_none(), "too late");
    let failed = window.expire(at(200));
    assert_eq!(
        (failed[0].batch, failed[0].durability),
        (1, Durability::NotWritten)
    );
}

/// A partition by the service's rules, with tries that arrive long after they were given up.
#[derive(Default)]
struct Partition {
    log: Vec<u32>,
    known: Option<(i16, i32)>,
    remembered: VecDeque<(ProducerStamp, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    name: u32,
    records: u32,
    stamp: Option<ProducerStamp>,
}

impl Partition {
    fn append(&mut self, batch: Batch) -> Result<(), Code> {
        let Some(stamp) = batch.stamp else {
            self.log.push(batch.name);
            return Ok(());
        };
        let (epoch, sequence) = (stamp.epoch.as_i16(), stamp.sequence.as_i32());
        if self.remembered.contains(&(stamp, batch.records)) {
            return Ok(());
        }
        match self.known {
            None if sequence != 0 => return Err(Code::DuplicateExpired),
            Some((known, _)) if epoch < known => return Err(Code::StaleProducerEpoch),
            Some((known, _)) if epoch > known && sequence != 0 => return Err(Code::SequenceGap),
            Some((known, next)) if epoch == known && sequence > next => {
                return Err(Code::SequenceGap);
            }
            Some((known, next)) if epoch == known && sequence < next => {
                return Err(Code::SequenceReused);
            }
            _ => {}
        }
        if self.known.is_none_or(|(known, _)| epoch > known) {
            self.remembered.clear();
        }
        if self.remembered.len() == PRODUCER_WINDOW {
            self.remembered.pop_front();
        }
        self.remembered.push_back((stamp, batch.records));
        let next = stamp.sequence.after(batch.records).as_i32();
        self.known = Some((epoch, next));
        self.log.push(batch.name);
        Ok(())
    }
}

/// A producer, a stream, and a partition behind it that has bad days.
struct World {
    dice: SeededEntropy,
    window: Window<Batch>,
    partition: Partition,
    names: u32,
    now: u64,
    stream: VecDeque<(Serial, Batch)>,
    replies: VecDeque<(Serial, Result<(), Refusal>)>,
    late: VecDeque<Batch>,
    acked: Vec<u32>,
    failed: Vec<(u32, Durability)>,
}

impl World {
    fn new(seed: u64, session: Option<Session>) -> Self {
        Self {
            dice: SeededEntropy::new(seed),
            window: Window::new(session),
            partition: Partition::default(),
            names: 0,
            now: 0,
            stream: VecDeque::new(),
            replies: VecDeque::new(),
            late: VecDeque::new(),
            acked: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn push(&mut self) {
        if self.window.has_room() {
            let records = u32::try_from(1 + self.dice.below(3)).unwrap();
            let stamp = self.window.stamp();
            let name = self.names;
            self.names += 1;
            let batch = Batch {
                name,
                records,
                stamp,
            };
            self.window.push(batch, records, at(self.now + 40));
        }
    }

    fn send(&mut self) {
        if let Some((serial, &batch)) = self.window.next_to_send(at(self.now)) {
            self.stream.push_back((serial, batch));
        }
    }

    fn serve(&mut self, faults: bool) {
        let Some((serial, batch)) = self.stream.pop_front() else {
            return;
        };
        let unknown = refusal(Code::OutcomeUnknown, Durability::Unknown);
        let fate = if faults { self.dice.below(12) } else { 11 };
        let reply = match fate {
            0 => Err(BUSY),
            1 => Err(too_large()),
            2 => {
                self.late.push_back(batch);
                Err(unknown)
            }
            3 => {
                let _ = self.partition.append(batch);
                Err(unknown)
            }
            4 => Err(unknown),
            _ => {
                let answer = self.partition.append(batch);
                assert_ne!(
                    answer,
                    Err(Code::SequenceReused),
                    "it was forgotten: {batch:?}"
                );
                answer.map_err(said)
            }
        };
        self.replies.push_back((serial, reply));
    }

    fn hear(&mut self) {
        let Some((serial, reply)) = self.replies.pop_front() else {
            return;
        };
        match reply {
            Ok(()) => self.acked.extend(self.window.acked(serial).map(|b| b.name)),
            Err(refusal) => {
                let failed = self.window.refused(serial, refusal);
                self.note(failed);
                self.window.rest(at(self.now), |_| Duration::from_secs(1));
            }
        }
    }

    /// The stream breaks: what is on it is lost, or comes late, in order.
    fn cut(&mut self) {
        for (_, batch) in std::mem::take(&mut self.stream) {
            if self.dice.chance(50) {
                self.late.push_back(batch);
            }
        }
        self.replies.clear();
        let failed = self.window.cut();
        self.note(failed);
    }

    fn arrive_late(&mut self) {
        if let Some(batch) = self.late.pop_front() {
            let _ = self.partition.append(batch);
        }
    }

    fn note(&mut self, failed: impl IntoIterator<Item = Failed<Batch>>) {
        let told = failed.into_iter().map(|f| (f.batch.name, f.durability));
        self.failed.extend(told);
    }

    fn tick(&mut self) {
        let failed = self.window.expire(at(self.now));
        self.note(failed);
        if self.window.is_between_sessions() {
            let failed = self.window.begin_session(|batch, stamp| {
                batch.stamp = Some(stamp);
                true
            });
            self.note(failed);
        }
        // A producer that is silent for a day is forgotten; nothing of it is on its way then.
        let silent = self.window.is_empty() && self.late.is_empty() && self.stream.is_empty();
        if silent && self.dice.chance(5) {
            self.partition.known = None;
            self.partition.remembered.clear();
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(24) {
                0..4 => self.push(),
                4..9 => self.send(),
                9..14 => self.serve(true),
                14..19 => self.hear(),
                19 => self.arrive_late(),
                20 if self.dice.chance(30) => self.cut(),
                21 if self.dice.chance(30) => self.now += 1 + self.dice.below(10),
                _ => self.now += u64::from(self.dice.chance(20)),
            }
            self.tick();
        }
    }

    /// Faults are over: everything settles, long before its time is over.
    fn settle(&mut self) {
        let begun = self.now;
        for _ in 0..400 {
            self.send();
            self.serve(false);
            self.hear();
            if self.dice.chance(10) {
                self.now += 1;
            }
            self.tick();
        }
        assert!(self.window.is_empty(), "{:?}", self.window);
        assert!(self.now > begun, "rests can end");
        while !self.late.is_empty() {
            self.arrive_late();
        }
    }

    fn check(&self, seed: u64, idempotent: bool) {
        let log = &self.partition.log;
        let written: BTreeSet<_> = log.iter().copied().collect();
        assert_eq!(written.len(), log.len(), "seed {seed}: twice in {log:?}");
        if idempotent {
            assert!(log.is_sorted(), "seed {seed}: out of order: {log:?}");
        }
        let acked: Vec<_> = log
            .iter()
            .filter(|name| self.acked.contains(name))
            .collect();
        assert!(
            acked.is_sorted(),
            "seed {seed}: acked out of order: {acked:?}"
        );
        for name in &self.acked {
            assert!(written.contains(name), "seed {seed}: {name} acked and lost");
        }
        for (name, durability) in &self.failed {
            let fine = *durability == Durability::Unknown || !written.contains(name);
            assert!(
                fine,
                "seed {seed}: {name} failed as {durability:?} and is written"
            );
        }
        let settled = self.acked.len() + self.failed.len();
        assert_eq!(settled, self.names as usize, "seed {seed}: each once");
    }
}

#[test]
fn nothing_is_written_twice_or_out_of_order_or_wrongly_reported() {
    let mut acked = 0;
    let mut sessions = 0;
    for seed in 0..4000 {
        let mut world = World::new(seed, Some(session()));
        world.run(400);
        world.settle();
        world.check(seed, true);
        acked += world.acked.len();
        sessions += world.window.stamp().unwrap().epoch.as_i16();
    }
    assert!(acked > 4000 * 5, "{acked}");
    assert!(sessions > 4000, "{sessions}");
}

#[test]
fn without_an_id_nothing_is_written_twice_or_wrongly_reported() {
    let mut acked = 0;
    for seed in 0..4000 {
        let mut world = World::new(seed, None);
        world.run(400);
        world.settle();
        world.check(seed, false);
        acked += world.acked.len();
    }
    assert!(acked > 4000 * 5, "{acked}");
}
