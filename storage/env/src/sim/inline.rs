//! Workers without threads: a worker is a task of the current runtime, a job runs on the spot.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::workers::{Job, Waker, Worker, Workers};

/// Runs everything on the caller's own runtime, so that a single thread decides the order.
#[derive(Debug)]
pub struct Inline;

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
    fn start(&self, _name: &str, mut worker: Box<dyn Worker>) -> Waker {
        let notify = Arc::new(Notify::new());
        let bell = Arc::new(Bell {
            notify: Arc::clone(&notify),
        });
        let alive = Arc::downgrade(&bell);
        tokio::spawn(async move {
            loop {
                notify.notified().await;
                let last = alive.strong_count() == 0;
                worker.run();
                if last {
                    break;
                }
            }
        });
        Waker::new(move || bell.notify.notify_one())
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { job() })
    }
}
