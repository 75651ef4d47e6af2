//! A search over all orders of a small history, after Wing and Gong: take any call that no call
//! still to be taken was answered before, see whether the log would have answered so, go on. It
//! shares no idea with the checker, which is its worth, and it is exponential, which is its price.

use std::collections::HashSet;

use esker_checker::{Append, Call, Mode, Offset, Op, Outcome, Read, Refusal, Reply, ValueHash};

/// The log in its simplest form: its records, and where it has ended so far.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Log {
    records: Vec<ValueHash>,
    ends: Vec<u64>,
}

/// Whether some order of the calls explains all answers. At most 32 calls, each append sent once.
pub(crate) fn is_explained(ops: &[Op]) -> bool {
    assert!(ops.len() <= 32, "a search is for small histories");
    let mut seen = HashSet::new();
    let empty = Log {
        records: Vec::new(),
        ends: vec![0],
    };
    search(ops, 0, &empty, &mut seen)
}

fn search(ops: &[Op], taken: u32, log: &Log, seen: &mut HashSet<(u32, Log)>) -> bool {
    let left = |at: usize| taken & (1 << at) == 0;
    let places = 0..ops.len();
    if places
        .clone()
        .all(|at| !left(at) || ops[at].outcome == Outcome::Unknown)
    {
        return true;
    }
    if !seen.insert((taken, log.clone())) {
        return false;
    }
    let first_answer = places
        .clone()
        .filter(|at| left(*at))
        .map(|at| ops[at].completed)
        .min();
    places.filter(|at| left(*at)).any(|at| {
        let op = &ops[at];
        Some(op.invoked) <= first_answer
            && log
                .after(op)
                .is_some_and(|log| search(ops, taken | 1 << at, &log, seen))
    })
}

impl Log {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    /// The log after `op` was done now, if now it could have been answered as it was.
    fn after(&self, op: &Op) -> Option<Self> {
        match (&op.call, &op.outcome) {
            (Call::Append(append), Outcome::Ok(Reply::Append { base, count })) => {
                let fits = base.0 == self.end() && *count == append.values.len() as u64;
                fits.then(|| self.append(append)).flatten()
            }
            (Call::Append(append), Outcome::Unknown) => self.append(append),
            (Call::Append(append), Outcome::Fail(Refusal::ExpectedEnd { actual })) => {
                let fits = actual.0 == self.end() && append.expect != Some(*actual);
                fits.then(|| self.clone())
            }
            (Call::Read(read), Outcome::Ok(Reply::Read { records, tail })) => {
                self.could_read(read, records, *tail).then(|| self.clone())
            }
            (Call::CheckTail { mode }, Outcome::Ok(Reply::Tail { tail, .. })) => {
                self.could_end(*mode, *tail).then(|| self.clone())
            }
            (_, Outcome::Unknown) => Some(self.clone()),
            other => unreachable!("not part of these histories: {other:?}"),
        }
    }

    fn append(&self, append: &Append) -> Option<Self> {
        if append.expect.is_some_and(|expect| expect.0 != self.end()) {
            return None;
        }
        let mut log = self.clone();
        log.records.extend(&append.values);
        log.ends.push(log.end());
        Some(log)
    }

    fn could_end(&self, mode: Mode, tail: Offset) -> bool {
        match mode {
            Mode::Stale => self.ends.contains(&tail.0),
            Mode::Linearizable | Mode::Final => tail.0 == self.end(),
        }
    }

    fn could_read(
        &self,
        read: &Read,
        records: &[(Offset, ValueHash)],
        tail: Option<Offset>,
    ) -> bool {
        let from = read.from.0;
        let end = tail.map_or(self.end(), |tail| tail.0);
        let until = from + records.len() as u64;
        let in_order = (from..).zip(records).all(|(at, (offset, value))| {
            offset.0 == at && self.records.get(at as usize) == Some(value)
        });
        let whole = read.mode != Mode::Final || until == end;
        let inside = records.is_empty() || until <= end;
        whole && inside && in_order && tail.is_none_or(|tail| self.could_end(read.mode, tail))
    }
}
