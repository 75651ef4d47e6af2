//! Which troubles there are, and which day brings which.

use std::time::Duration;

use esker_env::sim::{Crash, SeededEntropy};

/// Kinds of troubles. A seed draws its own out of a deck that holds each of them once.
pub const KINDS: u64 = 18;
/// By how much a wall clock jumps.
const HOUR_MS: i64 = 3_600_000;

/// What befalls the cluster in one day.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Quiet,
    /// The leader of a shard, or somebody else, dies.
    Dies {
        leads: bool,
        how: Crash,
    },
    /// All nodes die at once.
    AllDie {
        how: Crash,
    },
    /// The leader of a shard hears and is heard by nobody; agents reach it, or only one does.
    Alone {
        with: Option<usize>,
    },
    /// What a leader says is heard by nobody, and it hears all; or the other way round.
    OneWay {
        mute: bool,
    },
    /// Two nodes do not hear each other, and a third hears both.
    Bridge,
    /// Connections break, one after the other.
    Breaks,
    /// A node stands still, as far as anybody can tell; or a leader.
    Paused {
        leads: bool,
    },
    /// The wall clock of a leader's machine jumps, and jumps back when the day is over.
    ClockJumps {
        by_ms: i64,
    },
    /// A node loses its power and comes back while the others stand still.
    PowerCutWhileOthersPaused,
    /// Two nodes hear each other, now and then.
    Flaps,
    /// What goes between two nodes does so slowly.
    Slow {
        delay: Duration,
    },
    AgentDies,
    /// A node loses its disk, and another takes its place.
    Replaced,
}

impl Trouble {
    /// The trouble of a kind, as `random` has it.
    pub(super) fn of(kind: u64, random: &SeededEntropy) -> Self {
        let how = if random.below(2) == 0 {
            Crash::Kill
        } else {
            Crash::PowerCut
        };
        let one_agent = usize::try_from(random.below(2)).expect("two");
        match kind {
            0 => Self::Quiet,
            1 => Self::Dies { leads: true, how },
            2 => Self::Dies { leads: false, how },
            3 => Self::AllDie { how },
            4 => Self::Alone { with: None },
            5 => Self::Alone {
                with: Some(one_agent),
            },
            6 => Self::OneWay { mute: true },
            7 => Self::OneWay { mute: false },
            8 => Self::Flaps,
            9 => Self::Slow {
                delay: Duration::from_millis(1 + random.below(2000)),
            },
            10 => Self::Replaced,
            11 => Self::Bridge,
            12 => Self::Breaks,
            13 => Self::Paused { leads: true },
            14 => Self::Paused { leads: false },
            15 => Self::PowerCutWhileOthersPaused,
            16 => Self::ClockJumps {
                by_ms: if random.below(2) == 0 {
                    HOUR_MS
                } else {
                    -HOUR_MS
                },
            },
            _ => Self::AgentDies,
        }
    }
}

/// Which kind of trouble `day` of `seed` brings: of the deck that all days of all seeds draw from, one after the
/// other, and that is shuffled anew whenever it is used up.
pub(super) fn kind(seed: u64, days: u32, day: u32) -> u64 {
    let number = seed * u64::from(days) + u64::from(day);
    let random = SeededEntropy::new(number / KINDS);
    let mut deck: Vec<_> = (0..KINDS).collect();
    for left in (1..=KINDS).rev() {
        let drawn = usize::try_from(random.below(left)).expect("a few");
        let kind = deck.remove(drawn);
        if left == KINDS - number % KINDS {
            return kind;
        }
    }
    unreachable!("the deck holds {KINDS}")
}
