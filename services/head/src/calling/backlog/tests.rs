use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_shard::AppendBatch;
use esker_types::{
    ContentHash, FencingToken, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, Sequence, Timestamp, TopicId,
};
use tokio::sync::{Semaphore, oneshot};

use super::*;

type Told = oneshot::Receiver<Result<AppendOutcome, HeadError>>;

const SHARD: ShardId = ShardId(1);

/// A backlog of plain letters and stamped ones, and what is told of each.
struct Bench {
    backlog: Backlog,
    told: Vec<Told>,
    room: Arc<Semaphore>,
}

impl Bench {
    /// A letter for each: that of a producer, or a plain one.
    fn new(letters: &[Option<u64>]) -> Self {
        let mut bench = Self {
            backlog: Backlog::new(SHARD),
            told: Vec::new(),
            room: Arc::new(Semaphore::new(1000)),
        };
        letters
            .iter()
            .for_each(|producer| bench.push(*producer, None));
        bench
    }

    fn push(&mut self, producer: Option<u64>, waits: Option<Monotonic>) {
        let (answer, told) = oneshot::channel();
        let room = || Arc::clone(&self.room).try_acquire_owned().unwrap();
        let letter = Letter {
            batch: batch(producer),
            bytes: Bytes::from_static(b"a"),
            answer,
            room: [room(), room()],
        };
        self.backlog.push(letter, waits);
        self.told.push(told);
    }

    /// Sends all there are, as messages from 2 on: the first is the beginning.
    fn send(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        while self.backlog.has_next() {
            let place = 2 + numbers.len() as u64;
            numbers.push(self.backlog.send(place).unwrap().number);
        }
        assert_eq!(self.backlog.send(99), None);
        numbers
    }

    /// What was told of letter `number`, if anything was.
    fn told(&mut self, number: usize) -> Option<Result<AppendOutcome, HeadError>> {
        self.told[number].try_recv().ok()
    }

    fn untold(&mut self, numbers: impl IntoIterator<Item = usize>) -> bool {
        numbers
            .into_iter()
            .all(|number| self.told(number).is_none())
    }
}

fn batch(producer: Option<u64>) -> AppendBatch {
    AppendBatch {
        partition: PartitionId {
            topic: TopicId::new(Incarnation::FIRST, 1).unwrap(),
            index: PartitionIndex(0),
        },
        bytes: 1,
        records: 1,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: producer.map(|id| ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, id).unwrap(),
            epoch: ProducerEpoch::FIRST,
            sequence: Sequence::ZERO,
        }),
        hash: ContentHash(1),
        expected_end: None,
        fencing: None,
    }
}

fn accepted() -> Result<AppendOutcome, HeadError> {
    Ok(AppendOutcome::Accepted {
        range: OffsetRange::from_count(Offset::ZERO, 1).unwrap(),
        leader_epoch: LeaderEpoch(1),
    })
}

fn gap() -> Result<AppendOutcome, HeadError> {
    let expected = Sequence::ZERO;
    Ok(AppendOutcome::Rejected(AppendError::SequenceGap {
        expected,
    }))
}

fn elsewhere() -> Result<AppendOutcome, HeadError> {
    Err(HeadError::NotLeader {
        shard: SHARD,
        leader: None,
        what: "another leads".into(),
    })
}

fn lost() -> Result<AppendOutcome, HeadError> {
    let what = "it was lost".into();
    Err(HeadError::Unknown { shard: SHARD, what })
}

fn full() -> Result<AppendOutcome, HeadError> {
    let what = "it is full".into();
    Err(HeadError::Refused { shard: SHARD, what })
}

fn is_unknown(told: &Option<Result<AppendOutcome, HeadError>>) -> bool {
    matches!(told, Some(Err(HeadError::Unknown { .. })))
}

fn is_elsewhere(told: &Option<Result<AppendOutcome, HeadError>>) -> bool {
    matches!(told, Some(Err(HeadError::NotLeader { .. })))
}

