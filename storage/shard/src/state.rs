//! One shard, whole: what is applied, and the view of it.

use std::fmt;

use esker_types::limits::DATA_SHARDS_MAX;
use esker_types::{EntryId, Incarnation, LeaderEpoch, Monotone, RaftIndex, ShardId, ShardTime};

use crate::catalog::Catalog;
use crate::data::Data;
use crate::head::{FlushPlan, HeadSize};
use crate::level::Level;

/// The state of one shard after some entry. A clone is O(1), shares everything, and never changes:
/// it is the view that checkpoints and readers work from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub(crate) shard: ShardId,
    pub(crate) incarnation: Incarnation,
    pub(crate) level: Level,
    pub(crate) time: Monotone<ShardTime>,
    pub(crate) applied: EntryId,
    pub(crate) epoch_base: LeaderEpoch,
    pub(crate) body: Body,
}

/// What a shard holds, by its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// Shard 0.
    Catalog(Catalog),
    /// Every other shard.
    Data(Data),
}

/// What a shard begins with. All replicas must be given the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Genesis {
    /// Which shard; 0 is the catalog.
    pub shard: ShardId,
    /// The life of the cluster it begins in.
    pub incarnation: Incarnation,
    /// What leader epochs count on from: 0 at init, the highest one found at recover.
    pub epoch_base: LeaderEpoch,
    /// Data shards of the cluster, `1..=DATA_SHARDS_MAX`; shard ids go from 1 to this.
    pub data_shards: u32,
}

/// Hash of a whole state, by which replicas are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateHash(pub u128);

impl State {
    /// A shard before its first entry.
    ///
    /// # Panics
    /// If `genesis` names no data shard, more than `DATA_SHARDS_MAX`, or a shard above them:
    /// whoever composes a cluster checks its configuration first.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        let Genesis {
            shard,
            incarnation,
            epoch_base,
            data_shards,
        } = genesis;
        assert!(
            (1..=DATA_SHARDS_MAX).contains(&data_shards) && shard.0 <= data_shards,
            "shard {shard} of {data_shards} data shards; there may be 1 to {DATA_SHARDS_MAX}"
        );
        let body = if shard.carries_data() {
            Body::Data(Data::default())
        } else {
            Body::Catalog(Catalog::new(data_shards))
        };
        Self {
            shard,
            incarnation,
            level: Level::FIRST,
            time: Monotone::default(),
            applied: EntryId::default(),
            epoch_base,
            body,
        }
    }

    /// Which shard this is.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The life of the cluster it is part of.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The level it follows.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Its time.
    #[must_use]
    pub const fn time(&self) -> ShardTime {
        self.time.get()
    }

    /// The last entry applied; index 0 before the first.
    #[must_use]
    pub const fn applied(&self) -> EntryId {
        self.applied
    }

    /// What leader epochs count on from.
    #[must_use]
    pub const fn epoch_base(&self) -> LeaderEpoch {
        self.epoch_base
    }

    /// The leader epoch of appends in the term last applied.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch::from_term(self.epoch_base, self.applied.term)
    }

    /// The body of a data shard.
    #[must_use]
    pub const fn data(&self) -> Option<&Data> {
        match &self.body {
            Body::Data(data) => Some(data),
            Body::Catalog(_) => None,
        }
    }

    /// The body of the catalog.
    #[must_use]
    pub const fn catalog(&self) -> Option<&Catalog> {
        match &self.body {
            Body::Catalog(catalog) => Some(catalog),
            Body::Data(_) => None,
        }
    }

    /// How much is unflushed; nothing in the catalog.
    #[must_use]
    pub fn head_size(&self) -> HeadSize {
        self.data().map(Data::head_size).unwrap_or_default()
    }

    /// Up to where nothing is unflushed: just below the first index that holds an accepted batch
    /// of a live partition, or the applied index if none does. Release goes by this, never below
    /// the flush position. It is a reading, not a mark: it moves without a flush, over entries
    /// that hold nothing to flush.
    #[must_use]
    pub fn flushed(&self) -> RaftIndex {
        self.data()
            .map_or(self.applied.index, |data| data.flushed(self.applied.index))
    }

    /// What the next flush should write: whole entries from the flush position on, at least one,
    /// then as long as they stay within `bytes_max`, up to `to` and the applied index. `None` if
    /// no batch is there to flush.
    #[must_use]
    pub fn flush_plan(&self, bytes_max: u64, to: RaftIndex) -> Option<FlushPlan> {
        self.data()?
            .flush_plan(bytes_max, to.min(self.applied.index))
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
