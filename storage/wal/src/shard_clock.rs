//! Shard time as its leader tells it: follows the wall clock, never goes back, and cannot be
//! carried away by a clock that jumps.
//!
//! Pure: readings of both clocks come in, a stamp goes out.

use std::time::Duration;

use esker_env::{Monotonic, WallMs};
use esker_types::ShardTime;
use esker_types::limits::{CLOCK_GAP_MAX, CLOCK_SKEW_MAX};

/// What a leader knows of time since it took office.
#[derive(Clone, Copy, Debug)]
pub struct ShardClock {
    /// Both clocks and the shard's time when the office began.
    began: (WallMs, Monotonic),
    began_at: ShardTime,
    last: ShardTime,
    /// The wall clock was further ahead or behind than this when the office began, and still is.
    waits: Option<Duration>,
}

/// The wall clock is behind the shard's time, which never goes back: nothing can be accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the wall clock is {behind:?} behind the shard's time {time}, in milliseconds, which never goes \
     back, so that there is nothing to accept: set the clock right. If the clock is right, the \
     shard was stamped by one that was far ahead: appends and reads go on and all is kept, but \
     nothing expires until the clock has come as far; to have retention again, copy what is needed \
     to a new cluster", time = .time.0
)]
pub struct Behind {
    /// The shard's time.
    pub time: ShardTime,
    /// By how much.
    pub behind: Duration,
}

/// A reading of shard time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// The time.
    Time(ShardTime),
    /// The wall clock left the monotonic clock, or the shard's time while nobody led it, by this
    /// much: nobody tells time, and expiry and retention stand still, until the clock comes back or an
    /// operator accepts it. What is appended meanwhile goes by the monotonic clock, which did not jump: it
    /// would be as old as the standstill was long once that ends.
    Stopped {
        /// What to stamp.
        at: ShardTime,
        /// How far the clocks are apart.
        skew: Duration,
        /// The wall clock is ahead of what it should say, or else behind.
        ahead: bool,
    },
}

impl Stamp {
    /// The time, standing or not.
    #[must_use]
    pub const fn time(self) -> ShardTime {
        match self {
            Self::Time(time) | Self::Stopped { at: time, .. } => time,
        }
    }
}

impl ShardClock {
    /// A leader takes office over a shard whose time is `time`, zero if it has none yet: then the
    /// latest `elsewhere`, of the node's other shards, is what its wall clock is held against. A
    /// gap of up to `gap_max` is closed in one step. A larger one may be a long standstill or a clock
    /// that is wrong, now or before: time stands still until the gap is smaller, or accepted.
    #[must_use]
    pub fn take_office(
        wall: WallMs,
        monotonic: Monotonic,
        time: ShardTime,
        elsewhere: ShardTime,
        gap_max: Duration,
    ) -> Self {
        // Late rather than early: what is stamped with a time long gone would expire at once.
        let known = if time == ShardTime::ZERO {
            elsewhere
        } else {
            time
        };
        let apart = apart(wall, known, known);
        if known == ShardTime::ZERO || apart <= gap_max {
            return Self::begin(wall, monotonic, time);
        }
        Self {
            began: (WallMs(known.0), monotonic),
            began_at: known,
            last: known,
            waits: Some(gap_max),
        }
    }

    fn begin(wall: WallMs, monotonic: Monotonic, time: ShardTime) -> Self {
        let began_at = time.max(ShardTime(wall.0));
        Self {
            began: (wall, monotonic),
            began_at,
            last: began_at,
            waits: None,
        }
    }

    /// Whether it stands still since the office began.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// An operator, or the clocks of a quorum, accept the wall clock as it is: the office begins anew.
    ///
    /// # Errors
    /// [`Behind`] by more than [`CLOCK_GAP_MAX`]; nothing has changed.
    pub fn accept(&mut self, wall: WallMs, monotonic: Monotonic) -> Result<(), Behind> {
        let behind = self.last.since(ShardTime(wall.0));
        if behind > CLOCK_GAP_MAX {
            let time = self.last;
            return Err(Behind { time, behind });
        }
        *self = Self::begin(wall, monotonic, self.last);
        Ok(())
    }

