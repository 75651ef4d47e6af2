//! What an engine does now and then, beside flushing: a look at the claim, checkpoints into the bucket,
//! retention, collection, and topics settled.
//!
//! ```text
//!   the bucket   ─► guard          whether it is ours
//!   every shard  ─► Checkpointer   state without head, for recovery and for readers without a cluster
//!   data shards  ─► Retention      time passes, what is too old or too much is trimmed
//!   the bucket   ─► Collector      what nothing names is deleted
//!   data shards  ─► settling       they catch up with the catalog
//! ```
//! A round that fails is said once, counted while it lasts, and tried again at its next turn. One thing
//! alone ends the engine: the bucket lives on under a higher incarnation.

mod failing; // what fails, for whoever looks

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use esker_env::Monotonic;
use esker_object::Foreign;
use esker_types::limits::{
    BUCKET_CHECKPOINT_AGE, BUCKET_CHECKPOINT_LOOK, BUCKET_CHECKPOINT_SEGMENTS, CLAIM_LOOK,
    CLAIM_REST, COLLECT_PERIOD, COLLECT_ROUND_MAX, READ_GRACE, RETENTION_PERIOD, SETTLE_INTERVAL,
    TICK_PERIOD,
};
use esker_types::{ShardId, ShardTime};
use tokio::sync::watch;

use crate::checkpoint::Checkpointer;
use crate::claim::{Owner, confirm, report};
use crate::collect::Collector;
use crate::engine::Engine;
use crate::error::{ClaimError, Ended, KeepError};
use crate::head::Job;
use crate::retention::{Retention, TimeState};
use crate::schedule::Ours;
pub use failing::Chore;
pub(crate) use failing::Failing;

/// How often upkeep is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpkeepTimes {
    /// Age of a shard's bucket checkpoint that makes the next one due. Default:
    /// `BUCKET_CHECKPOINT_AGE`.
    pub checkpoint: Duration,
    /// Between two rounds of retention. Default: `RETENTION_PERIOD`.
    pub retention: Duration,
    /// Between two rounds of the collector. Default: `COLLECT_PERIOD`.
    pub collect: Duration,
    /// How long what nothing names is kept for those who still read it. Default: `READ_GRACE`.
    pub grace: Duration,
}

impl Default for UpkeepTimes {
    fn default() -> Self {
        Self {
            checkpoint: BUCKET_CHECKPOINT_AGE,
            retention: RETENTION_PERIOD,
            collect: COLLECT_PERIOD,
            grace: READ_GRACE,
        }
    }
}

/// Looks whether the bucket is ours, and says so to those who write segments there: before the
/// first, and again and again. A bucket that is away changes nothing; one that has lost our claim
/// gets nothing more until it is put back.
pub(crate) async fn guard(engine: Engine, owner: Owner, ours: Arc<watch::Sender<Ours>>) -> Ended {
    let (failing, mut foreign) = (engine.failures(), Foreign::default());
    loop {
        let confirmed = confirm(engine.store(), owner.cluster, owner.incarnation).await;
        let now = match &confirmed {
            Ok(_) => Ours::Yes(owner),
            Err(ClaimError::Bucket(_)) if ours.borrow().owner().is_some() => Ours::Yes(owner),
            Err(error) => Ours::No(error.to_string()),
        };
        let sure = now.owner().is_some();
        ours.send_if_modified(|ours| std::mem::replace(ours, now.clone()) != now);
        if let Ok(beside) = &confirmed
            && *beside != foreign
        {
            report(beside);
            foreign = beside.clone();
        }
        let done = confirmed.map(drop).map_err(KeepError::Claim);
        if let Err(superseded) = failing.settle(Chore::Claim, ShardId::CATALOG, done) {
            return superseded;
        }
        let rest = tokio::time::sleep(if sure { CLAIM_LOOK } else { CLAIM_REST });
        // A flush that misses our claim says so before its next look is due.
        let mut known = ours.subscribe();
        let doubted = known.wait_for(|ours| sure && ours.owner().is_none());
        tokio::select! {
            biased;
            _ = doubted => {}
            () = rest => {}
        }
    }
}

/// Writes checkpoints into the bucket until the bucket is another's.
pub(crate) async fn checkpoints(engine: Engine, owner: Owner, times: UpkeepTimes) -> Ended {
    let mut checkpoints = Checkpointer::new(
        Arc::clone(engine.head()),
        engine.store().clone(),
        engine.env().clone(),
        owner,
    )
    .due_after(times.checkpoint, BUCKET_CHECKPOINT_SEGMENTS);
    let failing = engine.failures();
    let look = BUCKET_CHECKPOINT_LOOK.min(times.checkpoint);
    // Whose checkpoints this engine writes; those of the others it only looks at.
    let mut ours = BTreeSet::new();
    loop {
        tokio::time::sleep(look).await;
        for shard in std::iter::once(ShardId::CATALOG).chain(engine.head().shards()) {
            let worker = engine.worker();
            let done = match worker.has(shard, Job::Checkpoint, look).await {
                Ok(true) => {
                    if ours.insert(shard) {
                        checkpoints.forget(shard);
                    }
                    let round = checkpoints.round(shard);
                    let done = worker.at(shard, Job::Checkpoint, look, round).await;
                    worker.note(shard, Job::Checkpoint, done.is_err());
                    done
                }
                Ok(false) => {
                    ours.remove(&shard);
                    checkpoints.watch(shard).await.map(|()| None)
                }
                Err(error) => Err(error.into()),
            };
            engine.doubt(shard, done.as_ref().err());
            let done = done.map(drop);
            if let Err(superseded) = failing.settle(Chore::Checkpoint, shard, done) {
                return superseded;
            }
        }
    }
}

