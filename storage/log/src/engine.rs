//! The whole engine: what an agent holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use esker_cache::{BlockCache, Counters};
use esker_env::Env;
use esker_object::Store;
use esker_record::ZstdLevel;
use esker_segment::Depth;
use esker_types::ShardId;
use esker_types::limits::{
    FLUSH_AGE, FLUSH_BACKOFF_MAX, FLUSH_BYTES, FLUSH_NOW_PATIENCE, FLUSH_NOW_TURNS_MAX,
    OPENED_SEGMENTS_BYTES, READ_AHEAD_ALL_BYTES,
};
use futures::future::try_join_all;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::append::Appends;
use crate::claim::Owner;
use crate::error::{Ended, Error, KeepError, ReadError};
use crate::flush::Flusher;
use crate::head::Head;
use crate::manifest::Manifests;
use crate::read::Readers;
use crate::schedule::{FlushTriggers, Ours, Schedule, flush_once, flush_permits};
use crate::segments::Segments;
use crate::topics::Topics;
use crate::turn::Worker;
use crate::upkeep::{self, Chore, Failing, UpkeepTimes};
use crate::verify::{Verification, Verify};

/// How an engine works.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// When shards are flushed.
    pub flush: FlushTriggers,
    /// How hard blocks of plain batches are compressed. Default: 1.
    pub zstd_level: ZstdLevel,
    /// Memory for opened segments. Default: `OPENED_SEGMENTS_BYTES`.
    pub opened_bytes: usize,
    /// What all readers are ahead together, beyond what each is at first. Default:
    /// `READ_AHEAD_ALL_BYTES`.
    pub ahead_bytes: usize,
    /// How often checkpoints, retention and collection have their turn.
    pub upkeep: UpkeepTimes,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            flush: FlushTriggers {
                bytes: FLUSH_BYTES,
                age: FLUSH_AGE,
            },
            zstd_level: ZstdLevel::new(1).expect("1 is a level"),
            opened_bytes: OPENED_SEGMENTS_BYTES,
            ahead_bytes: READ_AHEAD_ALL_BYTES,
            upkeep: UpkeepTimes::default(),
        }
    }
}

/// The engine. Clones share everything.
#[derive(Clone)]
pub struct Engine {
    head: Arc<dyn Head>,
    store: Store,
    env: Env,
    options: EngineOptions,
    blocks: BlockCache<ReadError>,
    topics: Topics,
    appends: Appends,
    readers: Readers,
    flusher: Flusher,
    permits: Arc<Semaphore>,
    worker: Worker,
    /// Whether the bucket is known to be our cluster's.
    ours: Arc<watch::Sender<Ours>>,
    trouble: Arc<BTreeMap<ShardId, watch::Sender<Option<String>>>>,
    /// Shards of which the bucket knows more than the head.
    doubted: Arc<Mutex<BTreeMap<ShardId, String>>>,
    failing: Failing,
}

/// What a forced flush has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlushedNow {
    /// Segments written by this call.
    pub segments: u32,
    /// Their bytes.
    pub bytes: u64,
}

impl Engine {
    /// An engine over `head` and `store`, reading through `blocks`. It does nothing by itself
    /// before [`Engine::run`].
    #[must_use]
    pub fn new(
        head: Arc<dyn Head>,
        store: Store,
        env: Env,
        blocks: BlockCache<ReadError>,
        options: EngineOptions,
    ) -> Self {
        let topics = Topics::new(Arc::clone(&head), Arc::clone(&env.clock));
        let appends = Appends::new(Arc::clone(&head), topics.clone(), env.clone());
        let segments = Segments::new(
            store.clone(),
            env.clone(),
            blocks.clone(),
            options.opened_bytes,
        );
        let manifests = Manifests::new(Arc::clone(&head), segments.clone());
        let ahead = options.ahead_bytes;
        let readers = Readers::new(Arc::clone(&head), segments, manifests, ahead);
        let level = options.zstd_level;
        let flusher = Flusher::new(Arc::clone(&head), store.clone(), env.clone(), level);
        let worker = Worker::new(Arc::clone(&head), &env);
        let shards = head.shards().into_iter();
        let trouble = shards.map(|shard| (shard, watch::Sender::default()));
        Self {
            trouble: Arc::new(trouble.collect()),
            doubted: Arc::default(),
            failing: Failing::default(),
            head,
            store,
            env,
            options,
            blocks,
            topics,
            appends,
            readers,
            flusher,
            permits: flush_permits(),
            worker,
            ours: Arc::new(watch::Sender::new(Ours::Unasked)),
        }
    }

    /// Does everything that nobody asks for: flushes what is due, settles what is unsettled, and
    /// keeps the bucket of `owner`, who has claimed it. Until the head is gone or the bucket is
    /// another's; returns why. Dropping it stops everything; what was under way leaves an orphan
    /// at most.
    pub async fn run(&self, owner: Owner) -> Ended {
        let mut tasks = JoinSet::new();
        let times = self.options.upkeep;
        self.ours.send_replace(Ours::Unasked);
        tasks.spawn(upkeep::guard(self.clone(), owner, Arc::clone(&self.ours)));
        tasks.spawn(upkeep::checkpoints(self.clone(), owner, times));
        tasks.spawn(upkeep::retention(self.clone(), times));
        tasks.spawn(upkeep::collection(self.clone(), owner, times));
        for (shard, trouble) in self.trouble.iter() {
            let schedule = Schedule {
                shard: *shard,
                head: Arc::clone(&self.head),
                flusher: self.flusher.clone(),
                env: self.env.clone(),
                triggers: self.options.flush,
                permits: Arc::clone(&self.permits),
                worker: self.worker.clone(),
                ours: Arc::clone(&self.ours),
                trouble: trouble.clone(),
            };
            tasks.spawn(async move { Ended::Head(schedule.run().await) });
        }
        tasks.spawn(upkeep::settling(self.clone()));
        let ended = tasks.join_next().await.expect("there are tasks");
        // A task that panicked takes the engine down with it.
        ended.expect("a loop of the engine panicked")
    }

