//! A whole engine over a node on a simulated disk and a bucket in memory: everything but the wire.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_agent::{Agent, Cluster};
use esker_cache::BlockCache;
use esker_client::{Client, Options as ClientOptions};
use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_log::{
    AppendError, Appended, Engine, EngineOptions, FlushTriggers, NewAppend, Owner, Reader,
    UpkeepTimes, claim,
};
use esker_object::faults::FaultStore;
use esker_object::{Options, Store};
use esker_record::codec::Compression;
use esker_record::{Batch, Builder, NewRecord, Scratch};
use esker_shard::{RequestId, TopicConfig};
use esker_types::limits::{BATCH_BYTES_MAX, MIB};
use esker_types::{
    ClusterId, Incarnation, Lane, Offset, PartitionIndex, ProducerStamp, Timestamp, TopicName,
};
use esker_wal::disk::WalOptions;
use esker_wal::{Alone, KeeperOptions};
use esker_walnode::{Directory, Identity, Node, NodeError, NodeOptions};
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Where the public API is served.
pub const ENDPOINT: &str = "http://127.0.0.1:7070";

/// Sites made in this process so far. Memory buckets are found by name, and two tests that happened
/// to choose the same seed would otherwise write into each other's.
static SITES: AtomicU64 = AtomicU64::new(0);

/// What outlives the processes: a disk and a bucket.
#[derive(Debug)]
pub struct Site {
    pub disk: SimDisk,
    pub bucket: String,
    pub wal: WalOptions,
    pub flush: FlushTriggers,
    pub upkeep: UpkeepTimes,
    pub identity: Option<Identity>,
    /// How far the wall clock is ahead when a process starts.
    pub wall_ahead: Duration,
    seed: u64,
    lives: u64,
}

/// One life of the process.
#[derive(Debug)]
pub struct Whole {
    pub env: Env,
    pub clock: Arc<SimClock>,
    pub node: Node,
    pub engine: Engine,
    pub faults: FaultStore,
    pub owner: Owner,
    running: AbortHandle,
    /// Dropped, it ends whatever serves this engine.
    serving: watch::Sender<()>,
    /// What serves it.
    agents: Mutex<JoinSet<Result<(), Box<dyn Error + Send + Sync>>>>,
}

impl Site {
    pub fn new(seed: u64) -> Self {
        let wal = WalOptions {
            file_bytes: 1 << 20,
            group_bytes: 256 << 10,
            disk_bytes: 64 << 20,
            memory_bytes: 256 << 10,
            ..WalOptions::default()
        };
        Self {
            disk: SimDisk::new(seed),
            bucket: format!("whole-{seed}-{}", SITES.fetch_add(1, Ordering::Relaxed)),
            wal,
            flush: FlushTriggers {
                bytes: 256 << 10,
                age: Duration::from_secs(5),
            },
            upkeep: UpkeepTimes::default(),
            identity: None,
            wall_ahead: Duration::ZERO,
            seed,
            lives: 0,
        }
    }

