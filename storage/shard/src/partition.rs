//! One partition: its watermarks, its epochs, its fence and its producers.
//!
//! ```text
//!      log start          tiered end               end
//!   ───────┼─────────────────┼──────────────────────┼──►
//!   trimmed│   in segments   │        in the head   │ the next batch
//!          └── may lie anywhere up to end ──────────┘
//! ```

use std::sync::Arc;

use esker_types::limits::{LEADER_EPOCHS_PER_PARTITION_MAX, PRODUCERS_PER_PARTITION_MAX};
use esker_types::{
    FencingToken, LeaderEpoch, Monotone, Offset, OffsetRange, ProducerId, ShardTime,
};

use crate::command::AppendBatch;
use crate::outcome::{AppendError, RECORDS_PER_BATCH_MAX};
use crate::producer::{Mark, Producer};
use crate::producers::Producers;

/// One partition of a data shard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Partition {
    pub(crate) log_start: Monotone<Offset>,
    pub(crate) tiered_end: Monotone<Offset>,
    pub(crate) end: Monotone<Offset>,
    /// Ascending in both; at most `LEADER_EPOCHS_PER_PARTITION_MAX`.
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) fencing: Option<FencingToken>,
    /// At most `PRODUCERS_PER_PARTITION_MAX`.
    pub(crate) producers: Producers,
}

/// The first offset written in a leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset.
    pub start: Offset,
}

/// What a partition would do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Give it these offsets.
    Accept(OffsetRange),
    /// Answer with the offsets it was given before.
    Duplicate(OffsetRange),
}

