//! Events paired into calls, refused where they cannot be judged.

use std::collections::{BTreeMap, HashMap};

use crate::error::Error;
use crate::event::{Append, Call, Event, Invoke, Refusal, Reply, Step};
use crate::limits::{BATCH_VALUES_MAX, OPS_MAX};
use crate::name::{Nanos, OpId, Producer, Sequence, Session, Stream};
use crate::value::ValueHash;

/// Calls with their answers, in order of invocation.
#[derive(Clone, Debug, Default)]
pub struct History {
    ops: Vec<Op>,
    /// Calls without an answer so far, by their place in `ops`.
    open: BTreeMap<OpId, usize>,
    /// First attempt at each batch, by its place in `ops`.
    batches: HashMap<(Stream, Producer, Sequence), usize>,
    values: HashMap<ValueHash, Origin>,
    last: Nanos,
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// Its id.
    pub id: OpId,
    /// Who called.
    pub session: Session,
    /// Which log.
    pub stream: Stream,
    /// When it was about to be sent.
    pub invoked: Nanos,
    /// When its answer had come, [`Nanos::NEVER`] without one.
    pub completed: Nanos,
    /// What was asked.
    pub call: Call,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was done.
    Ok(Reply),
    /// It was not, and will not be.
    Fail(Refusal),
    /// Nobody knows.
    Unknown,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// The first attempt at its batch.
    pub(crate) first: OpId,
    /// Its position in the batch.
    pub(crate) index: u64,
}

impl History {
    /// Takes in the next event.
    ///
    /// # Errors
    /// If the event does not fit what came before; the history is as it was then.
    pub fn push(&mut self, event: Event) -> Result<(), Error> {
        let Event { op, at, step } = event;
        if at < self.last {
            let last = self.last;
            return Err(Error::ClockBack { op, at, last });
        }
        match step {
            Step::Invoke(invoke) => self.invoke(op, at, invoke)?,
            Step::Ok(reply) => self.complete(op, at, Outcome::Ok(reply))?,
            Step::Fail(refusal) => self.complete(op, at, Outcome::Fail(refusal))?,
            Step::Unknown => self.complete(op, at, Outcome::Unknown)?,
        }
        self.last = at;
        Ok(())
    }

    /// The calls, in order of invocation.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(crate) fn origin(&self, value: ValueHash) -> Option<Origin> {
        self.values.get(&value).copied()
    }

    fn invoke(&mut self, id: OpId, at: Nanos, invoke: Invoke) -> Result<(), Error> {
        let last = self.ops.last().map(|op| op.id);
        if let Some(last) = last.filter(|last| *last >= id) {
            return Err(Error::OpOrder { op: id, last });
        }
        if self.ops.len() >= OPS_MAX {
            return Err(Error::TooManyOps);
        }
        if let Call::Append(append) = &invoke.call {
            self.register(id, invoke.stream, append)?;
        }
        self.open.insert(id, self.ops.len());
        self.ops.push(Op {
            id,
            session: invoke.session,
            stream: invoke.stream,
            invoked: at,
            completed: Nanos::NEVER,
            call: invoke.call,
            outcome: Outcome::Unknown,
        });
        Ok(())
    }

    /// Remembers the values of a new batch, or sees that a retry repeats its call.
    fn register(&mut self, id: OpId, stream: Stream, append: &Append) -> Result<(), Error> {
        let values = append.values.len();
        if !(1..=BATCH_VALUES_MAX).contains(&values) {
            return Err(Error::BatchSize { op: id, values });
        }
        let key = (stream, append.producer, append.sequence);
        if let Some(first) = self.batches.get(&key) {
            let first = &self.ops[*first];
            return match &first.call {
                Call::Append(call) if call == append => Ok(()),
                _ => Err(Error::RetryDiffers {
                    op: id,
                    first: first.id,
                }),
            };
        }
        let mut sorted = append.values.clone();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        let known = sorted.iter().find(|value| self.values.contains_key(value));
        if let Some(value) = twice.map(|pair| pair[0]).or(known.copied()) {
            return Err(Error::ValueReused { op: id, value });
        }
        for (index, value) in (0..).zip(&append.values) {
            self.values.insert(*value, Origin { first: id, index });
        }
        self.batches.insert(key, self.ops.len());
        Ok(())
    }

    fn complete(&mut self, id: OpId, at: Nanos, outcome: Outcome) -> Result<(), Error> {
        let place = *self.open.get(&id).ok_or(Error::NotOpen { op: id })?;
        let op = &mut self.ops[place];
        if !answers(&op.call, &outcome) {
            return Err(Error::WrongAnswer { op: id });
        }
        // An answer that tells nothing leaves the call open for ever, as no answer does.
        if outcome != Outcome::Unknown {
            op.completed = at;
        }
        op.outcome = outcome;
        self.open.remove(&id);
        Ok(())
    }
}

/// Whether `outcome` is of the kind that `call` asks for.
fn answers(call: &Call, outcome: &Outcome) -> bool {
    match (call, outcome) {
        (_, Outcome::Unknown | Outcome::Fail(Refusal::Other))
        | (Call::Append(_), Outcome::Ok(Reply::Append { .. }))
        | (Call::Read(_), Outcome::Ok(Reply::Read { .. }))
        | (Call::Read(_), Outcome::Fail(Refusal::OutOfRange { .. }))
        | (Call::CheckTail { .. }, Outcome::Ok(Reply::Tail { .. }))
        | (Call::Trim { .. }, Outcome::Ok(Reply::Trim { .. })) => true,
        (Call::Append(append), Outcome::Fail(Refusal::ExpectedEnd { .. })) => {
            append.expect.is_some()
        }
        (Call::Append(append), Outcome::Fail(Refusal::Fenced { .. })) => append.token.is_some(),
        _ => false,
    }
}
