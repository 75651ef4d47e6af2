//! How the cluster stands.

use std::fmt;
use std::sync::Arc;

use esker_log::{Engine, HeadError};
use esker_proto::v1;
use esker_types::limits::MANIFEST_PAGE;
use esker_types::{ShardId, limits::TOPIC_PAGE};

use crate::server::Cluster;

/// How the WAL of the node in this process stands, and what that node leads, for whoever asks.
#[derive(Clone)]
pub struct WalStand {
    stand: Arc<dyn Fn() -> v1::WalStatus + Send + Sync>,
    leads: Arc<dyn Fn(ShardId) -> bool + Send + Sync>,
}

impl WalStand {
    /// Asks `stand`, and of a shard `leads`.
    #[must_use]
    pub fn new(
        stand: impl Fn() -> v1::WalStatus + Send + Sync + 'static,
        leads: impl Fn(ShardId) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            stand: Arc::new(stand),
            leads: Arc::new(leads),
        }
    }
}

impl fmt::Debug for WalStand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WalStand")
    }
}

/// Everything a person may want to know at a glance.
pub(crate) async fn status(
    engine: &Engine,
    cluster: &Cluster,
) -> Result<v1::ClusterStatusReply, HeadError> {
    let mut shards = Vec::new();
    for shard in engine.head().shards() {
        let leads = |wal: &WalStand| (wal.leads)(shard);
        shards.push(v1::ShardStatus {
            leads_here: cluster.wal.as_ref().is_some_and(leads),
            ..shard_status(engine, shard).await?
        });
    }
    let (topics, partitions) = count(engine).await?;
    Ok(v1::ClusterStatusReply {
        cluster_id: cluster.id.to_string(),
        incarnation: cluster.incarnation.get(),
        version: cluster.version.clone(),
        bucket: engine.store().url().to_owned(),
        topics,
        partitions,
        shards,
        wal: cluster.wal.as_ref().map(|wal| (wal.stand)()),
    })
}

/// All but whether it is led here.
async fn shard_status(engine: &Engine, shard: ShardId) -> Result<v1::ShardStatus, HeadError> {
    let progress = engine.head().progress(shard).await?;
    let (mut after, mut bytes) = (None, 0);
    loop {
        let page = engine.head().manifest(shard, after, MANIFEST_PAGE).await?;
        bytes += page.items.iter().map(|segment| segment.length).sum::<u64>();
        after = page.items.last().map(esker_shard::MixedSegment::place);
        if !page.more {
            break;
        }
    }
    Ok(v1::ShardStatus {
        shard: shard.0,
        // Known since it has told its progress.
        leader: engine.head().leader(shard).unwrap_or_default(),
        leads_here: false,
        term: progress.term.0,
        applied: progress.mark.index.0,
        checkpointed: progress.checkpointed.0,
        flush_position: progress.flush_position.0,
        head_bytes: progress.head.bytes,
        head_batches: progress.head.batches,
        head_bytes_max: progress.head_bytes_max,
        segments: progress.segments,
        segment_bytes: bytes,
        flush_error: engine.flush_trouble(shard).unwrap_or_default(),
        clock_skew_ms: progress
            .clock_skew
            .map(|skew| u64::try_from(skew.as_millis()).unwrap_or(u64::MAX)),
        time_ms: progress.time.0,
        leader_clock: progress.leader_clock.map(|clock| v1::LeaderClock {
            node: clock.node.to_string(),
            wall_ms: clock.wall.0,
            ahead: clock.ahead,
        }),
    })
}

/// Lets the time of `shards` go on, of all if there are none, that stands still; how many there were.
pub(crate) async fn accept_time(engine: &Engine, shards: Vec<ShardId>) -> Result<u32, HeadError> {
    let shards = match shards.is_empty() {
        true => engine.head().shards(),
        false => shards,
    };
    let mut accepted = 0;
    for shard in shards {
        if engine.head().progress(shard).await?.clock_skew.is_some() {
            engine.head().accept_time(shard).await?;
            accepted += 1;
        }
    }
    Ok(accepted)
}

/// Topics that are not being deleted, and their partitions.
async fn count(engine: &Engine) -> Result<(u32, u32), HeadError> {
    let (mut after, mut topics, mut partitions) = (None, 0, 0);
    loop {
        let page = engine.head().topics(after, TOPIC_PAGE).await?;
        for topic in page.items.iter().filter(|topic| topic.ending.is_none()) {
            topics += 1;
            partitions += topic.partitions();
        }
        after = page.items.last().map(|topic| topic.id);
        if !page.more {
            return Ok((topics, partitions));
        }
    }
}
