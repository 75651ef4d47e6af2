//! Everything survives the wire, and what is missing is a fault.

mod answers; // outcomes and refusals, one of each kind

use std::time::Duration;

use bytes::Bytes;
use esker_env::WallMs;
use esker_log::{
    AcceptedBatch, AcceptedRun, Bid, Bounds, FlushJob, HeadError, HeadRead, HeadRecords, Job,
    Leader, LeaderClock, Listing, Mark, Progress, ReadFrom, ShardTopic, TopicView, WorkerId,
};
use esker_proto::internal as wire;
use esker_segment::{PartitionFacts, Tombstone};
use esker_shard::{
    AppendBatch, AppendError, AppendOutcome, CatalogRefusal, Command, CommitRefusal, ConfigChange,
    ConfigError, HeadSize, Level, MixedSegment, ObjectChecksum, Outcome, RangesHash, Refusal,
    SegmentPlace, SwapRefusal, TombstoneRefusal, TopicConfig, TrimRefusal,
};
use esker_types::limits::HEAD_LISTING_BYTES_MAX;
use esker_types::{
    ContentHash, FencingToken, Incarnation, LeaderEpoch, NodeId, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, RaftRange, SegmentId,
    Sequence, ShardId, ShardTime, Term, Timestamp, TopicId, TopicName, TopicVersion,
};
use prost::Message as _;

use super::*;
use answers::{append_outcomes, errors, outcomes};

const SHARD: ShardId = ShardId(3);

fn at(index: u64) -> Mark {
    Mark {
        incarnation: Incarnation::new(2).unwrap(),
        index: RaftIndex(index),
    }
}

fn topic_id(sequence: u64) -> TopicId {
    TopicId::new(Incarnation::FIRST, sequence).unwrap()
}

