//! Threads: named ones that own a loop, and short-lived work that would stall an async task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

/// A loop with an owner: each call does all that is queued at the time, and returns.
pub trait Worker: Send {
    /// Does what there is to do. Called once after each [`Waker::wake`], or once for several.
    fn run(&mut self);
}

impl<F: FnMut() + Send> Worker for F {
    fn run(&mut self) {
        self();
    }
}

/// Wakes a worker. Cheap, never blocks. When the last clone is dropped the worker runs once more
/// and ends.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Makes the worker run (again) soon.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// A piece of work that blocks or computes for long.
pub type Job = Box<dyn FnOnce() + Send>;

/// Where work goes that must not run on an async task.
pub trait Workers: Send + Sync + fmt::Debug {
    /// Starts `worker` under `name`; it runs whenever it is woken. A panic in it ends the process:
    /// half-alive is worse than dead.
    fn start(&self, name: &str, worker: Box<dyn Worker>) -> Waker;

    /// Runs `job` once. At most a bounded number run at a time; the rest wait their turn.
    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// [`Workers::submit`] with a result.
pub trait WorkersExt: Workers {
    /// Runs `job` off the async threads and returns what it returns.
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        let (reply, answer) = oneshot::channel();
        let done = self.submit(Box::new(move || {
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(job());
        }));
        async move {
            done.await;
            answer
                .await
                .expect("the job ran and replied before its completion was told")
        }
    }
}

impl<W: Workers + ?Sized> WorkersExt for W {}
