//! The key layout: where each object of a cluster lies in its bucket.
//!
//! ```text
//! cluster/<incarnation>-<cluster>.json
//! <incarnation>/shards/<shard>/segments/<from>-<to>-<ulid>.seg
//! <incarnation>/shards/<shard>/gathered/<plan>-<ulid>.seg
//! <incarnation>/shards/<shard>/checkpoints/<raft index>-<ulid>.ckp
//! <incarnation>/partitions/<topic>/<partition>/<plan>-<base offset>-<ulid>.seg
//! <incarnation>/partitions/<topic>/<partition>/<plan>-<base offset>-<ulid>.page
//! probe/<ulid>
//! ```
//!
//! Every number is decimal and padded to 20 digits, so that a listing sorts by number. A key
//! holds ids only, never a name that a person chose, and is never used twice.

use std::fmt;

use esker_types::{
    ClusterId, Incarnation, Offset, PartitionId, PartitionIndex, RaftIndex, RaftRange, SegmentId,
    ShardId, TopicId,
};

/// Digits of every number in a key: what `u64::MAX` needs.
const NUMBER_DIGITS: usize = 20;

/// The key of one object. `Display` writes it, [`Key::parse`] reads it; a text is the key of at
/// most one object and an object has exactly one text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// A cluster's claim on the bucket.
    Cluster {
        /// The life it claims.
        incarnation: Incarnation,
        /// Who claims it.
        cluster: ClusterId,
    },
    /// A segment that a flush wrote.
    FlushedSegment {
        /// The life in which it was written.
        incarnation: Incarnation,
        /// The shard whose entries it holds.
        shard: ShardId,
        /// The entries it covers, `(from, to]`.
        range: RaftRange,
        /// Its id.
        id: SegmentId,
    },
    /// A larger segment of several partitions, made of flushed ones.
    GatheredSegment {
        /// The life in which it was written.
        incarnation: Incarnation,
        /// The shard of its partitions.
        shard: ShardId,
        /// The applied index at which its sources were read.
        plan: RaftIndex,
        /// Its id.
        id: SegmentId,
    },
    /// A segment of one partition.
    PartitionSegment {
        /// The life in which it was written, which may be later than the topic's.
        incarnation: Incarnation,
        /// Its partition.
        partition: PartitionId,
        /// The applied index at which its sources were read.
        plan: RaftIndex,
        /// The first offset it covers.
        base: Offset,
        /// Its id.
        id: SegmentId,
    },
    /// A page of a partition's manifest.
    ManifestPage {
        /// The life in which it was written, which may be later than the topic's.
        incarnation: Incarnation,
        /// Its partition.
        partition: PartitionId,
        /// The applied index at which its entries were read.
        plan: RaftIndex,
        /// The first offset it covers.
        base: Offset,
        /// Its id.
        id: SegmentId,
    },
    /// A shard's checkpoint, without its head.
    Checkpoint {
        /// The life in which it was written.
        incarnation: Incarnation,
        /// Its shard.
        shard: ShardId,
        /// The last entry it holds.
        index: RaftIndex,
        /// Its id.
        id: SegmentId,
    },
    /// What the start-up probe writes, reads and deletes.
    Probe(SegmentId),
}

/// A run of keys with a common beginning: what a listing asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Prefix {
    /// Everything below the store's URL.
    All,
    /// The claims of all clusters.
    Clusters,
    /// Everything that one life wrote, its claim aside.
    Incarnation(Incarnation),
    /// Flushed segments of a shard, by raft index.
    Flushed(Incarnation, ShardId),
    /// Gathered segments of a shard, by plan index.
    Gathered(Incarnation, ShardId),
    /// Checkpoints of a shard, by raft index.
    Checkpoints(Incarnation, ShardId),
    /// Segments and pages of all partitions.
    Partitions(Incarnation),
    /// Segments and pages of a topic.
    Topic(Incarnation, TopicId),
    /// Segments and pages of a partition, by plan index.
    Partition(Incarnation, PartitionId),
    /// What probes left behind.
    Probes,
}

