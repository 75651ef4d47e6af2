//! A bounded memory tier, of foyer's making.

use foyer::{
    Cache, CacheBuilder, DefaultHasher, EvictionConfig, HybridCacheProperties, S3FifoConfig,
};

use crate::block::{Block, BlockKey};

/// foyer's memory cache as both lanes use it.
pub(crate) type Memory = Cache<BlockKey, Block, DefaultHasher, HybridCacheProperties>;

/// Shards of a memory tier: enough that two cores seldom meet, few enough that a shard holds many
/// blocks.
pub(crate) const SHARDS: usize = 4;
/// A block above this share of a shard is not kept: it would empty the shard.
const SHARE_OF_SHARD_MAX: usize = 4;

/// A memory tier of `bytes`.
pub(crate) fn memory(name: &'static str, bytes: usize) -> Memory {
    CacheBuilder::new(bytes)
        .with_name(name)
        .with_shards(SHARDS)
        .with_eviction_config(eviction())
        .with_weighter(|_: &BlockKey, block: &Block| block.weight())
        .build()
}

/// S3-FIFO: a block read once by a scan leaves before one that was read again. foyer's LRU is not
/// used: it has been seen to panic under load.
pub(crate) fn eviction() -> EvictionConfig {
    S3FifoConfig::default().into()
}

/// The largest weight that a tier of `bytes` keeps.
pub(crate) const fn weight_max(bytes: usize) -> usize {
    bytes / SHARDS / SHARE_OF_SHARD_MAX
}
