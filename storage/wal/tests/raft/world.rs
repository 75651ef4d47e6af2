//! A disk, and one voter after the other on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_env::{Env, Files as _};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, CommitSegment, Genesis, ObjectChecksum, Outcome, PutTopic,
    TopicConfig,
};
use esker_types::limits::GIB;
use esker_types::{
    ContentHash, Incarnation, LeaderEpoch, NodeId, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, ProducerStamp, RaftIndex, SegmentId, Sequence, ShardId, ShardTime, Timestamp,
    TopicId, TopicName, TopicVersion,
};
use esker_wal::disk::{Checkpoints, Recovery, Wal, WalOptions};
use esker_wal::peers::Peers;
use esker_wal::{Alone, AppendAnswer, Appender, Error, Keeper, KeeperOptions, Replica, Share};

pub(crate) const SHARD: ShardId = ShardId(1);

pub(crate) fn topic() -> TopicId {
    TopicId::new(Incarnation::FIRST, 1).expect("a small sequence")
}

pub(crate) fn partition() -> PartitionId {
    PartitionId {
        topic: topic(),
        index: PartitionIndex(0),
    }
}

/// Somebody else takes all that is free on `disk`.
pub(crate) fn crowd(disk: &SimDisk) {
    let capacity = 1 << 40;
    disk.set_capacity(capacity);
    let free = disk.space(Path::new("/")).expect("told").free;
    disk.set_capacity(capacity - free);
}

/// A disk, and how the logs on it are laid out.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) options: WalOptions,
    pub(crate) lives: u64,
    /// Goes on from life to life, from the first on.
    pub(crate) clock: Option<Arc<SimClock>>,
    seed: u64,
}

