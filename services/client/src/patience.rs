//! How long to go on trying, and how long to rest in between.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Clock, Entropy, Env, Monotonic};

/// The longest rest after the first failure.
pub const REST_FIRST: Duration = Duration::from_millis(20);
/// The longest rest after any.
pub const REST_MAX: Duration = Duration::from_secs(2);

/// Exponential rests with full jitter: uniform between nothing and the longest, so that clients
/// that failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Rests {
    entropy: Arc<dyn Entropy>,
}

impl Rests {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            entropy: Arc::clone(&env.entropy),
        }
    }

    /// How long to rest after `failures` in a row, at least one.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let longest = REST_FIRST.saturating_mul(1 << doublings).min(REST_MAX);
        let micros = u64::try_from(longest.as_micros()).expect("two seconds at most");
        // At least a millisecond: what timers can tell.
        Duration::from_micros((self.entropy.next_u64() % (micros + 1)).max(1000))
    }
}

/// Tries that end with the time they are given. Progress begins the time anew.
#[derive(Debug)]
pub(crate) struct Patience {
    clock: Arc<dyn Clock>,
    rests: Rests,
    total: Duration,
    since: Monotonic,
    failures: u32,
}

impl Patience {
    pub(crate) fn new(env: &Env, total: Duration) -> Self {
        Self {
            clock: Arc::clone(&env.clock),
            rests: Rests::new(env),
            total,
            since: env.clock.monotonic(),
            failures: 0,
        }
    }

    /// Something was achieved.
    pub(crate) fn renew(&mut self) {
        self.failures = 0;
        self.since = self.clock.monotonic();
    }

    /// Rests after a failure. False, at once, if the time would be over.
    pub(crate) async fn rest(&mut self) -> bool {
        self.failures += 1;
        let rest = self.rests.after(self.failures);
        let spent = self.clock.monotonic().since(self.since);
        if spent + rest > self.total {
            return false;
        }
        tokio::time::sleep(rest).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_env::sim::SimClock;

    #[test]
    fn rests_grow_to_their_bound_and_no_further() {
        let (env, ..) = Env::simulated(1);
        let rests = Rests::new(&env);
        let longest = |failures| (0..500).map(|_| rests.after(failures)).max().unwrap();
        assert!(longest(1) <= REST_FIRST && longest(1) > REST_FIRST / 2);
        assert!(longest(4) <= REST_FIRST * 8 && longest(4) > REST_FIRST * 4);
        assert!(longest(u32::MAX) <= REST_MAX && longest(u32::MAX) > REST_MAX / 2);
        let shortest = (0..500).map(|_| rests.after(20)).min().unwrap();
        assert!(shortest < REST_MAX / 10, "the jitter is full");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_progress_renews_it() {
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            ..Env::simulated(1).0
        };
        let mut patience = Patience::new(&env, Duration::from_secs(10));
        let mut tries = 0;
        while patience.rest().await {
            tries += 1;
        }
        assert!((10..100).contains(&tries), "{tries}");
        assert!(env.clock.monotonic().0 <= Duration::from_secs(10));
        patience.renew();
        assert!(patience.rest().await);
    }
}
