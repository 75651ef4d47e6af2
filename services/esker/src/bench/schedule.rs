//! When batches are due, whether or not those before are done.
//!
//! A thread of its own waits, because async timers tick in milliseconds, an append may take less.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Clock, Env, Monotonic, Waker};
use tokio::sync::mpsc;

/// Batches that are due and not yet taken; the thread waits above. They are due all the same.
const DUE_MAX: usize = 1024;

/// The time of a load: it is warm from `warm` on, and over at `end`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) began: Monotonic,
    pub(crate) warm: Monotonic,
    pub(crate) end: Monotonic,
}

impl Times {
    pub(crate) fn new(now: Monotonic, warmup: Duration, measured: Duration) -> Self {
        let warm = Monotonic(now.0 + warmup);
        Self {
            began: now,
            warm,
            end: Monotonic(warm.0 + measured),
        }
    }

    pub(crate) fn is_measured(&self, at: Monotonic) -> bool {
        self.warm <= at && at < self.end
    }

    /// How long is measured, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.end.since(self.warm).as_secs_f64()
    }

    /// Batches that are due while it is measured.
    pub(crate) fn due(&self, interval: Duration) -> u64 {
        let before = |at: Monotonic| {
            at.since(self.began)
                .as_nanos()
                .div_ceil(interval.as_nanos())
        };
        u64::try_from(before(self.end) - before(self.warm)).unwrap_or(u64::MAX)
    }
}

/// Tells when each batch is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    due: mpsc::Receiver<Monotonic>,
    _thread: Waker,
}

impl Schedule {
    pub(crate) fn start(env: &Env, times: Times, interval: Duration) -> Self {
        let (tell, due) = mpsc::channel(DUE_MAX);
        let clock = Arc::clone(&env.clock);
        let mut tell = Some(tell);
        // Run once more when it ends, it finds nothing to do.
        let run = move || {
            if let Some(tell) = tell.take() {
                pace(&*clock, times, interval, &tell);
            }
        };
        let thread = env.workers.start("esker-schedule", Box::new(run));
        thread.wake();
        Self {
            due,
            _thread: thread,
        }
    }

    /// When the next batch is due, which may be long ago; `None` when the time is over.
    pub(crate) async fn next(&mut self) -> Option<Monotonic> {
        self.due.recv().await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "async timers tick in milliseconds; this thread only waits"
)]
fn pace(clock: &dyn Clock, times: Times, interval: Duration, tell: &mpsc::Sender<Monotonic>) {
    let mut due = times.began;
    while due < times.end {
        let now = clock.monotonic();
        if now >= times.end {
            return;
        }
        let wait = due.since(now);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if tell.blocking_send(due).is_err() {
            return;
        }
        due = Monotonic(due.0 + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_of_the_measured_time_is_due_once() {
        let times = Times::new(
            Monotonic(Duration::from_secs(5)),
            Duration::from_millis(25),
            Duration::from_millis(100),
        );
        let interval = Duration::from_millis(10);
        // At 5.03, 5.04 … 5.12.
        assert_eq!(times.due(interval), 10);
        let all = (0..20).map(|at| Monotonic(times.began.0 + at * interval));
        assert_eq!(all.filter(|at| times.is_measured(*at)).count(), 10);
    }

    #[tokio::test]
    async fn a_schedule_goes_on_although_nobody_takes_what_is_due() {
        let env = Env::real();
        let (warmup, measured) = (Duration::ZERO, Duration::from_millis(50));
        let times = Times::new(env.clock.monotonic(), warmup, measured);
        let interval = Duration::from_millis(1);
        let mut schedule = Schedule::start(&env, times, interval);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut expected = times.began;
        while let Some(due) = schedule.next().await {
            assert_eq!(due, expected);
            expected = Monotonic(expected.0 + interval);
        }
        assert!(expected > times.began);
    }
}
