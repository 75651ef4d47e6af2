//! One WAL node on a simulated disk, with one data shard that it leads.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_record::codec::Compression;
use esker_record::{Builder, Depth, NewRecord, Rules, Scratch, admit};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, CommitSegment, Genesis, ObjectChecksum, Outcome, PutTopic,
    TopicConfig,
};
use esker_types::limits::{BATCH_BYTES_DEFAULT, GIB, MIB};
use esker_types::{
    Incarnation, LeaderEpoch, NodeId, PartitionId, PartitionIndex, ProducerStamp, RaftIndex,
    SegmentId, ShardId, ShardTime, Timestamp, TopicId, TopicName, TopicVersion,
};
use esker_wal::disk::{Checkpoints, Recovery, Wal, WalOptions};
use esker_wal::{Alone, AppendAnswer, Appender, Error, Keeper, KeeperOptions, Replica, Share};
use esker_walnode::{Led, LocalHead};
use tokio::runtime::RngSeed;
use tokio::sync::watch;

pub const SHARD: ShardId = ShardId(1);

pub fn topic() -> TopicId {
    TopicId::new(Incarnation::FIRST, 1).expect("a small sequence")
}

pub fn partition(index: u32) -> PartitionId {
    PartitionId {
        topic: topic(),
        index: PartitionIndex(index),
    }
}

/// A disk that outlives the nodes on it.
#[derive(Debug)]
pub struct World {
    pub disk: SimDisk,
    pub options: WalOptions,
    seed: u64,
    lives: u64,
}

/// One life of the node.
#[derive(Debug)]
pub struct Node {
    pub env: Env,
    pub wal: Arc<Wal>,
    pub replica: Replica,
    pub appender: Appender,
    pub recovery: Recovery,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let options = WalOptions {
            file_bytes: 1 << 20,
            group_bytes: 256 << 10,
            disk_bytes: 32 << 20,
            memory_bytes: 256 << 10,
            ..WalOptions::default()
        };
        Self {
            disk: SimDisk::new(seed),
            options,
            seed,
            lives: 0,
        }
    }

    /// The world as a process sees it that starts now.
    pub fn env(&mut self) -> Env {
        self.lives += 1;
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(self.seed << 8 | self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        }
    }

    pub async fn start(&mut self) -> Result<Node, Error> {
        let env = self.env();
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints"))?;
        let covered: BTreeMap<_, _> = checkpoints
            .indexes()?
            .into_iter()
            .map(|(shard, id)| (shard, id.index))
            .collect();
        let (directory, options) = (Path::new("/wal"), self.options.clone());
        let opened = Wal::open(&env, directory, options, covered, Arc::new(|_: &_| {})).await?;
        let (wal, recovery) = opened;
        let genesis = Genesis {
            shard: SHARD,
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        };
        let node = NodeId::new(Incarnation::FIRST, 1).expect("a small sequence");
        let (log, alone) = (Arc::clone(&wal), Arc::new(Alone));
        let replica = Replica::open(&env, log, checkpoints, node, genesis, alone).await?;
        replica
            .found(&BTreeMap::from([(node, String::new())]))
            .await?;
        let led = replica.lead().await;
        led.map_err(|error| Error::Raft {
            shard: SHARD,
            what: error.to_string(),
        })?;
        let appender = Appender::start(
            replica.clone(),
            Arc::clone(&env.clock),
            Share::of(GIB),
            Arc::new(|| ShardTime::ZERO),
        );
        Ok(Node {
            env,
            wal,
            replica,
            appender,
            recovery,
        })
    }
}

impl Node {
    pub fn head(&self) -> Arc<LocalHead> {
        let led = Led {
            replica: self.replica.clone(),
            appender: Some(self.appender.clone()),
        };
        // No keeper runs by itself here, so nobody waits for the oldest file.
        let (_, holders) = watch::channel(Arc::default());
        Arc::new(LocalHead::new(
            [led],
            holders,
            Arc::clone(&self.wal),
            Arc::clone(&self.env.workers),
            Arc::clone(&self.env.clock),
        ))
    }

    pub async fn propose(&self, command: Command) -> Outcome {
        let outcome = self
            .replica
            .propose(&command, Vec::new())
            .await
            .expect("it leads");
        outcome.await.expect("applied").1
    }

    pub async fn put_topic(&self, partitions: u32) {
        let put = PutTopic {
            topic: topic(),
            name: TopicName::new("gravel").expect("a name"),
            version: TopicVersion(1),
            config: TopicConfig::default(),
            partitions: (0..partitions).map(PartitionIndex).collect(),
        };
        let outcome = self.propose(Command::PutTopic(put)).await;
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
    }

    /// Appends a batch of `values`; the offset of the first.
    pub async fn append(&self, partition: PartitionId, values: &[Vec<u8>]) -> u64 {
        match self
            .try_append(partition, values)
            .await
            .expect("answered")
            .1
        {
            AppendOutcome::Accepted { range, .. } => range.start().get(),
            other => unreachable!("{other:?}"),
        }
    }

    pub async fn try_append(&self, partition: PartitionId, values: &[Vec<u8>]) -> AppendAnswer {
        let (batch, bytes) = batch(partition, values, None);
        self.appender.append(batch, bytes).await?.await
    }

    /// Commits a segment that holds all of the head, as a flusher would once it is in the bucket.
    pub async fn flush(&self) {
        let state = self.replica.state();
        let plan = state.flush_plan(u64::MAX, RaftIndex(u64::MAX));
        let plan = plan.expect("something to flush");
        let commit = CommitSegment {
            segment: SegmentId(u128::from(plan.raft.to.0)),
            length: plan.bytes,
            checksum: ObjectChecksum(7),
            raft: plan.raft,
            ranges: plan.ranges,
        };
        let outcome = self.propose(Command::CommitSegment(commit)).await;
        assert!(
            matches!(outcome, Outcome::SegmentCommitted { .. }),
            "{outcome:?}"
        );
    }

    pub fn keeper(&self, options: KeeperOptions) -> Keeper {
        let replicas = vec![self.replica.clone()];
        Keeper::new(
            Arc::clone(&self.wal),
            replicas,
            Arc::clone(&self.env.clock),
            options,
        )
    }
}

/// A batch of `values` as an agent would hand it on, its deep check passed.
pub fn batch(
    partition: PartitionId,
    values: &[Vec<u8>],
    producer: Option<ProducerStamp>,
) -> (AppendBatch, Bytes) {
    let mut builder = Builder::new(Compression::None, BATCH_BYTES_DEFAULT);
    for (number, value) in (0..).zip(values) {
        builder
            .push(&NewRecord::value(Timestamp(1000 + number), value))
            .expect("small");
    }
    let batch = builder.finish(producer).expect("not empty");
    let rules = Rules {
        depth: Depth::Deep,
        batch_bytes_max: BATCH_BYTES_DEFAULT,
    };
    let checked = admit(batch.into_bytes(), &rules, &mut Scratch::new(MIB)).expect("a good batch");
    let header = checked.batch.header();
    let described = AppendBatch {
        partition,
        bytes: u32::try_from(header.bytes).expect("small"),
        records: header.records,
        base_timestamp: header.base_timestamp,
        max_timestamp: header.max_timestamp,
        producer,
        hash: checked.hash,
        expected_end: None,
        fencing: None,
    };
    (described, checked.batch.into_bytes())
}

/// Runs a test on one thread, with time that passes only when everybody waits.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    run_seeded(0, test)
}

/// The same, with the scheduler's own choices drawn from `seed`.
pub fn run_seeded<T>(seed: u64, test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime")
        .block_on(test)
}
