//! Why apply refuses a command.

mod catalog; // those of the catalog

use esker_proto::internal as wire;
use esker_proto::internal::{
    commit_refusal, refusal, swap_refusal, tombstone_refusal, trim_refusal,
};
use esker_shard::{CommitRefusal, Refusal, SwapRefusal, TombstoneRefusal, TrimRefusal};
use esker_types::{RaftIndex, SegmentId, ShardId, TopicVersion};

use super::Fault;
use super::atoms::{
    level, need, offset, partition, range, read_partition, read_range, read_wide, topic_id, wide,
};

pub(super) fn refusal(refusal: Refusal) -> wire::Refusal {
    use refusal::Of;
    let of = match refusal {
        Refusal::WrongShard { shard } => Of::WrongShard(shard.0),
        Refusal::AboveLevel { needed, level } => Of::AboveLevel(refusal::AboveLevel {
            needed: u32::from(needed.get()),
            level: u32::from(level.get()),
        }),
        Refusal::UnknownTopic { topic } => Of::UnknownTopic(topic.as_u64()),
        Refusal::TopicEnded { topic } => Of::TopicEnded(topic.as_u64()),
        Refusal::NotApplied { index, applied } => Of::NotApplied(refusal::NotApplied {
            index: index.0,
            applied: applied.0,
        }),
        Refusal::Commit(why) => Of::Commit(commit(&why)),
        Refusal::Swap(why) => Of::Swap(swap(&why)),
        Refusal::Tombstone(why) => Of::Tombstone(tombstone(&why)),
        Refusal::Trim(why) => Of::Trim(trim(&why)),
        Refusal::Catalog(why) => Of::Catalog(catalog::refusal(why)),
    };
    wire::Refusal { of: Some(of) }
}

pub(super) fn read_refusal(refusal: wire::Refusal) -> Result<Refusal, Fault> {
    use refusal::Of;
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::WrongShard(shard) => Refusal::WrongShard {
            shard: ShardId(shard),
        },
        Of::AboveLevel(above) => Refusal::AboveLevel {
            needed: level(above.needed)?,
            level: level(above.level)?,
        },
        Of::UnknownTopic(topic) => Refusal::UnknownTopic {
            topic: topic_id(topic)?,
        },
        Of::TopicEnded(topic) => Refusal::TopicEnded {
            topic: topic_id(topic)?,
        },
        Of::NotApplied(not) => Refusal::NotApplied {
            index: RaftIndex(not.index),
            applied: RaftIndex(not.applied),
        },
        Of::Commit(why) => Refusal::Commit(read_commit(why)?),
        Of::Swap(why) => Refusal::Swap(read_swap(why)?),
        Of::Tombstone(why) => Refusal::Tombstone(read_tombstone(why)?),
        Of::Trim(why) => Refusal::Trim(read_trim(why)?),
        Of::Catalog(why) => Refusal::Catalog(catalog::read_refusal(why)?),
    })
}

fn commit(refusal: &CommitRefusal) -> wire::CommitRefusal {
    use commit_refusal::{NotNext, Of, Ranges};
    let nothing = wire::Nothing {};
    let of = match *refusal {
        CommitRefusal::NotNext {
            from,
            flush_position,
        } => Of::NotNext(NotNext {
            from: from.0,
            flush_position: flush_position.0,
        }),
        CommitRefusal::Empty => Of::Empty(nothing),
        CommitRefusal::NotCanonical { partition } => Of::NotCanonical(wire::PartitionRef {
            topic: partition.topic.as_u64(),
            index: partition.index.0,
        }),
        CommitRefusal::Missing {
            partition: of,
            expected,
        } => Of::Missing(Ranges {
            partition: partition(of),
            given: None,
            expected: range(expected),
        }),
        CommitRefusal::WrongRange {
            partition: of,
            given,
            expected,
        } => Of::WrongRange(Ranges {
            partition: partition(of),
            given: range(given),
            expected: range(expected),
        }),
        CommitRefusal::Extra {
            partition: of,
            given,
        } => Of::Extra(Ranges {
            partition: partition(of),
            given: range(given),
            expected: None,
        }),
        CommitRefusal::ManifestFull => Of::ManifestFull(nothing),
    };
    wire::CommitRefusal { of: Some(of) }
}

