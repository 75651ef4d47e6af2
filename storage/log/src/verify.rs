//! Proves that bucket, manifest and head agree: every segment that the log names is there and is
//! what was committed, and together they hold every offset from the log start to the tiered end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use esker_object::{Key, Kind, Store};
use esker_segment::{Depth, Opened, Opening, Segment, Verified, Verifier};
use esker_shard::{MixedSegment, ObjectChecksum, SegmentPlace, ranges_hash};
use esker_types::limits::{MIB, TOPIC_PAGE};
use esker_types::{Lane, Offset, OffsetRange, PartitionId, ShardId, TopicName};

use tokio::sync::mpsc;

use crate::error::ReadError;
use crate::head::{Bounds, Head};
use crate::manifest::Manifests;

/// Bytes of one request while blocks are read one after the other.
const WINDOW_BYTES: u64 = 8 * MIB as u64;

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
    pub(crate) manifests: Manifests,
    pub(crate) depth: Depth,
    /// Told after each segment.
    pub(crate) tell: mpsc::Sender<Verification>,
}

/// Offsets that segments hold, by partition, in log order.
type Covered = BTreeMap<PartitionId, Vec<OffsetRange>>;

impl Verify {
    /// Until everything is verified, or nobody listens.
    pub(crate) async fn run(self) -> Result<(), ReadError> {
        let mut so_far = Verification::default();
        let mut known = Vec::new();
        for shard in self.head.shards() {
            // Bounds first: what is flushed later is in segments that may be looked at or not.
            let bounds = self.bounds(shard).await?;
            let segments = self.manifests.reload(shard).await?;
            so_far.segments_total += segments.segments.len() as u64;
            known.push((shard, bounds, segments));
        }
        for (shard, bounds, segments) in known {
            let (mut covered, mut gone) = (Covered::new(), Vec::new());
            for segment in &segments.segments {
                let finding = self.segment(shard, segment, &mut covered, &mut so_far);
                if let Some(finding) = finding.await {
                    gone.push((segment.place(), finding));
                }
                so_far.segments += 1;
                if self.tell.send(so_far.clone()).await.is_err() {
                    return Ok(());
                }
                so_far.found.clear();
            }
            let still = self.still(shard, gone).await?;
            so_far.found.extend(still);
            let gaps = self.gaps(shard, bounds, &covered).await?;
            so_far.found.extend(gaps);
        }
        so_far.done = true;
        // Whoever has gone does not want to know.
        let _ = self.tell.send(so_far).await;
        Ok(())
    }

    /// Those of `gone` that the log still names: others were removed while it was verified, by
    /// retention or with their topic.
    async fn still(
        &self,
        shard: ShardId,
        gone: Vec<(SegmentPlace, Finding)>,
    ) -> Result<Vec<Finding>, ReadError> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let named = self.manifests.reload(shard).await?;
        let named: BTreeSet<_> = named.segments.iter().map(|s| s.place()).collect();
        let gone = gone.into_iter();
        let still = gone.filter(|(place, _)| named.contains(place));
        Ok(still.map(|(_, finding)| finding).collect())
    }

    /// What nothing of `covered` holds, between the log starts of now and the tiered ends of
    /// before.
    async fn gaps(
        &self,
        shard: ShardId,
        before: BTreeMap<PartitionId, (TopicName, Bounds)>,
        covered: &Covered,
    ) -> Result<Vec<Finding>, ReadError> {
        let of = |partition: PartitionId, log_start, to| {
            let ranges = covered.get(&partition).map_or(&[][..], Vec::as_slice);
            gap(ranges, log_start, to)
        };
        let mut suspects = before;
        suspects.retain(|id, (_, bounds)| of(*id, bounds.log_start, bounds.tiered_end).is_some());
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.bounds(shard).await?;
        let gaps = suspects
            .into_iter()
            .filter_map(|(partition, (topic, bounds))| {
                let (_, now) = now.get(&partition)?;
                of(partition, now.log_start, bounds.tiered_end).map(|range| Finding::Uncovered {
                    topic,
                    partition,
                    range,
                })
            });
        Ok(gaps.collect())
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
                    covered.entry(partition).or_default().push(range);
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

/// One object, read in large pieces.
struct Object<'a> {
    store: &'a Store,
    key: Key,
    segment: &'a MixedSegment,
}

/// Bytes of an object at hand.
#[derive(Default)]
struct Window {
    from: u64,
    bytes: Bytes,
}

impl Object<'_> {
    async fn verify(&self, depth: Depth) -> Result<Verified, ReadError> {
        let segment = self.open().await?;
        let blocks_end = segment.blocks().last().map_or(0, |block| block.end());
        let (mut blocks, mut rest) = (Window::default(), Window::default());
        let mut verifier = Verifier::new(segment, depth);
        while let Some(range) = verifier.wants() {
            let window = if range.start < blocks_end {
                &mut blocks
            } else {
                &mut rest
            };
            verifier.take(self.get(range, window).await?)?;
        }
        Ok(verifier.finish())
    }

    async fn open(&self) -> Result<Segment, ReadError> {
        let mut opening = Opening::new(self.segment.segment, self.segment.length)?;
        loop {
            let mut window = Window::default();
            let wanted = opening.wants();
            let bytes = self.get(wanted, &mut window).await?;
            match opening.take(bytes)? {
                Opened::Done(segment, _) => return Ok(segment),
                Opened::More(more) => opening = more,
            }
        }
    }

    /// The bytes of `range`, out of the window if they are there.
    async fn get(&self, range: Range<u64>, window: &mut Window) -> Result<Bytes, ReadError> {
        if let Some(bytes) = window.get(&range) {
            return Ok(bytes);
        }
        let end = (range.start + WINDOW_BYTES)
            .min(self.segment.length)
            .max(range.end);
        let got = self
            .store
            .get_range(&self.key, range.start..end, Lane::Backfill)
            .await;
        let segment = self.segment.segment;
        let bytes = got.map_err(|source| match source.kind() {
            Kind::NotFound => ReadError::Gone { segment },
            _ => ReadError::Bucket { segment, source },
        })?;
        *window = Window {
            from: range.start,
            bytes,
        };
        Ok(window.get(&range).expect("it was just read"))
    }
}

impl Window {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.from)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.from)?).ok()?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}
