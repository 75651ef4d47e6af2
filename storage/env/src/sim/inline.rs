//! Workers without threads: a worker is a task of the current runtime, a job runs on the spot. Or each
//! takes its time, as a disk does that has much to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::SeededEntropy;
use crate::workers::{Job, Waker, Worker, Workers};

/// Runs everything on the caller's own runtime, so that a single thread decides the order.
#[derive(Debug)]
pub struct Inline;

/// The same, where a worker that is woken runs up to a bound of simulated time later: what is queued in
/// front of it meanwhile dies with the process.
#[derive(Debug)]
pub struct Sluggish {
    entropy: SeededEntropy,
    most: Duration,
}

impl Sluggish {
    /// Workers that run up to `most` after they were woken, as drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, most: Duration) -> Self {
        Self {
            entropy: SeededEntropy::new(seed),
            most,
        }
    }
}

/// Tells the worker's task that no waker is left.
struct Bell {
    notify: Arc<Notify>,
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.notify.notify_one();
    }
}

impl Workers for Inline {
    fn start(&self, _name: &str, worker: Box<dyn Worker>) -> Waker {
        start(worker, || Duration::ZERO)
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { job() })
    }
}

impl Workers for Sluggish {
    fn start(&self, _name: &str, worker: Box<dyn Worker>) -> Waker {
        let entropy = SeededEntropy::new(self.entropy.below(u64::MAX));
        let most = u64::try_from(self.most.as_micros()).unwrap_or(u64::MAX);
        start(worker, move || Duration::from_micros(entropy.below(most)))
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Inline.submit(job)
    }
}

/// A worker as a task, which rests each time before it runs.
fn start(mut worker: Box<dyn Worker>, rest: impl Fn() -> Duration + Send + 'static) -> Waker {
    let notify = Arc::new(Notify::new());
    let bell = Arc::new(Bell {
        notify: Arc::clone(&notify),
    });
    let alive = Arc::downgrade(&bell);
    tokio::spawn(async move {
        loop {
            notify.notified().await;
            let last = alive.strong_count() == 0;
            let rest = rest();
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            worker.run();
            if last {
                break;
            }
        }
    });
    Waker::new(move || bell.notify.notify_one())
}
