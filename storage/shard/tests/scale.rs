//! 100,000 partitions: what they cost in memory, in a checkpoint, and in a clone.

#![cfg(target_os = "linux")]

use std::convert::Infallible;

use esker_shard::checkpoint::{self, Scope};
use esker_shard::{
    Append, AppendBatch, Command, CommitSegment, Genesis, ObjectChecksum, PutTopic, State,
    TopicConfig,
};
use esker_types::limits::{CHECKPOINT_CHUNK_BYTES, KIB, PARTITIONS_PER_TOPIC_MAX};
use esker_types::{
    ContentHash, EntryId, Incarnation, LeaderEpoch, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, ProducerStamp, RaftIndex, SegmentId, Sequence, ShardId, ShardTime, Term, Timestamp,
    TopicId, TopicName, TopicVersion,
};

const PARTITIONS: u32 = PARTITIONS_PER_TOPIC_MAX;
const BATCHES_PER_ENTRY: u32 = 4000;

/// One test, so that nothing else moves this process's memory meanwhile.
#[test]
fn an_idle_partition_costs_under_a_kib_even_with_a_producer() {
    let mut state = State::new(Genesis {
        shard: ShardId(1),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards: 1,
    });
    let before = resident_bytes();
    apply(&mut state, &put_topic());
    let fresh = resident_bytes().saturating_sub(before);
    assert_per_partition("a fresh partition", fresh, KIB);

    // Each has had a batch by an idempotent producer, and is flushed.
    for first in (0..PARTITIONS).step_by(BATCHES_PER_ENTRY as usize) {
        let partitions = first..first + BATCHES_PER_ENTRY;
        let batches = partitions.map(batch).collect();
        apply(
            &mut state,
            &Command::Append(Append {
                time: ShardTime(1),
                batches,
            }),
        );
    }
    assert_eq!(state.head_size().batches, u64::from(PARTITIONS));
    let plan = state
        .flush_plan(u64::MAX, RaftIndex(u64::MAX))
        .expect("every partition");
    let commit = CommitSegment {
        segment: SegmentId(1),
        length: plan.bytes,
        checksum: ObjectChecksum(0),
        raft: plan.raft,
        ranges: plan.ranges,
    };
    apply(&mut state, &Command::CommitSegment(commit));
    assert_eq!(state.head_size().batches, 0);
    let idle = resident_bytes().saturating_sub(before);
    assert_per_partition("an idle partition", idle, KIB);

    // A view costs nothing, and stays what it is.
    let applied = state.applied();
    let views: Vec<State> = (0..1000).map(|_| state.clone()).collect();
    apply(&mut state, &Command::Tick { time: ShardTime(2) });
    assert!(views.iter().all(|view| view.applied() == applied));
    let seen = resident_bytes().saturating_sub(before);
    assert_per_partition("an idle partition with views", seen, KIB);

    // A checkpoint comes in bounded chunks, and comes back. The tick has left its sweep midway.
    let mut bytes = Vec::new();
    let written = checkpoint::encode(&state, Scope::Local, |chunk| {
        assert!(
            chunk.len() <= CHECKPOINT_CHUNK_BYTES,
            "a chunk of {} bytes",
            chunk.len()
        );
        bytes.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    written.expect("memory takes everything");
    assert!(
        bytes.len() > 2 * CHECKPOINT_CHUNK_BYTES,
        "more than one chunk"
    );
    let decoded = checkpoint::decode(&bytes).expect("as encoded");
    assert!(
        decoded.state == state,
        "the sweep's place among the partitions included"
    );
}

fn assert_per_partition(what: &str, bytes: usize, limit: usize) {
    let each = bytes / PARTITIONS as usize;
    assert!(
        each < limit,
        "{what} costs {each} bytes, the limit is {limit}"
    );
}

/// Pages of this process in memory, from `/proc/self/statm` (proc(5)), in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .expect("its second field is the resident size");
    pages.parse::<usize>().expect("a number") * 4 * KIB
}

fn apply(state: &mut State, command: &Command) {
    let index = state.applied().index.next();
    let outcome = state.apply(
        EntryId {
            term: Term(1),
            index,
        },
        command,
    );
    assert!(
        !matches!(outcome, esker_shard::Outcome::Refused(_)),
        "{outcome:?}"
    );
}

fn put_topic() -> Command {
    Command::PutTopic(PutTopic {
        topic: topic(),
        version: TopicVersion::FIRST,
        name: TopicName::new("many").expect("a name"),
        config: TopicConfig::default(),
        partitions: (0..PARTITIONS).map(PartitionIndex).collect(),
    })
}

fn batch(partition: u32) -> AppendBatch {
    AppendBatch {
        partition: PartitionId {
            topic: topic(),
            index: PartitionIndex(partition),
        },
        bytes: 1,
        records: 1,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: Some(ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, 1).expect("small"),
            epoch: ProducerEpoch::FIRST,
            sequence: Sequence::ZERO,
        }),
        hash: ContentHash(1),
        expected_end: None,
        fencing: None,
    }
}

fn topic() -> TopicId {
    TopicId::new(Incarnation::FIRST, 1).expect("small")
}
