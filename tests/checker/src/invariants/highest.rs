//! The highest position, token or bound known before a time: a prefix maximum.

use crate::history::Op;
use crate::name::Nanos;

/// One fact: from `at` on, `op` shows that the value is at least this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact<'h, V> {
    pub(super) at: Nanos,
    pub(super) value: V,
    pub(super) op: &'h Op,
}

/// Facts by time, each replaced by the highest of itself and those before it.
#[derive(Debug)]
pub(super) struct Highest<'h, V>(Vec<Fact<'h, V>>);

impl<'h, V: Copy + Ord> Highest<'h, V> {
    pub(super) fn new(facts: impl Iterator<Item = Fact<'h, V>>) -> Self {
        let mut facts: Vec<_> = facts.collect();
        facts.sort_by_key(|fact| fact.at);
        let mut highest: Option<Fact<'h, V>> = None;
        for fact in &mut facts {
            let best = highest.filter(|best| best.value >= fact.value);
            let best = best.unwrap_or(*fact);
            highest = Some(best);
            fact.value = best.value;
            fact.op = best.op;
        }
        Self(facts)
    }

    /// The highest fact that was known before `time`.
    pub(super) fn before(&self, time: Nanos) -> Option<Fact<'h, V>> {
        let at = self.0.partition_point(|fact| fact.at < time);
        at.checked_sub(1).map(|at| self.0[at])
    }

    /// The highest fact of all.
    pub(super) fn last(&self) -> Option<Fact<'h, V>> {
        self.0.last().copied()
    }
}
