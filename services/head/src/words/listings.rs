//! Topics, segments, tombstones, in pages. A page that would not fit a message is cut.

use esker_log::{Listing, ShardTopic, TopicView};
use esker_proto::internal as wire;
use esker_proto::internal::{segments, shard_topics, tombstones, topic, topic_config};
use esker_shard::{
    ConfigChange, MixedSegment, ObjectChecksum, RangesHash, SegmentPlace, TopicConfig,
};
use esker_types::limits::HEAD_LISTING_BYTES_MAX;
use esker_types::{PartitionIndex, RaftIndex, SegmentId, ShardTime, TopicId, TopicVersion};

use super::Fault;
use super::atoms::{
    bounds, each, incarnation, mark, need, needed_bounds, needed_mark, raft, read_raft,
    read_shards, read_wide, shards, topic_id, topic_name, wide,
};

/// The items of a page as they travel: as many as fit, at least one; whether there are more.
fn page<T, W: prost::Message>(
    listing: Listing<T>,
    item: impl Fn(T) -> W,
) -> (Vec<W>, bool, Option<wire::Mark>) {
    let (mut bytes, mut more) = (0, listing.more);
    let mut items = Vec::with_capacity(listing.items.len());
    for each in listing.items {
        let each = item(each);
        bytes += each.encoded_len();
        if bytes > HEAD_LISTING_BYTES_MAX && !items.is_empty() {
            more = true;
            break;
        }
        items.push(each);
    }
    (items, more, Some(mark(listing.mark)))
}

fn read_page<T, W>(
    (items, more, mark): (Vec<W>, bool, Option<wire::Mark>),
    item: impl Fn(W) -> Result<T, Fault>,
) -> Result<Listing<T>, Fault> {
    Ok(Listing {
        items: each(items, item)?,
        more,
        mark: needed_mark(mark)?,
    })
}

pub(super) fn place(place: SegmentPlace) -> wire::SegmentPlace {
    wire::SegmentPlace {
        incarnation: place.incarnation.get(),
        from: place.from.0,
    }
}

pub(super) fn read_place(place: wire::SegmentPlace) -> Result<SegmentPlace, Fault> {
    Ok(SegmentPlace {
        incarnation: incarnation(place.incarnation)?,
        from: RaftIndex(place.from),
    })
}

pub(super) fn manifest(listing: Listing<MixedSegment>) -> wire::Segments {
    let (items, more, mark) = page(listing, |item| segments::Segment {
        id: wide(item.segment.0),
        incarnation: item.incarnation.get(),
        raft: raft(item.raft),
        length: item.length,
        checksum: item.checksum.0,
        range_count: item.range_count,
        ranges_hash: wide(item.ranges_hash.0),
        newest_ms: item.newest.0,
        bytes: item.bytes,
    });
    wire::Segments { items, more, mark }
}

pub(super) fn read_manifest(page: wire::Segments) -> Result<Listing<MixedSegment>, Fault> {
    read_page((page.items, page.more, page.mark), |item| {
        Ok(MixedSegment {
            segment: SegmentId(read_wide(&item.id)?),
            incarnation: incarnation(item.incarnation)?,
            raft: read_raft(item.raft)?,
            length: item.length,
            checksum: ObjectChecksum(item.checksum),
            range_count: item.range_count,
            ranges_hash: RangesHash(read_wide(&item.ranges_hash)?),
            newest: ShardTime(item.newest_ms),
            bytes: item.bytes,
        })
    })
}

fn config(config: &TopicConfig) -> Option<wire::TopicConfig> {
    let settings = config.settings().map(|setting| topic_config::Setting {
        key: setting.key().to_owned(),
        value: setting.to_string(),
    });
    Some(wire::TopicConfig {
        settings: settings.into(),
    })
}

fn read_config(config: Option<wire::TopicConfig>) -> Result<TopicConfig, Fault> {
    let settings = need(config, "a topic has no settings")?.settings;
    // A setting that one of the two does not know would be lost, or made up.
    if settings.len() != ConfigChange::KEYS.len() {
        return Err("a topic has not the settings that there are");
    }
    let mut config = TopicConfig::default();
    for (setting, key) in settings.iter().zip(ConfigChange::KEYS) {
        if setting.key != key {
            return Err("a topic has a setting that there is not");
        }
        let change = ConfigChange::parse(key, &setting.value);
        let changed = change.and_then(|change| config.with(&change));
        config = changed.map_err(|_| "a setting of a topic is out of bounds")?;
    }
    Ok(config)
}

pub(super) fn topic(view: TopicView) -> wire::Topic {
    wire::Topic {
        id: view.id.as_u64(),
        name: view.name.as_str().to_owned(),
        version: view.version.0,
        config: config(&view.config),
        placement: shards(&view.placement),
        ending: view.ending.map(|ending| topic::Ending {
            awaiting: shards(&ending),
        }),
    }
}

pub(super) fn read_topic(view: wire::Topic) -> Result<TopicView, Fault> {
    Ok(TopicView {
        id: topic_id(view.id)?,
        name: topic_name(&view.name)?,
        version: TopicVersion(view.version),
        config: read_config(view.config)?,
        placement: read_shards(view.placement),
        ending: view.ending.map(|ending| read_shards(ending.awaiting)),
    })
}

pub(super) fn topics(listing: Listing<TopicView>) -> wire::Topics {
    let (items, more, mark) = page(listing, topic);
    wire::Topics { items, more, mark }
}

pub(super) fn read_topics(page: wire::Topics) -> Result<Listing<TopicView>, Fault> {
    read_page((page.items, page.more, page.mark), read_topic)
}

pub(super) fn shard_topics(listing: Listing<ShardTopic>) -> wire::ShardTopics {
    let (items, more, mark) = page(listing, |item| {
        let partitions = item.partitions.into_iter();
        let partitions = partitions.map(|(index, of)| shard_topics::Partition {
            index: index.0,
            bounds: Some(bounds(of)),
        });
        shard_topics::ShardTopic {
            id: item.id.as_u64(),
            version: item.version.0,
            config: config(&item.config),
            partitions: partitions.collect(),
        }
    });
    wire::ShardTopics { items, more, mark }
}

pub(super) fn read_shard_topics(page: wire::ShardTopics) -> Result<Listing<ShardTopic>, Fault> {
    let partition = |partition: shard_topics::Partition| {
        let index = PartitionIndex(partition.index);
        Ok((index, needed_bounds(partition.bounds)?))
    };
    read_page((page.items, page.more, page.mark), |item| {
        Ok(ShardTopic {
            id: topic_id(item.id)?,
            version: TopicVersion(item.version),
            config: read_config(item.config)?,
            partitions: each(item.partitions, partition)?,
        })
    })
}

pub(super) fn tombstones(listing: Listing<(TopicId, u64)>) -> wire::Tombstones {
    let (items, more, mark) = page(listing, |(topic, ranges)| tombstones::Tombstone {
        topic: topic.as_u64(),
        ranges,
    });
    wire::Tombstones { items, more, mark }
}

pub(super) fn read_tombstones(page: wire::Tombstones) -> Result<Listing<(TopicId, u64)>, Fault> {
    read_page((page.items, page.more, page.mark), |item| {
        Ok((topic_id(item.topic)?, item.ranges))
    })
}
