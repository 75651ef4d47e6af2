//! What a segment says of the producers in it, from its batches alone.

use std::collections::BTreeMap;

use esker_record::Batch;
use esker_segment::{Mark, ProducerWindow};
use esker_types::ProducerId;
use esker_types::limits::{PRODUCER_WINDOW, PRODUCERS_PER_PARTITION_MAX};

use crate::head::AcceptedBatch;

/// Windows of the producers of `batches`, from these batches alone: a segment says nothing of what
/// it does not hold, and a recovery that chains segments sees the earlier ones first. Of more
/// producers than a partition may have, those that appended last: the shard has forgotten the
/// others, else it would have refused the last ones.
pub(super) fn windows<'a>(
    batches: impl Iterator<Item = (&'a AcceptedBatch, &'a Batch)>,
) -> Vec<ProducerWindow> {
    let mut windows: BTreeMap<ProducerId, (usize, ProducerWindow)> = BTreeMap::new();
    for (number, (accepted, batch)) in batches.enumerate() {
        let Some(stamp) = batch.header().producer else {
            continue;
        };
        let (id, last_append) = (stamp.id, accepted.append_time);
        let fresh = || ProducerWindow {
            id,
            epoch: stamp.epoch,
            last_append,
            marks: Vec::new(),
        };
        let (last, window) = windows.entry(id).or_insert_with(|| (number, fresh()));
        *last = number;
        // A new session begins with an empty window, as it does when it is applied.
        if window.epoch != stamp.epoch {
            *window = fresh();
        }
        window.last_append = last_append;
        if window.marks.len() == PRODUCER_WINDOW {
            window.marks.remove(0);
        }
        window.marks.push(Mark {
            sequence: stamp.sequence,
            records: batch.header().records,
            base_offset: accepted.range.start(),
            hash: accepted.hash,
        });
    }
    let mut lasts: Vec<_> = windows.values().map(|(last, _)| *last).collect();
    let beyond = lasts.len().saturating_sub(PRODUCERS_PER_PARTITION_MAX);
    lasts.sort_unstable();
    let first_kept = lasts.get(beyond).copied().unwrap_or_default();
    let kept = windows
        .into_values()
        .filter(|(last, _)| *last >= first_kept);
    kept.map(|(_, window)| window).collect()
}

#[cfg(test)]
mod tests {
    use esker_record::codec::Compression;
    use esker_record::{Builder, NewRecord};
    use esker_types::limits::MIB;
    use esker_types::{
        ContentHash, Incarnation, LeaderEpoch, Offset, OffsetRange, PartitionId, PartitionIndex,
        ProducerEpoch, ProducerStamp, Sequence, ShardTime, Timestamp, TopicId,
    };

    use super::*;

    #[test]
    fn of_too_many_producers_the_last_ones_are_kept() {
        let beyond = 3;
        let producer = |number: u64| ProducerId::new(Incarnation::FIRST, number).expect("small");
        let batch = |(number, at): (u64, u64)| {
            let stamp = ProducerStamp {
                id: producer(number),
                epoch: ProducerEpoch::FIRST,
                sequence: Sequence::from_i32(0).expect("small"),
            };
            let mut builder = Builder::new(Compression::None, MIB);
            let record = NewRecord::value(Timestamp(1), b"a line");
            builder.push(&record).expect("small");
            let batch = builder.finish(Some(stamp)).expect("not empty");
            let offset = |at| Offset::new(at).expect("small");
            let accepted = AcceptedBatch {
                partition: PartitionId {
                    topic: TopicId::new(Incarnation::FIRST, 1).expect("small"),
                    index: PartitionIndex(0),
                },
                range: OffsetRange::new(offset(at), offset(at + 1)).expect("one record"),
                leader_epoch: LeaderEpoch(1),
                append_time: ShardTime(1),
                hash: ContentHash(0),
                bytes: batch.clone().into_bytes(),
            };
            (accepted, batch)
        };
        let most = PRODUCERS_PER_PARTITION_MAX as u64;
        // The first id appends last, so that order of ids is not order of appends.
        let order = (1..most + beyond).chain([0]);
        let batches: Vec<_> = order.zip(0..).map(batch).collect();
        let windows = windows(batches.iter().map(|(accepted, batch)| (accepted, batch)));
        let kept: Vec<_> = windows.iter().map(|window| window.id).collect();
        let expected = [0].into_iter().chain(beyond + 1..most + beyond);
        assert_eq!(kept, expected.map(producer).collect::<Vec<_>>());
    }
}
