//! A server, composed: bucket, node, cache, engine, agent. The only place where they all meet.
//!
//! ```text
//!   Config ─► Store ─ probe ─► Identity, claim ─► Node ─► Engine ─► Agent ─► listener
//! ```
//! It ends in one of two ways: asked to, within two seconds; or because a part of it died, at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker_agent::{Agent, Budgets, Cluster, WalStand};
use esker_cache::{BlockCache, Disk, Settings};
use esker_client::v1;
use esker_env::{Env, Listener};
use esker_log::{
    ClaimError, Ended, Engine, EngineOptions, FlushTriggers, Owner, UpkeepTimes, claim, confirm,
    nothing_written,
};
use esker_object::{Counters, Kind, Prefix, Store};
use esker_record::ZstdLevel;
use esker_types::limits::{FLUSHES_IN_FLIGHT, OPENED_SEGMENTS_BYTES, READ_AHEAD_ALL_BYTES};
use esker_wal::disk::WalOptions;
use esker_wal::{Alone, KeeperOptions};
use esker_walnode::{Directory, Identity, IdentityError, Node, NodeError, NodeOptions};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{Config, Upkeep};
use crate::observe::{Figures, Stand, observe};

/// How long calls under way may go on once the server was asked to stop.
const STOP_CALLS: Duration = Duration::from_millis(800);
/// How long a start waits for a bucket that was ours already.
const BUCKET_LOOK: Duration = Duration::from_secs(3);
/// How long a start waits to learn which topics there are, to say what to type next.
const TOPIC_LOOK: Duration = Duration::from_millis(500);
/// How long the node may take to leave its shards well checkpointed.
const STOP_NODE: Duration = Duration::from_millis(800);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    node: Node,
    engine: Engine,
    running: JoinHandle<Ended>,
    serving: JoinHandle<Result<(), String>>,
    stop: oneshot::Sender<()>,
    stand: watch::Sender<Stand>,
    observing: JoinHandle<io::Error>,
    address: String,
    metrics: String,
    identity: Identity,
}

/// Why a server does not start, or has died.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] esker_object::Error),
    /// The bucket is not ours, or no longer.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The data directory belongs to somebody else, or says nothing useful.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The cache's budgets.
    #[error(transparent)]
    Cache(#[from] esker_cache::Error),
    /// The address is taken, or not ours.
    #[error("{0}; choose another with --listen HOST:PORT")]
    Listen(io::Error),
    /// The same, for metrics.
    #[error("{0} for metrics; choose another with --metrics HOST:PORT")]
    ListenMetrics(io::Error),
    /// The same, where nobody said which.
    #[error(
        "{error} for metrics and health, which are one port above the public API at {public} if \
         nothing else is said; choose another with --metrics HOST:PORT"
    )]
    ListenDerived {
        /// What the system says.
        error: io::Error,
        /// What it was derived from.
        public: String,
    },
    /// The server's own listener broke.
    #[error("the listener at {address} has ended: {what}")]
    Listener {
        /// Where it listened.
        address: String,
        /// Why it ended.
        what: String,
    },
    /// The engine ended.
    #[error("the engine has ended: {0}")]
    Engine(Ended),
    /// A part of a cluster of several.
    #[error(
        r#"this version runs a cluster of one: write roles = ["wal", "agent"], and no cluster.nodes"#
    )]
    Part,
}

