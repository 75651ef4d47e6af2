//! What is too old or too much leaves the log; and segments of which nothing is read any more
//! leave the manifest.
//!
//! ```text
//!   age    segments whose newest append is too old ─► last offset of each partition in them ┐
//!   sizes  bytes of each segment's ranges, newest first, until there are enough ────────────┴► Trim
//!   dead   segments whose every range is trimmed, or of a topic that ended ──────────────────► Swap
//! ```
//! Nothing at the tiered end or above is ever trimmed: what is not flushed is younger than all that
//! is, and the head is bounded by other means. A segment goes as a whole, so a partition keeps more
//! than its settings ask for, and never less.

mod age; // by append time
mod dead; // segments nobody reads any more
mod sizes; // by bytes

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_segment::DirectoryPage;
use esker_shard::{
    Command, MixedSegment, Outcome, RangeList, Refusal, Trim, TrimRefusal, ranges_hash,
};
use esker_types::limits::{RETENTION_IN_FLIGHT, RETENTION_OPENED_BYTES, TOPIC_PAGE};
use esker_types::{Lane, Offset, PartitionId, ShardId, ShardTime, TopicId, TopicVersion};
use futures::StreamExt;

use crate::error::{KeepError, ReadError};
use crate::head::{Bounds, Head, Mark};
use crate::read::Readers;
use crate::segments::{OpenSegment, Segments};
use age::Ages;
use dead::Dead;
use sizes::Sizes;

/// All of it is history that nobody waits for.
const LANE: Lane = Lane::Backfill;

/// Trims what retention lets go. It runs no timer: call [`Retention::round`] for each data shard
/// every `RETENTION_PERIOD`.
#[derive(Debug)]
pub struct Retention {
    head: Arc<dyn Head>,
    segments: Segments,
    shards: BTreeMap<ShardId, Walks>,
}

/// Whether a shard's time follows the clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeState {
    /// It does.
    Runs,
    /// Its leader's clocks are apart: nothing is trimmed until that is resolved.
    Stands,
}

/// What a round has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Retained {
    /// Partitions whose log start has moved.
    pub trimmed: usize,
    /// Partitions whose log start has not moved because the topic or its settings changed: the
    /// next round plans anew.
    pub outdated: usize,
    /// Segments that have left the manifest.
    pub removed: usize,
    /// Segments that were passed over because the bucket has lost or damaged them.
    pub unreadable: usize,
}

/// How far the walks over a shard's manifest are.
#[derive(Debug, Default)]
struct Walks {
    /// The topics as the last round saw them.
    topics: BTreeMap<TopicId, Kept>,
    ages: Ages,
    sizes: Sizes,
    dead: Dead,
}

/// What a topic keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kept {
    version: TopicVersion,
    age: Option<Duration>,
    bytes: Option<u64>,
}

/// A shard as a round sees it.
#[derive(Debug)]
struct View {
    /// Nothing of it is older than this.
    mark: Mark,
    time: ShardTime,
    topics: BTreeMap<TopicId, Kept>,
    partitions: BTreeMap<PartitionId, Bounds>,
    /// Topics that have a tombstone.
    ended: BTreeSet<TopicId>,
}

/// New log starts, by partition.
type Trims = BTreeMap<PartitionId, Offset>;

impl Retention {
    /// Retention over `head`, reading segments as `readers` do.
    #[must_use]
    pub fn new(head: Arc<dyn Head>, readers: &Readers) -> Self {
        Self {
            head,
            segments: readers.segments().apart(RETENTION_OPENED_BYTES),
            shards: BTreeMap::new(),
        }
    }

    /// Trims what is due in `shard`, and takes dead segments out of its manifest: a bounded piece
    /// of work, which the next round goes on with.
    ///
    /// # Errors
    /// [`KeepError`]; what is done is done, and the next round begins where this one did.
    pub async fn round(&mut self, shard: ShardId, time: TimeState) -> Result<Retained, KeepError> {
        let walks = self.shards.entry(shard).or_default();
        let mut round = Round {
            head: &*self.head,
            segments: &self.segments,
            shard,
            view: View::of(&*self.head, shard).await?,
            done: Retained::default(),
        };
        walks.begin(&round.view);
        if time == TimeState::Runs {
            let mut trims = Trims::new();
            let cursors = walks.ages.plan(&mut round, &mut trims).await?;
            walks.sizes.read(&mut round).await?;
            walks.sizes.plan(&round.view, &mut trims);
            round.trim(trims).await?;
            if round.done.outdated == 0 {
                walks.ages.commit(cursors);
            }
        }
        walks.dead.round(&mut round).await?;
        Ok(round.done)
    }
}

impl Walks {
    /// A topic whose settings have changed may have ranges in segments that were walked by.
    fn begin(&mut self, view: &View) {
        for (id, kept) in &view.topics {
            // What a topic that is new to the shard holds lies beyond every walk.
            let Some(before) = self.topics.get(id) else {
                continue;
            };
            if let Some(age) = kept.age
                && before.age != kept.age
            {
                self.ages.restart(age);
            }
            if kept.bytes.is_some() && before.bytes.is_none() {
                self.sizes = Sizes::default();
            }
        }
        self.topics.clone_from(&view.topics);
    }
}

