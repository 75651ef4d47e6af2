//! Threads of the system.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam the ban points to"
)]

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::Semaphore;

use crate::workers::{Job, Waker, Worker, Workers};

/// Jobs that run at the same time, per core.
const JOBS_PER_CORE: usize = 2;

/// A thread per worker, and tokio's blocking pool, bounded, for jobs.
pub struct Threads {
    turns: Arc<Semaphore>,
}

impl Threads {
    /// As many jobs at a time as this machine has use for.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it asks the machine for its cores"
    )]
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            turns: Arc::new(Semaphore::new(cores * JOBS_PER_CORE)),
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads")
            .field("turns", &self.turns.available_permits())
            .finish()
    }
}

impl Workers for Threads {
    fn start(&self, name: &str, mut worker: Box<dyn Worker>) -> Waker {
        let bell = Arc::new(Bell::default());
        let heard = Arc::clone(&bell);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let body = AssertUnwindSafe(|| {
                    loop {
                        let last = heard.wait();
                        worker.run();
                        if last {
                            break;
                        }
                    }
                });
                if catch_unwind(body).is_err() {
                    // The panic hook has printed why.
                    std::process::abort();
                }
            })
            .expect("the system has a thread left at start-up");
        let rope = Rope {
            bell,
            thread: thread.thread().clone(),
        };
        Waker::new(move || rope.ring())
    }

    fn submit(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let turn = turns
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let work = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                job();
            });
            if let Err(error) = work.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        })
    }
}

/// What a worker waits for. No lock: whoever rings would hold one that the woken wants first.
#[derive(Default)]
struct Bell {
    /// One ring that was not heard yet says it all: a worker does everything that is queued.
    rung: AtomicBool,
    /// Nobody is left to ring.
    last: AtomicBool,
}

impl Bell {
    /// Waits for a ring; true if it is the last.
    fn wait(&self) -> bool {
        while !self.rung.swap(false, Ordering::AcqRel) {
            thread::park();
        }
        // Read after the ring that it comes with.
        self.last.load(Ordering::Acquire)
    }
}

/// The end of a bell that is pulled. Dropped, it rings for the last time.
struct Rope {
    bell: Arc<Bell>,
    thread: thread::Thread,
}

impl Rope {
    fn ring(&self) {
        if !self.bell.rung.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

impl Drop for Rope {
    fn drop(&mut self) {
        self.bell.last.store(true, Ordering::Release);
        self.ring();
    }
}