    pub async fn start(&mut self) -> Result<Whole, NodeError> {
        self.lives += 1;
        let clock = Arc::new(SimClock::following_tokio());
        let ahead = i64::try_from(self.wall_ahead.as_millis());
        clock.jump_wall(ahead.expect("some years"));
        let env = Env {
            clock: Arc::<SimClock>::clone(&clock),
            entropy: Arc::new(SeededEntropy::new(self.seed << 8 | self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        };
        let options = NodeOptions {
            wal: self.wal.clone(),
            keeper: KeeperOptions::default(),
            head_bytes: self.wal.disk_bytes / 2,
        };
        let directory = Directory::take(&env, Path::new("/data")).await?;
        let identity = match directory.identity(&env)? {
            Some(identity) => identity,
            None => {
                let founder = Identity::founder(&env, 2);
                directory.belongs_to(&env, &founder)?;
                founder
            }
        };
        self.identity = Some(identity.clone());
        let mut node = Node::start(&env, directory, &identity, options, Arc::new(Alone)).await?;
        node.lead_alone().await?;
        let url = format!("memory://{}", self.bucket);
        let opened = Store::open_with_faults(&url, &Options::default(), &env);
        let (store, faults) = opened.expect("a bucket");
        let owner = Owner {
            cluster: identity.cluster,
            incarnation: identity.incarnation,
        };
        let claimed = claim(&store, owner.cluster, owner.incarnation).await;
        claimed.expect("nobody else has this bucket");
        let blocks = BlockCache::in_memory(32 * MIB, 32 * MIB).expect("large enough");
        let options = EngineOptions {
            flush: self.flush,
            upkeep: self.upkeep,
            ..EngineOptions::default()
        };
        let engine = Engine::new(node.head(), store, env.clone(), blocks, options);
        let running = engine.clone();
        let running = tokio::spawn(async move { running.run(owner).await }).abort_handle();
        Ok(Whole {
            env,
            clock,
            node,
            engine,
            faults,
            owner,
            running,
            serving: watch::Sender::default(),
            agents: Mutex::default(),
        })
    }
}

impl Whole {
    /// Ends the process in an orderly way.
    pub async fn close(self) {
        self.running.abort();
        drop(self.serving);
        drop(self.engine);
        self.node.close().await;
    }

    /// Ready when this process ends: what serves its engine must end then, too.
    pub fn ends(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.subscribe();
        async move { while serving.changed().await.is_ok() {} }
    }

    /// Serves the public API on the simulated network, and connects to it.
    pub async fn serve(&self) -> Client {
        self.serve_engine(self.engine.clone()).await
    }

    /// The same with another engine in the place of its own.
    pub async fn serve_engine(&self, engine: Engine) -> Client {
        let listener = self.env.network.listen("127.0.0.1:7070").await;
        let listener = listener.expect("nobody else listens");
        let cluster = Cluster {
            id: ClusterId(7),
            incarnation: Incarnation::FIRST,
            version: "test".into(),
            wal: None,
        };
        let agent = Agent::new(engine, self.env.clone(), cluster);
        let ends = self.ends();
        let serving = async move { Ok(agent.serve(listener, ends).await?) };
        self.agents.lock().await.spawn(serving);
        let connected = Client::connect(ENDPOINT, ClientOptions::default(), &self.env);
        connected.await.expect("it listens")
    }

    /// Asks what serves its engine to stop, and waits until it has.
    pub async fn stop_serving(&mut self) {
        drop(std::mem::take(&mut self.serving));
        while let Some(served) = self.agents.lock().await.join_next().await {
            served.expect("no panic").expect("it stops well");
        }
    }

    /// Stops flushing by itself.
    pub fn stop_flushing(&self) {
        self.running.abort();
    }

    pub async fn create(&self, name: &str, partitions: u32) {
        self.create_with(name, partitions, TopicConfig::default())
            .await;
    }

    pub async fn create_with(&self, name: &str, partitions: u32, config: TopicConfig) {
        let name = topic(name);
        let request = RequestId(self.env.entropy.next_u128());
        let topics = self.engine.topics();
        let created = topics.create(request, &name, partitions, config);
        created.await.expect("created");
    }

    pub async fn append(
        &self,
        name: &str,
        partition: u32,
        values: &[Vec<u8>],
        producer: Option<ProducerStamp>,
    ) -> Result<Appended, AppendError> {
        let new = NewAppend {
            topic: topic(name),
            partition: PartitionIndex(partition),
            batch: batch(values, producer),
            expected_end: None,
            fencing: None,
        };
        let appends = self.engine.appends();
        let ready = appends.check(new).await?;
        appends.submit(ready).await?.await
    }

    pub async fn reader(&self, name: &str, partition: u32, from: u64) -> Reader {
        let index = PartitionIndex(partition);
        let found = self.engine.topics().partition(&topic(name), index).await;
        let (_, shard, partition) = found.expect("it is there");
        let from = Offset::new(from).expect("small");
        let readers = self.engine.readers();
        let reader = readers.open(shard, partition, from, Lane::Tail).await;
        reader.expect("in range")
    }

    /// Every value from `from` to the end, with its offset.
    pub async fn read(&self, name: &str, partition: u32, from: u64) -> Vec<(u64, Vec<u8>)> {
        let mut reader = self.reader(name, partition, from).await;
        let mut values = Vec::new();
        loop {
            let chunk = reader.step().await.expect("readable");
            if chunk.batches.is_empty() {
                return values;
            }
            for batch in chunk.batches {
                let of_batch = values_of(batch.range.start(), batch.bytes);
                values.extend(of_batch.into_iter().filter(|(offset, _)| *offset >= from));
            }
        }
    }
}

pub fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a name")
}

/// A plain batch of `values`, a millisecond apart from 1000 on.
pub fn batch(values: &[Vec<u8>], producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_MAX);
    for (number, value) in (0..).zip(values) {
        let record = NewRecord::value(Timestamp(1000 + number), value);
        builder.push(&record).expect("small");
    }
    builder.finish(producer).expect("not empty").into_bytes()
}

fn values_of(base: Offset, bytes: Bytes) -> Vec<(u64, Vec<u8>)> {
    let batch = Batch::open(bytes).expect("whole");
    let mut scratch = Scratch::new(MIB);
    let plain = scratch.decode(&batch).expect("it was admitted once");
    let values = plain.records().map(|record| {
        let record = record.expect("it was admitted once");
        record.value.unwrap_or_default().to_vec()
    });
    (base.get()..).zip(values).collect()
}