    pub(crate) const fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Flushes everything that is acknowledged by now, and returns when it is in the bucket. Only
    /// for an engine that runs, and has made sure whose the bucket is.
    ///
    /// # Errors
    /// [`Error::NotConfirmed`]; [`Error`]; the head still has what was not flushed.
    pub async fn flush_now(&self) -> Result<FlushedNow, Error> {
        let mut ours = self.ours.subscribe();
        let sure = ours.wait_for(|ours| ours.owner().is_some());
        // Whatever it was that came of it: what is known now counts.
        drop(tokio::time::timeout(FLUSH_NOW_PATIENCE, sure).await);
        let known = self.ours.borrow().clone();
        let Some(owner) = known.owner() else {
            let what = known.why_not().unwrap_or_default();
            return Err(Error::NotConfirmed { what });
        };
        let shards = self.head.shards().into_iter();
        let each = try_join_all(shards.map(|shard| self.flush_shard(owner, shard))).await?;
        let sum = each
            .into_iter()
            .fold(FlushedNow::default(), |sum, one| FlushedNow {
                segments: sum.segments + one.segments,
                bytes: sum.bytes + one.bytes,
            });
        Ok(sum)
    }

    async fn flush_shard(&self, owner: Owner, shard: ShardId) -> Result<FlushedNow, Error> {
        let target = self.head.read_index(shard).await?.index;
        let mut done = FlushedNow::default();
        let mut lost = 0;
        while self.head.progress(shard).await?.flushed < target {
            let flushed = {
                let permit = self.permits.acquire().await;
                let _permit = permit.expect("the semaphore is never closed");
                let what = (owner, shard, self.options.flush.bytes);
                flush_once(&self.flusher, &self.ours, what).await
            };
            match flushed {
                Ok(Some(flushed)) => {
                    done.segments += 1;
                    done.bytes += flushed.summary.length;
                }
                Ok(None) => break,
                // Another flusher was faster, and the shard has moved on.
                Err(error) if error.is_overtaken() && lost < FLUSH_NOW_TURNS_MAX => lost += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Waits until nothing is unflushed, or for `patience`: what a graceful stop may do.
    pub async fn drain(&self, patience: Duration) -> bool {
        let flush = tokio::time::timeout(patience.min(FLUSH_BACKOFF_MAX), self.flush_now());
        matches!(flush.await, Ok(Ok(_)))
    }

    /// Verifies everything that the log names, and tells how far it has come after each segment, until
    /// nobody listens.
    ///
    /// # Errors
    /// [`ReadError::Head`]: what is to be verified is not known. What is wrong with the bucket is
    /// told, and verifying goes on.
    pub async fn verify(
        &self,
        depth: Depth,
        tell: mpsc::Sender<Verification>,
    ) -> Result<(), ReadError> {
        let verify = Verify {
            head: Arc::clone(&self.head),
            store: self.store.clone(),
            depth,
            tell,
        };
        verify.run().await
    }

    /// Topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Appending.
    #[must_use]
    pub fn appends(&self) -> &Appends {
        &self.appends
    }

    /// Reading.
    #[must_use]
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The head it works on.
    #[must_use]
    pub fn head(&self) -> &Arc<dyn Head> {
        &self.head
    }

    /// The bucket it works on.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) const fn env(&self) -> &Env {
        &self.env
    }

    /// Why a shard cannot flush at the moment, if it cannot; or that the bucket knows more of it,
    /// or of the catalog, than the head does.
    #[must_use]
    pub fn flush_trouble(&self, shard: ShardId) -> Option<String> {
        let trouble = self.trouble.get(&shard)?.borrow().clone();
        let doubted = || {
            let all = self.doubted();
            all.get(&shard)
                .or_else(|| all.get(&ShardId::CATALOG))
                .cloned()
        };
        trouble.or_else(doubted)
    }

    /// Remembers what a look at the checkpoint of `shard` found, if it lies ahead of the head.
    pub(crate) fn doubt(&self, shard: ShardId, found: Option<&KeepError>) {
        match found {
            Some(error @ KeepError::Ahead { .. }) => {
                self.doubted().insert(shard, error.to_string());
            }
            _ => drop(self.doubted().remove(&shard)),
        }
    }

    fn doubted(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, String>> {
        // One entry goes in or out: it is whole whoever panicked.
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shards of which the last round of `chore` failed here. What another engine does in this one's
    /// place fails there.
    #[must_use]
    pub fn failing(&self, chore: Chore) -> u64 {
        self.failing.count(chore)
    }

    pub(crate) fn failures(&self) -> Failing {
        self.failing.clone()
    }

    /// What the block cache did.
    #[must_use]
    pub fn cache_counters(&self) -> Counters {
        self.blocks.counters()
    }

    /// Writes what the cache holds to its disk tier.
    pub async fn close(&self) {
        self.blocks.close().await;
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