impl Server {
    /// Starts everything that `config` asks for, and returns once appends are taken.
    pub(crate) async fn start(
        env: &Env,
        config: &Config,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, ServeError> {
        if !config.is_alone() {
            return Err(ServeError::Part);
        }
        // The cheap things that may be wrong come first; of two servers in one directory the second
        // hears of that, not of the port that they would share. One that is not there is nobody's,
        // and is not made for a port that is taken.
        let directory = match env.files.list(&config.data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => Some(Directory::take(env, &config.data_dir).await?),
        };
        let [listener, listening] = listen(env, config).await?;
        let directory = match directory {
            Some(directory) => directory,
            None => Directory::take(env, &config.data_dir).await?,
        };
        let (address, metrics) = (
            listener.address().to_owned(),
            listening.address().to_owned(),
        );
        let (stand, standing) = watch::channel(Stand::Starting("asking the bucket"));
        let observing = tokio::spawn(observe(listening, env.clone(), standing));
        tell_memory(config);
        let store = open_bucket(env, config, environment)?;
        let (identity, seen) = claimed(env, config, &directory, &store).await?;
        tell_shards(config, &identity);
        if seen {
            remove_unfinished(&store, &identity).await;
        }
        stand.send_replace(Stand::Starting("reading the log"));
        let (options, peers) = (node_options(config), Arc::new(Alone));
        let mut node = Node::start(env, directory, &identity, options, peers).await?;
        node.lead_alone().await?;
        let blocks = BlockCache::open(cache_settings(config), &*env.files).await?;
        let options = EngineOptions {
            flush: FlushTriggers {
                bytes: config.flush.bytes.0,
                age: config.flush.age.0,
            },
            zstd_level: ZstdLevel::new(config.flush.zstd_level)
                .expect("the configuration bounds it"),
            opened_bytes: OPENED_SEGMENTS_BYTES,
            ahead_bytes: READ_AHEAD_ALL_BYTES,
            upkeep: upkeep(config),
        };
        let owner = Owner {
            cluster: identity.cluster,
            incarnation: identity.incarnation,
        };
        let engine = Engine::new(node.head(), store, env.clone(), blocks, options);
        let running = engine.clone();
        let running = tokio::spawn(async move { running.run(owner).await });
        let cluster = Cluster {
            id: identity.cluster,
            incarnation: identity.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wal: Some(wal_stand(&node, config.wal.disk.0)),
        };
        let agent = Agent::new(engine.clone(), env.clone(), cluster).with_budgets(budgets(config));
        let figures = Figures::new(
            engine.clone(),
            &node,
            &config.data_dir,
            agent.traffic().clone(),
        );
        stand.send_replace(Stand::Ready(Arc::new(figures)));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async move {
                // Dropped or told: either way it is time.
                let _ = stopped.await;
            };
            let served = agent.serve(listener, stopped).await;
            served.map_err(|error| error.to_string())
        });
        Ok(Self {
            node,
            engine,
            running,
            serving,
            stop,
            stand,
            observing,
            address,
            metrics,
            identity,
        })
    }

    /// Where the public API is, as `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where metrics and health are, as `host:port`.
    pub(crate) fn metrics(&self) -> &str {
        &self.metrics
    }

    /// A topic that there is, the first by name. `None` also where nobody can tell now.
    pub(crate) async fn a_topic(&self) -> Option<String> {
        let listing = self.engine.topics().list(None, 1);
        let (topics, _) = tokio::time::timeout(TOPIC_LOOK, listing).await.ok()?.ok()?;
        topics.first().map(|topic| topic.name.to_string())
    }

    /// Whom it belongs to.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was asked of the bucket since the start.
    pub(crate) fn bucket_counters(&self) -> Counters {
        self.engine.store().counters()
    }

    /// Serves until `asked` is ready, and then stops in an orderly way.
    ///
    /// # Errors
    /// [`ServeError`] if a part of it died: the process must end then.
    pub(crate) async fn run(mut self, asked: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::select! {
            biased;
            died = self.node.ended() => Err(died.into()),
            ended = &mut self.running => {
                Err(ServeError::Engine(ended.expect("the engine panicked")))
            }
            served = &mut self.serving => {
                let what = match served.expect("the listener panicked") {
                    Ok(()) => "nobody asked it to".to_owned(),
                    Err(what) => what,
                };
                Err(ServeError::Listener { address: self.address.clone(), what })
            }
            broken = &mut self.observing => {
                let what = broken.map_or_else(|died| died.to_string(), |error| error.to_string());
                Err(ServeError::Listener { address: self.metrics.clone(), what })
            }
            () = asked => {
                self.close().await;
                tracing::info!("stopped");
                Ok(())
            }
        }
    }

    /// Stops taking calls, lets those under way end for a moment, and leaves the node so that the
    /// next start has little to do. What is not flushed stays in the WAL.
    pub(crate) async fn close(self) {
        self.stand.send_replace(Stand::Stopping);
        // It may have ended by itself.
        let _ = self.stop.send(());
        let mut serving = self.serving;
        if tokio::time::timeout(STOP_CALLS, &mut serving)
            .await
            .is_err()
        {
            serving.abort();
        }
        self.running.abort();
        self.observing.abort();
        // Not dropped when time is up: the log keeps the directory's lock for as long as somebody
        // may write to it, which may be until the process ends.
        let node = tokio::spawn(self.node.close());
        let (node, cache) = tokio::join!(
            tokio::time::timeout(STOP_NODE, node),
            tokio::time::timeout(STOP_NODE, self.engine.close()),
        );
        if node.is_err() {
            tracing::warn!("the node was not checkpointed in time; the next start applies more");
        }
        if cache.is_err() {
            tracing::info!("the cache was not written in time; some of it is fetched again");
        }
    }
}