    /// The time to stamp on the next entry.
    pub fn stamp(&mut self, wall: WallMs, monotonic: Monotonic) -> Stamp {
        let measured = monotonic.since(self.began.1);
        if let Some(gap_max) = self.waits {
            let due = self.began_at.after(measured);
            let gap = apart(wall, self.began_at, due);
            if gap > gap_max {
                let ahead = ShardTime(wall.0) > due;
                // A wall clock that is behind may be right, and has to come as far.
                if ahead {
                    self.last = self.last.max(due);
                }
                return Stamp::Stopped {
                    at: self.last,
                    skew: gap,
                    ahead,
                };
            }
            *self = Self::begin(wall, monotonic, self.last);
            return Stamp::Time(self.last);
        }
        let (walked, back) = (
            wall.0.checked_sub(self.began.0.0),
            self.began.0.0.saturating_sub(wall.0),
        );
        let (skew, ahead) = match walked.map(Duration::from_millis) {
            Some(walked) => (walked.abs_diff(measured), walked > measured),
            None => (Duration::from_millis(back) + measured, false),
        };
        if skew > CLOCK_SKEW_MAX {
            self.last = self.last.max(self.began_at.after(measured));
            return Stamp::Stopped {
                at: self.last,
                skew,
                ahead,
            };
        }
        // Within the bound a wall clock may still run fast: twice the measured time is the most.
        let most = self.began_at.after(measured.saturating_mul(2));
        self.last = self.last.max(ShardTime(wall.0).min(most));
        Stamp::Time(self.last)
    }
}