impl Partition {
    /// The first offset kept. May lie above the tiered end, in the head.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start.get()
    }

    /// Below this, segments hold what is kept.
    #[must_use]
    pub const fn tiered_end(&self) -> Offset {
        self.tiered_end.get()
    }

    /// The first unwritten offset.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.end.get()
    }

    /// Below this, nothing is undecided. It is the end until there are transactions.
    #[must_use]
    pub const fn stable(&self) -> Offset {
        self.end.get()
    }

    /// Where leader epochs begin, oldest first. Epochs that lie below the log start, and the
    /// oldest of more than `LEADER_EPOCHS_PER_PARTITION_MAX`, are forgotten.
    #[must_use]
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// The epoch of the record at `offset`, if it is remembered.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let at = self.epochs.partition_point(|epoch| epoch.start <= offset);
        at.checked_sub(1).map(|at| self.epochs[at].epoch)
    }

    /// The highest fencing token accepted.
    #[must_use]
    pub const fn fencing(&self) -> Option<FencingToken> {
        self.fencing
    }

    /// Its producers, by id. Some may be expired: ask [`Producer::is_expired`].
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.producers
            .iter()
            .map(|(id, producer)| (id, &**producer))
    }

    /// Whether it remembers a producer, be it expired: then there is one more by no append of it.
    #[must_use]
    pub fn remembers(&self, producer: ProducerId) -> bool {
        self.producers.get(producer).is_some()
    }

    /// What to do with a batch at `now`, without doing it. The order of the checks is part of the
    /// contract: a duplicate is answered as one even by a fenced writer, whose batch did get in.
    pub(crate) fn decide(
        &self,
        batch: &AppendBatch,
        max_batch_bytes: u32,
        now: ShardTime,
    ) -> Result<Verdict, AppendError> {
        if batch.bytes > max_batch_bytes {
            return Err(AppendError::TooLarge {
                bytes: batch.bytes,
                limit: max_batch_bytes,
            });
        }
        if !(1..=RECORDS_PER_BATCH_MAX).contains(&batch.records) {
            return Err(AppendError::RecordCount {
                records: batch.records,
            });
        }
        let stamped = batch
            .producer
            .as_ref()
            .map(|stamp| (stamp, self.known(stamp.id, now)));
        if let Some((stamp, Some(producer))) = stamped
            && let Some(mark) = producer.find(stamp, batch.records)
        {
            return if mark.hash == batch.hash {
                Ok(Verdict::Duplicate(mark.range()))
            } else {
                Err(AppendError::SequenceReused)
            };
        }
        if let (Some(token), Some(current)) = (batch.fencing, self.fencing)
            && token < current
        {
            return Err(AppendError::Fenced { current });
        }
        match stamped {
            Some((stamp, Some(producer))) => {
                if stamp.epoch < producer.epoch() {
                    let current = producer.epoch();
                    return Err(AppendError::StaleProducerEpoch { current });
                }
                producer.check_sequence(stamp)?;
            }
            Some((stamp, None)) if stamp.sequence != esker_types::Sequence::ZERO => {
                return Err(AppendError::DuplicateExpired);
            }
            Some((_, None)) | None => {}
        }
        if batch
            .expected_end
            .is_some_and(|expected| expected != self.end())
        {
            return Err(AppendError::ExpectedEnd { actual: self.end() });
        }
        let range = OffsetRange::from_count(self.end(), u64::from(batch.records))
            .ok_or(AppendError::OffsetsExhausted { end: self.end() })?;
        if matches!(stamped, Some((_, None))) && !self.has_room_for_producer(now) {
            return Err(AppendError::TooManyProducers);
        }
        Ok(Verdict::Accept(range))
    }

    /// Takes in a batch that [`Partition::decide`] gave `range`.
    pub(crate) fn accept(
        &mut self,
        batch: &AppendBatch,
        range: OffsetRange,
        epoch: LeaderEpoch,
        now: ShardTime,
    ) {
        assert_eq!(range.start(), self.end(), "offsets are assigned densely");
        self.end.advance(range.end());
        self.begin_epoch(epoch, range.start());
        // Only a token that is not lower comes here.
        self.fencing = batch.fencing.or(self.fencing);
        let Some(stamp) = batch.producer else { return };
        let mark = Mark {
            sequence: stamp.sequence,
            records: batch.records,
            start: range.start(),
            hash: batch.hash,
        };
        if self.known(stamp.id, now).is_some() {
            let producer = self.producers.get_mut(stamp.id).expect("it is known");
            Arc::make_mut(producer).remember(stamp.epoch, now, mark);
            return;
        }
        if self.producers.len() >= PRODUCERS_PER_PARTITION_MAX {
            self.forget_expired(now);
        }
        let producer = Producer::new(stamp.epoch, now, mark);
        self.producers.insert(stamp.id, Arc::new(producer));
    }

    /// Moves the log start to `to`, at most the end, and forgets epochs that lie below it.
    pub(crate) fn trim(&mut self, to: Offset) {
        assert!(to <= self.end(), "a trim past the end is refused before");
        self.log_start.raise(to);
        let log_start = self.log_start();
        // The epoch in which the log start lies is kept: it began at or below.
        let below = self
            .epochs
            .partition_point(|epoch| epoch.start <= log_start);
        self.epochs.drain(..below.saturating_sub(1));
    }

    /// Forgets producers that are expired at `now`.
    pub(crate) fn forget_expired(&mut self, now: ShardTime) {
        let expired = self.producers().filter(|(_, known)| known.is_expired(now));
        let expired: Vec<_> = expired.map(|(id, _)| id).collect();
        for id in expired {
            self.producers.remove(id);
        }
    }

    /// The partition as the bucket alone knows it: without its head.
    pub(crate) fn without_head(&self) -> Self {
        // A trim may lie in the head: what is below it needs no segment.
        let end = self.tiered_end().max(self.log_start());
        let producers = self.producers.iter().filter_map(|(id, producer)| {
            producer.below(end).map(|producer| (id, Arc::new(producer)))
        });
        Self {
            log_start: self.log_start,
            tiered_end: Monotone::new(end),
            end: Monotone::new(end),
            epochs: self
                .epochs
                .iter()
                .copied()
                .filter(|epoch| epoch.start < end)
                .collect(),
            fencing: self.fencing,
            producers: producers.collect(),
        }
    }

    fn known(&self, id: ProducerId, now: ShardTime) -> Option<&Producer> {
        self.producers
            .get(id)
            .map(|known| &**known)
            .filter(|known| !known.is_expired(now))
    }

    fn has_room_for_producer(&self, now: ShardTime) -> bool {
        self.producers.len() < PRODUCERS_PER_PARTITION_MAX
            || self
                .producers()
                .any(|(_, producer)| producer.is_expired(now))
    }

    fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.epochs.last().is_some_and(|last| last.epoch >= epoch) {
            return;
        }
        if self.epochs.len() == LEADER_EPOCHS_PER_PARTITION_MAX {
            self.epochs.remove(0);
        }
        // Few ever begin: a partition that idles is to be small.
        self.epochs.reserve_exact(1);
        self.epochs.push(EpochStart { epoch, start });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::limits::PRODUCER_EXPIRY;
    use esker_types::{
        ContentHash, Incarnation, PartitionId, PartitionIndex, ProducerEpoch, ProducerStamp,
        Sequence, Timestamp, TopicId,
    };

    const EPOCH: LeaderEpoch = LeaderEpoch(1);

    fn batch(producer: Option<u64>) -> AppendBatch {
        let topic = TopicId::new(Incarnation::FIRST, 1).unwrap();
        AppendBatch {
            partition: PartitionId {
                topic,
                index: PartitionIndex(0),
            },
            bytes: 1,
            records: 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer: producer.map(|sequence| ProducerStamp {
                id: ProducerId::new(Incarnation::FIRST, sequence).unwrap(),
                epoch: ProducerEpoch::FIRST,
                sequence: Sequence::ZERO,
            }),
            hash: ContentHash(0),
            expected_end: None,
            fencing: None,
        }
    }

    fn append(
        partition: &mut Partition,
        producer: Option<u64>,
        epoch: LeaderEpoch,
        now: ShardTime,
    ) -> Result<(), AppendError> {
        let batch = batch(producer);
        match partition.decide(&batch, 1, now)? {
            Verdict::Accept(range) => partition.accept(&batch, range, epoch, now),
            Verdict::Duplicate(_) => {}
        }
        Ok(())
    }

    #[test]
    fn one_producer_too_many_is_an_error_until_another_is_expired() {
        let mut partition = Partition::default();
        let producers = PRODUCERS_PER_PARTITION_MAX as u64;
        append(&mut partition, Some(0), EPOCH, ShardTime(1)).unwrap();
        for producer in 1..producers {
            append(&mut partition, Some(producer), EPOCH, ShardTime(2)).unwrap();
        }
        let before = partition.clone();
        let (late, expired) = (ShardTime(2), ShardTime(1).after(PRODUCER_EXPIRY));
        let refused = append(&mut partition, Some(producers), EPOCH, late);
        assert_eq!(refused, Err(AppendError::TooManyProducers));
        assert_eq!(partition, before);
        append(&mut partition, None, EPOCH, late).unwrap();
        append(&mut partition, Some(producers), EPOCH, expired).unwrap();
        assert_eq!(partition.producers().count(), PRODUCERS_PER_PARTITION_MAX);
        let again = append(&mut partition, Some(producers + 1), EPOCH, expired);
        assert_eq!(
            again,
            Err(AppendError::TooManyProducers),
            "only one was expired"
        );
    }

    #[test]
    fn of_too_many_leader_epochs_the_oldest_is_forgotten() {
        let mut partition = Partition::default();
        let epochs = u32::try_from(LEADER_EPOCHS_PER_PARTITION_MAX).unwrap();
        for epoch in 1..=epochs + 1 {
            append(&mut partition, None, LeaderEpoch(epoch), ShardTime(1)).unwrap();
        }
        assert_eq!(partition.epochs().len(), LEADER_EPOCHS_PER_PARTITION_MAX);
        assert_eq!(partition.epoch_at(Offset::ZERO), None);
        assert_eq!(
            partition.epoch_at(Offset::new(1).unwrap()),
            Some(LeaderEpoch(2))
        );
        assert_eq!(
            partition.epoch_at(Offset::MAX),
            Some(LeaderEpoch(epochs + 1))
        );
    }

    #[test]
    fn a_partition_ends_at_the_last_offset_for_good() {
        let last = Monotone::new(Offset::new(Offset::MAX.get() - 1).unwrap());
        let mut partition = Partition {
            tiered_end: last,
            end: last,
            ..Partition::default()
        };
        append(&mut partition, None, EPOCH, ShardTime(1)).unwrap();
        let refused = append(&mut partition, None, EPOCH, ShardTime(1));
        assert_eq!(
            refused,
            Err(AppendError::OffsetsExhausted { end: Offset::MAX })
        );
    }
}
