//! Shard time as its leader tells it: follows the wall clock, never goes back, and cannot be
//! carried away by a clock that jumps.
//!
//! Pure: readings of both clocks come in, a stamp goes out.

use std::time::Duration;

use esker_env::{Monotonic, WallMs};
use esker_types::ShardTime;
use esker_types::limits::CLOCK_SKEW_MAX;

/// What a leader knows of time since it took office.
#[derive(Clone, Copy, Debug)]
pub struct ShardClock {
    /// Both clocks and the shard's time when the office began.
    began: (WallMs, Monotonic),
    began_at: ShardTime,
    last: ShardTime,
}

/// A reading of shard time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// The time.
    Time(ShardTime),
    /// The wall clock left the monotonic clock by this much: time stands still, and with it expiry
    /// and retention, until the clock comes back or an operator accepts it.
    Stopped {
        /// The time at which it stands.
        at: ShardTime,
        /// How far the clocks are apart.
        skew: Duration,
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
    /// A leader takes office over a shard whose time is `time`. A gap to its wall clock is closed
    /// in one step: the caller has made sure that a quorum's clocks agree with it, which a single
    /// voter's does.
    #[must_use]
    pub fn take_office(wall: WallMs, monotonic: Monotonic, time: ShardTime) -> Self {
        let began_at = time.max(ShardTime(wall.0));
        Self {
            began: (wall, monotonic),
            began_at,
            last: began_at,
        }
    }

    /// An operator accepts the wall clock as it is: the office begins anew.
    pub fn accept(&mut self, wall: WallMs, monotonic: Monotonic) {
        *self = Self::take_office(wall, monotonic, self.last);
    }

    /// The time to stamp on the next entry.
    pub fn stamp(&mut self, wall: WallMs, monotonic: Monotonic) -> Stamp {
        let measured = monotonic.since(self.began.1);
        let (walked, back) = (
            wall.0.checked_sub(self.began.0.0),
            self.began.0.0.saturating_sub(wall.0),
        );
        let skew = match walked {
            Some(walked) => Duration::from_millis(walked).abs_diff(measured),
            None => Duration::from_millis(back) + measured,
        };
        if skew > CLOCK_SKEW_MAX {
            return Stamp::Stopped {
                at: self.last,
                skew,
            };
        }
        // Within the bound a wall clock may still run fast: twice the measured time is the most.
        let most = self.began_at.after(measured.saturating_mul(2));
        self.last = self.last.max(ShardTime(wall.0).min(most));
        Stamp::Time(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_700_000_000_000;

    fn clock() -> ShardClock {
        ShardClock::take_office(WallMs(T0), at(0), ShardTime::ZERO)
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
        for wall in [T0 + hour, T0 - hour] {
            let stamp = clock.stamp(WallMs(wall), at(1_000));
            assert!(
                matches!(
                    stamp,
                    Stamp::Stopped {
                        at: ShardTime(T0),
                        ..
                    }
                ),
                "{stamp:?}"
            );
        }
        assert_eq!(
            clock.stamp(WallMs(T0 + 2_000), at(2_000)),
            Stamp::Time(ShardTime(T0 + 2_000))
        );
        clock.accept(WallMs(T0 + hour), at(3_000));
        assert_eq!(
            clock.stamp(WallMs(T0 + hour), at(3_000)).time(),
            ShardTime(T0 + hour)
        );
    }

    #[test]
    fn an_office_begins_at_the_shards_time_even_if_the_wall_clock_is_behind() {
        let mut clock = ShardClock::take_office(WallMs(T0), at(0), ShardTime(T0 + 5_000));
        assert_eq!(
            clock.stamp(WallMs(T0 + 1), at(1)).time(),
            ShardTime(T0 + 5_000)
        );
    }
}