#[test]
fn answers_come_in_any_order_and_give_the_room_back() {
    let mut bench = Bench::new(&[Some(1), None, Some(2)]);
    assert_eq!(bench.send(), [0, 1, 2]);
    for number in [1, 2, 0] {
        assert!(bench.backlog.owes());
        assert_eq!(bench.backlog.answered(number, accepted()), Heard::Outcome);
        assert_eq!(bench.backlog.answered(number, accepted()), Heard::Nothing);
    }
    assert!(!bench.backlog.owes() && bench.backlog.is_empty());
    assert_eq!(bench.room.available_permits(), 1000);
    assert!((0..3).all(|number| bench.told(number) == Some(accepted())));
    assert_eq!(bench.backlog.answered(77, accepted()), Heard::Nothing);
    bench.push(None, None);
    assert_eq!(bench.send(), [3]);
}

#[test]
fn of_a_stream_that_ended_what_has_a_producer_is_sent_again_and_what_never_left() {
    let mut bench = Bench::new(&[Some(1), None, Some(1), None, Some(1)]);
    assert_eq!(bench.send(), [0, 1, 2, 3, 4]);
    bench.backlog.answered(2, accepted());
    // The beginning and three letters have passed.
    bench.backlog.cut(4, "it broke");
    assert!(!bench.backlog.owes());
    assert!(is_unknown(&bench.told(1)));
    assert!(bench.untold([0, 3, 4]));
    assert_eq!(bench.send(), [0, 3, 4]);
}

#[test]
fn what_was_refused_as_not_led_is_sent_again_and_not_in_doubt() {
    let mut bench = Bench::new(&[None, Some(1)]);
    bench.send();
    for number in [0, 1] {
        let heard = bench.backlog.answered(number, elsewhere());
        assert_eq!(heard, Heard::Again(None));
    }
    bench.backlog.cut(3, "another leads");
    assert!(bench.untold([0, 1]));
    assert_eq!(bench.send(), [0, 1]);
    // And so it is refused for good.
    assert_eq!(bench.backlog.answered(0, full()), Heard::Refusal);
    assert_eq!(bench.backlog.answered(1, full()), Heard::Refusal);
    assert_eq!((bench.told(0), bench.told(1)), (Some(full()), Some(full())));
}

#[test]
fn what_has_no_producer_does_not_come_after_what_was_behind_it() {
    let mut bench = Bench::new(&[None, Some(1), None, None]);
    bench.send();
    for number in [0, 1, 3] {
        bench.backlog.answered(number, elsewhere());
    }
    bench.backlog.answered(2, accepted());
    bench.backlog.cut(5, "another leads");
    assert!(is_elsewhere(&bench.told(0)), "it has lost its place");
    assert!(bench.untold([1, 3]));
    assert_eq!(bench.send(), [1, 3]);
}

#[test]
fn a_doubt_lasts_until_apply_has_answered() {
    let mut bench = Bench::new(&[Some(1), Some(2), None]);
    bench.send();
    let heard = bench.backlog.answered(0, lost());
    assert_eq!(heard, Heard::Again(None));
    assert_eq!(bench.backlog.answered(2, lost()), Heard::Again(None));
    assert!(is_unknown(&bench.told(2)), "it is not sent again");
    bench.backlog.cut(4, "it broke");
    assert_eq!(bench.send(), [0, 1]);
    // Not led there, either: it may still be written.
    bench.backlog.answered(0, elsewhere());
    bench.backlog.cut(0, "another leads");
    assert_eq!(bench.send(), [0, 1]);
    bench.backlog.answered(0, full());
    let told = bench.told(0);
    assert!(is_unknown(&told), "{told:?}");
    assert!(format!("{told:?}").contains("it is full"));
    bench.backlog.answered(1, accepted());
    assert_eq!(bench.told(1), Some(accepted()));
}

