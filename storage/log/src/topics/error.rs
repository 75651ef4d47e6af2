//! Why a topic was not found or not changed, and what was done all the same.

use esker_shard::{CatalogRefusal, Refusal};
use esker_types::{Durability, PartitionIndex, TopicName};

use crate::error::HeadError;

/// Why a topic was not found or not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicError {
    /// The head did not answer.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// No topic of this name.
    #[error("there is no topic {name}; create it first")]
    Unknown {
        /// The name.
        name: TopicName,
    },
    /// The one of this name is another.
    #[error("the topic {name} that is meant was deleted, and another of this name made anew")]
    MadeAnew {
        /// The name.
        name: TopicName,
    },
    /// Fewer partitions than that.
    #[error("the topic {name} has {partitions} partitions, 0 to {}, not {asked}", partitions - 1)]
    UnknownPartition {
        /// The topic.
        name: TopicName,
        /// How many it has.
        partitions: u32,
        /// What was asked for.
        asked: PartitionIndex,
    },
    /// A topic of this name, made by another request.
    #[error("a topic {name} exists already")]
    Exists {
        /// The name.
        name: TopicName,
    },
    /// The catalog or a shard refused. Nothing was changed.
    #[error("the topic {name}: {refusal}")]
    Refused {
        /// The name.
        name: TopicName,
        /// Why.
        refusal: Refusal,
    },
    /// The catalog has taken a first step, which stays, and a later one failed.
    #[error("the topic {name}: {done}; what follows was not done: {source}")]
    Partly {
        /// The name.
        name: TopicName,
        /// What was done, in words.
        done: &'static str,
        /// Why the rest was not.
        source: Box<TopicError>,
    },
}

impl TopicError {
    /// Whether it may have been done all the same.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        match self {
            Self::Head(error) => error.durability(),
            Self::Partly { .. } => Durability::Unknown,
            _ => Durability::NotWritten,
        }
    }
}

/// What the catalog has done once a later step fails.
pub(super) const CREATED: &str = "the catalog has it, and its shards get it in a moment";
pub(super) const SET: &str = "its settings were changed";
pub(super) const ADDED: &str = "its partitions were added, and its shards get them in a moment";
pub(super) const SET_AND_ADDED: &str = "its settings were changed and its partitions added, and its shards \
                             get them in a moment";
pub(super) const DELETED: &str = "its name is free, and its shards end it in a moment";

/// An error after `done`.
pub(super) fn partly(
    name: &TopicName,
    done: &'static str,
) -> impl FnOnce(TopicError) -> TopicError {
    let name = name.clone();
    move |error| TopicError::Partly {
        name,
        done,
        source: Box::new(error),
    }
}

pub(super) fn refused(name: &TopicName, refusal: Refusal) -> TopicError {
    let name = name.clone();
    match refusal {
        Refusal::Catalog(CatalogRefusal::NameTaken { .. }) => TopicError::Exists { name },
        Refusal::UnknownTopic { .. } | Refusal::TopicEnded { .. } => TopicError::Unknown { name },
        refusal => TopicError::Refused { name, refusal },
    }
}
