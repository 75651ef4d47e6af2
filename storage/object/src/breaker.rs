//! The circuit breaker: a store that is down is asked once a pause, not by everybody.

use std::sync::{Arc, Mutex};

use esker_env::{Clock, Monotonic};
use futures::future::BoxFuture;

use crate::budget::Budget;
use crate::counting::Tally;
use crate::error::Cause;
use crate::request::{Answer, Bucket, Request, Verb};

/// Opens after a number of failures in a row. While open it refuses at once; after each pause
/// one request is let through, and its success closes the circuit.
#[derive(Debug)]
pub(crate) struct Breaker {
    inner: Arc<dyn Bucket>,
    clock: Arc<dyn Clock>,
    budget: Budget,
    tally: Arc<Tally>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// The last of them; `None` before the first.
    last: Option<Arc<Cause>>,
    /// When the circuit opened, or was last tried.
    opened: Option<Monotonic>,
    trying: bool,
}

/// A request on its way while the circuit is open: dropped without an outcome, the next may try.
struct Trial<'a>(&'a Breaker);

impl Breaker {
    pub(crate) fn new(
        inner: Arc<dyn Bucket>,
        budget: &Budget,
        clock: Arc<dyn Clock>,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            inner,
            clock,
            budget: budget.clone(),
            tally,
            state: Mutex::default(),
        }
    }

    /// Lets a request pass, as a trial if the circuit is open, or refuses it.
    fn admit(&self) -> Result<Option<Trial<'_>>, Cause> {
        let mut state = self.state.lock().expect("no holder panics");
        let Some(opened) = state.opened else {
            return Ok(None);
        };
        let waited = self.clock.monotonic().since(opened);
        if state.trying || waited < self.budget.breaker_pause {
            self.tally.refused();
            let last = state.last.clone();
            return Err(Cause::CircuitOpen {
                failures: state.failures,
                last: last.expect("a failure opened the circuit"),
            });
        }
        state.trying = true;
        Ok(Some(Trial(self)))
    }

    /// What a request came to. One that succeeds says no more than that this one does: another, of
    /// more bytes, may fail on.
    fn settle(&self, verb: Verb, failure: Option<&Cause>) {
        let mut state = self.state.lock().expect("no holder panics");
        let Some(failure) = failure else {
            if state.opened.is_some() {
                tracing::info!(
                    failures = state.failures,
                    "the object store has answered a {verb}, all else is asked of it again"
                );
            }
            *state = State::default();
            return;
        };
        state.last = Some(Arc::new(failure.clone()));
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.budget.breaker_failures {
            if state.opened.is_none() {
                self.tally.opened();
                tracing::warn!(
                    failures = state.failures,
                    last = %failure,
                    "the object store does not answer"
                );
            }
            state.opened = Some(self.clock.monotonic());
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("no holder panics").trying = false;
    }
}

impl Bucket for Breaker {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            let trial = self.admit()?;
            let verb = request.verb();
            let result = self.inner.call(request).await;
            match &result {
                // Our own limit says nothing about the store.
                Err(Cause::Overloaded { .. }) => {}
                Err(failure @ (Cause::Unavailable(_) | Cause::TimedOut(_))) => {
                    self.settle(verb, Some(failure));
                }
                _ => self.settle(verb, None),
            }
            drop(trial);
            result
        })
    }
}
