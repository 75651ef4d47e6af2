//! Bytes that an agent holds for its clients, all of them together.
//!
//! ```text
//!   take ─► room? ─► Held ─ keep: less of it ─ drop ─► whoever waits longest
//!     │       └ no ─► waits its turn, no more of them than the budget itself is, and not for long
//!     └ more than all there is: refused
//! ```
//! Turns are first come, first served: nobody overtakes what is large. Nobody waits here while it
//! holds a share that only its own going on would free, so there is no circle to wait in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_types::limits::{APPEND_BUDGET_BYTES, BUDGET_WAIT_MAX, READ_BUDGET_BYTES};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory that an agent has for its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budgets {
    /// Bytes of appends on their way: batches as they came, and while one is checked what it
    /// decodes to. At least 96 MiB, so that one of any size fits.
    pub append_bytes: usize,
    /// Bytes of replies that wait for those who read, and of batches that are being decoded for
    /// them. At least 64 MiB, so that one of any size fits.
    pub read_bytes: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            append_bytes: APPEND_BUDGET_BYTES,
            read_bytes: READ_BUDGET_BYTES,
        }
    }
}

/// A budget of bytes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: usize,
    free: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
    held: Held,
}

/// How much of a budget is held, and was at most.
#[derive(Clone, Default, Debug)]
pub(crate) struct Held {
    pub(crate) now: Gauge,
    pub(crate) most: Gauge,
}

/// Bytes of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    bytes: usize,
    // Dropped after the gauge went down, so that the gauge never shows more than there is.
    permit: OwnedSemaphorePermit,
    held: Held,
}

/// Why no share is to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NoShare {
    /// It would not even fit alone.
    #[error("it needs {asked} bytes of memory, the limit for all of its kind together is {limit}")]
    TooLarge {
        /// Bytes asked for.
        asked: usize,
        /// Bytes of the whole budget.
        limit: usize,
    },
    /// As much waits already as may.
    #[error("{waiting} bytes would wait for memory with it, the limit is {limit}")]
    Crowded {
        /// Bytes that would wait, these included.
        waiting: usize,
        /// Bytes that may.
        limit: usize,
    },
    /// Nothing was given back for long.
    #[error(
        "no memory for {asked} bytes within {BUDGET_WAIT_MAX:?}: others hold {held} of {limit}"
    )]
    Late {
        /// Bytes asked for.
        asked: usize,
        /// Bytes that others hold.
        held: usize,
        /// Bytes of the whole budget.
        limit: usize,
    },
}

impl Budget {
    /// A budget of `bytes`, that tells in `held` how much is taken.
    pub(crate) fn new(bytes: usize, held: Held) -> Self {
        // As many as a share may be at most; more would be of no use to anybody.
        let bytes = bytes.min(u32::MAX as usize);
        Self {
            bytes,
            free: Arc::new(Semaphore::new(bytes)),
            waiting: Arc::default(),
            held,
        }
    }

    /// A share of `bytes`, once it is this caller's turn.
    ///
    /// # Errors
    /// [`NoShare`]; then nothing is held.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Share, NoShare> {
        let limit = self.bytes;
        let too_large = NoShare::TooLarge {
            asked: bytes,
            limit,
        };
        let permits = u32::try_from(bytes).map_err(|_| too_large)?;
        if bytes > limit {
            return Err(too_large);
        }
        if let Some(share) = self.take_free(bytes) {
            return Ok(share);
        }
        let _queued = self.queue(bytes)?;
        let turn = Arc::clone(&self.free).acquire_many_owned(permits);
        match tokio::time::timeout(BUDGET_WAIT_MAX, turn).await {
            Ok(permit) => Ok(self.share(bytes, permit.expect("the semaphore is never closed"))),
            Err(_) => Err(NoShare::Late {
                asked: bytes,
                held: usize::try_from(self.held.now.get()).unwrap_or(limit),
                limit,
            }),
        }
    }

    /// A share of `bytes` if they are free now. It takes nothing past those who wait: what is free
    /// goes to the first of them.
    pub(crate) fn take_free(&self, bytes: usize) -> Option<Share> {
        let permits = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(permits);
        permit.ok().map(|permit| self.share(bytes, permit))
    }

    /// The same, if half of the budget is left: what waits for others must not keep from their work
    /// those who wait for nobody.
    pub(crate) fn take_spare(&self, bytes: usize) -> Option<Share> {
        let left = self.free.available_permits().checked_sub(bytes)?;
        (left >= self.bytes / 2).then(|| self.take_free(bytes))?
    }

    fn share(&self, bytes: usize, permit: OwnedSemaphorePermit) -> Share {
        let before = self.held.now.inc_by(signed(bytes));
        let held = before + signed(bytes);
        self.held.most.inner().fetch_max(held, Ordering::Relaxed);
        Share {
            bytes,
            permit,
            held: self.held.clone(),
        }
    }

    fn queue(&self, bytes: usize) -> Result<Queued, NoShare> {
        let before = self.waiting.fetch_add(bytes as u64, Ordering::Relaxed);
        let queued = Queued {
            waiting: Arc::clone(&self.waiting),
            bytes: bytes as u64,
        };
        let waiting = usize::try_from(before).unwrap_or(usize::MAX) + bytes;
        if waiting > self.bytes {
            let limit = self.bytes;
            return Err(NoShare::Crowded { waiting, limit });
        }
        Ok(queued)
    }
}

/// Bytes that wait for a share.
struct Queued {
    waiting: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Share {
    /// Gives back all but `bytes`.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let Some(rest) = self.bytes.checked_sub(bytes) else {
            return;
        };
        self.bytes = bytes;
        self.held.now.dec_by(signed(rest));
        drop(self.permit.split(rest));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.now.dec_by(signed(self.bytes));
    }
}

/// As the gauges count: no share is larger than `u32` has numbers for.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
