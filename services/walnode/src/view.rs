//! What a shard's state says, in the words of the head: pure, from one view that never changes.

use std::cmp::Reverse;

use esker_log::{Bounds, FlushJob, Listing, Mark, ShardTopic, TopicView};
use esker_segment::{PartitionFacts, Tombstone};
use esker_shard::{CatalogTopic, Data, MixedSegment, SegmentPlace, State};
use esker_types::limits::TOPICS_MAX;
use esker_types::{Offset, OffsetRange, PartitionId, Timestamp, TopicId, TopicName};

pub(crate) fn mark(state: &State) -> Mark {
    Mark {
        incarnation: state.incarnation(),
        index: state.applied().index,
    }
}

pub(crate) fn bounds(state: &State, partition: PartitionId) -> Option<Bounds> {
    let partition = state.data()?.partition(partition)?;
    Some(Bounds {
        log_start: partition.log_start(),
        tiered_end: partition.tiered_end(),
        end: partition.end(),
        mark: mark(state),
    })
}

/// The first batch of the head, at `from` or above, with a record of `time` or later.
pub(crate) fn by_time(
    state: &State,
    partition: PartitionId,
    time: Timestamp,
    from: Offset,
) -> Option<Offset> {
    let mut batches = state.data()?.head_batches(partition, from);
    let found = batches.find(|position| position.batch.max_timestamp >= time)?;
    Some(found.batch.range.start().max(from))
}

pub(crate) fn manifest(
    state: &State,
    after: Option<SegmentPlace>,
    count: usize,
) -> Listing<MixedSegment> {
    let segments = state.data().into_iter().flat_map(Data::manifest);
    let above = segments.filter(|segment| after.is_none_or(|after| segment.place() > after));
    listing(state, above.cloned(), count)
}

pub(crate) fn topic(id: TopicId, topic: &CatalogTopic) -> TopicView {
    TopicView {
        id,
        name: topic.name().clone(),
        version: topic.version(),
        config: topic.config().clone(),
        placement: topic.placement().to_vec(),
        ending: topic.awaiting(),
    }
}

pub(crate) fn topics(state: &State, after: Option<TopicId>, count: usize) -> Listing<TopicView> {
    let all = state
        .catalog()
        .into_iter()
        .flat_map(|catalog| catalog.topics());
    let above = all.filter(|(id, _)| after.is_none_or(|after| *id > after));
    listing(state, above.map(|(id, of)| topic(id, of)), count)
}

pub(crate) fn ending(
    state: &State,
    name: &TopicName,
    after: Option<TopicId>,
    count: usize,
) -> Listing<TopicView> {
    let all = state
        .catalog()
        .into_iter()
        .flat_map(|catalog| catalog.topics());
    let ending = all.filter(|(_, of)| of.name() == name && of.awaiting().is_some());
    let above = ending.filter(|(id, _)| after.is_none_or(|after| *id > after));
    listing(state, above.map(|(id, of)| topic(id, of)), count)
}

pub(crate) fn shard_topics(
    state: &State,
    after: Option<TopicId>,
    count: usize,
) -> Listing<ShardTopic> {
    let data = state.data();
    let all = data.into_iter().flat_map(Data::topics);
    let above = all.filter(|(id, _)| after.is_none_or(|after| *id > after));
    let partitions = |topic| {
        let of_topic = data
            .into_iter()
            .flat_map(move |data| data.partitions_of(topic));
        of_topic
            .filter_map(|(id, _)| Some((id.index, bounds(state, id)?)))
            .collect()
    };
    let views = above.map(|(id, topic)| ShardTopic {
        id,
        version: topic.version(),
        config: topic.config().clone(),
        partitions: partitions(id),
    });
    listing(state, views, count)
}

pub(crate) fn tombstones(
    state: &State,
    after: Option<TopicId>,
    count: usize,
) -> Listing<(TopicId, u64)> {
    let all = state.data().into_iter().flat_map(Data::tombstones);
    let above = all.filter(|(id, _)| after.is_none_or(|after| *id > after));
    listing(state, above.map(|(id, of)| (id, of.mixed_ranges())), count)
}

fn listing<T>(state: &State, items: impl Iterator<Item = T>, count: usize) -> Listing<T> {
    let mut items = items.peekable();
    let taken: Vec<_> = items.by_ref().take(count).collect();
    Listing {
        items: taken,
        more: items.peek().is_some(),
        mark: mark(state),
    }
}

/// What the state says is to be flushed next, with the facts of its partitions.
pub(crate) fn flush_job(state: &State, bytes_max: u64) -> Option<FlushJob> {
    let plan = state.flush_plan(bytes_max, state.applied().index)?;
    let data = state.data()?;
    let facts = |(id, range): &(PartitionId, OffsetRange)| facts(data, *id, *range);
    Some(FlushJob {
        shard: state.shard(),
        incarnation: state.incarnation(),
        raft: plan.raft,
        bytes: plan.bytes,
        partitions: plan.ranges.iter().map(facts).collect::<Option<_>>()?,
        ranges: plan.ranges,
        tombstones: tombstones_of(data, TOPICS_MAX),
    })
}

/// The tombstones that a segment tells of, as many as it may: of more, those that changed last. The
/// others are in the shard's checkpoint, and a head that could not be flushed would help nobody.
fn tombstones_of(data: &Data, most: usize) -> Vec<Tombstone> {
    let mut all: Vec<_> = data.tombstones().collect();
    if all.len() > most {
        all.sort_unstable_by_key(|(_, tombstone)| Reverse(tombstone.changed()));
        all.truncate(most);
        all.sort_unstable_by_key(|(topic, _)| *topic);
    }
    let told = all.into_iter().map(|(topic, tombstone)| Tombstone {
        topic,
        version: tombstone.version(),
    });
    told.collect()
}

fn facts(data: &Data, id: PartitionId, range: OffsetRange) -> Option<PartitionFacts> {
    let partition = data.partition(id)?;
    Some(PartitionFacts {
        id,
        topic: data.topic(id.topic)?.name().clone(),
        start: range.start(),
        log_start: partition.log_start(),
        fencing: partition.fencing(),
        producers: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use esker_shard::{Command, Genesis, PutTopic, TopicConfig};
    use esker_types::{
        EntryId, Incarnation, LeaderEpoch, RaftIndex, ShardId, Term, TopicName, TopicVersion,
    };

    use super::*;

    #[test]
    fn of_more_tombstones_than_a_segment_holds_the_last_are_told() {
        let mut state = State::new(Genesis {
            shard: ShardId(1),
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        });
        let id = |number| TopicId::new(Incarnation::FIRST, number).expect("small");
        let put = |number| {
            Command::PutTopic(PutTopic {
                topic: id(number),
                version: TopicVersion::FIRST,
                name: TopicName::new(&format!("t{number}")).expect("a name"),
                config: TopicConfig::default(),
                partitions: Vec::new(),
            })
        };
        let end = |number| Command::EndTopic {
            topic: id(number),
            version: TopicVersion::FIRST,
        };
        let commands = [put(1), put(2), put(3), end(2), end(3), end(1)];
        for (index, command) in (1..).zip(&commands) {
            let (term, index) = (Term(1), RaftIndex(index));
            let _ = state.apply(EntryId { term, index }, command);
        }
        let told = |most| {
            let told = tombstones_of(state.data().expect("a data shard"), most);
            told.into_iter().map(|it| it.topic).collect::<Vec<_>>()
        };
        assert_eq!(told(3), [id(1), id(2), id(3)]);
        assert_eq!(told(2), [id(1), id(3)]);
    }
}
