//! Apply against a model that remembers everything: one partition, a few producers, every batch.
//! The model knows no windows and no sequence arithmetic, only the list of what was accepted.

use esker_shard::{
    Append, AppendBatch, AppendError, AppendOutcome, Command, Genesis, Outcome, PutTopic, State,
    TopicConfig,
};
use esker_types::{
    ContentHash, EntryId, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, Sequence, ShardId, ShardTime, Term,
    Timestamp, TopicId, TopicName, TopicVersion,
};
use proptest::prelude::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const REMEMBERED: usize = 5;

/// A batch as the stream draws it, and as the model keeps it.
#[derive(Clone, Debug)]
struct Drawn {
    producer: u64,
    epoch: i16,
    sequence: i32,
    records: u32,
    hash: u128,
    fence: Option<u64>,
    expected_end: Option<u64>,
    pause_ms: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    drawn: Drawn,
    start: u64,
    time: u64,
}

#[derive(Default)]
struct Model {
    kept: Vec<Kept>,
    end: u64,
    fence: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Expected {
    At(u64),
    DuplicateAt(u64),
    Error(&'static str),
}

impl Model {
    fn append(&mut self, drawn: &Drawn, now: u64) -> Expected {
        let expected = self.decide(drawn, now);
        if let Expected::At(start) = expected {
            self.kept.push(Kept {
                drawn: drawn.clone(),
                start,
                time: now,
            });
            self.end += u64::from(drawn.records);
            self.fence = self.fence.max(drawn.fence);
        }
        expected
    }

    fn decide(&self, drawn: &Drawn, now: u64) -> Expected {
        // Of this producer, since it was last forgotten.
        let mut session: Vec<&Kept> = Vec::new();
        for kept in self
            .kept
            .iter()
            .filter(|kept| kept.drawn.producer == drawn.producer)
        {
            if session
                .last()
                .is_some_and(|last| kept.time - last.time >= DAY_MS)
            {
                session.clear();
            }
            session.push(kept);
        }
        if session.last().is_some_and(|last| now - last.time >= DAY_MS) {
            session.clear();
        }
        let epoch = session.last().map(|last| last.drawn.epoch);
        session.retain(|kept| Some(kept.drawn.epoch) == epoch);
        let remembered = &session[session.len().saturating_sub(REMEMBERED)..];
        let same = |kept: &&&Kept| {
            let other = &kept.drawn;
            (other.epoch, other.sequence, other.records)
                == (drawn.epoch, drawn.sequence, drawn.records)
        };
        if let Some(kept) = remembered.iter().find(same) {
            return if kept.drawn.hash == drawn.hash {
                Expected::DuplicateAt(kept.start)
            } else {
                Expected::Error("SequenceReused")
            };
        }
        if drawn.fence.is_some_and(|fence| Some(fence) < self.fence) {
            return Expected::Error("Fenced");
        }
        if let Some(error) = wrong_sequence(drawn, epoch, remembered) {
            return Expected::Error(error);
        }
        if drawn.expected_end.is_some_and(|end| end != self.end) {
            return Expected::Error("ExpectedEnd");
        }
        Expected::At(self.end)
    }
}

fn wrong_sequence(drawn: &Drawn, epoch: Option<i16>, remembered: &[&Kept]) -> Option<&'static str> {
    let Some(epoch) = epoch else {
        return (drawn.sequence != 0).then_some("DuplicateExpired");
    };
    if drawn.epoch < epoch {
        return Some("StaleProducerEpoch");
    }
    if drawn.epoch > epoch {
        return (drawn.sequence != 0).then_some("SequenceGap");
    }
    let (oldest, newest) = (remembered.first()?, remembered.last()?);
    let next = newest.drawn.sequence + i32::try_from(newest.drawn.records).expect("small");
    match drawn.sequence {
        sequence if sequence == next => None,
        sequence if sequence > next => Some("SequenceGap"),
        sequence if sequence >= oldest.drawn.sequence => Some("SequenceReused"),
        _ => Some("DuplicateExpired"),
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        (0u64..3, 0i16..3, 0i32..12, 1u32..3),
        (
            0u128..2,
            prop::option::weighted(0.2, 0u64..4),
            prop::option::weighted(0.1, 0u64..10),
        ),
        prop_oneof![20 => 0u64..10, 1 => Just(DAY_MS - 3), 1 => Just(DAY_MS)],
    )
        .prop_map(
            |((producer, epoch, sequence, records), (hash, fence, expected_end), pause_ms)| Drawn {
                producer,
                epoch,
                sequence,
                records,
                hash,
                fence,
                expected_end,
                pause_ms,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn apply_decides_like_a_model_that_remembers_everything(
        draws in prop::collection::vec((drawn(), any::<bool>()), 1..200),
    ) {
        let mut state = shard_with_a_topic();
        let mut model = Model::default();
        for (mut drawn, follow) in draws {
            if follow {
                continue_session(&model, &mut drawn);
            }
            let now = state.time().0 + drawn.pause_ms;
            let expected = model.append(&drawn, now);
            let outcome = apply(&mut state, &drawn, now);
            prop_assert_eq!(&expected, &simplified(&outcome), "{:?}: {:?}", drawn, outcome);
        }
    }
}

/// Makes the draw the next batch of its producer, so that sessions get long.
fn continue_session(model: &Model, drawn: &mut Drawn) {
    let of_producer = |kept: &&Kept| kept.drawn.producer == drawn.producer;
    if let Some(last) = model.kept.iter().rev().find(of_producer) {
        drawn.epoch = last.drawn.epoch;
        drawn.sequence = last.drawn.sequence + i32::try_from(last.drawn.records).expect("small");
    }
}

fn shard_with_a_topic() -> State {
    let mut state = State::new(Genesis {
        shard: ShardId(1),
        incarnation: Incarnation::FIRST,
        epoch_base: LeaderEpoch(0),
        data_shards: 1,
    });
    let put = Command::PutTopic(PutTopic {
        topic: partition().topic,
        version: TopicVersion::FIRST,
        name: TopicName::new("logs").expect("a name"),
        config: TopicConfig::default(),
        partitions: vec![partition().index],
    });
    let entry = EntryId {
        term: Term(1),
        index: state.applied().index.next(),
    };
    let outcome = state.apply(entry, &put);
    assert_eq!(
        outcome,
        Outcome::TopicPut {
            version: TopicVersion::FIRST
        }
    );
    state
}

fn apply(state: &mut State, drawn: &Drawn, now: u64) -> AppendOutcome {
    let batch = AppendBatch {
        partition: partition(),
        bytes: 10,
        records: drawn.records,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: Some(ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, drawn.producer).expect("small"),
            epoch: ProducerEpoch::from_i16(drawn.epoch).expect("not negative"),
            sequence: Sequence::from_i32(drawn.sequence).expect("not negative"),
        }),
        hash: ContentHash(drawn.hash),
        expected_end: drawn
            .expected_end
            .map(|end| Offset::new(end).expect("small")),
        fencing: drawn.fence.map(FencingToken),
    };
    let entry = EntryId {
        term: Term(1),
        index: state.applied().index.next(),
    };
    let append = Command::Append(Append {
        time: ShardTime(now),
        batches: vec![batch],
    });
    match state.apply(entry, &append) {
        Outcome::Appended(mut batches) if batches.len() == 1 => batches.remove(0),
        other => unreachable!("one batch has one answer, not {other:?}"),
    }
}

fn simplified(outcome: &AppendOutcome) -> Expected {
    let start = |range: &OffsetRange| range.start().get();
    match outcome {
        AppendOutcome::Accepted { range, .. } => Expected::At(start(range)),
        AppendOutcome::Duplicate { range } => Expected::DuplicateAt(start(range)),
        AppendOutcome::Rejected(error) => Expected::Error(match error {
            AppendError::SequenceReused => "SequenceReused",
            AppendError::Fenced { .. } => "Fenced",
            AppendError::StaleProducerEpoch { .. } => "StaleProducerEpoch",
            AppendError::SequenceGap { .. } => "SequenceGap",
            AppendError::DuplicateExpired => "DuplicateExpired",
            AppendError::ExpectedEnd { .. } => "ExpectedEnd",
            _ => "something else",
        }),
    }
}

fn partition() -> PartitionId {
    let topic = TopicId::new(Incarnation::FIRST, 1).expect("small");
    PartitionId {
        topic,
        index: PartitionIndex(0),
    }
}
