//! The driver's pen: stamps each event, writes it to a file and keeps it for the check.

use std::io::Write;

use crate::error::Error;
use crate::event::{Call, Event, Invoke, Step};
use crate::history::{History, Outcome};
use crate::jsonl::write_event;
use crate::name::{Nanos, OpId, Session, Stream};

/// Records calls as they happen. `C` is the driver's one monotonic clock, in nanoseconds.
///
/// Clients that share a recorder take turns: whoever holds it is stamped and written in one step,
/// so that stamps never go back.
#[derive(Debug)]
pub struct Recorder<C, W> {
    clock: C,
    out: W,
    history: History,
    next: OpId,
}

impl<C: FnMut() -> u64, W: Write> Recorder<C, W> {
    /// Nothing recorded yet; lines go to `out`, which the caller buffers.
    pub fn new(clock: C, out: W) -> Self {
        Self {
            clock,
            out,
            history: History::default(),
            next: OpId::default(),
        }
    }

    /// A call is about to be sent. Give its id back to [`Recorder::complete`].
    ///
    /// # Errors
    /// If the call is malformed or `out` fails.
    pub fn invoke(&mut self, session: Session, stream: Stream, call: Call) -> Result<OpId, Error> {
        let op = self.next;
        let invoke = Invoke {
            session,
            stream,
            call,
        };
        self.record(op, Step::Invoke(invoke))?;
        self.next = OpId(op.0 + 1);
        Ok(op)
    }

    /// The answer to `op` has come, or has been given up.
    ///
    /// # Errors
    /// If `op` is not open, the answer is of another kind, or `out` fails.
    pub fn complete(&mut self, op: OpId, outcome: Outcome) -> Result<(), Error> {
        let step = match outcome {
            Outcome::Ok(reply) => Step::Ok(reply),
            Outcome::Fail(refusal) => Step::Fail(refusal),
            Outcome::Unknown => Step::Unknown,
        };
        self.record(op, step)
    }

    /// What was recorded so far.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Flushes the file and hands over what was recorded.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn finish(mut self) -> Result<(History, W), Error> {
        self.out.flush()?;
        Ok((self.history, self.out))
    }

    fn record(&mut self, op: OpId, step: Step) -> Result<(), Error> {
        let at = Nanos((self.clock)());
        let event = Event { op, at, step };
        let mut line = Vec::new();
        write_event(&mut line, &event)?;
        // The history goes first: it refuses what must not get into the file.
        self.history.push(event)?;
        self.out.write_all(&line)?;
        Ok(())
    }
}
