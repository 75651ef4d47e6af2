//! Permits by class, so that no kind of request crowds out another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::budget::Budget;
use crate::counting::Tally;
use crate::error::Cause;
use crate::request::{Answer, Bucket, Class, Request};

/// Runs a bounded number of requests of each class at once; a bounded number waits, first come
/// first served; one more is refused.
#[derive(Debug)]
pub(crate) struct Limit {
    inner: Arc<dyn Bucket>,
    foreground: Gate,
    background: Gate,
    writes: Gate,
    upkeep: Gate,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// A place in the queue, given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl Limit {
    pub(crate) fn new(inner: Arc<dyn Bucket>, budget: &Budget, tally: Arc<Tally>) -> Self {
        let gate = |permits: usize| Gate {
            permits: Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            waiting_max: budget.waiting,
        };
        Self {
            inner,
            foreground: gate(budget.foreground),
            background: gate(budget.background),
            writes: gate(budget.writes),
            upkeep: gate(budget.upkeep),
            tally,
        }
    }

    fn gate(&self, class: Class) -> &Gate {
        match class {
            Class::Foreground => &self.foreground,
            Class::Background => &self.background,
            Class::Write => &self.writes,
            Class::Upkeep => &self.upkeep,
        }
    }
}

impl Gate {
    async fn enter(&self, class: Class) -> Result<SemaphorePermit<'_>, Cause> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(Cause::Overloaded {
                class,
                limit: self.waiting_max,
            });
        }
        let permit = self.permits.acquire().await;
        drop(place);
        Ok(permit.expect("a gate is never closed"))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket for Limit {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            let class = request.class();
            let entered = self.gate(class).enter(class).await;
            let _permit = entered.inspect_err(|_| self.tally.refused())?;
            self.inner.call(request).await
        })
    }
}