/// Trims what retention lets go until the head is gone.
pub(crate) async fn retention(engine: Engine, times: UpkeepTimes) -> Ended {
    let mut retention = Retention::new(Arc::clone(engine.head()), engine.readers());
    let (failing, mut ticked) = (engine.failures(), BTreeMap::new());
    loop {
        tokio::time::sleep(times.retention).await;
        for shard in engine.head().shards() {
            let (worker, again) = (engine.worker(), times.retention);
            let done = match worker.has(shard, Job::Retention, again).await {
                Ok(true) => {
                    let retained = retain(&engine, &mut retention, shard, &mut ticked);
                    let done = worker.at(shard, Job::Retention, again, retained).await;
                    worker.note(shard, Job::Retention, done.is_err());
                    done
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(superseded) = failing.settle(Chore::Retention, shard, done) {
                return superseded;
            }
        }
    }
}

async fn retain(
    engine: &Engine,
    retention: &mut Retention,
    shard: ShardId,
    ticked: &mut BTreeMap<ShardId, Monotonic>,
) -> Result<(), KeepError> {
    let head = engine.head();
    let before = head.progress(shard).await?;
    let now = engine.env().clock.monotonic();
    let since = now.since(*ticked.entry(shard).or_insert(now));
    // Where nothing was ever appended there is nothing that could grow old, and no time to keep up.
    if before.time > ShardTime::ZERO && since >= TICK_PERIOD {
        head.tick(shard).await?;
        ticked.insert(shard, now);
    }
    let time = match head.progress(shard).await?.clock_skew {
        Some(_) => TimeState::Stands,
        None => TimeState::Runs,
    };
    let done = retention.round(shard, time).await?;
    if done.trimmed + done.removed > 0 {
        let (trimmed, removed) = (done.trimmed, done.removed);
        tracing::info!(%shard, trimmed, removed, "retention: partitions trimmed, segments removed");
    }
    Ok(())
}

/// Deletes what nothing names until the bucket is another's.
pub(crate) async fn collection(engine: Engine, owner: Owner, times: UpkeepTimes) -> Ended {
    let anew = || {
        let (head, store) = (Arc::clone(engine.head()), engine.store().clone());
        let collector = Collector::new(head, store, engine.env().clone(), owner);
        collector.with_times(times.grace, COLLECT_ROUND_MAX)
    };
    let mut collector = anew();
    let failing = engine.failures();
    loop {
        tokio::time::sleep(times.collect).await;
        let (worker, again) = (engine.worker(), times.collect);
        let round = match worker.has(ShardId::CATALOG, Job::Collection, again).await {
            Ok(true) => {
                let round = collector.round();
                worker
                    .at(ShardId::CATALOG, Job::Collection, again, round)
                    .await
            }
            Ok(false) => {
                // What it saw unnamed is somebody else's to watch.
                collector = anew();
                failing.note(Chore::Collection, ShardId::CATALOG, None);
                continue;
            }
            Err(error) => Err(error.into()),
        };
        let (mut trouble, deleted, failed) = match round {
            Ok(mut done) => {
                let trouble = done.troubles.pop().map_or(Ok(()), Err);
                (trouble, done.deleted, done.failed)
            }
            Err(error) => (Err(error), 0, 0),
        };
        worker.note(ShardId::CATALOG, Job::Collection, trouble.is_err());
        // It stays this one's: another would first have to see for the whole grace what may go.
        if trouble.is_ok() && deleted == 0 && failed > 0 {
            trouble = Err(KeepError::NoneDeleted { failed });
        }
        if deleted > 0 {
            tracing::info!(deleted, "collection: objects that nothing names");
        }
        if let Err(superseded) = failing.settle(Chore::Collection, ShardId::CATALOG, trouble) {
            return superseded;
        }
    }
}

/// Has data shards catch up with the catalog, for ever.
pub(crate) async fn settling(engine: Engine) -> Ended {
    let failing = engine.failures();
    loop {
        let settled = engine.topics().settle_all().await;
        let why = settled.err().map(|error| error.to_string());
        failing.note(Chore::Topics, ShardId::CATALOG, why);
        tokio::time::sleep(SETTLE_INTERVAL).await;
    }
}
