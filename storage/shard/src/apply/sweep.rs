//! Producers that are long silent are forgotten.

use std::ops::Bound;
use std::sync::Arc;

use esker_types::{PartitionId, ShardTime};

use crate::data::Data;

// Apply decides by these two, so level 1 froze them: to change one, add a level.

/// Partitions that one tick sweeps at most.
const SWEEP_PARTITIONS_MAX: usize = 1024;
/// Producers after which a sweep stops for this tick.
const SWEEP_PRODUCERS_MAX: usize = 8192;

impl Data {
    /// Frees the memory of expired producers, a bounded number of partitions a tick, round and
    /// round. Appends do not depend on it: to them an expired producer is unknown already.
    pub(super) fn sweep_producers(&mut self, now: ShardTime) {
        let from = self.swept.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self
            .partitions
            .range((from, Bound::Unbounded))
            .map(|(id, _)| *id);
        let due: Vec<PartitionId> = rest.take(SWEEP_PARTITIONS_MAX).collect();
        let mut looked_at = 0;
        for (id, swept) in due.into_iter().zip(1..) {
            let partition = self.partitions.get(&id).expect("it was just seen");
            looked_at += partition.producers.len();
            // Only a partition that changes is copied away from its views.
            if partition
                .producers()
                .any(|(_, producer)| producer.is_expired(now))
            {
                let partition = self.partitions.get_mut(&id).expect("it was just seen");
                let partition = Arc::make_mut(partition);
                self.producers -= partition.producers.len();
                partition.forget_expired(now);
                self.producers += partition.producers.len();
            }
            if swept == SWEEP_PARTITIONS_MAX || looked_at >= SWEEP_PRODUCERS_MAX {
                self.swept = Some(id);
                return;
            }
        }
        // This round is over; the next tick begins another.
        self.swept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partition;
    use crate::producer::{Mark, Producer};
    use esker_types::limits::PRODUCER_EXPIRY;
    use esker_types::{
        ContentHash, Incarnation, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
        TopicId,
    };

    /// Partitions with one producer each, all of the same time.
    fn data(partitions: usize) -> Data {
        let topic = TopicId::new(Incarnation::FIRST, 1).unwrap();
        let producer_id = ProducerId::new(Incarnation::FIRST, 1).unwrap();
        let (sequence, start, hash) = (Sequence::ZERO, Offset::ZERO, ContentHash(0));
        let mark = Mark {
            sequence,
            records: 1,
            start,
            hash,
        };
        let producer = Arc::new(Producer::new(ProducerEpoch::FIRST, ShardTime(1), mark));
        let mut data = Data::default();
        for (index, _) in (0..).zip(0..partitions) {
            let mut partition = Partition::default();
            partition
                .producers
                .insert(producer_id, Arc::clone(&producer));
            let id = PartitionId {
                topic,
                index: PartitionIndex(index),
            };
            data.producers += partition.producers.len();
            data.partitions.insert(id, Arc::new(partition));
        }
        data
    }

    fn producers_left(data: &Data) -> usize {
        let producers = data.partitions().map(|(_, it)| it.producers().count());
        let left = producers.sum();
        assert_eq!(data.producer_count(), left);
        left
    }

    #[test]
    fn ticks_sweep_a_bounded_number_of_partitions_and_go_round() {
        let mut data = data(SWEEP_PARTITIONS_MAX + 500);
        let expired = ShardTime(1).after(PRODUCER_EXPIRY);
        data.sweep_producers(ShardTime(expired.0 - 1));
        assert_eq!(
            producers_left(&data),
            SWEEP_PARTITIONS_MAX + 500,
            "too early"
        );
        data.sweep_producers(expired);
        assert_eq!(
            producers_left(&data),
            SWEEP_PARTITIONS_MAX,
            "the rest of the first round"
        );
        assert_eq!(data.swept, None);
        data.sweep_producers(expired);
        assert_eq!(producers_left(&data), 0);
    }
}