/// One life of a node.
pub(crate) struct Node {
    pub(crate) env: Env,
    pub(crate) wal: Arc<Wal>,
    pub(crate) replica: Replica,
    pub(crate) appender: Appender,
    pub(crate) recovery: Recovery,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let options = WalOptions {
            file_bytes: 256 << 10,
            group_bytes: 64 << 10,
            disk_bytes: 8 << 20,
            memory_bytes: 64 << 10,
            ..WalOptions::default()
        };
        Self {
            disk: SimDisk::new(seed),
            options,
            lives: 0,
            clock: None,
            seed,
        }
    }

    pub(crate) fn env(&mut self) -> Env {
        self.lives += 1;
        let clock = self
            .clock
            .get_or_insert_with(|| Arc::new(SimClock::following_tokio()));
        Env {
            clock: Arc::<SimClock>::clone(clock),
            entropy: Arc::new(SeededEntropy::new(self.seed << 8 | self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        }
    }

    /// Rots a bit of the payload of `number` wherever it stands in the log. How often that was.
    pub(crate) fn strike(&self, number: u64, bytes: usize) -> usize {
        let looked_for = payload(number, bytes);
        let paths = self.disk.list(Path::new("/wal")).expect("it was opened");
        let mut struck = 0;
        for path in paths.iter().filter(|path| path.extension().is_some()) {
            let strike = |file: &mut Vec<u8>| {
                let starts = memmem(file, &looked_for);
                struck += starts.len();
                starts.iter().for_each(|at| file[at + bytes / 2] ^= 1);
            };
            self.disk.edit(path, strike).expect("it is listed");
        }
        struck
    }

    pub(crate) async fn open(
        &self,
        env: &Env,
        covered: BTreeMap<ShardId, RaftIndex>,
    ) -> Result<(Arc<Wal>, Recovery), Error> {
        let (directory, on_fatal) = (Path::new("/wal"), Arc::new(|_: &_| {}));
        Wal::open(env, directory, self.options.clone(), covered, on_fatal).await
    }

    /// The replica of `node`, on what this disk holds.
    pub(crate) async fn replica(
        &self,
        env: &Env,
        node: NodeId,
        peers: Arc<dyn Peers>,
    ) -> Result<(Replica, Recovery), Error> {
        let checkpoints = Checkpoints::open(env, Path::new("/checkpoints"))?;
        let covered: BTreeMap<_, _> = checkpoints
            .indexes()?
            .into_iter()
            .map(|(shard, id)| (shard, id.index))
            .collect();
        let (wal, recovery) = self.open(env, covered).await?;
        let genesis = Genesis {
            shard: SHARD,
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        };
        let replica = Replica::open(env, wal, checkpoints, node, genesis, peers).await?;
        Ok((replica, recovery))
    }

    pub(crate) async fn start(&mut self) -> Result<Node, Error> {
        let env = self.env();
        let (replica, recovery) = self.replica(&env, node_id(1), Arc::new(Alone)).await?;
        replica.found(&alone(node_id(1))).await?;
        replica.lead().await.map_err(|error| Error::Raft {
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
            wal: Arc::clone(replica.wal()),
            replica,
            appender,
            recovery,
        })
    }
}

/// What makes the topic.
pub(crate) fn put_topic() -> Command {
    Command::PutTopic(PutTopic {
        topic: topic(),
        name: TopicName::new("t").expect("a name"),
        version: TopicVersion(1),
        config: TopicConfig::default(),
        partitions: vec![PartitionIndex(0)],
    })
}

pub(crate) fn node_id(sequence: u64) -> NodeId {
    NodeId::new(Incarnation::FIRST, sequence).expect("a small sequence")
}

/// `node` as the only voter.
pub(crate) fn alone(node: NodeId) -> BTreeMap<NodeId, String> {
    BTreeMap::from([(node, String::new())])
}

impl Node {
    pub(crate) async fn propose(&self, command: Command) -> Outcome {
        let outcome = self
            .replica
            .propose(&command, Vec::new())
            .await
            .expect("it leads");
        outcome.await.expect("applied").1
    }

    pub(crate) async fn put_topic(&self) {
        let outcome = self.propose(put_topic()).await;
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
    }

    pub(crate) async fn append(&self, number: u64, bytes: usize) -> AppendAnswer {
        self.appender
            .append(batch(number, bytes), payload(number, bytes))
            .await?
            .await
    }

    /// Commits a segment that holds all of the head, as a flusher would once it is in the bucket.
    pub(crate) async fn flush(&self) -> Option<RaftIndex> {
        let state = self.replica.state();
        let plan = state.flush_plan(u64::MAX, RaftIndex(u64::MAX))?;
        let commit = CommitSegment {
            segment: SegmentId(u128::from(plan.raft.to.0)),
            length: plan.bytes,
            checksum: ObjectChecksum(7),
            raft: plan.raft,
            ranges: plan.ranges,
        };
        match self.propose(Command::CommitSegment(commit)).await {
            Outcome::SegmentCommitted { flush_position } => Some(flush_position),
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) fn keeper(&self, options: KeeperOptions) -> Keeper {
        let replicas = vec![self.replica.clone()];
        Keeper::new(
            Arc::clone(&self.wal),
            replicas,
            Arc::clone(&self.env.clock),
            options,
        )
    }

    /// Every batch of the head, in order, as a reader gets it.
    pub(crate) async fn head(&self) -> Vec<(u64, Bytes)> {
        let state = self.replica.state();
        let data = state.data().expect("a data shard");
        let Some(known) = data.partition(partition()) else {
            return Vec::new();
        };
        let mut offset = known.tiered_end().max(known.log_start());
        let mut read = Vec::new();
        while let Some(position) = data.head_lookup(partition(), offset) {
            let bytes = self
                .replica
                .read_batches(&[position])
                .await
                .expect("readable");
            let bytes = bytes.expect("held while a state names it").remove(0);
            read.push((offset.get(), bytes));
            offset = position.batch.range.end();
        }
        assert_eq!(offset, known.end(), "the head has a gap");
        read
    }

    pub(crate) async fn stop(self) {
        self.replica.close().await;
    }
}

pub(crate) fn producer() -> ProducerId {
    ProducerId::new(Incarnation::FIRST, 1).expect("a small sequence")
}

/// One record, numbered by its producer.
pub(crate) fn batch(number: u64, bytes: usize) -> AppendBatch {
    let sequence = i32::try_from(number)
        .ok()
        .and_then(Sequence::from_i32)
        .expect("few");
    AppendBatch {
        partition: partition(),
        bytes: u32::try_from(bytes).expect("small"),
        records: 1,
        base_timestamp: Timestamp(0),
        max_timestamp: Timestamp(0),
        producer: Some(ProducerStamp {
            id: producer(),
            epoch: ProducerEpoch::FIRST,
            sequence,
        }),
        hash: ContentHash(u128::from(number)),
        expected_end: None,
        fencing: None,
    }
}

pub(crate) fn payload(number: u64, bytes: usize) -> Bytes {
    number
        .to_le_bytes()
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect()
}

/// Where `what` stands in `bytes`.
fn memmem(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == what[0]) {
        from += at;
        let stands = bytes[from..].starts_with(what);
        found.extend(stands.then_some(from));
        from += if stands { what.len() } else { 1 };
    }
    found
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test)
}

pub(crate) fn accepted(answer: AppendAnswer) -> u64 {
    match answer.expect("answered").1 {
        AppendOutcome::Accepted { range, .. } | AppendOutcome::Duplicate { range } => {
            range.start().get()
        }
        AppendOutcome::Rejected(error) => unreachable!("{error}"),
    }
}