/// Settings may change, and the topic go, between a copy that was written and the next.
#[test]
fn what_is_decided_before_a_copy_is_looked_for_leaves_the_doubt() {
    let told_of = |error: &AppendError, doubt: bool| {
        let mut bench = Bench::new(&[Some(1)]);
        bench.send();
        if doubt {
            bench.backlog.cut(3, "it broke");
            bench.send();
        }
        let rejected = Ok(AppendOutcome::Rejected(error.clone()));
        assert_eq!(bench.backlog.answered(0, rejected), Heard::Outcome);
        bench.told(0)
    };
    let (limit, current) = (1, FencingToken(6));
    for error in [
        AppendError::Fenced { current },
        AppendError::TooLarge { bytes: 2, limit },
        AppendError::PartitionEnded,
        AppendError::UnknownPartition,
        AppendError::DuplicateExpired,
    ] {
        let told = told_of(&error, true);
        assert!(is_unknown(&told), "{told:?}");
        let told = told_of(&error, false);
        assert_eq!(told, Some(Ok(AppendOutcome::Rejected(error))));
    }
    let actual = Offset::ZERO;
    let elsewhere = AppendError::ExpectedEnd { actual };
    let told = told_of(&elsewhere, true);
    assert_eq!(told, Some(Ok(AppendOutcome::Rejected(elsewhere))));
}

#[test]
fn a_gap_that_an_open_one_leaves_is_no_answer() {
    let mut bench = Bench::new(&[Some(1), Some(1), Some(2)]);
    bench.send();
    assert_eq!(
        bench.backlog.answered(2, gap()),
        Heard::Outcome,
        "another's"
    );
    bench.backlog.answered(0, elsewhere());
    assert_eq!(bench.backlog.answered(1, gap()), Heard::Again(None));
    bench.backlog.cut(4, "another leads");
    assert_eq!(bench.send(), [0, 1]);
    bench.backlog.answered(0, accepted());
    assert_eq!(bench.backlog.answered(1, gap()), Heard::Outcome);
    assert_eq!((bench.told(1), bench.told(2)), (Some(gap()), Some(gap())));
}

#[test]
fn patience_is_counted_from_when_there_was_nobody() {
    let at = |seconds: u64| Monotonic(Duration::from_secs(100 + seconds));
    let over = |seconds: u64| Monotonic(at(seconds).0 + HEAD_PATIENCE);
    let mut bench = Bench::new(&[Some(1), None]);
    assert_eq!(bench.backlog.due(), None);
    bench.send();
    bench.backlog.cut(2, "it broke");
    bench.backlog.wait_from(at(0));
    bench.push(None, Some(at(1)));
    bench.backlog.wait_from(at(2));
    assert_eq!(bench.backlog.due(), Some(over(0)));
    assert_eq!(bench.send(), [0, 1, 2]);
    bench.backlog.cut(0, "nobody listens");
    bench
        .backlog
        .expire(Monotonic(over(0).0 - Duration::from_millis(1)));
    assert!(bench.untold(0..3));
    bench.backlog.expire(over(0));
    assert!(is_unknown(&bench.told(0)), "it had left once");
    assert!(is_elsewhere(&bench.told(1)), "it never had");
    assert!(bench.untold([2]));
    // What is under way when its time is up is unknown, too.
    assert_eq!(bench.send(), [2]);
    bench.backlog.expire(over(1));
    assert!(is_unknown(&bench.told(2)));
    assert!(!bench.backlog.owes() && bench.backlog.is_empty());
    assert_eq!(bench.backlog.answered(2, accepted()), Heard::Nothing);
}

#[test]
fn at_the_end_everything_is_told() {
    let mut bench = Bench::new(&[Some(1), None, Some(1), None]);
    bench.send();
    bench.backlog.cut(3, "the caller has ended");
    bench.backlog.end("the caller has ended");
    assert!(is_unknown(&bench.told(0)) && is_unknown(&bench.told(1)));
    assert!(is_elsewhere(&bench.told(2)) && is_elsewhere(&bench.told(3)));
    assert_eq!(bench.room.available_permits(), 1000);
}