/// Listens for the public API, and for metrics.
async fn listen(env: &Env, config: &Config) -> Result<[Box<dyn Listener>; 2], ServeError> {
    let public = config.listen.public.0.to_string();
    let public = env.network.listen(&public).await;
    let public = public.map_err(ServeError::Listen)?;
    let metrics = env.network.listen(&config.metrics().to_string()).await;
    let metrics = metrics.map_err(|error| match config.listen.metrics {
        Some(_) => ServeError::ListenMetrics(error),
        None => ServeError::ListenDerived {
            error,
            public: public.address().to_owned(),
        },
    })?;
    Ok([public, metrics])
}

/// The bucket that `config` names.
pub(crate) fn open_bucket(
    env: &Env,
    config: &Config,
    environment: BTreeMap<String, String>,
) -> Result<Store, ServeError> {
    let options = esker_object::Options {
        environment,
        settings: config.object_store.settings.clone(),
        make_folder: true,
        ..esker_object::Options::default()
    };
    Ok(Store::open(&config.bucket(), &options, env)?)
}

/// Who we are, with a bucket that is ours. The identity is on disk before the claim is made under
/// it, so a founding that dies half-way goes on. With it, whether our claim was seen there now: a
/// bucket that is away may come back as another's.
async fn claimed(
    env: &Env,
    config: &Config,
    directory: &Directory,
    store: &Store,
) -> Result<(Identity, bool), ServeError> {
    let known = directory.alone(env)?;
    if let Some(identity) = known.filter(|known| known.claimed && known.begun) {
        let seen = still_ours(store, &identity).await?;
        return Ok((identity, seen));
    }
    store.probe().await?;
    if let Some(identity) = known.filter(|known| known.claimed) {
        // The log is about to begin; where something lies already, it has begun before.
        confirm(store, identity.cluster, identity.incarnation).await?;
        nothing_written(store, identity.incarnation).await?;
        return Ok((identity, true));
    }
    let founder = || Identity::founder(env, config.cluster.data_shards);
    let mut identity = known.unwrap_or_else(founder);
    directory.belongs_to(env, &identity)?;
    claim(store, identity.cluster, identity.incarnation).await?;
    identity.claimed = true;
    directory.belongs_to(env, &identity)?;
    Ok((identity, true))
}

/// Who says another number of shards than there are should not believe that it was heard.
fn tell_shards(config: &Config, identity: &Identity) {
    let (said, founded) = (config.cluster.data_shards, identity.data_shards);
    if config.cluster.is_said && said != founded {
        tracing::warn!(
            "cluster.data_shards is {said} in the configuration, and this cluster was founded with \
             {founded}: it keeps {founded}"
        );
    }
}

/// Nobody writes under our claim yet: what lies there half-written is of a life that was killed.
async fn remove_unfinished(store: &Store, identity: &Identity) {
    let ours = Prefix::Incarnation(identity.incarnation);
    match store.remove_unfinished(ours).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed objects that were never finished"),
        // They cost room, no more.
        Err(error) => {
            tracing::warn!(%error, "objects that were never finished stay where they are")
        }
    }
}

