//! Tombstones go once nothing of their topic is left: no range in the manifest, and no object in the
//! bucket that was outside the manifest by the time the last range left it. What a flush under way
//! brings later is refused, and collected like any orphan.

use std::collections::{BTreeMap, BTreeSet};

use esker_object::Prefix;
use esker_shard::{Command, Outcome, Refusal, TombstoneRefusal};
use esker_types::limits::{COLLECT_TOMBSTONES, TOPIC_PAGE};
use esker_types::{RaftIndex, ShardId, TopicId};

use super::{Collector, Round};
use crate::error::KeepError;

/// Topics that have a tombstone and no range in the manifest, and the first sweep that began after
/// that was seen. Bounded as tombstones are.
#[derive(Debug, Default)]
pub(super) struct Emptied {
    since: BTreeMap<(ShardId, TopicId), u64>,
}

/// What a reading of the tombstones has shown.
#[derive(Debug)]
pub(super) struct Empty {
    /// The applied index of the reading.
    index: RaftIndex,
    /// Topics without a range, and since which sweep.
    topics: Vec<(TopicId, u64)>,
}

impl Emptied {
    /// Forgets since when the topics of `shard` are without a range.
    pub(super) fn begin_anew(&mut self, shard: ShardId) {
        self.since.retain(|(of, _), _| *of != shard);
    }
}

impl Collector {
    /// Reads which tombstones of `shard` have no range left. `begins` is a sweep that is yet to list
    /// anything.
    pub(super) async fn emptied(
        &mut self,
        shard: ShardId,
        begins: Option<u64>,
    ) -> Result<Empty, KeepError> {
        let (mut after, mut index) = (None, None);
        let mut empty = BTreeSet::new();
        loop {
            let page = self.head.tombstones(shard, after, TOPIC_PAGE).await?;
            after = page.items.last().map(|(topic, _)| *topic);
            index.get_or_insert(page.mark.index);
            let without = page.items.iter().filter(|(_, ranges)| *ranges == 0);
            empty.extend(without.map(|(topic, _)| *topic));
            if !page.more {
                break;
            }
        }
        let since = &mut self.emptied.since;
        since.retain(|(of, topic), _| *of != shard || empty.contains(topic));
        if let Some(sweep) = begins {
            for topic in &empty {
                since.entry((shard, *topic)).or_insert(sweep);
            }
        }
        let topics = empty.into_iter();
        let topics = topics.filter_map(|topic| Some((topic, *since.get(&(shard, topic))?)));
        Ok(Empty {
            topics: topics.collect(),
            index: index.expect("there is at least one page"),
        })
    }

    /// Drops the tombstones of which nothing is left, as long as there is time. A sweep over the shard
    /// is over.
    pub(super) async fn drop_tombstones(
        &mut self,
        shard: ShardId,
        empty: &Empty,
        round: &mut Round,
    ) -> Result<(), KeepError> {
        let known = |topic| self.emptied.since.contains_key(&(shard, topic));
        let left = |since| self.sights.any_out_since(shard, since);
        let due = empty.topics.iter();
        let due = due.filter(|(topic, since)| known(*topic) && !left(*since));
        let due: Vec<_> = due.take(COLLECT_TOMBSTONES).copied().collect();
        for (topic, _) in due {
            if self.time_left(round).is_zero() {
                round.done.out_of_time = true;
                break;
            }
            let prefix = Prefix::Topic(self.owner.incarnation, topic);
            let page = self.store.list(prefix, None).await;
            let page = page.map_err(|source| KeepError::Bucket { shard, source })?;
            if !page.objects.is_empty() {
                continue;
            }
            let plan_index = empty.index;
            let command = Command::DropTombstone { topic, plan_index };
            match self.head.propose(shard, command).await? {
                Outcome::TombstoneDropped => {
                    self.emptied.since.remove(&(shard, topic));
                    round.done.tombstones += 1;
                }
                // A flush that was under way has brought a range after all.
                Outcome::Refused(Refusal::Tombstone(
                    TombstoneRefusal::StillHeld { .. } | TombstoneRefusal::Stale { .. },
                )) => {
                    self.emptied.since.remove(&(shard, topic));
                }
                Outcome::Refused(refusal) => return Err(KeepError::Refused { shard, refusal }),
                other => unreachable!("a tombstone was answered with {other:?}"),
            }
        }
        Ok(())
    }
}
