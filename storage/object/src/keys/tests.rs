use proptest::prelude::*;

use super::*;

fn incarnations() -> impl Strategy<Value = Incarnation> {
    (1..=Incarnation::MAX.get()).prop_map(|n| Incarnation::new(n).unwrap())
}

fn partitions() -> impl Strategy<Value = PartitionId> {
    (incarnations(), 0..=TopicId::SEQUENCE_MAX, any::<u32>()).prop_map(|(life, sequence, index)| {
        PartitionId {
            topic: TopicId::new(life, sequence).unwrap(),
            index: PartitionIndex(index),
        }
    })
}

fn numbers() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        (any::<u64>(), any::<u64>()),
        Just((0, u64::MAX)),
        (0..3u64, 0..3u64)
    ]
}

fn keys() -> impl Strategy<Value = Key> {
    let ids = any::<u128>().prop_map(SegmentId);
    let places = (
        incarnations(),
        any::<u32>().prop_map(ShardId),
        partitions(),
        numbers(),
        ids,
    );
    (0..7u8, places).prop_map(|(kind, (incarnation, shard, partition, (a, b), id))| {
        let plan = RaftIndex(a);
        let base = Offset::new(b >> 1).unwrap();
        match kind {
            0 => Key::Cluster {
                incarnation,
                cluster: ClusterId(id.0),
            },
            1 => Key::FlushedSegment {
                incarnation,
                shard,
                range: RaftRange::new(RaftIndex(a.min(b)), RaftIndex(a.max(b))).unwrap(),
                id,
            },
            2 => Key::GatheredSegment {
                incarnation,
                shard,
                plan,
                id,
            },
            3 => Key::PartitionSegment {
                incarnation,
                partition,
                plan,
                base,
                id,
            },
            4 => Key::ManifestPage {
                incarnation,
                partition,
                plan,
                base,
                id,
            },
            5 => Key::Checkpoint {
                incarnation,
                shard,
                index: plan,
                id,
            },
            _ => Key::Probe(id),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_key_survives_its_text(key in keys()) {
        prop_assert_eq!(Key::parse(&key.to_string()), Some(key));
    }

    /// Whatever parses has no second spelling: else two texts would name one object.
    #[test]
    fn a_changed_text_is_another_key_or_none(key in keys(), at in any::<prop::sample::Index>(), to in "[ -~]") {
        let mut text = key.to_string();
        let at = at.index(text.len());
        text.replace_range(at..=at, &to);
        if let Some(other) = Key::parse(&text) {
            prop_assert_eq!(other.to_string(), text);
        }
    }

    #[test]
    fn arbitrary_text_is_refused_without_harm(text in "\\PC{0,120}") {
        prop_assert_eq!(Key::parse(&text), None);
    }

    #[test]
    fn flushed_segments_list_in_raft_order(mut froms in prop::collection::vec(any::<u64>(), 2..20)) {
        let key = |from: &u64| Key::FlushedSegment {
            incarnation: Incarnation::FIRST,
            shard: ShardId(3),
            range: RaftRange::new(RaftIndex(*from), RaftIndex(u64::MAX)).unwrap(),
            id: SegmentId(0),
        }.to_string();
        let mut texts: Vec<_> = froms.iter().map(key).collect();
        texts.sort();
        froms.sort_unstable();
        prop_assert_eq!(texts, froms.iter().map(key).collect::<Vec<_>>());
    }
}

#[test]
fn the_layout_is_what_the_format_document_says() {
    let incarnation = Incarnation::new(7).unwrap();
    let shard = ShardId(3);
    let partition = PartitionId {
        topic: TopicId::new(incarnation, 9).unwrap(),
        index: PartitionIndex(2),
    };
    let (plan, base) = (RaftIndex(40), Offset::new(100).unwrap());
    let id = SegmentId::from_parts(1_767_225_600_000, 5);
    let keys = [
        Key::Cluster {
            incarnation,
            cluster: ClusterId(0xfeed),
        },
        Key::FlushedSegment {
            incarnation,
            shard,
            range: RaftRange::new(RaftIndex(10), RaftIndex(20)).unwrap(),
            id,
        },
        Key::GatheredSegment {
            incarnation,
            shard,
            plan,
            id,
        },
        Key::Checkpoint {
            incarnation,
            shard,
            index: RaftIndex(20),
            id,
        },
        Key::PartitionSegment {
            incarnation,
            partition,
            plan,
            base,
            id,
        },
        Key::ManifestPage {
            incarnation,
            partition,
            plan,
            base,
            id,
        },
        Key::Probe(id),
    ];
    let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
    assert_eq!(text, include_str!("../../tests/golden/keys.txt"));
}

#[test]
fn near_misses_are_refused() {
    let good = Key::Checkpoint {
        incarnation: Incarnation::FIRST,
        shard: ShardId(0),
        index: RaftIndex(5),
        id: SegmentId(1),
    }
    .to_string();
    assert!(Key::parse(&good).is_some());
    for bad in [
        format!("/{good}"),
        format!("{good}/"),
        format!("{good}.tmp"),
        good.replace(".ckp", ".seg"),
        good.replace("00000000000000000005", "5"),
        good.replace("00000000000000000005", "+0000000000000000005"),
        good.replace("00000000000000000005", "99999999999999999999"),
        good.replacen("00000000000000000001", "00000000000000000000", 1),
        good.replacen("00000000000000000001", "00000000000008388608", 1),
        good.replace("checkpoints", "segments"),
    ] {
        assert_eq!(Key::parse(&bad), None, "{bad}");
    }
    let backwards = "00000000000000000001/shards/00000000000000000000/segments/\
                     00000000000000000009-00000000000000000008-00000000000000000000000001.seg";
    assert_eq!(Key::parse(backwards), None);
}
