//! Why the catalog refuses. Some of it is text that never changes, and must be known here.

use esker_proto::internal as wire;
use esker_proto::internal::catalog_refusal::{Counts, NotPlaced, Of, OtherVersion};
use esker_proto::internal::config_error;
use esker_shard::{CatalogRefusal, ConfigChange, ConfigError};
use esker_types::{ShardId, TopicVersion};

use crate::words::Fault;
use crate::words::atoms::{need, topic_id};

/// What there may be no ids left of.
const IDS: [&str; 3] = ["topic", "producer", "node"];
/// What a setting that is out of bounds may be beside a number within them.
const ORS: [&str; 2] = ["", ", or -1 for no bound"];
/// The words that settings are made of.
const WORDS: [&str; 2] = ["none, gzip, snappy, lz4, zstd", "true, false"];

pub(super) fn refusal(refusal: CatalogRefusal) -> wire::CatalogRefusal {
    let of = match refusal {
        CatalogRefusal::NameTaken { topic } => Of::NameTaken(topic.as_u64()),
        CatalogRefusal::PartitionCount { partitions } => Of::PartitionCount(partitions),
        CatalogRefusal::FewerPartitions { current, asked } => {
            Of::FewerPartitions(Counts { current, asked })
        }
        CatalogRefusal::TooManyTopics => Of::TooManyTopics(wire::Nothing {}),
        CatalogRefusal::TooManyPartitions { current, asked } => {
            Of::TooManyPartitions(Counts { current, asked })
        }
        CatalogRefusal::OtherVersion { current, expected } => Of::OtherVersion(OtherVersion {
            current: current.0,
            expected: expected.0,
        }),
        CatalogRefusal::Config(error) => Of::Config(config(&error)),
        CatalogRefusal::ProducerCount { count } => Of::ProducerCount(count),
        CatalogRefusal::NoIdsLeft { what } => Of::NoIdsLeft(what.to_owned()),
        CatalogRefusal::NotPlaced { topic, shard } => Of::NotPlaced(NotPlaced {
            topic: topic.as_u64(),
            shard: shard.0,
        }),
    };
    wire::CatalogRefusal { of: Some(of) }
}

pub(super) fn read_refusal(refusal: wire::CatalogRefusal) -> Result<CatalogRefusal, Fault> {
    Ok(match need(refusal.of, "a refusal has no kind")? {
        Of::NameTaken(topic) => CatalogRefusal::NameTaken {
            topic: topic_id(topic)?,
        },
        Of::PartitionCount(partitions) => CatalogRefusal::PartitionCount { partitions },
        Of::FewerPartitions(Counts { current, asked }) => {
            CatalogRefusal::FewerPartitions { current, asked }
        }
        Of::TooManyTopics(_) => CatalogRefusal::TooManyTopics,
        Of::TooManyPartitions(Counts { current, asked }) => {
            CatalogRefusal::TooManyPartitions { current, asked }
        }
        Of::OtherVersion(other) => CatalogRefusal::OtherVersion {
            current: TopicVersion(other.current),
            expected: TopicVersion(other.expected),
        },
        Of::Config(error) => CatalogRefusal::Config(read_config(error)?),
        Of::ProducerCount(count) => CatalogRefusal::ProducerCount { count },
        Of::NoIdsLeft(what) => CatalogRefusal::NoIdsLeft {
            what: known(&what, &IDS)?,
        },
        Of::NotPlaced(not) => CatalogRefusal::NotPlaced {
            topic: topic_id(not.topic)?,
            shard: ShardId(not.shard),
        },
    })
}

fn config(error: &ConfigError) -> wire::ConfigError {
    use config_error::{Bounds, Of, Word};
    let of = match *error {
        ConfigError::Key => Of::Key(wire::Nothing {}),
        ConfigError::Number { key } => Of::Number(key.to_owned()),
        ConfigError::Bounds {
            key,
            value,
            least,
            most,
            or,
        } => Of::Bounds(Bounds {
            key: key.to_owned(),
            value,
            least,
            most,
            or: or.to_owned(),
        }),
        ConfigError::Word { key, words } => Of::Word(Word {
            key: key.to_owned(),
            words: words.to_owned(),
        }),
        ConfigError::StorageClass => Of::StorageClass(wire::Nothing {}),
    };
    wire::ConfigError { of: Some(of) }
}

fn read_config(error: wire::ConfigError) -> Result<ConfigError, Fault> {
    use config_error::Of;
    let key = |text: &str| known(text, &ConfigChange::KEYS);
    Ok(match need(error.of, "an error has no kind")? {
        Of::Key(_) => ConfigError::Key,
        Of::Number(of) => ConfigError::Number { key: key(&of)? },
        Of::Bounds(bounds) => ConfigError::Bounds {
            key: key(&bounds.key)?,
            value: bounds.value,
            least: bounds.least,
            most: bounds.most,
            or: known(&bounds.or, &ORS)?,
        },
        Of::Word(word) => ConfigError::Word {
            key: key(&word.key)?,
            words: known(&word.words, &WORDS)?,
        },
        Of::StorageClass(_) => ConfigError::StorageClass,
    })
}

fn known(text: &str, texts: &[&'static str]) -> Result<&'static str, Fault> {
    let found = texts.iter().copied().find(|known| *known == text);
    need(found, "a text is not known here")
}
