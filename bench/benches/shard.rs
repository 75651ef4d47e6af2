//! The state machine: an entry of appends applied, flushed now and then.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use esker_shard::{
    Append, AppendBatch, Command, CommitSegment, Genesis, ObjectChecksum, Outcome, PutTopic, State,
    TopicConfig,
};
use esker_types::{
    ContentHash, EntryId, Incarnation, LeaderEpoch, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, ProducerStamp, RaftIndex, SegmentId, Sequence, ShardId, ShardTime, Term, Timestamp,
    TopicId, TopicName, TopicVersion,
};

const PARTITIONS: u32 = 1000;
/// Entries between two flushes.
const ENTRIES: u32 = 1000;

fn topic() -> TopicId {
    TopicId::new(Incarnation::FIRST, 1).expect("small")
}

fn apply(state: &mut State, command: &Command) {
    let index = state.applied().index.next();
    let term = Term(1);
    let outcome = state.apply(EntryId { term, index }, command);
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

fn fresh() -> State {
    let mut state = State::new(Genesis {
        shard: ShardId(1),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards: 1,
    });
    let put = PutTopic {
        topic: topic(),
        version: TopicVersion::FIRST,
        name: TopicName::new("many").expect("a name"),
        config: TopicConfig::default(),
        partitions: (0..PARTITIONS).map(PartitionIndex).collect(),
    };
    apply(&mut state, &Command::PutTopic(put));
    state
}

/// The `at`th batch of its partition.
fn batch(partition: u32, at: u32, idempotent: bool) -> AppendBatch {
    let sequence = i32::try_from(at * 100).expect("few");
    let stamp = ProducerStamp {
        id: ProducerId::new(Incarnation::FIRST, 1).expect("small"),
        epoch: ProducerEpoch::FIRST,
        sequence: Sequence::from_i32(sequence).expect("not negative"),
    };
    AppendBatch {
        partition: PartitionId {
            topic: topic(),
            index: PartitionIndex(partition),
        },
        bytes: 10_000,
        records: 100,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(1),
        producer: idempotent.then_some(stamp),
        hash: ContentHash(u128::from(at)),
        expected_end: None,
        fencing: None,
    }
}

fn appends(idempotent: bool, batches: u32) -> Vec<Command> {
    let entry = |at: u32| {
        let batches = (0..batches).map(|one| {
            let number = at * batches + one;
            batch(number % PARTITIONS, number / PARTITIONS, idempotent)
        });
        Command::Append(Append {
            time: ShardTime(u64::from(at)),
            batches: batches.collect(),
        })
    };
    (0..ENTRIES).map(entry).collect()
}

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    let state = fresh();
    for (name, idempotent, per_entry) in [
        ("1000 entries of 1 batch, idempotent", true, 1),
        ("1000 entries of 16 batches, idempotent", true, 16),
        ("1000 entries of 16 batches, plain", false, 16),
    ] {
        let commands = appends(idempotent, per_entry);
        group.throughput(Throughput::Elements(u64::from(ENTRIES * per_entry)));
        group.bench_function(format!("apply {name}"), |bench| {
            let run = |mut state: State| {
                for command in &commands {
                    apply(&mut state, command);
                }
                state
            };
            bench.iter_batched(|| state.clone(), run, BatchSize::LargeInput);
        });
        let mut full = state.clone();
        commands
            .iter()
            .for_each(|command| apply(&mut full, command));
        let batches = full.head_size().batches;
        assert_eq!(
            batches,
            commands.len() as u64 * u64::from(per_entry),
            "accepted"
        );
        group.bench_function(format!("flush {name}"), |bench| {
            let run = |mut state: State| {
                let plan = state.flush_plan(u64::MAX, RaftIndex(u64::MAX));
                let plan = plan.expect("every entry");
                let commit = CommitSegment {
                    segment: SegmentId(1),
                    length: plan.bytes,
                    checksum: ObjectChecksum(0),
                    raft: plan.raft,
                    ranges: plan.ranges,
                };
                apply(&mut state, &Command::CommitSegment(commit));
                state
            };
            bench.iter_batched(|| full.clone(), run, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
