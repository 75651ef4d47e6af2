//! Attempts: a bounded number, in a bounded time, with full jitter between them.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Clock, Entropy, Env};

use crate::budget::Budget;
use crate::counting::Tally;
use crate::error::Error;
use crate::request::{Answer, Bucket, Request};

/// The outermost layer: turns the cause of the last attempt into an error with a name.
#[derive(Debug)]
pub(crate) struct Retry {
    inner: Arc<dyn Bucket>,
    budget: Budget,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tally: Arc<Tally>,
}

impl Retry {
    pub(crate) fn new(
        inner: Arc<dyn Bucket>,
        budget: &Budget,
        env: &Env,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            inner,
            budget: budget.clone(),
            clock: Arc::clone(&env.clock),
            entropy: Arc::clone(&env.entropy),
            tally,
        }
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Answer, Error> {
        let started = self.clock.monotonic();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.inner.call(request.clone()).await;
            let cause = match answer.and_then(|answer| request.check(answer)) {
                Ok(answer) => return Ok(answer),
                Err(cause) => cause,
            };
            let pause = self.pause_after(attempts);
            let spent = self.clock.monotonic().since(started);
            if !cause.is_worth_another_attempt()
                || attempts >= self.budget.attempts
                || spent + pause > self.budget.total
            {
                return Err(Error::Request {
                    verb: request.verb(),
                    key: request.path().to_owned(),
                    attempts: attempts - u32::from(!cause.was_asked()),
                    cause,
                });
            }
            tracing::debug!(verb = %request.verb(), key = request.path(), attempts, %cause, "asking again");
            self.tally.retried();
            tokio::time::sleep(pause).await;
        }
    }

    /// Uniform between zero and a bound that doubles ("full jitter", M. Brooker, "Exponential
    /// Backoff And Jitter", 2015): clients that failed together do not come back together.
    fn pause_after(&self, attempts: u32) -> Duration {
        let doubled = self
            .budget
            .pause_first
            .saturating_mul(1 << (attempts - 1).min(20));
        let bound = doubled.min(self.budget.pause_max);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        let drawn = self.entropy.next_u64() % micros.saturating_add(1).max(1);
        Duration::from_micros(drawn)
    }
}
