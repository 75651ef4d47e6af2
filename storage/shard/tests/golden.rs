//! Bytes that last: one encoding of each command, and checkpoints of a data shard and a catalog.
//! `ESKER_BLESS=1 cargo test -p esker-shard --test golden` writes what is missing and never
//! overwrites: a golden file that no longer matches is a format that broke.

#![expect(clippy::disallowed_methods, reason = "tests read their own files")]

use std::convert::Infallible;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use esker_shard::checkpoint::{self, Scope};
use esker_shard::{
    Append, AppendBatch, Command, CommitSegment, Compression, ConfigChange, CreateTopic, Error,
    Genesis, Level, ObjectChecksum, PutTopic, RangeList, RequestId, SegmentRemoval, State,
    StorageClass, Swap, TopicConfig, Trim, ranges_hash,
};
use esker_types::{
    ContentHash, EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, SegmentId,
    Sequence, ShardId, ShardTime, Term, Timestamp, TopicId, TopicName, TopicVersion,
};

#[test]
fn commands_are_read_and_written_as_ever() {
    let commands = data_commands().into_iter().chain(catalog_commands());
    for (name, command) in commands {
        let bytes = command.encode().expect("within limits");
        let golden = golden(&format!("command-{name}.hex"), hex(&bytes).as_bytes());
        let written = unhex(std::str::from_utf8(&golden).expect("hex is text"));
        assert_eq!(Command::decode(&written), Ok(command), "{name}");
        assert_eq!(bytes, written, "{name}");
    }
}

#[test]
fn checkpoints_are_read_and_written_as_ever() {
    let (data, catalog) = (played(1, data_commands()), played(0, catalog_commands()));
    let kinds = [
        ("data-local", &data, Scope::Local),
        ("data-bucket", &data, Scope::Bucket),
        ("catalog-local", &catalog, Scope::Local),
    ];
    for (name, state, scope) in kinds {
        let bytes = encoded(state, scope);
        let written = golden(&format!("checkpoint-{name}.ckp"), &bytes);
        let decoded = checkpoint::decode(&written).expect("it was read once");
        assert_eq!(decoded.scope, scope);
        assert_eq!(encoded(&decoded.state, scope), written, "{name}");
        assert_eq!(bytes, written, "{name}");
        if scope == Scope::Local {
            assert_eq!(&decoded.state, state);
        }
    }
}

#[test]
fn bytes_of_a_newer_build_are_refused_with_what_to_do() {
    let mut bytes = Command::AllocateNode
        .encode()
        .expect("within limits")
        .to_vec();
    bytes[0] = 2;
    let refused = Command::decode(&bytes).expect_err("level 2");
    assert_eq!(
        refused.to_string(),
        "a command needs level 2, this build knows levels up to 1; run a newer one"
    );
    // So is the command that would raise a shard to such a level: a build that does not know the
    // level must not follow it.
    let raise = Command::RaiseLevel {
        level: Level::FIRST,
    };
    let mut bytes = raise.encode().expect("within limits").to_vec();
    bytes[3] = 2;
    assert!(matches!(
        Command::decode(&bytes),
        Err(Error::Level {
            found: 2,
            newest: 1,
            ..
        })
    ));
}

#[test]
fn the_hash_of_ranges_stays_the_one_that_manifests_hold() {
    let hash = ranges_hash(&[
        (partition(1, 0), range(0, 3)),
        (partition(1, 2), range(7, 9)),
    ]);
    assert_eq!(hash.to_string(), "7e5786066cdb2c8fd38c6cfcd6be5323");
}

