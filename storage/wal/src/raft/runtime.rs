//! What openraft's tasks run on: tokio, drawing from a seed, all of them or none, and in step.

use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process::abort;
use std::time::Duration;

use esker_types::limits::TICK_STEP;
use futures::FutureExt as _;
use openraft::Instant as _;
use openraft::rt::deterministic_rng::DeterministicRng;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime as Tokio;

/// Tokio, with what raft leaves to chance (election timeouts, first ticks) drawn from a seed that
/// [`Replica::open`](crate::Replica::open) takes from `env`.
pub type Runtime = DeterministicRng<Together>;

/// Tokio, but a task that panics ends the process: nobody waits for most of openraft's tasks, and it
/// would go on without them, a follower that is sent nothing more, a checkpoint that is never done. What
/// was acknowledged is on the disks of a quorum, and is taken up again from there.
#[derive(Debug)]
pub struct Together(Tokio);

tokio::task_local! {
    /// Of a task of raft.
    static STEP: Kept;
}

/// The step of the shard that a task is of, and the deadline that it was last told is as good as past.
struct Kept {
    step: Step,
    past: Cell<Option<<Tokio as AsyncRuntime>::Instant>>,
}

/// Raft waits for a microsecond, too, to be told of several writes at once: that is no look at the time. Tokio
/// would make a millisecond or two of it, which every write that follows upon another would wait.
const SOON: Duration = Duration::from_micros(10);

/// When the shards of a node look at the time: all at once, each multiple of [`TICK_STEP`] since then. Each has a
/// timer of its own, 13/64 of [`HEARTBEAT`](esker_types::limits::HEARTBEAT) long, which raft starts anywhere; a
/// node with many shards would wake for every one of them, and send every beat by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step(<Tokio as AsyncRuntime>::Instant);

impl Step {
    /// From now on.
    pub(crate) fn now() -> Self {
        Self(<Tokio as AsyncRuntime>::Instant::now())
    }

    /// Runs `future`, and what it spawns, in this step.
    pub(crate) async fn keep<F: Future>(self, future: F) -> F::Output {
        let past = Cell::new(None);
        STEP.scope(Kept { step: self, past }, future).await
    }

    /// The first multiple that is not before `deadline`; for one that is [`SOON`], a moment that has passed.
    fn not_before(
        self,
        deadline: <Tokio as AsyncRuntime>::Instant,
    ) -> <Tokio as AsyncRuntime>::Instant {
        let Self(began) = self;
        if deadline - <Tokio as AsyncRuntime>::Instant::now() < SOON || deadline <= began {
            return began;
        }
        let step = TICK_STEP.as_nanos();
        let past = (deadline - began).as_nanos() % step;
        let left = if past == 0 { 0 } else { step - past };
        deadline + Duration::from_nanos(u64::try_from(left).expect("a step is that short"))
    }
}

impl Kept {
    /// When to wake for `deadline`. Whoever comes back for the same, which has not passed yet, waits for it: a tick
    /// may be as close, and where time stands still until all wait (tests) it would come back for ever.
    fn wake(&self, deadline: <Tokio as AsyncRuntime>::Instant) -> <Tokio as AsyncRuntime>::Instant {
        let at = self.step.not_before(deadline);
        if at < deadline && self.past.replace(Some(deadline)) == Some(deadline) {
            return deadline;
        }
        at
    }
}

impl AsyncRuntime for Together {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let task = async {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(output) => output,
                Err(_) => {
                    tracing::error!(
                        "a task of raft panicked: the process ends; nothing acknowledged is lost"
                    );
                    abort()
                }
            }
        };
        match STEP.try_with(|kept| kept.step) {
            Ok(step) => Tokio::spawn(step.keep(task)),
            Err(_) => Tokio::spawn(task),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let at = STEP.try_with(|kept| kept.wake(deadline));
        Tokio::sleep_until(at.unwrap_or(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        Tokio::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Tokio::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use esker_types::limits::HEARTBEAT;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn timers_that_were_started_anywhere_go_off_together() {
        let step = Step::now();
        let Step(began) = step;
        let steps = |number| began + TICK_STEP * number;
        let micro = Duration::from_micros(1);
        assert_eq!(step.not_before(steps(1)), steps(1));
        assert_eq!(step.not_before(steps(1) + micro), steps(2));
        assert_eq!(step.not_before(steps(8) - micro), steps(8));
        assert_eq!(step.not_before(began + SOON), steps(1));
        // What is closer is no look at the time.
        assert_eq!(step.not_before(began + micro), began);
        assert_eq!(step.not_before(began - micro), began);
    }

    /// As raft ticks: a period of 20 ms from anywhere on, of which those that have passed are left out.
    #[tokio::test(start_paused = true)]
    async fn whoever_ticks_faster_than_the_step_ticks_at_every_step() {
        let step = Step::now();
        let period = HEARTBEAT * 13 / 64;
        let ticks = async move |phase: Duration| {
            let first = step.0 + phase;
            let (mut at, mut woken) = (first, Vec::new());
            while woken.len() < 8 {
                Together::sleep_until(at).await;
                let now = <Tokio as AsyncRuntime>::Instant::now();
                woken.push((now - step.0).as_micros());
                let passed = (now - first).as_micros() / period.as_micros() + 1;
                at = first + period * u32::try_from(passed).unwrap();
            }
            woken
        };
        let micros = TICK_STEP.as_micros();
        for phase in [2, 7, 19, 24] {
            let start = <Tokio as AsyncRuntime>::Instant::now() - step.0;
            let woken = step.keep(ticks(start + Duration::from_millis(phase))).await;
            let every = (1..=8).map(|number| woken[0] + (number - 1) * micros);
            assert!(woken[0].is_multiple_of(micros), "{woken:?}");
            assert_eq!(woken, every.collect::<Vec<_>>(), "{phase}");
        }
    }

    /// As raft ticks, where some deadline lies closer after a step than what is no look at the time.
    #[tokio::test(start_paused = true)]
    async fn a_tick_that_is_soon_is_waited_for() {
        let step = Step::now();
        let period = HEARTBEAT / 5;
        let first = step.0 + period + Duration::from_micros(5);
        let ticks = async move {
            let (mut at, mut wakes) = (first, 0);
            while <Tokio as AsyncRuntime>::Instant::now() < step.0 + Duration::from_secs(1) {
                assert!(wakes < 1000, "time moves on");
                Together::sleep_until(at).await;
                wakes += 1;
                let passed =
                    <Tokio as AsyncRuntime>::Instant::now().saturating_duration_since(first);
                let passed = passed.as_micros() / period.as_micros() + 1;
                at = first + period * u32::try_from(passed).unwrap();
            }
        };
        step.keep(ticks).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spawned_keeps_the_step() {
        let step = Step::now();
        let deadline = step.0 + TICK_STEP + Duration::from_millis(1);
        let woken = step.keep(async move {
            let inner = Together::spawn(async move { Together::sleep_until(deadline).await });
            inner.await.unwrap();
            <Tokio as AsyncRuntime>::Instant::now()
        });
        assert_eq!(woken.await, step.0 + 2 * TICK_STEP);
    }
}
