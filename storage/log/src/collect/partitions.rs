//! Objects of single partitions: segments and pages that a `Swap` would have named. Their keys do
//! not say which shard has the partition, so every shard that knows it must agree.

use std::collections::BTreeMap;

use esker_object::{Key, Object, Prefix};
use esker_types::limits::TOPIC_PAGE;
use esker_types::{PartitionId, ShardId, TopicId};

use super::verdict::{Marks, Verdict, Word, verdict};
use super::{Collector, ELSEWHERE, Round};
use crate::error::KeepError;

impl Collector {
    /// Looks through them, if there is evidence of every shard; whether it has seen them all.
    pub(super) async fn partitions(
        &mut self,
        sweep: u64,
        round: &mut Round,
    ) -> Result<bool, KeepError> {
        // A shard without evidence may be the one that names them.
        if round.kept.len() < self.head.shards().len() {
            return Ok(false);
        }
        let shard = ELSEWHERE;
        let mut after = None;
        loop {
            let prefix = Prefix::Partitions(self.owner.incarnation);
            let page = self.store.list(prefix, after.as_ref()).await;
            let page = page.map_err(|source| KeepError::Bucket { shard, source })?;
            if !page.objects.is_empty() {
                self.judge_partitions(&page.objects, sweep, round).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(true);
            }
        }
    }

    /// Judges a page that was just listed.
    async fn judge_partitions(
        &mut self,
        objects: &[Object],
        sweep: u64,
        round: &mut Round,
    ) -> Result<(), KeepError> {
        let mut shards = Vec::new();
        for (&shard, &kept) in &round.kept {
            let (live, _) = self.live(shard).await?;
            shards.push((shard, live, kept, self.ended(shard).await?));
        }
        let mut due = Vec::new();
        for object in objects {
            let (Key::PartitionSegment { partition, .. } | Key::ManifestPage { partition, .. }) =
                object.key
            else {
                continue;
            };
            let mut verdicts = BTreeMap::new();
            for (shard, live, kept, ended) in &shards {
                let knows = ended.contains(&partition.topic) || self.has(*shard, partition).await?;
                if knows {
                    let word = |marks: Marks| Word {
                        names: false,
                        marks,
                    };
                    let ours = self.owner.incarnation;
                    let verdict = verdict(&object.key, ours, word(*live), word(*kept));
                    verdicts.insert(*shard, verdict);
                }
            }
            if self.settle(object.key, &verdicts, sweep, round).await? {
                due.push(object.key);
            }
        }
        self.delete(&due, round).await;
        Ok(())
    }

    /// What the shards that know the partition say together: whether the object is due.
    async fn settle(
        &mut self,
        key: Key,
        verdicts: &BTreeMap<ShardId, Verdict>,
        sweep: u64,
        round: &mut Round,
    ) -> Result<bool, KeepError> {
        if verdicts.is_empty() {
            round.done.unplaced += 1;
            return Ok(false);
        }
        if verdicts.values().any(|verdict| *verdict == Verdict::Stays) {
            return Ok(false);
        }
        let mut past = Vec::new();
        self.unnamed(key, ELSEWHERE, sweep, round, &mut past);
        if past.is_empty() {
            return Ok(false);
        }
        for (shard, verdict) in verdicts {
            if let Verdict::Forbid(plan) = verdict {
                self.raise(*shard, *plan).await?;
            }
        }
        Ok(verdicts.values().all(|verdict| *verdict == Verdict::Free))
    }

    async fn has(&self, shard: ShardId, partition: PartitionId) -> Result<bool, KeepError> {
        Ok(self.head.bounds(shard, partition).await?.is_some())
    }

    /// Topics that have a tombstone on `shard`.
    async fn ended(&self, shard: ShardId) -> Result<Vec<TopicId>, KeepError> {
        let mut ended: Vec<TopicId> = Vec::new();
        loop {
            let after = ended.last().copied();
            let page = self.head.tombstones(shard, after, TOPIC_PAGE).await?;
            ended.extend(page.items.iter().map(|(topic, _)| *topic));
            if !page.more {
                return Ok(ended);
            }
        }
    }
}