/// Looks again at a bucket that was ours already. One that is away keeps nobody from appending:
/// who keeps order in it looks again before each round. Returns whether our claim was seen.
async fn still_ours(store: &Store, identity: &Identity) -> Result<bool, ServeError> {
    let look = async {
        store.probe().await?;
        confirm(store, identity.cluster, identity.incarnation).await?;
        Ok(())
    };
    let why = match tokio::time::timeout(BUCKET_LOOK, look).await {
        Ok(Ok(())) => return Ok(true),
        Ok(Err(error)) if !is_away(&error) => return Err(error),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {BUCKET_LOOK:?}"),
    };
    tracing::warn!(
        why,
        "starting without the bucket; appends are taken as long as the head has room"
    );
    Ok(false)
}

fn is_away(error: &ServeError) -> bool {
    match error {
        ServeError::Bucket(error) | ServeError::Claim(ClaimError::Bucket(error)) => {
            matches!(error.kind(), Kind::Unavailable | Kind::Overloaded)
        }
        _ => false,
    }
}

const fn upkeep(config: &Config) -> UpkeepTimes {
    let Upkeep {
        checkpoint,
        retention,
        collect,
        grace,
    } = config.upkeep;
    UpkeepTimes {
        checkpoint: checkpoint.0,
        retention: retention.0,
        collect: collect.0,
        grace: grace.0,
    }
}

fn node_options(config: &Config) -> NodeOptions {
    NodeOptions {
        wal: WalOptions {
            file_bytes: config.wal.file.0,
            disk_bytes: config.wal.disk.0,
            memory_bytes: usize::try_from(config.wal.memory.0).unwrap_or(usize::MAX),
            ..WalOptions::default()
        },
        keeper: KeeperOptions::default(),
        head_bytes: config.head_bytes(),
    }
}

fn budgets(config: &Config) -> Budgets {
    let memory = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Budgets {
        append_bytes: memory(config.agent.append_memory.0),
        read_bytes: memory(config.agent.read_memory.0),
    }
}

/// What it holds in memory at most, by what it was told.
fn tell_memory(config: &Config) {
    let (head, cache) = (config.wal.memory.0, &config.cache);
    let (tail, backfill) = (cache.memory.0, cache.backfill_memory.0);
    let (appends, reads) = (config.agent.append_memory.0, config.agent.read_memory.0);
    // Bounded by the bytes of a flush: each holds its run and its segment.
    let flushes = 2 * FLUSHES_IN_FLIGHT as u64 * config.flush.bytes.0;
    let (opened, ahead) = (OPENED_SEGMENTS_BYTES as u64, READ_AHEAD_ALL_BYTES as u64);
    let sum = head + tail + backfill + appends + reads + flushes + opened + ahead;
    tracing::info!(
        sum,
        head,
        tail,
        backfill,
        appends,
        reads,
        flushes,
        opened,
        ahead,
        "memory budgets, in bytes"
    );
}

fn cache_settings(config: &Config) -> Settings {
    let memory = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let disk = config.cache.disk.0;
    Settings {
        tail_bytes: memory(config.cache.memory.0),
        backfill_bytes: memory(config.cache.backfill_memory.0),
        disk: (disk > 0).then(|| Disk {
            directory: cache_directory(&config.data_dir),
            bytes: disk,
        }),
    }
}

/// Where the cache lies. It may be deleted while no server runs.
pub(crate) fn cache_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("cache")
}

fn wal_stand(node: &Node, disk_bytes_max: u64) -> WalStand {
    let wal = Arc::clone(node.wal());
    WalStand::new(move || {
        let stats = wal.stats();
        v1::WalStatus {
            disk_bytes_max,
            disk_bytes: (stats.files + stats.spares) * wal.file_bytes(),
            room_bytes: wal.room(),
            files: u32::try_from(stats.files).unwrap_or(u32::MAX),
            spares: u32::try_from(stats.spares).unwrap_or(u32::MAX),
        }
    })
}
