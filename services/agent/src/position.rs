//! Where a read begins and ends.

use esker_log::{Bounds, Readers};
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