#[test]
fn what_is_above_a_limit_is_not_encoded() {
    let changes = vec![ConfigChange::DeepCheck(true); Command::CONFIG_CHANGES_MAX + 1];
    let topic = topic(1);
    let refused = Command::AlterTopic {
        topic,
        expected: None,
        changes,
    }
    .encode();
    assert_eq!(
        refused.expect_err("one too many").to_string(),
        "changes of a topic: 17 is above the limit of 16"
    );
    let batch = AppendBatch {
        bytes: 8 << 20,
        ..batch()
    };
    let append = Append {
        time: ShardTime(1),
        batches: vec![batch.clone(), batch],
    };
    assert_eq!(
        Command::Append(append)
            .encode()
            .expect_err("16 MiB")
            .to_string(),
        "payload bytes of an entry: 16777216 is above the limit of 8388608"
    );
}

/// Every command of a data shard, in an order in which each has an effect.
fn data_commands() -> Vec<(&'static str, Command)> {
    let put = |number, version| {
        Command::PutTopic(PutTopic {
            topic: topic(number),
            version: TopicVersion(version),
            name: TopicName::new("logs").expect("a name"),
            config: config(),
            partitions: vec![PartitionIndex(0), PartitionIndex(2)],
        })
    };
    let plain = |partition| AppendBatch {
        partition,
        producer: None,
        expected_end: None,
        fencing: None,
        ..batch()
    };
    let elsewhere = plain(partition(2, 0));
    let batches = vec![batch(), plain(partition(1, 0)), elsewhere.clone()];
    let raft = RaftRange {
        from: RaftIndex(0),
        to: RaftIndex(3),
    };
    let ranges: RangeList = vec![
        (partition(1, 0), range(0, 4)),
        (partition(2, 0), range(0, 2)),
    ];
    let (segment, plan_index) = (SegmentId(7), RaftIndex(5));
    let removes = vec![SegmentRemoval {
        incarnation: Incarnation::FIRST,
        segment,
        raft,
        ranges: ranges.clone(),
    }];
    vec![
        ("put-topic", put(1, 1)),
        ("put-topic-2", put(2, 1)),
        (
            "append",
            Command::Append(Append {
                time: ShardTime(1000),
                batches,
            }),
        ),
        (
            "commit-segment",
            Command::CommitSegment(CommitSegment {
                segment,
                length: 4096,
                checksum: ObjectChecksum(0x0123_4567_89ab_cdef),
                raft,
                ranges,
            }),
        ),
        (
            "trim",
            Command::Trim(Trim {
                partition: partition(1, 0),
                to: Offset::new(2).expect("small"),
                planned_version: Some(TopicVersion(1)),
            }),
        ),
        (
            "swap",
            Command::Swap(Swap {
                plan_index,
                removes,
            }),
        ),
        (
            "raise-gc-boundary",
            Command::RaiseGcBoundary { to: RaftIndex(4) },
        ),
        (
            "append-2",
            Command::Append(Append {
                time: ShardTime(2000),
                batches: vec![elsewhere, next()],
            }),
        ),
        (
            "end-topic",
            Command::EndTopic {
                topic: topic(2),
                version: TopicVersion(2),
            },
        ),
        (
            "end-topic-unknown",
            Command::EndTopic {
                topic: topic(5),
                version: TopicVersion(2),
            },
        ),
        (
            "drop-tombstone",
            Command::DropTombstone {
                topic: topic(2),
                plan_index: RaftIndex(8),
            },
        ),
        (
            "tick",
            Command::Tick {
                time: ShardTime(3000),
            },
        ),
        (
            "raise-level",
            Command::RaiseLevel {
                level: Level::FIRST,
            },
        ),
    ]
}