/// How far the wall clock is from `[from, to]`.
fn apart(wall: WallMs, from: ShardTime, to: ShardTime) -> Duration {
    let wall = ShardTime(wall.0);
    wall.since(to).max(from.since(wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_700_000_000_000;

    fn clock() -> ShardClock {
        take_office(T0, ShardTime::ZERO, ShardTime::ZERO)
    }

    fn take_office(wall: u64, time: ShardTime, elsewhere: ShardTime) -> ShardClock {
        ShardClock::take_office(WallMs(wall), at(0), time, elsewhere, CLOCK_GAP_MAX)
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    #[test]
    fn it_follows_a_wall_clock_that_behaves() {
        let mut clock = clock();
        for ms in [0, 10, 500, 86_400_000] {
            assert_eq!(
                clock.stamp(WallMs(T0 + ms), at(ms)),
                Stamp::Time(ShardTime(T0 + ms))
            );
        }
    }

    #[test]
    fn it_never_goes_back_nor_twice_as_fast() {
        let mut clock = clock();
        assert_eq!(
            clock.stamp(WallMs(T0 + 9_000), at(1_000)).time(),
            ShardTime(T0 + 2_000)
        );
        assert_eq!(
            clock.stamp(WallMs(T0 + 100), at(1_100)).time(),
            ShardTime(T0 + 2_000)
        );
        assert_eq!(
            clock.stamp(WallMs(T0 + 3_000), at(3_000)).time(),
            ShardTime(T0 + 3_000)
        );
    }

    #[test]
    fn a_jump_stops_it_and_the_clock_coming_back_starts_it_again() {
        let mut clock = clock();
        let hour = 3_600_000;
        let stopped = |ms, seconds, ahead| Stamp::Stopped {
            at: ShardTime(T0 + ms),
            skew: Duration::from_secs(seconds),
            ahead,
        };
        for (wall, seconds, ahead) in [(T0 + hour, 3_599, true), (T0 - hour, 3_601, false)] {
            let stamp = clock.stamp(WallMs(wall), at(1_000));
            assert_eq!(stamp, stopped(1_000, seconds, ahead));
        }
        // Set back by an hour it is behind, also once it is past where it jumped.
        let (mut later, two) = (clock, 2 * hour);
        let stamp = later.stamp(WallMs(T0 + hour), at(two));
        assert_eq!(stamp, stopped(two, 3_600, false));
        assert_eq!(
            clock.stamp(WallMs(T0 + 2_000), at(2_000)),
            Stamp::Time(ShardTime(T0 + 2_000))
        );
        let accepted = clock.accept(WallMs(T0 + hour), at(3_000));
        assert_eq!(accepted, Ok(()));
        assert_eq!(
            clock.stamp(WallMs(T0 + hour), at(3_000)).time(),
            ShardTime(T0 + hour)
        );
    }

    /// Else all of them would be as old as the standstill was long in the moment that it ends.
    #[test]
    fn what_is_stamped_during_a_standstill_is_no_older_than_it_is() {
        let (hour, step) = (3_600_000, 11_000);
        for jumped in [T0 + step, T0 - step, T0 + 48 * hour] {
            let mut clock = clock();
            for ms in (1..=2).map(|hours| hours * hour) {
                let stamp = clock.stamp(WallMs(jumped + ms), at(ms));
                assert!(matches!(stamp, Stamp::Stopped { .. }), "{stamp:?}");
                assert_eq!(stamp.time(), ShardTime(T0 + ms));
            }
            let settled = clock.stamp(WallMs(T0 + 2 * hour), at(2 * hour));
            assert_eq!(settled, Stamp::Time(ShardTime(T0 + 2 * hour)));
        }
    }

    #[test]
    fn an_office_begins_at_the_shards_time_even_if_the_wall_clock_is_behind() {
        let mut clock = take_office(T0, ShardTime(T0 + 5_000), ShardTime(0));
        assert_eq!(
            clock.stamp(WallMs(T0 + 1), at(1)).time(),
            ShardTime(T0 + 5_000)
        );
    }

    #[test]
    fn a_clock_far_ahead_at_a_start_waits_until_it_is_right_or_accepted() {
        let gap = u64::try_from(CLOCK_GAP_MAX.as_millis()).expect("small");
        let start = |wall| take_office(wall, ShardTime(T0), ShardTime(0));
        let mut near = start(T0 + gap);
        let stamp = near.stamp(WallMs(T0 + gap + 5), at(5));
        assert_eq!(stamp, Stamp::Time(ShardTime(T0 + gap + 5)));

        // Three weeks or seventy years: it cannot tell, and it does not walk off.
        for ahead in [21 * gap, 70 * 365 * gap] {
            let mut far = start(T0 + ahead);
            for ms in [0, 5_000, 3 * gap] {
                let stopped = Stamp::Stopped {
                    at: ShardTime(T0 + ms),
                    skew: Duration::from_millis(ahead),
                    ahead: true,
                };
                assert_eq!(far.stamp(WallMs(T0 + ahead + ms), at(ms)), stopped);
            }
            let mut set_right = far;
            let right = T0 + 3 * gap + 7_000;
            let stamp = set_right.stamp(WallMs(right), at(3 * gap));
            assert_eq!(stamp, Stamp::Time(ShardTime(right)));
            far.accept(WallMs(T0 + ahead), at(4 * gap)).expect("ahead");
            let stamp = far.stamp(WallMs(T0 + ahead + 9), at(4 * gap + 9));
            assert_eq!(stamp, Stamp::Time(ShardTime(T0 + ahead + 9)));
            // From then on it is bound like any other.
            let stamp = far.stamp(WallMs(T0 + 2 * ahead), at(4 * gap + 10));
            assert!(matches!(stamp, Stamp::Stopped { .. }), "{stamp:?}");
        }
    }

    #[test]
    fn a_shard_without_a_time_goes_by_the_others_of_its_node() {
        let gap = u64::try_from(CLOCK_GAP_MAX.as_millis()).expect("small");
        let start = |wall| take_office(wall, ShardTime::ZERO, ShardTime(T0));
        assert_eq!(
            start(T0 + gap).stamp(WallMs(T0 + gap), at(0)),
            Stamp::Time(ShardTime(T0 + gap))
        );
        // A clock at 2090: it stands where the others are, not at nothing and not there.
        let ahead = 64 * 52 * gap;
        let mut far = start(T0 + ahead);
        assert_eq!(
            far.stamp(WallMs(T0 + ahead), at(0)),
            Stamp::Stopped {
                at: ShardTime(T0),
                skew: Duration::from_millis(ahead),
                ahead: true,
            }
        );
        assert_eq!(
            far.stamp(WallMs(T0 + 9_000), at(9_000)),
            Stamp::Time(ShardTime(T0 + 9_000)),
            "the clock was set right"
        );
    }

    #[test]
    fn a_clock_far_behind_the_shards_time_is_told_about_and_not_accepted() {
        let gap = u64::try_from(CLOCK_GAP_MAX.as_millis()).expect("small");
        let years = 64 * 52 * gap;
        let time = ShardTime(T0 + years);
        let mut clock = take_office(T0, time, time);
        let behind = |ms| Duration::from_millis(years - ms);
        for ms in [0, 5_000, 2 * gap] {
            let stopped = Stamp::Stopped {
                at: time,
                skew: behind(ms),
                ahead: false,
            };
            assert_eq!(clock.stamp(WallMs(T0 + ms), at(ms)), stopped);
        }
        let refused = clock.accept(WallMs(T0), at(3 * gap)).expect_err("behind");
        assert_eq!((refused.time, refused.behind), (time, behind(0)));
        assert!(refused.to_string().contains("never goes back"), "{refused}");
        let stamp = clock.stamp(WallMs(T0 + years - gap), at(4 * gap));
        assert_eq!(stamp, Stamp::Time(time), "it has come near enough");
    }
    /// Who votes with others asks them, and closes no gap of hours by itself.
    #[test]
    fn a_smaller_bound_makes_smaller_gaps_wait() {
        let hour = 3_600_000;
        for wall in [T0 + hour, T0 - hour] {
            let mut clock = ShardClock::take_office(
                WallMs(wall),
                at(0),
                ShardTime(T0),
                ShardTime(0),
                CLOCK_SKEW_MAX,
            );
            assert!(clock.waits());
            let stamp = clock.stamp(WallMs(wall), at(0));
            assert!(matches!(stamp, Stamp::Stopped { .. }), "{stamp:?}");
            clock.accept(WallMs(wall), at(0)).expect("a quorum agrees");
            assert!(!clock.waits());
            let due = ShardTime(T0.max(wall));
            assert_eq!(clock.stamp(WallMs(wall), at(0)), Stamp::Time(due));
        }
    }
}
