//! Random streams of commands: dice in, commands out that fit the state often enough to get far.

use std::convert::Infallible;

use esker_shard::checkpoint::{self, Scope};
use esker_shard::{
    Append, AppendBatch, Command, CommitSegment, ConfigChange, CreateTopic, Genesis, Level,
    ObjectChecksum, PutTopic, RequestId, SegmentRemoval, State, Swap, TopicConfig, Trim,
};
use esker_types::{
    ContentHash, EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, SegmentId, Sequence,
    ShardId, ShardTime, Term, Timestamp, TopicId, TopicName, TopicVersion,
};
use proptest::prelude::*;

/// Throws of a command: what to do, and with which numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice {
    verb: u8,
    seed: u64,
}

/// Dice for a stream of at most `most` commands.
pub(crate) fn dice(most: usize) -> impl Strategy<Value = Vec<Dice>> {
    let die = (0u8..100, any::<u64>()).prop_map(|(verb, seed)| Dice { verb, seed });
    prop::collection::vec(die, 1..=most)
}

/// What a stream remembers to make commands that fit.
#[derive(Default)]
pub(crate) struct Stream {
    committed: Vec<CommitSegment>,
}

pub(crate) fn new_shard(shard: u32) -> State {
    State::new(Genesis {
        shard: ShardId(shard),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(3),
        data_shards: 3,
    })
}

/// The entry after the last one applied; now and then of the next term.
pub(crate) fn next_entry(state: &State, dice: Dice) -> EntryId {
    let EntryId {
        term: Term(term),
        index,
    } = state.applied();
    let new_term = u64::from(dice.seed.is_multiple_of(17));
    EntryId {
        term: Term(term.max(1) + new_term),
        index: index.next(),
    }
}

pub(crate) fn checkpoint_bytes(state: &State, scope: Scope) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = checkpoint::encode(state, scope, |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    written.expect("memory takes everything");
    bytes
}

impl Stream {
    /// A command for a data shard.
    pub(crate) fn data(&mut self, state: &State, dice: Dice) -> Command {
        let mut roll = Roll(dice.seed);
        match dice.verb {
            0..45 => append(state, &mut roll),
            45..60 => self.commit(state, &mut roll),
            60..66 => self.swap(state, &mut roll),
            66..72 => put_topic(&mut roll),
            72 => Command::EndTopic {
                topic: topic(&mut roll),
                version: TopicVersion(9),
            },
            73..78 => {
                let plan_index = RaftIndex(state.applied().index.0.saturating_sub(roll.below(20)));
                Command::DropTombstone {
                    topic: topic(&mut roll),
                    plan_index,
                }
            }
            78..88 => trim(state, &mut roll),
            88..90 => Command::RaiseGcBoundary {
                to: RaftIndex(roll.below(6)),
            },
            90..97 => Command::Tick {
                time: later(state, &mut roll),
            },
            97..99 => Command::RaiseLevel {
                level: Level::FIRST,
            },
            _ => Command::AllocateNode,
        }
    }

    /// A command for the catalog.
    pub(crate) fn catalog(dice: Dice) -> Command {
        let mut roll = Roll(dice.seed);
        let topic = TopicId::new(Incarnation::FIRST, 1 + roll.below(6)).expect("small");
        match dice.verb {
            0..30 => Command::CreateTopic(CreateTopic {
                request: RequestId(u128::from(roll.below(4))),
                name: name(&mut roll),
                partitions: u32::try_from(roll.below(5)).expect("small"),
                config: TopicConfig::default(),
            }),
            30..45 => Command::AlterTopic {
                topic,
                expected: roll.sometimes(3, |roll| TopicVersion(1 + roll.below(4))),
                changes: vec![ConfigChange::RetentionBytes(Some(roll.below(3)))],
            },
            45..60 => Command::AddPartitions {
                topic,
                expected: roll.sometimes(3, |roll| TopicVersion(1 + roll.below(4))),
                total: u32::try_from(roll.below(9)).expect("small"),
            },
            60..70 => Command::DeleteTopic { topic },
            70..85 => Command::TopicEnded {
                topic,
                shard: ShardId(u32::try_from(roll.below(5)).expect("small")),
            },
            85..92 => Command::AllocateProducers {
                count: u32::try_from(roll.below(1100)).expect("small"),
            },
            92..97 => Command::AllocateNode,
            _ => Command::Tick {
                time: ShardTime(roll.below(100)),
            },
        }
    }

    fn commit(&mut self, state: &State, roll: &mut Roll) -> Command {
        let to = below(state.applied().index, roll);
        let plan = state.flush_plan(roll.below(200), to);
        let data = state.data().expect("a data shard");
        let mut commit = CommitSegment {
            segment: SegmentId(u128::from(roll.next())),
            length: roll.below(1000),
            checksum: ObjectChecksum(roll.next()),
            raft: esker_types::RaftRange {
                from: data.flush_position(),
                to: data.flush_position(),
            },
            ranges: Vec::new(),
        };
        if let Some(plan) = plan {
            commit.raft = plan.raft;
            commit.ranges = plan.ranges;
        }
        match roll.below(8) {
            0 => {
                commit.ranges.pop();
            }
            1 => commit.raft.to = commit.raft.to.next(),
            2 => commit
                .ranges
                .push((partition(roll), range(0, 1 + roll.below(9)))),
            3 => commit.raft.from = RaftIndex(0),
            _ => {}
        }
        self.committed.push(commit.clone());
        Command::CommitSegment(commit)
    }

