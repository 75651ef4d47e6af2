//! Proves that bucket, manifest and head agree: every segment that the log names is there and is
//! what was committed, and together they hold every offset from the log start to the tiered end.

mod object; // one segment, read whole

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_object::{Key, Store};
use esker_segment::{Depth, Verified};
use esker_shard::{MixedSegment, ObjectChecksum, SegmentPlace, ranges_hash};
use esker_types::limits::{FINDINGS_PER_REPLY_MAX, MANIFEST_PAGE, TOPIC_PAGE};
use esker_types::{Offset, OffsetRange, PartitionId, ShardId, TopicName};
use tokio::sync::mpsc;

use crate::error::ReadError;
use crate::head::{Bounds, Head};
use object::Object;

/// How far a verification has come.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Segments looked at.
    pub segments: u64,
    /// Segments that the log names.
    pub segments_total: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Batches seen.
    pub batches: u64,
    /// Records seen.
    pub records: u64,
    /// What was wrong since the last report.
    pub found: Vec<Finding>,
    /// This was all.
    pub done: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Finding {
    /// A segment is missing, damaged, or cannot be read.
    #[error("{key}: {error}")]
    Segment {
        /// Where it should be.
        key: Key,
        /// What is wrong.
        error: ReadError,
    },
    /// A segment is whole, and not the one that was committed.
    #[error("{key} is another segment than the one committed: {what}")]
    Other {
        /// Where it is.
        key: Key,
        /// What differs.
        what: String,
    },
    /// No segment holds these offsets, which lie between log start and tiered end.
    #[error("no segment holds {range} of {topic}/{}", partition.index)]
    Uncovered {
        /// The topic.
        topic: TopicName,
        /// Its partition.
        partition: PartitionId,
        /// The offsets.
        range: OffsetRange,
    },
}

/// Verifies all that a head names.
#[derive(Debug)]
pub(crate) struct Verify {
    pub(crate) head: Arc<dyn Head>,
    pub(crate) store: Store,
    pub(crate) depth: Depth,
    /// Told after each segment. Whoever takes nothing from it holds verifying up, so that no more than
    /// a page of findings waits here.
    pub(crate) tell: mpsc::Sender<Verification>,
}

/// Offsets that segments hold, by partition, in log order; those that meet are one.
type Covered = BTreeMap<PartitionId, Vec<OffsetRange>>;

/// Why verifying ended before its end.
enum End {
    /// Nobody listens.
    Unheard,
    /// What is to be verified is not known.
    Failed(ReadError),
}

