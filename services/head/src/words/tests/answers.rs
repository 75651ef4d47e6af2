//! One of each kind that a head answers: to a command, to an append, and why it does not.

use super::*;

pub(super) fn errors() -> Vec<HeadError> {
    let (shard, what) = (SHARD, "as it is".to_owned());
    let leader = Leader {
        node: node(),
        address: "node2:7072".into(),
    };
    vec![
        HeadError::NoShard { shard },
        HeadError::NotLeader {
            shard,
            leader: Some(leader),
            what: what.clone(),
        },
        HeadError::NotLeader {
            shard,
            leader: None,
            what: what.clone(),
        },
        HeadError::Released {
            shard,
            index: RaftIndex(4),
        },
        HeadError::Refused {
            shard,
            what: what.clone(),
        },
        HeadError::HeadFull {
            shard,
            what: what.clone(),
            limit: 5,
            held: u64::MAX,
        },
        HeadError::DiskFull {
            shard,
            what: what.clone(),
            room: 6,
            needed: 7,
        },
        HeadError::Unknown {
            shard,
            what: what.clone(),
        },
        HeadError::Corrupt { shard, what },
    ]
}

fn rejections() -> Vec<AppendError> {
    vec![
        AppendError::UnknownPartition,
        AppendError::PartitionEnded,
        AppendError::TooLarge { bytes: 2, limit: 1 },
        AppendError::RecordCount { records: 0 },
        AppendError::SequenceReused,
        AppendError::Fenced {
            current: FencingToken(u64::MAX),
        },
        AppendError::StaleProducerEpoch {
            current: ProducerEpoch::FIRST,
        },
        AppendError::SequenceGap {
            expected: Sequence::ZERO,
        },
        AppendError::DuplicateExpired,
        AppendError::ExpectedEnd {
            actual: Offset::MAX,
        },
        AppendError::OffsetsExhausted { end: Offset::MAX },
        AppendError::TooManyProducers,
    ]
}

pub(super) fn append_outcomes() -> Vec<AppendOutcome> {
    let mut outcomes = vec![
        AppendOutcome::Accepted {
            range: range(0, 9),
            leader_epoch: LeaderEpoch(4),
        },
        AppendOutcome::Duplicate { range: range(3, 4) },
    ];
    outcomes.extend(rejections().into_iter().map(AppendOutcome::Rejected));
    outcomes
}

fn config_errors() -> Vec<ConfigError> {
    let of = |key: &str, value: &str| ConfigChange::parse(key, value).unwrap_err();
    vec![
        of("nothing", "1"),
        of("retention.ms", "soon"),
        of("retention.ms", "-2"),
        of("retention.bytes", "-2"),
        of("max_batch_bytes", "0"),
        of("compression", "brotli"),
        of("deep_check", "yes"),
        of("merge.transcode", "no"),
        of("storage_class", "a/b"),
    ]
}

fn refusals() -> Vec<Refusal> {
    let topic = topic_id(1);
    let partition = partition();
    let segment = SegmentId(u128::MAX);
    let version = TopicVersion(4);
    let mut refusals = vec![
        Refusal::WrongShard { shard: SHARD },
        Refusal::AboveLevel {
            needed: Level::NEWEST,
            level: Level::FIRST,
        },
        Refusal::UnknownTopic { topic },
        Refusal::TopicEnded { topic },
        Refusal::NotApplied {
            index: RaftIndex(5),
            applied: RaftIndex(4),
        },
        Refusal::Commit(CommitRefusal::NotNext {
            from: RaftIndex(1),
            flush_position: RaftIndex(2),
        }),
        Refusal::Commit(CommitRefusal::Empty),
        Refusal::Commit(CommitRefusal::NotCanonical { partition }),
        Refusal::Commit(CommitRefusal::Missing {
            partition,
            expected: range(1, 2),
        }),
        Refusal::Commit(CommitRefusal::WrongRange {
            partition,
            given: range(0, 2),
            expected: range(1, 2),
        }),
        Refusal::Commit(CommitRefusal::Extra {
            partition,
            given: range(1, 2),
        }),
        Refusal::Commit(CommitRefusal::ManifestFull),
        Refusal::Swap(SwapRefusal::Empty),
        Refusal::Swap(SwapRefusal::Collected {
            plan_index: RaftIndex(1),
            boundary: RaftIndex(2),
        }),
        Refusal::Swap(SwapRefusal::NotThere { segment }),
        Refusal::Swap(SwapRefusal::OtherRanges { segment }),
        Refusal::Swap(SwapRefusal::StillRead {
            segment,
            partition,
            range: range(7, 8),
        }),
        Refusal::Tombstone(TombstoneRefusal::StillHeld { ranges: 3 }),
        Refusal::Tombstone(TombstoneRefusal::Stale {
            plan_index: RaftIndex(3),
            changed: RaftIndex(4),
        }),
        Refusal::Trim(TrimRefusal::UnknownPartition { partition }),
        Refusal::Trim(TrimRefusal::OutOfRange {
            to: offset(5),
            end: offset(4),
        }),
        Refusal::Trim(TrimRefusal::OldVersion {
            planned: TopicVersion(3),
            current: version,
        }),
    ];
    let mut catalog = vec![
        CatalogRefusal::NameTaken { topic },
        CatalogRefusal::PartitionCount { partitions: 0 },
        CatalogRefusal::FewerPartitions {
            current: 2,
            asked: 1,
        },
        CatalogRefusal::TooManyTopics,
        CatalogRefusal::TooManyPartitions {
            current: 9,
            asked: 8,
        },
        CatalogRefusal::OtherVersion {
            current: version,
            expected: TopicVersion(5),
        },
        CatalogRefusal::ProducerCount { count: 0 },
        CatalogRefusal::NotPlaced {
            topic,
            shard: SHARD,
        },
    ];
    let ids = ["topic", "producer", "node"];
    catalog.extend(ids.map(|what| CatalogRefusal::NoIdsLeft { what }));
    catalog.extend(config_errors().into_iter().map(CatalogRefusal::Config));
    refusals.extend(catalog.into_iter().map(Refusal::Catalog));
    refusals
}

pub(super) fn outcomes() -> Vec<Outcome> {
    let version = TopicVersion(6);
    let placement = vec![ShardId(1), ShardId(2)];
    let mut outcomes: Vec<_> = refusals().into_iter().map(Outcome::Refused).collect();
    outcomes.extend([
        Outcome::Ticked,
        Outcome::Level(Level::NEWEST),
        Outcome::Appended(append_outcomes()),
        Outcome::SegmentCommitted {
            flush_position: RaftIndex(1),
        },
        Outcome::Swapped,
        Outcome::GcBoundary(RaftIndex(2)),
        Outcome::TopicPut { version },
        Outcome::TopicEnded,
        Outcome::TombstoneDropped,
        Outcome::Trimmed {
            log_start: offset(3),
        },
        Outcome::TopicCreated {
            topic: topic_id(1),
            version,
            placement: placement.clone(),
        },
        Outcome::TopicAltered { version },
        Outcome::PartitionsAdded {
            version,
            placement: placement.clone(),
        },
        Outcome::TopicDeleted {
            awaiting: placement,
        },
        Outcome::Producers {
            first: stamp().id,
            count: 1000,
        },
        Outcome::Node(node()),
    ]);
    outcomes
}