    fn swap(&mut self, state: &State, roll: &mut Roll) -> Command {
        if roll.below(4) > 0 {
            let there =
                |c: &CommitSegment| state.data()?.manifest().find(|s| s.segment == c.segment);
            self.committed.retain(|commit| there(commit).is_some());
        }
        let count = roll.below(3);
        let mut removes = Vec::new();
        for _ in 0..count.min(self.committed.len() as u64) {
            let at = usize::try_from(roll.below(self.committed.len() as u64)).expect("small");
            let mut commit = self.committed[at].clone();
            if roll.below(8) == 0 {
                commit.ranges.pop();
            }
            removes.push(SegmentRemoval {
                incarnation: Incarnation::FIRST,
                segment: commit.segment,
                raft: commit.raft,
                ranges: commit.ranges,
            });
        }
        Command::Swap(Swap {
            plan_index: below(state.applied().index, roll),
            removes,
        })
    }
}

fn append(state: &State, roll: &mut Roll) -> Command {
    let time = later(state, roll);
    let batches = (0..=roll.below(4)).map(|_| batch(state, roll)).collect();
    Command::Append(Append { time, batches })
}

fn batch(state: &State, roll: &mut Roll) -> AppendBatch {
    let partition = partition(roll);
    let end = state
        .data()
        .and_then(|data| data.partition(partition))
        .map(|p| p.end());
    AppendBatch {
        partition,
        bytes: u32::try_from(1 + roll.below(60)).expect("small"),
        records: u32::try_from(1 + roll.below(3)).expect("small"),
        base_timestamp: Timestamp(roll.next().cast_signed()),
        max_timestamp: Timestamp(roll.next().cast_signed()),
        producer: roll.sometimes(2, |roll| stamp(state, partition, roll)),
        hash: ContentHash(u128::from(roll.below(2))),
        expected_end: roll.sometimes(6, |roll| {
            end.filter(|_| roll.below(4) > 0).unwrap_or(Offset::ZERO)
        }),
        fencing: roll.sometimes(6, |roll| FencingToken(roll.below(5))),
    }
}

/// The next stamp of some producer, or one near it.
fn stamp(state: &State, partition: PartitionId, roll: &mut Roll) -> ProducerStamp {
    let id = ProducerId::new(Incarnation::FIRST, 1 + roll.below(3)).expect("small");
    let known = state
        .data()
        .and_then(|data| data.partition(partition))
        .and_then(|partition| {
            partition
                .producers()
                .find(|(known, _)| *known == id)
                .map(|(_, producer)| producer)
        });
    let mut epoch = known.map_or(ProducerEpoch::FIRST, |known| known.epoch());
    let mut sequence = known.map_or(Sequence::ZERO, |known| known.next_sequence());
    match roll.below(8) {
        0 => sequence = Sequence::from_i32(sequence.as_i32() + 1).expect("small"),
        1..3 => {
            let back = i32::try_from(roll.below(9)).expect("small");
            sequence = Sequence::from_i32((sequence.as_i32() - back).max(0)).expect("not negative");
        }
        3..5 => {
            let next = i16::try_from(roll.below(4)).expect("small") - 1 + epoch.as_i16();
            epoch = ProducerEpoch::from_i16(next.max(0)).expect("not negative");
            sequence = Sequence::ZERO;
        }
        _ => {}
    }
    ProducerStamp {
        id,
        epoch,
        sequence,
    }
}

fn put_topic(roll: &mut Roll) -> Command {
    let max_batch_bytes = u32::try_from(40 + roll.below(30)).expect("small");
    let config = TopicConfig::default().with(&ConfigChange::MaxBatchBytes(max_batch_bytes));
    Command::PutTopic(PutTopic {
        topic: topic(roll),
        version: TopicVersion(1 + roll.below(5)),
        name: name(roll),
        config: config.expect("within bounds"),
        partitions: (0..=u32::try_from(roll.below(3)).expect("small"))
            .map(PartitionIndex)
            .collect(),
    })
}

fn trim(state: &State, roll: &mut Roll) -> Command {
    let partition = partition(roll);
    let end = state
        .data()
        .and_then(|data| data.partition(partition))
        .map_or(0, |p| p.end().get());
    Command::Trim(Trim {
        partition,
        to: Offset::new(if roll.below(2) == 0 {
            end
        } else {
            roll.below(end + 2)
        })
        .expect("small"),
        planned_version: roll.sometimes(4, |roll| TopicVersion(roll.below(5))),
    })
}

fn below(index: RaftIndex, roll: &mut Roll) -> RaftIndex {
    RaftIndex(index.0.saturating_sub(roll.below(3)))
}

/// Mostly a little later, now and then earlier or a day later.
fn later(state: &State, roll: &mut Roll) -> ShardTime {
    let ShardTime(now) = state.time();
    match roll.below(30) {
        0 => ShardTime(now + 86_400_000),
        1..6 => ShardTime(now.saturating_sub(5)),
        _ => ShardTime(now + roll.below(10)),
    }
}

fn topic(roll: &mut Roll) -> TopicId {
    TopicId::new(Incarnation::FIRST, 1 + roll.below(4)).expect("small")
}

fn partition(roll: &mut Roll) -> PartitionId {
    let index = PartitionIndex(u32::try_from(roll.below(3)).expect("small"));
    PartitionId {
        topic: topic(roll),
        index,
    }
}

fn name(roll: &mut Roll) -> TopicName {
    TopicName::new(["a", "b", "c"][usize::try_from(roll.below(3)).expect("small")]).expect("a name")
}

fn range(start: u64, end: u64) -> OffsetRange {
    let [start, end] = [start, end].map(|number| Offset::new(number).expect("small"));
    OffsetRange::new(start, end).expect("ascending")
}

/// Numbers from one seed: SplitMix64 (Steele, Lea, Flood 2014).
struct Roll(u64);

impl Roll {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn sometimes<T>(&mut self, one_in: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(one_in) == 0).then(|| make(self))
    }
}