impl Key {
    /// Reads what `Display` wrote; `None` for anything else, however close.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let first = parts.next()?;
        let key = match first {
            "cluster" => Self::parse_cluster(parts.next()?)?,
            "probe" => Self::Probe(SegmentId::parse(parts.next()?)?),
            _ => {
                let incarnation = Incarnation::new(u32::try_from(number(first)?).ok()?)?;
                match parts.next()? {
                    "shards" => {
                        let shard = ShardId(u32::try_from(number(parts.next()?)?).ok()?);
                        Self::parse_of_shard(incarnation, shard, parts.next()?, parts.next()?)?
                    }
                    "partitions" => {
                        let topic = TopicId::from_u64(number(parts.next()?)?)?;
                        let index = PartitionIndex(u32::try_from(number(parts.next()?)?).ok()?);
                        let partition = PartitionId { topic, index };
                        Self::parse_of_partition(incarnation, partition, parts.next()?)?
                    }
                    _ => return None,
                }
            }
        };
        parts.next().is_none().then_some(key)
    }

    fn parse_cluster(name: &str) -> Option<Self> {
        let (incarnation, cluster) = name.strip_suffix(".json")?.split_once('-')?;
        Some(Self::Cluster {
            incarnation: Incarnation::new(u32::try_from(number(incarnation)?).ok()?)?,
            cluster: ClusterId::parse(cluster)?,
        })
    }

    fn parse_of_shard(
        incarnation: Incarnation,
        shard: ShardId,
        folder: &str,
        name: &str,
    ) -> Option<Self> {
        let key = match folder {
            "segments" => {
                let [from, to, id] = fields(name.strip_suffix(".seg")?)?;
                Self::FlushedSegment {
                    incarnation,
                    shard,
                    range: RaftRange::new(RaftIndex(number(from)?), RaftIndex(number(to)?))?,
                    id: SegmentId::parse(id)?,
                }
            }
            "gathered" => {
                let [plan, id] = fields(name.strip_suffix(".seg")?)?;
                Self::GatheredSegment {
                    incarnation,
                    shard,
                    plan: RaftIndex(number(plan)?),
                    id: SegmentId::parse(id)?,
                }
            }
            "checkpoints" => {
                let [index, id] = fields(name.strip_suffix(".ckp")?)?;
                Self::Checkpoint {
                    incarnation,
                    shard,
                    index: RaftIndex(number(index)?),
                    id: SegmentId::parse(id)?,
                }
            }
            _ => return None,
        };
        Some(key)
    }

    fn parse_of_partition(
        incarnation: Incarnation,
        partition: PartitionId,
        name: &str,
    ) -> Option<Self> {
        let (stem, kind) = name.split_once('.')?;
        let [plan, base, id] = fields(stem)?;
        let plan = RaftIndex(number(plan)?);
        let base = Offset::new(number(base)?)?;
        let id = SegmentId::parse(id)?;
        match kind {
            "seg" => Some(Self::PartitionSegment {
                incarnation,
                partition,
                plan,
                base,
                id,
            }),
            "page" => Some(Self::ManifestPage {
                incarnation,
                partition,
                plan,
                base,
                id,
            }),
            _ => None,
        }
    }
}

/// A number as keys carry it: exactly 20 digits, at most `u64::MAX`.
fn number(text: &str) -> Option<u64> {
    let digits = text.len() == NUMBER_DIGITS && text.bytes().all(|c| c.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The `N` parts of a name between its dashes; `None` if it has more or fewer.
fn fields<const N: usize>(name: &str) -> Option<[&str; N]> {
    let mut parts = name.split('-');
    let mut fields = [""; N];
    for field in &mut fields {
        *field = parts.next()?;
    }
    parts.next().is_none().then_some(fields)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Cluster {
                incarnation,
                cluster,
            } => write!(f, "cluster/{:020}-{cluster}.json", incarnation.get()),
            Self::FlushedSegment {
                incarnation,
                shard,
                range,
                id,
            } => write!(
                f,
                "{}/{:020}-{:020}-{id}.seg",
                Prefix::Flushed(incarnation, shard),
                range.from.0,
                range.to.0
            ),
            Self::GatheredSegment {
                incarnation,
                shard,
                plan,
                id,
            } => write!(
                f,
                "{}/{:020}-{id}.seg",
                Prefix::Gathered(incarnation, shard),
                plan.0
            ),
            Self::PartitionSegment {
                incarnation,
                partition,
                plan,
                base,
                id,
            } => write!(
                f,
                "{}/{:020}-{:020}-{id}.seg",
                Prefix::Partition(incarnation, partition),
                plan.0,
                base.get()
            ),
            Self::ManifestPage {
                incarnation,
                partition,
                plan,
                base,
                id,
            } => write!(
                f,
                "{}/{:020}-{:020}-{id}.page",
                Prefix::Partition(incarnation, partition),
                plan.0,
                base.get()
            ),
            Self::Checkpoint {
                incarnation,
                shard,
                index,
                id,
            } => write!(
                f,
                "{}/{:020}-{id}.ckp",
                Prefix::Checkpoints(incarnation, shard),
                index.0
            ),
            Self::Probe(id) => write!(f, "{}/{id}", Prefix::Probes),
        }
    }
}

/// Without a slash at either end; empty for [`Prefix::All`].
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::All => Ok(()),
            Self::Clusters => f.write_str("cluster"),
            Self::Probes => f.write_str("probe"),
            Self::Incarnation(i) => write!(f, "{:020}", i.get()),
            Self::Flushed(i, s) => write!(f, "{:020}/shards/{:020}/segments", i.get(), s.0),
            Self::Gathered(i, s) => write!(f, "{:020}/shards/{:020}/gathered", i.get(), s.0),
            Self::Checkpoints(i, s) => write!(f, "{:020}/shards/{:020}/checkpoints", i.get(), s.0),
            Self::Partitions(i) => write!(f, "{:020}/partitions", i.get()),
            Self::Topic(i, t) => write!(f, "{:020}/partitions/{:020}", i.get(), t.as_u64()),
            Self::Partition(i, p) => write!(
                f,
                "{:020}/partitions/{:020}/{:020}",
                i.get(),
                p.topic.as_u64(),
                p.index.0
            ),
        }
    }
}

#[cfg(test)]
mod tests;