fn read_commit(refusal: wire::CommitRefusal) -> Result<CommitRefusal, Fault> {
    use commit_refusal::Of;
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::NotNext(not) => CommitRefusal::NotNext {
            from: RaftIndex(not.from),
            flush_position: RaftIndex(not.flush_position),
        },
        Of::Empty(_) => CommitRefusal::Empty,
        Of::NotCanonical(of) => CommitRefusal::NotCanonical {
            partition: read_partition(Some(of))?,
        },
        Of::Missing(ranges) => CommitRefusal::Missing {
            partition: read_partition(ranges.partition)?,
            expected: read_range(ranges.expected)?,
        },
        Of::WrongRange(ranges) => CommitRefusal::WrongRange {
            partition: read_partition(ranges.partition)?,
            given: read_range(ranges.given)?,
            expected: read_range(ranges.expected)?,
        },
        Of::Extra(ranges) => CommitRefusal::Extra {
            partition: read_partition(ranges.partition)?,
            given: read_range(ranges.given)?,
        },
        Of::ManifestFull(_) => CommitRefusal::ManifestFull,
    })
}

fn swap(refusal: &SwapRefusal) -> wire::SwapRefusal {
    use swap_refusal::{Collected, Of, StillRead};
    let of = match *refusal {
        SwapRefusal::Empty => Of::Empty(wire::Nothing {}),
        SwapRefusal::Collected {
            plan_index,
            boundary,
        } => Of::Collected(Collected {
            plan_index: plan_index.0,
            boundary: boundary.0,
        }),
        SwapRefusal::NotThere { segment } => Of::NotThere(wide(segment.0)),
        SwapRefusal::OtherRanges { segment } => Of::OtherRanges(wide(segment.0)),
        SwapRefusal::StillRead {
            segment,
            partition: of,
            range: held,
        } => Of::StillRead(StillRead {
            segment: wide(segment.0),
            partition: partition(of),
            range: range(held),
        }),
    };
    wire::SwapRefusal { of: Some(of) }
}

fn read_swap(refusal: wire::SwapRefusal) -> Result<SwapRefusal, Fault> {
    use swap_refusal::Of;
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::Empty(_) => SwapRefusal::Empty,
        Of::Collected(collected) => SwapRefusal::Collected {
            plan_index: RaftIndex(collected.plan_index),
            boundary: RaftIndex(collected.boundary),
        },
        Of::NotThere(segment) => SwapRefusal::NotThere {
            segment: SegmentId(read_wide(&segment)?),
        },
        Of::OtherRanges(segment) => SwapRefusal::OtherRanges {
            segment: SegmentId(read_wide(&segment)?),
        },
        Of::StillRead(still) => SwapRefusal::StillRead {
            segment: SegmentId(read_wide(&still.segment)?),
            partition: read_partition(still.partition)?,
            range: read_range(still.range)?,
        },
    })
}

fn tombstone(refusal: &TombstoneRefusal) -> wire::TombstoneRefusal {
    use tombstone_refusal::{Of, Stale};
    let of = match *refusal {
        TombstoneRefusal::StillHeld { ranges } => Of::StillHeld(ranges),
        TombstoneRefusal::Stale {
            plan_index,
            changed,
        } => Of::Stale(Stale {
            plan_index: plan_index.0,
            changed: changed.0,
        }),
    };
    wire::TombstoneRefusal { of: Some(of) }
}

fn read_tombstone(refusal: wire::TombstoneRefusal) -> Result<TombstoneRefusal, Fault> {
    use tombstone_refusal::Of;
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::StillHeld(ranges) => TombstoneRefusal::StillHeld { ranges },
        Of::Stale(stale) => TombstoneRefusal::Stale {
            plan_index: RaftIndex(stale.plan_index),
            changed: RaftIndex(stale.changed),
        },
    })
}

fn trim(refusal: &TrimRefusal) -> wire::TrimRefusal {
    use trim_refusal::{Of, OldVersion, OutOfRange};
    let of = match *refusal {
        TrimRefusal::UnknownPartition { partition } => Of::UnknownPartition(wire::PartitionRef {
            topic: partition.topic.as_u64(),
            index: partition.index.0,
        }),
        TrimRefusal::OutOfRange { to, end } => Of::OutOfRange(OutOfRange {
            to: to.get(),
            end: end.get(),
        }),
        TrimRefusal::OldVersion { planned, current } => Of::OldVersion(OldVersion {
            planned: planned.0,
            current: current.0,
        }),
    };
    wire::TrimRefusal { of: Some(of) }
}

fn read_trim(refusal: wire::TrimRefusal) -> Result<TrimRefusal, Fault> {
    use trim_refusal::Of;
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::UnknownPartition(of) => TrimRefusal::UnknownPartition {
            partition: read_partition(Some(of))?,
        },
        Of::OutOfRange(out) => TrimRefusal::OutOfRange {
            to: offset(out.to)?,
            end: offset(out.end)?,
        },
        Of::OldVersion(old) => TrimRefusal::OldVersion {
            planned: TopicVersion(old.planned),
            current: TopicVersion(old.current),
        },
    })
}
