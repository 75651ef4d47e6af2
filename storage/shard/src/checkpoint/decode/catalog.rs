//! Records of the catalog.

use std::sync::Arc;

use esker_types::ShardId;
use esker_types::limits::{DATA_SHARDS_MAX, PARTITIONS_PER_TOPIC_MAX};

use super::push;
use crate::catalog::{Catalog, CatalogTopic, RequestId};
use crate::codec::Reader;
use crate::error::Error;

/// Reads what comes first.
pub(super) fn read_marks(catalog: &mut Catalog, from: &mut Reader<'_>) -> Result<(), Error> {
    let data_shards = from.u32()?;
    if !(1..=DATA_SHARDS_MAX).contains(&data_shards) {
        return Err(Error::Unknown {
            what: "a number of shards",
            value: data_shards.into(),
        });
    }
    *catalog = Catalog::new(data_shards);
    catalog.next_topic = from.u64()?;
    catalog.next_producer = from.u64()?;
    catalog.next_node = from.u64()?;
    Ok(())
}

/// Reads one topic and adds it.
pub(super) fn read_topic(catalog: &mut Catalog, from: &mut Reader<'_>) -> Result<(), Error> {
    let id = from.topic()?;
    let (version, name, config) = (from.version()?, from.name()?, from.config()?);
    let (request, asked) = (RequestId(from.u128()?), from.u128()?);
    let placement = read_shards(from)?;
    let ending = from.option(|from| Ok(read_shards(from)?.into_iter().collect()))?;
    for shard in &placement {
        let unknown = Error::Unknown {
            what: "a shard id",
            value: shard.0.into(),
        };
        *catalog.load.get_mut(shard).ok_or(unknown)? += 1;
    }
    let unique = ending.is_some() || catalog.names.insert(name.clone(), id).is_none();
    if !unique {
        return Err(Error::Order {
            what: "names of topics",
        });
    }
    let topic = CatalogTopic {
        name,
        version,
        config,
        placement,
        request,
        asked,
        ending,
    };
    push(&mut catalog.topics, id, Arc::new(topic), "topics")
}

fn read_shards(from: &mut Reader<'_>) -> Result<Vec<ShardId>, Error> {
    let limit = usize::try_from(PARTITIONS_PER_TOPIC_MAX).expect("32 bits fit a usize here");
    let count = from.count("shards of a topic", limit, 4)?;
    (0..count).map(|_| from.u32().map(ShardId)).collect()
}