fn catalog_commands() -> Vec<(&'static str, Command)> {
    let create = |name, request| {
        Command::CreateTopic(CreateTopic {
            request: RequestId(request),
            name: TopicName::new(name).expect("a name"),
            partitions: 3,
            config: config(),
        })
    };
    let changes = vec![
        ConfigChange::Retention(None),
        ConfigChange::RetentionBytes(None),
        ConfigChange::Compression(Compression::Zstd),
        ConfigChange::StorageClass(None),
    ];
    let expected = Some(TopicVersion(1));
    vec![
        ("create-topic", create("logs", 1)),
        ("create-topic-2", create("events", 2)),
        (
            "alter-topic",
            Command::AlterTopic {
                topic: topic(1),
                expected,
                changes,
            },
        ),
        (
            "add-partitions",
            Command::AddPartitions {
                topic: topic(1),
                expected: None,
                total: 5,
            },
        ),
        ("delete-topic", Command::DeleteTopic { topic: topic(2) }),
        (
            "topic-ended",
            Command::TopicEnded {
                topic: topic(2),
                shard: ShardId(1),
            },
        ),
        (
            "allocate-producers",
            Command::AllocateProducers { count: 1000 },
        ),
        ("allocate-node", Command::AllocateNode),
    ]
}

fn config() -> TopicConfig {
    let changes = [
        ConfigChange::Retention(Some(Duration::from_secs(60))),
        ConfigChange::RetentionBytes(Some(1 << 30)),
        ConfigChange::MaxBatchBytes(1 << 23),
        ConfigChange::Compression(Compression::Lz4),
        ConfigChange::MergeTranscode(false),
        ConfigChange::StorageClass(Some(StorageClass::new("GLACIER_IR").expect("a class"))),
        ConfigChange::DeepCheck(false),
    ];
    let changed = |config: TopicConfig, change| config.with(change).expect("within bounds");
    changes.iter().fold(TopicConfig::default(), changed)
}

fn batch() -> AppendBatch {
    AppendBatch {
        partition: partition(1, 0),
        bytes: 300,
        records: 2,
        base_timestamp: Timestamp(-1),
        max_timestamp: Timestamp(1_700_000_000_000),
        producer: Some(ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, 9).expect("small"),
            epoch: ProducerEpoch::from_i16(4).expect("not negative"),
            sequence: Sequence::ZERO,
        }),
        hash: ContentHash(0xfeed),
        expected_end: Some(Offset::ZERO),
        fencing: Some(FencingToken(11)),
    }
}

/// The producer's next batch after [`batch`] and the plain one behind it.
fn next() -> AppendBatch {
    let mut next = batch();
    next.expected_end = Offset::new(4);
    next.producer = next.producer.map(|stamp| {
        let sequence = stamp.sequence.after(next.records);
        ProducerStamp { sequence, ..stamp }
    });
    next
}

fn played(shard: u32, commands: Vec<(&'static str, Command)>) -> State {
    let mut state = State::new(Genesis {
        shard: ShardId(shard),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(6),
        data_shards: 2,
    });
    for (name, command) in commands {
        let entry = EntryId {
            term: Term(2),
            index: state.applied().index.next(),
        };
        let outcome = state.apply(entry, &command);
        // Two of them show what a refusal leaves; all others have an effect.
        let refused = matches!(outcome, esker_shard::Outcome::Refused(_));
        assert_eq!(
            refused,
            matches!(name, "swap" | "drop-tombstone"),
            "{name}: {outcome:?}"
        );
    }
    state
}

fn encoded(state: &State, scope: Scope) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = checkpoint::encode(state, scope, |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    written.expect("memory takes everything");
    bytes
}

/// The bytes of a golden file; with `ESKER_BLESS` a missing one is written first.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("ESKER_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, bytes).expect("write a golden file");
    }
    let read = std::fs::read(&path);
    assert!(read.is_ok(), "{} is missing", path.display());
    read.unwrap_or_default()
}

/// Lines of 32 bytes.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("a String takes everything");
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("two hex digits"))
        .collect()
}

fn topic(number: u64) -> TopicId {
    TopicId::new(Incarnation::FIRST, number).expect("small")
}

fn partition(number: u64, index: u32) -> PartitionId {
    PartitionId {
        topic: topic(number),
        index: PartitionIndex(index),
    }
}

fn range(start: u64, end: u64) -> OffsetRange {
    let [start, end] = [start, end].map(|number| Offset::new(number).expect("small"));
    OffsetRange::new(start, end).expect("ascending")
}
