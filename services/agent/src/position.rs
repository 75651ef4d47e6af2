//! Where a read begins and ends.

use std::collections::BTreeSet;

use esker_log::{Bounds, Engine, Readers, TopicView};
use esker_proto::v1::{Edge, Error, Position, position::At};
use esker_types::{Offset, PartitionId, ShardId, Timestamp, TopicName};

use crate::fault;

/// A partition, found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) topic: TopicName,
    pub(crate) shard: ShardId,
    pub(crate) partition: PartitionId,
    pub(crate) bounds: Bounds,
}

/// Every partition of a topic that its shards know, from 0 on: one question a shard.
pub(crate) async fn partitions(engine: &Engine, topic: &TopicView) -> Result<Vec<Found>, Error> {
    let shards: BTreeSet<_> = topic.placement.iter().copied().collect();
    let mut partitions = Vec::with_capacity(topic.placement.len());
    for shard in shards {
        let page = engine
            .head()
            .shard_topics(shard, topic.id.before(), 1)
            .await;
        let page = page.map_err(fault::of_head)?;
        let of_topic = page.items.into_iter().filter(|known| known.id == topic.id);
        let here = of_topic.flat_map(|known| known.partitions);
        partitions.extend(here.map(|(index, bounds)| Found {
            topic: topic.name.clone(),
            shard,
            partition: PartitionId {
                topic: topic.id,
                index,
            },
            bounds,
        }));
    }
    partitions.sort_unstable_by_key(|found| found.partition.index);
    Ok(partitions)
}

/// The offset that `position` stands for, or `otherwise` if there is none.
pub(crate) async fn resolve(
    readers: &Readers,
    found: &Found,
    position: Option<Position>,
    otherwise: Offset,
) -> Result<Offset, Error> {
    match position.and_then(|position| position.at) {
        None => Ok(otherwise),
        Some(At::Edge(edge)) => match Edge::try_from(edge) {
            Ok(Edge::Earliest) => Ok(found.bounds.log_start),
            Ok(Edge::End) => Ok(found.bounds.end),
            Err(_) => Err(fault::invalid(format!(
                "the edge {edge} is unknown; 0 is EARLIEST, 1 is END"
            ))),
        },
        Some(At::Offset(offset)) => Ok(esker_proto::offset("offset", offset)?),
        Some(At::TimestampMs(ms)) => {
            let found_at = readers.by_time(found.shard, found.partition, Timestamp(ms));
            let found_at = found_at.await;
            let offset = found_at.map_err(|error| fault::of_read(&error, &found.topic))?;
            Ok(offset.unwrap_or(found.bounds.end))
        }
    }
}