impl View {
    async fn of(head: &dyn Head, shard: ShardId) -> Result<Self, KeepError> {
        let mark = head.read_index(shard).await?;
        let progress = head.progress(shard).await?;
        let mut view = Self {
            mark,
            time: progress.time,
            topics: BTreeMap::new(),
            partitions: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        let mut after = None;
        loop {
            let page = head.shard_topics(shard, after, TOPIC_PAGE).await?;
            after = page.items.last().map(|topic| topic.id);
            for topic in page.items {
                let kept = Kept {
                    version: topic.version,
                    age: topic.config.retention(),
                    bytes: topic.config.retention_bytes(),
                };
                view.topics.insert(topic.id, kept);
                let of_topic = topic.partitions.into_iter().map(|(index, bounds)| {
                    let topic = topic.id;
                    (PartitionId { topic, index }, bounds)
                });
                view.partitions.extend(of_topic);
            }
            if !page.more {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = head.tombstones(shard, after, TOPIC_PAGE).await?;
            after = page.items.last().map(|(topic, _)| *topic);
            view.ended
                .extend(page.items.iter().map(|(topic, _)| *topic));
            if !page.more {
                return Ok(view);
            }
        }
    }

    /// Whether it was read after `segment` was committed: then it knows every topic in it.
    fn covers(&self, segment: &MixedSegment) -> bool {
        let committed = Mark {
            incarnation: segment.incarnation,
            index: segment.raft.to,
        };
        committed <= self.mark
    }
}

/// One round over one shard.
struct Round<'a> {
    head: &'a dyn Head,
    segments: &'a Segments,
    shard: ShardId,
    view: View,
    done: Retained,
}

impl Round<'_> {
    /// A segment opened, and its whole directory; `None` if the bucket has it no more, or not as
    /// it was committed.
    async fn open(
        &mut self,
        segment: &MixedSegment,
    ) -> Result<Option<(Arc<OpenSegment>, Vec<Arc<DirectoryPage>>)>, KeepError> {
        let (segments, shard) = (self.segments, self.shard);
        let read = async {
            let opened = segments.open(shard, segment, LANE).await?;
            let pages = segments.directory(&opened, LANE).await?;
            Ok((opened, pages))
        };
        let (opened, pages) = match read.await {
            Ok(read) => read,
            Err(error) => return self.pass_over(segment, error).map(|()| None),
        };
        let ranges = ranges(&pages);
        let as_committed = usize::try_from(segment.range_count) == Ok(ranges.len())
            && ranges_hash(&ranges) == segment.ranges_hash;
        if !as_committed {
            tracing::error!(%shard, segment = %segment.segment, "a segment has other ranges than were committed; it stays");
            self.done.unreadable += 1;
            return Ok(None);
        }
        Ok(Some((opened, pages)))
    }

    /// Lost or damaged objects stop nobody but themselves.
    fn pass_over(&mut self, segment: &MixedSegment, error: ReadError) -> Result<(), KeepError> {
        if !error.is_loss() {
            return Err(error.into());
        }
        tracing::error!(shard = %self.shard, segment = %segment.segment, %error, "retention passes over a segment");
        self.done.unreadable += 1;
        Ok(())
    }

    /// Proposes what still moves anything.
    async fn trim(&mut self, trims: Trims) -> Result<(), KeepError> {
        let (head, shard, view) = (self.head, self.shard, &self.view);
        let due = trims.into_iter().filter_map(|(partition, to)| {
            let bounds = view.partitions.get(&partition)?;
            let to = to.min(bounds.tiered_end);
            let trim = Trim {
                partition,
                to,
                planned_version: Some(view.topics.get(&partition.topic)?.version),
            };
            (to > bounds.log_start).then_some(trim)
        });
        let proposals = due.map(|trim| async move {
            let partition = trim.partition;
            let outcome = head.propose(shard, Command::Trim(trim)).await?;
            Ok::<_, KeepError>((partition, outcome))
        });
        let proposals: Vec<_> = proposals.collect();
        let mut outcomes = futures::stream::iter(proposals).buffered(RETENTION_IN_FLIGHT);
        let mut moved = Vec::new();
        while let Some(outcome) = outcomes.next().await {
            let (partition, outcome) = outcome?;
            match outcome {
                Outcome::Trimmed { log_start } => moved.push((partition, log_start)),
                Outcome::Refused(
                    Refusal::Trim(
                        TrimRefusal::OldVersion { .. } | TrimRefusal::UnknownPartition { .. },
                    )
                    | Refusal::TopicEnded { .. },
                ) => self.done.outdated += 1,
                Outcome::Refused(refusal) => return Err(KeepError::Refused { shard, refusal }),
                other => unreachable!("a trim was answered with {other:?}"),
            }
        }
        drop(outcomes);
        self.done.trimmed += moved.len();
        for (partition, log_start) in moved {
            if let Some(bounds) = self.view.partitions.get_mut(&partition) {
                bounds.log_start = bounds.log_start.max(log_start);
            }
        }
        Ok(())
    }
}

/// The ranges of a segment, in canonical order.
fn ranges(pages: &[Arc<DirectoryPage>]) -> RangeList {
    let partitions = pages.iter().flat_map(|page| page.partitions());
    partitions
        .map(|partition| (partition.id, partition.range))
        .collect()
}
