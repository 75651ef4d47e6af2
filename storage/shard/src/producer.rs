//! The window that recognises duplicates: what a partition remembers of one idempotent producer.

use esker_types::limits::{PRODUCER_EXPIRY, PRODUCER_WINDOW};
use esker_types::{
    ContentHash, Offset, OffsetRange, ProducerEpoch, ProducerStamp, Sequence, ShardTime,
};

use crate::outcome::{AppendError, RECORDS_PER_BATCH_MAX};

/// Sequences wrap at this.
const SEQUENCES: u32 = 1 << 31;

// What a window covers is far from the half of the circle at which ahead and behind change places.
const _: () =
    assert!(PRODUCER_WINDOW as u64 * RECORDS_PER_BATCH_MAX as u64 <= SEQUENCES as u64 / 4);

/// What a partition remembers of a producer: its epoch and its last batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Producer {
    epoch: ProducerEpoch,
    last_append: ShardTime,
    /// Oldest first; 1 to `PRODUCER_WINDOW`, their sequences and offsets ascending.
    window: Vec<Mark>,
}

/// One accepted batch, as the window remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Sequence of its first record.
    pub sequence: Sequence,
    /// Records in it.
    pub records: u32,
    /// The offset its first record was given.
    pub start: Offset,
    /// Hash of its content.
    pub hash: ContentHash,
}

impl Producer {
    /// A producer with its first batch in `epoch`.
    pub(crate) fn new(epoch: ProducerEpoch, time: ShardTime, mark: Mark) -> Self {
        Self {
            epoch,
            last_append: time,
            window: vec![mark],
        }
    }

    /// A producer from its parts; `None` if they cannot be one.
    pub(crate) fn from_parts(
        epoch: ProducerEpoch,
        last_append: ShardTime,
        window: Vec<Mark>,
    ) -> Option<Self> {
        let producer = Self {
            epoch,
            last_append,
            window,
        };
        producer.is_ordered().then_some(producer)
    }

    /// The epoch it writes in.
    #[must_use]
    pub const fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// Shard time of its last accepted batch.
    #[must_use]
    pub const fn last_append(&self) -> ShardTime {
        self.last_append
    }

    /// Its last batches, oldest first; at least one, at most `PRODUCER_WINDOW`.
    #[must_use]
    pub fn window(&self) -> &[Mark] {
        &self.window
    }

    /// The sequence that its next batch begins with.
    #[must_use]
    pub fn next_sequence(&self) -> Sequence {
        self.window
            .last()
            .expect("a window has at least one mark")
            .next_sequence()
    }

    /// Whether it is forgotten at `now`.
    #[must_use]
    pub fn is_expired(&self, now: ShardTime) -> bool {
        now.since(self.last_append) >= PRODUCER_EXPIRY
    }

    /// The batch of exactly this epoch, first sequence and count, if it is remembered.
    pub(crate) fn find(&self, stamp: &ProducerStamp, records: u32) -> Option<&Mark> {
        let same = |mark: &&Mark| mark.sequence == stamp.sequence && mark.records == records;
        self.window
            .iter()
            .find(|mark| stamp.epoch == self.epoch && same(mark))
    }

    /// Whether a batch with this stamp, which is no duplicate, comes next.
    pub(crate) fn check_sequence(&self, stamp: &ProducerStamp) -> Result<(), AppendError> {
        if stamp.epoch > self.epoch {
            // A new session begins at 0 and owes nothing to the old one.
            return match stamp.sequence {
                Sequence::ZERO => Ok(()),
                _ => Err(AppendError::SequenceGap {
                    expected: Sequence::ZERO,
                }),
            };
        }
        let next = self.next_sequence();
        if stamp.sequence == next {
            return Ok(());
        }
        let oldest = self
            .window
            .first()
            .expect("a window has at least one mark")
            .sequence;
        if distance(oldest, stamp.sequence) < distance(oldest, next) {
            return Err(AppendError::SequenceReused);
        }
        if distance(next, stamp.sequence) < SEQUENCES / 2 {
            return Err(AppendError::SequenceGap { expected: next });
        }
        Err(AppendError::DuplicateExpired)
    }

