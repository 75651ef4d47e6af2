//! Whose turn at the jobs of the shards it is: of the engines that ask, one has each job, and another one
//! once that falls silent.
//!
//! ```text
//!   a asks ─► yes         b asks ─► no         a is silent for three times as long as it said ─► b: yes
//! ```
//! Kept by who leads, in memory: a new leader hears of everybody again within moments. Jobs are spread over
//! the engines by a hash of each and the job, so that one that comes takes only its part.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;

use esker_env::Monotonic;
use esker_log::{Bid, Job, WorkerId};
use esker_types::ShardId;
use esker_types::limits::{WORKER_SILENCE_MAX, WORKERS_MAX};

/// Who asked for what.
#[derive(Default, Debug)]
pub(crate) struct Turns(Mutex<BTreeMap<(ShardId, Job), Queue>>);

/// Those that ask for one job.
#[derive(Default, Debug)]
struct Queue {
    /// Whose turn it was last.
    holder: Option<WorkerId>,
    workers: BTreeMap<WorkerId, Seen>,
}

/// When one was seen last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    busy: bool,
    failed: bool,
    /// Until when it is not missed.
    until: Monotonic,
}

impl Turns {
    /// Whether it is the turn of who asks.
    pub(crate) fn ask(&self, now: Monotonic, shard: ShardId, bid: Bid) -> bool {
        let mut turns = self.0.lock().expect("nothing panics under this lock");
        let queue = turns.entry((shard, bid.job)).or_default();
        queue.ask(now, bid, |worker| {
            let mut hasher = DefaultHasher::new();
            (worker, shard, bid.job).hash(&mut hasher);
            hasher.finish()
        })
    }
}

impl Queue {
    fn ask(&mut self, now: Monotonic, bid: Bid, lot: impl Fn(WorkerId) -> u64) -> bool {
        self.workers.retain(|_, seen| seen.until > now);
        let worker = bid.worker;
        if self.workers.len() >= WORKERS_MAX && !self.workers.contains_key(&worker) {
            return false;
        }
        let silence = bid.again.saturating_mul(3).min(WORKER_SILENCE_MAX);
        let seen = Seen {
            busy: bid.busy,
            failed: bid.failed,
            until: Monotonic(now.0.saturating_add(silence)),
        };
        self.workers.insert(worker, seen);
        let holder = self.holder.filter(|holder| {
            let seen = self.workers.get(holder);
            seen.is_some_and(|seen| seen.busy)
        });
        let next = || {
            let workers = self.workers.iter();
            let best = workers.min_by_key(|(of, seen)| (seen.failed, lot(**of)));
            best.map(|(of, _)| *of)
        };
        self.holder = holder.or_else(next);
        self.holder == Some(worker)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGAIN: Duration = Duration::from_secs(1);

    fn bid(worker: u128, busy: bool) -> Bid {
        Bid {
            job: Job::Flush,
            worker: WorkerId(worker),
            busy,
            failed: false,
            again: AGAIN,
        }
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn one_has_it_until_it_falls_silent() {
        let turns = Turns::default();
        let asks = |second, worker| turns.ask(at(second), ShardId(1), bid(worker, false));
        // The first to ask is told so before anybody knows of others.
        assert!(asks(0, 1) || asks(0, 1));
        asks(0, 2);
        let (has, has_not) = if asks(1, 1) { (1, 2) } else { (2, 1) };
        for second in 1..5 {
            assert!(asks(second, has) && !asks(second, has_not), "{second}");
        }
        // It was heard of at 4 s last.
        assert!(!asks(6, has_not));
        assert!(asks(7, has_not));
        // And back again: it has lost nothing but a turn.
        assert!(asks(8, has) && !asks(8, has_not));
    }

    #[test]
    fn who_is_at_it_is_not_interrupted() {
        let turns = Turns::default();
        let asks = |second, worker, busy| turns.ask(at(second), ShardId(1), bid(worker, busy));
        for worker in 1..20 {
            assert!(asks(0, 0, true));
            assert!(!asks(0, worker, false));
        }
        // Silent for too long, it is somebody else's, and it is told so.
        let next = (1..20).filter(|worker| asks(3, *worker, true)).count();
        assert_eq!(next, 1);
        assert!(!asks(3, 0, true));
    }

    #[test]
    fn who_fails_leaves_it_to_others_and_has_it_alone() {
        let turns = Turns::default();
        let asks = |second, worker, failed| {
            let bid = Bid {
                failed,
                ..bid(worker, false)
            };
            turns.ask(at(second), ShardId(1), bid)
        };
        for worker in [1, 2] {
            asks(0, worker, false);
        }
        let has = if asks(0, 1, false) { 1 } else { 2 };
        assert!(!asks(1, has, true) && asks(1, 3 - has, false));
        // Where both fail it is as if neither did.
        asks(2, 3 - has, true);
        assert!(asks(2, has, true) && !asks(2, 3 - has, true));
        // Alone it goes on, whatever comes of it.
        assert!(asks(9, 3 - has, true));
    }

    #[test]
    fn jobs_are_spread_over_who_asks() {
        let turns = Turns::default();
        let (mut first, mut sum) = (0, 0);
        for shard in 1..=64 {
            for worker in [1, 2] {
                turns.ask(at(0), ShardId(shard), bid(worker, false));
            }
            let has = [1, 2].map(|worker| turns.ask(at(0), ShardId(shard), bid(worker, false)));
            first += u32::from(has[0]);
            sum += u32::from(has[0]) + u32::from(has[1]);
        }
        assert_eq!(sum, 64, "each has one");
        assert!((16..=48).contains(&first), "{first} of 64");
    }

    #[test]
    fn a_crowd_is_not_remembered() {
        let mut queue = Queue::default();
        for worker in 0..10 * WORKERS_MAX as u128 {
            queue.ask(at(0), bid(worker, false), |worker| {
                u64::try_from(worker.0).unwrap_or(0)
            });
        }
        assert_eq!(queue.workers.len(), WORKERS_MAX);
        let forever = Bid {
            again: Duration::MAX,
            ..bid(1, true)
        };
        queue.ask(at(1), forever, |_| 0);
        queue.ask(at(2 * WORKER_SILENCE_MAX.as_secs()), bid(2, false), |_| 0);
        assert_eq!(queue.holder, Some(WorkerId(2)));
    }
}
