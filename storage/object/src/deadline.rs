//! How long one request may take: a fixed time, and more by its payload.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::budget::Budget;
use crate::error::Cause;
use crate::request::{Answer, Bucket, Request};

/// Drops a request that takes too long. It lies below the permits, so that waiting for one does
/// not count, and above the network, whose own time limits are switched off.
#[derive(Debug)]
pub(crate) struct Deadline {
    inner: Arc<dyn Bucket>,
    fixed: Duration,
    bytes_per_second_min: u64,
}

impl Deadline {
    pub(crate) fn new(inner: Arc<dyn Bucket>, budget: &Budget) -> Self {
        Self {
            inner,
            fixed: budget.request_timeout,
            bytes_per_second_min: budget.bytes_per_second_min.max(1),
        }
    }

    fn of(&self, request: &Request) -> Duration {
        let seconds = request.payload_bytes() / self.bytes_per_second_min;
        self.fixed.saturating_add(Duration::from_secs(seconds))
    }
}

impl Bucket for Deadline {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            let deadline = self.of(&request);
            match tokio::time::timeout(deadline, self.inner.call(request)).await {
                Ok(result) => result,
                Err(_) => Err(Cause::TimedOut(deadline)),
            }
        })
    }
}