impl<E: Into<ReadError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Verify {
    /// Until everything is verified, or nobody listens.
    pub(crate) async fn run(self) -> Result<(), ReadError> {
        match self.all().await {
            Ok(()) | Err(End::Unheard) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }

    async fn all(&self) -> Result<(), End> {
        let mut so_far = Verification::default();
        let mut shards = Vec::new();
        for shard in self.head.shards() {
            let segments = self.head.progress(shard).await?.segments;
            so_far.segments_total += segments;
            shards.push((shard, segments));
        }
        let mut others = so_far.segments_total;
        for (shard, segments) in shards {
            others -= segments;
            self.shard(shard, &mut so_far).await?;
            // Some have left the log meanwhile, others have come.
            so_far.segments_total = so_far.segments + others;
        }
        so_far.done = true;
        self.tell(&mut so_far).await
    }

    async fn shard(&self, shard: ShardId, so_far: &mut Verification) -> Result<(), End> {
        // Bounds first: below the tiered ends of before, segments hold all, up to the flush position
        // of now. What is flushed later is left to the next.
        let bounds = self.bounds(shard).await?;
        let progress = self.head.progress(shard).await?;
        let end = SegmentPlace {
            incarnation: progress.mark.incarnation,
            from: progress.flush_position,
        };
        let (mut covered, mut after) = (Covered::new(), None);
        loop {
            let page = self.head.manifest(shard, after, MANIFEST_PAGE).await?;
            let segments = page.items.iter();
            let mut gone = BTreeMap::new();
            for segment in segments.take_while(|segment| segment.place() < end) {
                let finding = self.segment(shard, segment, &mut covered, so_far);
                if let Some(finding) = finding.await {
                    gone.insert(segment.place(), finding);
                }
                so_far.segments += 1;
                so_far.segments_total = so_far.segments_total.max(so_far.segments);
                self.tell(so_far).await?;
            }
            let still = self.still(shard, after, gone).await?;
            self.tell_found(so_far, still).await?;
            after = page.items.last().map(MixedSegment::place);
            if !page.more || after.is_none_or(|after| after >= end) {
                break;
            }
        }
        let gaps = self.gaps(shard, bounds, &covered).await?;
        self.tell_found(so_far, gaps).await
    }

    /// Tells how far it has come, and what was found since the last time.
    async fn tell(&self, so_far: &mut Verification) -> Result<(), End> {
        let found = std::mem::take(&mut so_far.found);
        let report = Verification {
            found,
            ..so_far.clone()
        };
        let told = self.tell.send(report).await;
        told.map_err(|_| End::Unheard)
    }

    /// Tells of findings, a bounded number at once.
    async fn tell_found(
        &self,
        so_far: &mut Verification,
        findings: impl IntoIterator<Item = Finding>,
    ) -> Result<(), End> {
        let mut findings = findings.into_iter().peekable();
        while findings.peek().is_some() {
            let some = findings.by_ref().take(FINDINGS_PER_REPLY_MAX);
            so_far.found.extend(some);
            self.tell(so_far).await?;
        }
        Ok(())
    }

    /// Those of `gone`, of one page of the manifest, the one above `after`, that the log still names:
    /// others were removed while it was verified, by retention or with their topic. Nothing comes into
    /// a page that was there, so that it lies within the one that is there now.
    async fn still(
        &self,
        shard: ShardId,
        after: Option<SegmentPlace>,
        mut gone: BTreeMap<SegmentPlace, Finding>,
    ) -> Result<impl Iterator<Item = Finding> + use<>, ReadError> {
        let mut named = Vec::new();
        if !gone.is_empty() {
            named = self.head.manifest(shard, after, MANIFEST_PAGE).await?.items;
        }
        let named = named.into_iter();
        Ok(named.filter_map(move |segment| gone.remove(&segment.place())))
    }

    /// What nothing of `covered` holds, between the log starts of now and the tiered ends of
    /// before: at most one thing of each partition.
    async fn gaps(
        &self,
        shard: ShardId,
        mut suspects: BTreeMap<PartitionId, (TopicName, Bounds)>,
        covered: &Covered,
    ) -> Result<impl Iterator<Item = Finding>, ReadError> {
        let of = |partition: PartitionId, log_start, to| {
            let ranges = covered.get(&partition).map_or(&[][..], Vec::as_slice);
            gap(ranges, log_start, to)
        };
        suspects.retain(|id, (_, bounds)| of(*id, bounds.log_start, bounds.tiered_end).is_some());
        let now = match suspects.is_empty() {
            true => BTreeMap::new(),
            false => self.bounds(shard).await?,
        };
        let suspects = suspects.into_iter();
        Ok(suspects.filter_map(move |(partition, (topic, bounds))| {
            let (_, now) = now.get(&partition)?;
            let range = of(partition, now.log_start, bounds.tiered_end)?;
            Some(Finding::Uncovered {
                topic,
                partition,
                range,
            })
        }))
    }

    async fn bounds(
        &self,
        shard: ShardId,
    ) -> Result<BTreeMap<PartitionId, (TopicName, Bounds)>, ReadError> {
        let mut names = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.head.topics(after, TOPIC_PAGE).await?;
            after = page.items.last().map(|topic| topic.id);
            names.extend(page.items.into_iter().map(|topic| (topic.id, topic.name)));
            if !page.more {
                break;
            }
        }
        let mut bounds = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.head.shard_topics(shard, after, TOPIC_PAGE).await?;
            after = page.items.last().map(|topic| topic.id);
            for topic in page.items {
                let Some(name) = names.get(&topic.id) else {
                    continue;
                };
                bounds.extend(topic.partitions.into_iter().map(|(index, bounds)| {
                    let topic = topic.id;
                    (PartitionId { topic, index }, (name.clone(), bounds))
                }));
            }
            if !page.more {
                return Ok(bounds);
            }
        }
    }

    /// A segment that is not there is returned: it may have left the log meanwhile.
    async fn segment(
        &self,
        shard: ShardId,
        segment: &MixedSegment,
        covered: &mut Covered,
        so_far: &mut Verification,
    ) -> Option<Finding> {
        let key = Key::FlushedSegment {
            incarnation: segment.incarnation,
            shard,
            range: segment.raft,
            id: segment.segment,
        };
        let object = Object {
            store: &self.store,
            key,
            segment,
        };
        match object.verify(self.depth).await {
            Ok(verified) => {
                so_far.bytes += verified.length;
                so_far.batches += verified.batches;
                so_far.records += verified.records;
                so_far
                    .found
                    .extend(differs(segment, &verified).map(|what| Finding::Other { key, what }));
                for (partition, range) in verified.ranges {
                    cover(covered.entry(partition).or_default(), range);
                }
            }
            Err(error @ ReadError::Gone { .. }) => return Some(Finding::Segment { key, error }),
            Err(error) => so_far.found.push(Finding::Segment { key, error }),
        }
        None
    }
}

/// What a whole segment says otherwise than the manifest.
fn differs(segment: &MixedSegment, verified: &Verified) -> Option<String> {
    let checksum = ObjectChecksum(verified.checksum.0);
    if checksum != segment.checksum {
        let committed = segment.checksum;
        return Some(format!("checksum {checksum}, committed was {committed}"));
    }
    let hash = ranges_hash(&verified.ranges);
    (hash != segment.ranges_hash).then(|| "it holds other offsets".to_owned())
}

/// `range` comes after `ranges`, in log order.
fn cover(ranges: &mut Vec<OffsetRange>, range: OffsetRange) {
    let last = ranges.last_mut();
    match last.filter(|last| range.start() <= last.end()) {
        Some(last) => {
            let both = OffsetRange::new(last.start(), last.end().max(range.end()));
            *last = both.expect("it ends no earlier than it did");
        }
        None => ranges.push(range),
    }
}

/// The first offsets of `[start, end)` that no range holds.
fn gap(ranges: &[OffsetRange], start: Offset, end: Offset) -> Option<OffsetRange> {
    let mut reached = start;
    for range in ranges {
        if range.start() > reached && reached < end {
            return OffsetRange::new(reached, range.start().min(end));
        }
        reached = reached.max(range.end());
    }
    OffsetRange::new(reached, end).filter(|range| !range.is_empty())
}