fn partition() -> PartitionId {
    PartitionId {
        topic: topic_id(9),
        index: PartitionIndex(5),
    }
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn range(start: u64, end: u64) -> OffsetRange {
    OffsetRange::new(offset(start), offset(end)).unwrap()
}

fn raft(from: u64, to: u64) -> RaftRange {
    RaftRange::new(RaftIndex(from), RaftIndex(to)).unwrap()
}

/// As large on the wire as they come.
fn bounds() -> Bounds {
    Bounds {
        log_start: offset(Offset::MAX.get() - 2),
        tiered_end: offset(Offset::MAX.get() - 1),
        end: Offset::MAX,
        mark: at(u64::MAX),
    }
}

fn place() -> SegmentPlace {
    SegmentPlace {
        incarnation: Incarnation::FIRST,
        from: RaftIndex(8),
    }
}

fn node() -> NodeId {
    NodeId::new(Incarnation::FIRST, 2).unwrap()
}

fn name() -> TopicName {
    TopicName::new("gravel").unwrap()
}

fn config() -> TopicConfig {
    let settings = [
        ("retention.ms", "86400000"),
        ("retention.bytes", "0"),
        ("compression", "lz4"),
        ("merge.transcode", "false"),
        ("storage_class", "STANDARD_IA"),
    ];
    settings
        .iter()
        .fold(TopicConfig::default(), |config, (key, value)| {
            let change = ConfigChange::parse(key, value).unwrap();
            config.with(&change).unwrap()
        })
}

fn stamp() -> ProducerStamp {
    ProducerStamp {
        id: ProducerId::new(Incarnation::FIRST, 7).unwrap(),
        epoch: ProducerEpoch::from_i16(i16::MAX).unwrap(),
        sequence: Sequence::from_i32(i32::MAX).unwrap(),
    }
}

fn listing<T>(items: Vec<T>) -> Listing<T> {
    Listing {
        items,
        more: true,
        mark: at(5),
    }
}

fn topic_view(ending: Option<Vec<ShardId>>) -> TopicView {
    TopicView {
        id: topic_id(1),
        name: name(),
        version: TopicVersion(2),
        config: config(),
        placement: vec![ShardId(1), ShardId(1), ShardId(2)],
        ending,
    }
}

fn shard_topic(partitions: u32) -> ShardTopic {
    let partitions = (0..partitions).map(|index| (PartitionIndex(index), bounds()));
    ShardTopic {
        id: topic_id(1),
        version: TopicVersion(2),
        config: config(),
        partitions: partitions.collect(),
    }
}

fn progress() -> Progress {
    Progress {
        mark: at(1),
        term: Term(2),
        checkpointed: RaftIndex(3),
        time: ShardTime(4),
        clock_skew: Some(Duration::from_nanos(5)),
        leader_clock: Some(LeaderClock {
            node: node(),
            wall: WallMs(15),
            ahead: true,
        }),
        flush_position: RaftIndex(6),
        flushed: RaftIndex(7),
        head: HeadSize {
            bytes: 8,
            batches: 9,
            oldest: Some(ShardTime(10)),
        },
        head_bytes_max: 11,
        head_batches_max: 12,
        segments: 13,
        gc_boundary: RaftIndex(14),
        flush_early: true,
    }
}

fn accepted() -> AcceptedRun {
    AcceptedRun {
        batches: vec![AcceptedBatch {
            partition: partition(),
            range: range(1, 2),
            leader_epoch: LeaderEpoch(3),
            append_time: ShardTime(4),
            hash: ContentHash(5),
            bytes: Bytes::from_static(b"batch"),
        }],
        upto: RaftIndex(6),
    }
}

fn segment() -> MixedSegment {
    MixedSegment {
        segment: SegmentId(1),
        incarnation: Incarnation::FIRST,
        raft: raft(2, 3),
        length: 4,
        checksum: ObjectChecksum(u64::MAX),
        range_count: 6,
        ranges_hash: RangesHash(7),
        newest: ShardTime(8),
        bytes: 9,
    }
}

fn replies() -> Vec<Reply> {
    let mut replies: Vec<_> = outcomes().into_iter().map(Reply::Outcome).collect();
    replies.extend([
        Reply::None,
        Reply::Done,
        Reply::Same,
        Reply::Turn(true),
        Reply::Turn(false),
        Reply::Reached(at(0)),
        Reply::Bounds(bounds()),
        Reply::Read(HeadRead {
            bounds: bounds(),
            batches: vec![HeadRecords {
                range: range(3, 9),
                leader_epoch: LeaderEpoch(1),
                bytes: Bytes::from_static(b"batch"),
            }],
            by_follower: true,
        }),
        Reply::Offset(offset(0)),
        Reply::Manifest(listing(vec![segment()])),
        Reply::Progress(progress()),
        Reply::Accepted(accepted()),
        Reply::Topic(topic_view(None)),
        Reply::Topics(listing(vec![
            topic_view(Some(Vec::new())),
            topic_view(Some(vec![SHARD])),
        ])),
        Reply::ShardTopics(listing(vec![shard_topic(3)])),
        Reply::Tombstones(listing(vec![(topic_id(1), 0), (topic_id(2), 9)])),
        Reply::FlushJob(5),
        Reply::Checkpoint {
            mark: at(6),
            bytes: 7,
        },
    ]);
    replies
}

fn questions() -> Vec<Question> {
    let (partition, from) = (partition(), offset(4));
    let after = Some(topic_id(3));
    vec![
        Question::Propose(Command::AllocateNode),
        Question::ReadIndex,
        Question::Bounds(partition),
        Question::Read {
            partition,
            from,
            bytes_max: usize::MAX,
            who: ReadFrom::Leader,
        },
        Question::ByTime {
            partition,
            time: Timestamp(-5),
            from,
        },
        Question::Past {
            partition,
            seen: bounds(),
            patience: Duration::from_millis(6),
        },
        Question::Manifest {
            after: Some(place()),
            count: 7,
        },
        Question::Manifest {
            after: None,
            count: 0,
        },
        Question::Progress,
        Question::ProgressPast {
            seen: RaftIndex(8),
            patience: Duration::MAX.min(Duration::from_millis(u64::MAX)),
        },
        Question::Tick,
        Question::AcceptTime,
        Question::FlushJob { bytes_max: 9 },
        Question::Accepted {
            raft: raft(1, 9),
            bytes_max: 10,
        },
        Question::Checkpoint,
        Question::Topic(name()),
        Question::Topics { after, count: 11 },
        Question::Ending {
            name: TopicName::new("formerly").unwrap(),
            after,
            count: 12,
        },
        Question::ShardTopics {
            after: None,
            count: 12,
        },
        Question::Tombstones { after, count: 13 },
        Question::Turn(bid(Job::Flush, true)),
        Question::Turn(bid(Job::Checkpoint, false)),
        Question::Turn(bid(Job::Retention, false)),
        Question::Turn(bid(Job::Collection, true)),
    ]
}

fn bid(job: Job, busy: bool) -> Bid {
    Bid {
        job,
        worker: WorkerId(14),
        busy,
        failed: !busy,
        again: Duration::from_secs(15),
    }
}

/// As it comes out at the other end.
fn sent<T: prost::Message + Default>(message: &T) -> T {
    T::decode(Bytes::from(message.encode_to_vec())).unwrap()
}

#[test]
fn every_question_survives_the_wire() {
    for seen in [None, Some(at(9))] {
        for asked in questions() {
            let heard = read_question(sent(&question(seen, &asked).unwrap()));
            assert_eq!(heard, Ok((seen, asked)));
        }
    }
}

#[test]
fn a_question_for_a_follower_says_what_its_reader_has_seen() {
    let asked = Question::Read {
        partition: partition(),
        from: offset(7),
        bytes_max: 8,
        who: ReadFrom::Follower { seen: at(9) },
    };
    for seen in [None, Some(at(3))] {
        let mut question = sent(&question(seen, &asked).unwrap());
        let heard = read_question(question.clone());
        assert_eq!(heard, Ok((Some(at(9)), asked.clone())));
        question.seen = None;
        read_question(question).expect_err("it may be told anything");
    }
}

#[test]
fn every_reply_survives_the_wire() {
    for reply in replies() {
        let (mark, heard) = read_answer(sent(&answer(Some(at(9)), Ok(reply.clone())))).unwrap();
        assert_eq!(mark, Some(at(9)));
        assert_eq!(
            format!("{heard:?}"),
            format!("{:?}", Ok::<_, HeadError>(reply))
        );
    }
}

#[test]
fn every_error_survives_the_wire() {
    for error in errors() {
        let (mark, heard) = read_answer(sent(&answer(None, Err(error.clone())))).unwrap();
        assert_eq!(mark, None);
        assert_eq!(heard.unwrap_err(), error);
        let heard = read_append_answer(sent(&append_answer(1, Err(error.clone()))));
        assert_eq!(heard, Ok(Err(error)));
    }
}

#[test]
fn every_append_and_its_outcome_survive_the_wire() {
    let bytes = Bytes::from_static(b"a batch");
    let batch = AppendBatch {
        partition: partition(),
        bytes: 7,
        records: 2,
        base_timestamp: Timestamp(-3),
        max_timestamp: Timestamp(i64::MAX),
        producer: Some(stamp()),
        hash: ContentHash(u128::MAX - 1),
        expected_end: Some(offset(0)),
        fencing: Some(FencingToken(0)),
    };
    let plain = AppendBatch {
        producer: None,
        expected_end: None,
        fencing: None,
        ..batch
    };
    for batch in [batch, plain] {
        let append = Append {
            number: 5,
            batch,
            bytes: bytes.clone(),
        };
        let heard = read_call(sent(&append_call(append.clone())));
        assert_eq!(heard, Ok(Call::Append(append)));
    }
    let begins = Beginning {
        session: u128::MAX,
        attempt: 6,
        seen: Some(at(1)),
    };
    assert_eq!(
        read_call(sent(&beginning(begins))),
        Ok(Call::Beginning(begins))
    );
    for outcome in append_outcomes() {
        let heard = read_append_answer(sent(&append_answer(1, Ok(outcome.clone()))));
        assert_eq!(heard, Ok(Ok(outcome)));
    }
}

#[test]
fn a_flush_job_survives_the_wire_and_a_crooked_one_is_refused() {
    let facts = PartitionFacts {
        id: partition(),
        topic: name(),
        start: offset(3),
        log_start: offset(2),
        fencing: Some(FencingToken(0)),
        producers: Vec::new(),
    };
    let job = FlushJob {
        shard: SHARD,
        incarnation: Incarnation::FIRST,
        raft: raft(1, 5),
        ranges: vec![(partition(), range(3, 6))],
        bytes: 99,
        partitions: vec![facts],
        tombstones: vec![Tombstone {
            topic: topic_id(8),
            version: TopicVersion(9),
        }],
    };
    let heard = read_flush_job(flush_job(job.clone()).unwrap()).unwrap();
    assert_eq!(format!("{heard:?}"), format!("{job:?}"));
    let mut crooked = job.clone();
    crooked.partitions[0].id.index = PartitionIndex(6);
    assert!(flush_job(crooked).is_err());
    let crooked = FlushJob {
        ranges: Vec::new(),
        ..job
    };
    assert!(flush_job(crooked).is_err());
}

#[test]
fn a_page_that_is_too_large_is_cut_and_says_so() {
    let pages = |items: Vec<ShardTopic>| {
        let page = Listing {
            more: false,
            ..listing(items)
        };
        let message = answer(None, Ok(Reply::ShardTopics(page)));
        let bytes = message.encoded_len();
        match read_answer(message) {
            Ok((_, Ok(Reply::ShardTopics(page)))) => (page.items.len(), page.more, bytes),
            other => panic!("{other:?}"),
        }
    };
    let (items, more, bytes) = pages(vec![shard_topic(20_000); 10]);
    assert!(more && items > 1 && items < 10, "{items}");
    assert!(bytes <= HEAD_LISTING_BYTES_MAX + 1000, "{bytes}");
    // One item is always among them, and the largest that there may be fits a message.
    let (items, more, bytes) = pages(vec![shard_topic(100_000), shard_topic(1)]);
    assert_eq!((items, more), (1, true));
    assert!(
        bytes <= esker_proto::tuning::PEER_MESSAGE_BYTES_MAX,
        "{bytes}"
    );
    let (items, more, _) = pages(vec![shard_topic(1), shard_topic(1)]);
    assert_eq!((items, more), (2, false));
}

#[test]
fn what_is_missing_or_not_known_is_a_fault() {
    assert!(read_question(wire::Question::default()).is_err());
    assert!(read_answer(wire::Answer::default()).is_err());
    assert!(read_call(wire::AppendCall::default()).is_err());
    assert!(read_append_answer(wire::AppendAnswer::default()).is_err());
    assert!(read_head_error(wire::HeadError::default()).is_err());
    assert!(read_flush_job(Bytes::from_static(b"\xff")).is_err());
    let answers = |of| {
        read_answer(wire::Answer {
            mark: None,
            of: Some(of),
        })
    };
    use wire::answer::Of;
    assert!(answers(Of::Outcome(wire::Outcome::default())).is_err());
    assert!(answers(Of::Offset(u64::MAX)).is_err());
    assert!(answers(Of::Bounds(wire::Bounds::default())).is_err());
    assert!(answers(Of::Progress(wire::Progress::default())).is_err());
    assert!(answers(Of::Topic(wire::Topic::default())).is_err());
    let level = wire::outcome::Of::Level(999);
    let outcome = wire::Outcome { of: Some(level) };
    assert!(answers(Of::Outcome(outcome)).is_err());
    // A setting that only the other one knows.
    let mut topic = match answer(None, Ok(Reply::Topic(topic_view(None)))).of {
        Some(Of::Topic(topic)) => topic,
        other => panic!("{other:?}"),
    };
    let setting = wire::topic_config::Setting {
        key: "of.tomorrow".into(),
        value: "1".into(),
    };
    topic.config.as_mut().unwrap().settings.push(setting);
    assert!(answers(Of::Topic(topic)).is_err());
}
