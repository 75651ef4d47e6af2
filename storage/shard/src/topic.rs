//! A data shard's copy of a topic, the tombstone it leaves, and what is known of it for ever.

use esker_types::{
    OffsetRange, PartitionId, RaftIndex, RaftRange, TopicId, TopicName, TopicVersion,
};
use imbl::OrdMap;

use crate::config::TopicConfig;

/// A topic as the catalog handed it to this shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    pub(crate) name: TopicName,
    pub(crate) version: TopicVersion,
    pub(crate) config: TopicConfig,
    /// Ranges of its partitions in mixed segments of the manifest.
    pub(crate) mixed_ranges: u64,
}

/// What is left of a topic that ended, until nothing of it is left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tombstone {
    pub(crate) version: TopicVersion,
    /// Ranges of its partitions in mixed segments of the manifest.
    pub(crate) mixed_ranges: u64,
    /// When it last gained or lost one of them, or ended.
    pub(crate) changed: RaftIndex,
    /// What its head held when it ended, by entry: a flush under way may still bring that, whole.
    pub(crate) unflushed: OrdMap<(RaftIndex, PartitionId), OffsetRange>,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &TopicName {
        &self.name
    }

    /// The catalog's version of it.
    #[must_use]
    pub const fn version(&self) -> TopicVersion {
        self.version
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &TopicConfig {
        &self.config
    }
}

impl Tombstone {
    /// The version that the catalog gave the deletion.
    #[must_use]
    pub const fn version(&self) -> TopicVersion {
        self.version
    }

    /// Ranges of the topic that segments of the manifest still hold.
    #[must_use]
    pub const fn mixed_ranges(&self) -> u64 {
        self.mixed_ranges
    }

    /// The entry with which it last gained or lost one of them, or ended.
    #[must_use]
    pub const fn changed(&self) -> RaftIndex {
        self.changed
    }

    /// What apply assigned to the topic in entries of `raft` before it ended, by partition.
    pub(crate) fn unflushed_in(
        &self,
        raft: RaftRange,
    ) -> impl Iterator<Item = (PartitionId, OffsetRange)> {
        let of_run = self
            .unflushed
            .iter()
            .filter(move |((index, _), _)| raft.contains(*index));
        of_run.map(|((_, partition), range)| (*partition, *range))
    }

    /// Forgets what a segment up to `to` could have brought.
    pub(crate) fn release(&mut self, to: RaftIndex) {
        while let Some((key, _)) = self
            .unflushed
            .get_min()
            .filter(|((index, _), _)| *index <= to)
        {
            let key = *key;
            self.unflushed.remove(&key);
        }
    }
}

/// Topics that have ended here and left nothing: a late `PutTopic` must not bring one back. Ids
/// are given in ascending order and end sooner or later, so runs of them stand for all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct GoneTopics {
    /// First to last of each run, both included; runs neither overlap nor touch.
    runs: OrdMap<u64, u64>,
}

impl GoneTopics {
    pub(crate) fn contains(&self, topic: TopicId) -> bool {
        let id = topic.as_u64();
        self.runs.get_prev(&id).is_some_and(|(_, last)| id <= *last)
    }

    pub(crate) fn insert(&mut self, topic: TopicId) {
        if self.contains(topic) {
            return;
        }
        let id = topic.as_u64();
        // Ids of two incarnations never touch: the first sequence of each is not given out.
        let before = self.runs.get_prev(&id).map(|(first, last)| (*first, *last));
        let first = before
            .filter(|&(_, last)| last + 1 == id)
            .map_or(id, |(first, _)| first);
        let last = self.runs.remove(&id.saturating_add(1)).unwrap_or(id);
        self.runs.insert(first, last);
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds a run above all others; `false` if it does not lie there, or touches the last.
    pub(crate) fn push_run(&mut self, first: TopicId, last: TopicId) -> bool {
        let (first, last) = (first.as_u64(), last.as_u64());
        let above = self
            .runs
            .get_max()
            .is_none_or(|(_, end)| end.saturating_add(1) < first);
        if above && first <= last {
            self.runs.insert(first, last);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::Incarnation;

    #[test]
    fn topics_that_are_gone_stand_as_runs_however_they_went() {
        let id = |sequence| TopicId::new(Incarnation::FIRST, sequence).unwrap();
        let mut gone = GoneTopics::default();
        for sequence in [5, 1, 3, 2, 9, 4, 3] {
            gone.insert(id(sequence));
        }
        assert_eq!(gone.runs().count(), 2);
        for sequence in 0..12 {
            let is_gone = (1..=5).contains(&sequence) || sequence == 9;
            assert_eq!(gone.contains(id(sequence)), is_gone, "{sequence}");
        }
        assert!(!gone.push_run(id(10), id(12)), "it touches the last");
        assert!(gone.push_run(id(11), id(12)) && gone.contains(id(12)));
    }
}