    /// Takes an accepted batch into the window.
    pub(crate) fn remember(&mut self, epoch: ProducerEpoch, time: ShardTime, mark: Mark) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.window.clear();
        }
        if self.window.len() == PRODUCER_WINDOW {
            self.window.remove(0);
        }
        self.window.reserve_exact(1);
        self.window.push(mark);
        self.last_append = time;
    }

    /// The producer as a log that ends at `end` knows it; `None` if it knows nothing of it.
    pub(crate) fn below(&self, end: Offset) -> Option<Self> {
        let kept = self.window.iter().filter(|mark| mark.range().end() <= end);
        let window: Vec<_> = kept.copied().collect();
        (!window.is_empty()).then_some(Self { window, ..*self })
    }

    /// Whether the window is one that appends can have made.
    pub(crate) fn is_ordered(&self) -> bool {
        let follows = |pair: &[Mark]| {
            pair[0].next_sequence() == pair[1].sequence && pair[0].range().end() <= pair[1].start
        };
        let whole = |mark: &Mark| {
            (1..=RECORDS_PER_BATCH_MAX).contains(&mark.records)
                && mark.start.checked_add(u64::from(mark.records)).is_some()
        };
        (1..=PRODUCER_WINDOW).contains(&self.window.len())
            && self.window.iter().all(whole)
            && self.window.windows(2).all(follows)
    }
}

impl Mark {
    /// The offsets it was given.
    #[must_use]
    pub fn range(&self) -> OffsetRange {
        OffsetRange::from_count(self.start, u64::from(self.records))
            .expect("its offsets were assigned, so they exist")
    }

    /// The sequence after its last record.
    fn next_sequence(&self) -> Sequence {
        self.sequence.after(self.records)
    }
}

/// How far `to` lies ahead of `from` on the circle of sequences.
const fn distance(from: Sequence, to: Sequence) -> u32 {
    to.as_i32().wrapping_sub(from.as_i32()).cast_unsigned() % SEQUENCES
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::{Incarnation, ProducerId};

    fn stamp(epoch: i16, sequence: i32) -> ProducerStamp {
        ProducerStamp {
            id: ProducerId::new(Incarnation::FIRST, 1).unwrap(),
            epoch: ProducerEpoch::from_i16(epoch).unwrap(),
            sequence: Sequence::from_i32(sequence).unwrap(),
        }
    }

    fn mark(sequence: Sequence, records: u32, start: u64) -> Mark {
        let start = Offset::new(start).unwrap();
        Mark {
            sequence,
            records,
            start,
            hash: ContentHash(u128::from(records)),
        }
    }

    /// A producer whose next sequence is 4, over the wrap, with batches of 5 records behind it.
    fn over_the_wrap() -> Producer {
        let first = Sequence::from_i32(i32::MAX - 10).unwrap();
        let mut producer = Producer::new(ProducerEpoch::FIRST, ShardTime::ZERO, mark(first, 5, 0));
        for at in 1..3 {
            let next = producer.next_sequence();
            producer.remember(ProducerEpoch::FIRST, ShardTime(at), mark(next, 5, at * 5));
        }
        producer
    }

    #[test]
    fn sequences_around_the_wrap_are_told_apart() {
        let producer = over_the_wrap();
        assert!(producer.is_ordered());
        let check = |sequence| producer.check_sequence(&stamp(0, sequence));
        assert_eq!(check(4), Ok(()));
        assert_eq!(
            check(5),
            Err(AppendError::SequenceGap {
                expected: Sequence::from_i32(4).unwrap()
            })
        );
        assert_eq!(check(3), Err(AppendError::SequenceReused));
        assert_eq!(
            check(i32::MAX - 10),
            Err(AppendError::SequenceReused),
            "another count"
        );
        assert_eq!(check(i32::MAX - 11), Err(AppendError::DuplicateExpired));
        assert!(producer.find(&stamp(0, i32::MAX - 10), 5).is_some());
        assert!(
            producer.find(&stamp(1, i32::MAX - 10), 5).is_none(),
            "another epoch"
        );
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_forgets_the_old_one() {
        let mut producer = over_the_wrap();
        assert_eq!(
            producer.check_sequence(&stamp(1, 4)),
            Err(AppendError::SequenceGap {
                expected: Sequence::ZERO
            })
        );
        assert_eq!(producer.check_sequence(&stamp(1, 0)), Ok(()));
        let epoch = stamp(1, 0).epoch;
        producer.remember(epoch, ShardTime(9), mark(Sequence::ZERO, 1, 15));
        assert_eq!((producer.epoch(), producer.window().len()), (epoch, 1));
    }

    #[test]
    fn a_shorter_log_knows_only_what_lies_below_its_end() {
        let producer = over_the_wrap();
        let below = |end| producer.below(Offset::new(end).unwrap());
        assert_eq!(below(15).as_ref(), Some(&producer));
        assert_eq!(
            below(14).unwrap().window().len(),
            2,
            "a mark that is cut is gone"
        );
        assert_eq!(below(4), None);
    }
}
