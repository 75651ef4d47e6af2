//! Many shards on one disk that has no room left: each is refused, none waits for ever, and what
//! makes room gets through.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::sim::{SimClock, SimDisk};
use esker_env::{Env, Files as _};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, CommitSegment, Genesis, ObjectChecksum, Outcome, PutTopic,
    TopicConfig,
};
use esker_types::limits::GIB;
use esker_types::{
    ContentHash, Durability, Incarnation, LeaderEpoch, NodeId, PartitionId, PartitionIndex,
    RaftIndex, SegmentId, ShardId, ShardTime, Timestamp, TopicId, TopicName, TopicVersion,
};
use esker_wal::disk::{Checkpoints, Wal, WalOptions};
use esker_wal::{
    Alone, AppendAnswer, AppendRefusal, Appender, Error, Keeper, KeeperOptions, ProposeError,
    Replica, Share,
};

use super::world::crowd;

const SHARDS: u32 = 8;
const FILE_BYTES: u64 = 256 << 10;
/// Longer than anything waits that is not stalled.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    disk: SimDisk,
    options: WalOptions,
    lives: u64,
}

struct Node {
    wal: Arc<Wal>,
    shards: Vec<Shard>,
    keeper: Keeper,
}

struct Shard {
    replica: Replica,
    appender: Appender,
}

impl World {
    fn new(seed: u64) -> Self {
        let options = WalOptions {
            file_bytes: FILE_BYTES,
            group_bytes: 64 << 10,
            disk_bytes: 32 * FILE_BYTES,
            memory_bytes: 64 << 10,
            shards: SHARDS as usize,
            ..WalOptions::default()
        };
        Self {
            disk: SimDisk::new(seed),
            options,
            lives: 0,
        }
    }

    async fn start(&mut self) -> Result<Node, Error> {
        self.lives += 1;
        let env = Env {
            clock: Arc::new(SimClock::following_tokio()),
            files: Arc::new(self.disk.mount()),
            ..Env::simulated(self.lives).0
        };
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints"))?;
        let covered: BTreeMap<_, _> = checkpoints
            .indexes()?
            .into_iter()
            .map(|(shard, id)| (shard, id.index))
            .collect();
        let (directory, options) = (Path::new("/wal"), self.options.clone());
        let on_fatal = Arc::new(|fatal: &_| unreachable!("the log ended: {fatal}"));
        let (wal, _) = Wal::open(&env, directory, options, covered, on_fatal).await?;
        let mut shards = Vec::new();
        for shard in (1..=SHARDS).map(ShardId) {
            let genesis = Genesis {
                shard,
                incarnation: Incarnation::FIRST,
                epoch_base: LeaderEpoch(0),
                data_shards: SHARDS,
            };
            let node = NodeId::new(Incarnation::FIRST, 1).expect("a small sequence");
            let (wal, checkpoints) = (Arc::clone(&wal), checkpoints.clone());
            let replica =
                Replica::open(&env, wal, checkpoints, node, genesis, Arc::new(Alone)).await?;
            replica
                .found(&BTreeMap::from([(node, String::new())]))
                .await?;
            replica.lead().await.expect("a single voter leads");
            let appender = Appender::start(
                replica.clone(),
                Arc::clone(&env.clock),
                Share::of(GIB),
                Arc::new(|| ShardTime::ZERO),
            );
            shards.push(Shard { replica, appender });
        }
        let replicas = shards.iter().map(|shard| shard.replica.clone()).collect();
        let options = KeeperOptions {
            files_held: 1,
            age: Duration::ZERO,
            ..KeeperOptions::default()
        };
        let keeper = Keeper::new(Arc::clone(&wal), replicas, Arc::clone(&env.clock), options);
        Ok(Node {
            wal,
            shards,
            keeper,
        })
    }
}

impl Node {
    async fn put_topics(&self) {
        for shard in &self.shards {
            let outcome = shard.propose(shard.put_topic(1)).await.expect("room");
            assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
        }
    }

    /// Appends to all shards in turn, without waiting for answers, until each was refused. Returns
    /// how many appends of each were taken, and the refusals.
    async fn fill(&self, bytes: usize) -> (Vec<u64>, Vec<AppendRefusal>) {
        let mut answers: Vec<Vec<_>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut refusals: Vec<Option<AppendRefusal>> = vec![None; self.shards.len()];
        let firsts: Vec<_> = self.shards.iter().map(Shard::end).collect();
        for _ in 0..1000 {
            for (at, shard) in self.shards.iter().enumerate() {
                if refusals[at].is_some() {
                    continue;
                }
                let number = firsts[at] + answers[at].len() as u64;
                // All at once: neither the writer nor anybody else runs before one has to wait.
                match within(tokio::task::unconstrained(shard.queue(number, bytes))).await {
                    Ok(answer) => answers[at].push(answer),
                    Err(refused) => refusals[at] = Some(refused),
                }
            }
            if refusals.iter().all(Option::is_some) {
                break;
            }
        }
        let mut taken = Vec::new();
        for answers in answers {
            taken.push(answers.len() as u64);
            for answer in answers {
                let (_, outcome) = within(answer).await.expect("it was admitted");
                assert!(matches!(outcome, AppendOutcome::Accepted { .. }));
            }
        }
        let refusals = refusals.into_iter();
        let refusals = refusals.map(|refused| refused.expect("a disk that is never full"));
        (taken, refusals.collect())
    }

    /// What the log needs to let go of what is flushed: a checkpoint, a purge, a release.
    async fn keep(&mut self) {
        for _ in 0..3 {
            within(self.keeper.turn()).await.expect("kept");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn stop(self) {
        for shard in &self.shards {
            shard.replica.close().await;
        }
    }
}

impl Shard {
    fn partition(&self) -> PartitionId {
        let index = PartitionIndex(self.replica.shard().0);
        let topic = TopicId::new(Incarnation::FIRST, 1).expect("a small sequence");
        PartitionId { topic, index }
    }

    fn put_topic(&self, version: u64) -> Command {
        Command::PutTopic(PutTopic {
            topic: self.partition().topic,
            name: TopicName::new("t").expect("a name"),
            version: TopicVersion(version),
            config: TopicConfig::default(),
            partitions: vec![self.partition().index],
        })
    }

    async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let outcome = within(self.replica.propose(&command, Vec::new())).await?;
        within(outcome).await.map(|(_, outcome)| outcome)
    }

    /// Queues a batch that tells its number.
    async fn queue(
        &self,
        number: u64,
        bytes: usize,
    ) -> Result<impl Future<Output = AppendAnswer> + use<>, AppendRefusal> {
        let batch = AppendBatch {
            partition: self.partition(),
            bytes: u32::try_from(bytes).expect("small"),
            records: 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer: None,
            hash: ContentHash(u128::from(number)),
            expected_end: None,
            fencing: None,
        };
        let payload: Bytes = number
            .to_le_bytes()
            .iter()
            .copied()
            .cycle()
            .take(bytes)
            .collect();
        self.appender.append(batch, payload).await
    }

    fn end(&self) -> u64 {
        let state = self.replica.state();
        let known = state
            .data()
            .and_then(|data| data.partition(self.partition()));
        known.map_or(0, |known| known.end().get())
    }

    /// Commits a segment of all of the head, as a flusher would once it is in the bucket.
    async fn flush(&self) -> Result<(), ProposeError> {
        let state = self.replica.state();
        let Some(plan) = state.flush_plan(u64::MAX, RaftIndex(u64::MAX)) else {
            return Ok(());
        };
        let commit = Command::CommitSegment(CommitSegment {
            segment: SegmentId(u128::from(plan.raft.to.0)),
            length: plan.bytes,
            checksum: ObjectChecksum(7),
            raft: plan.raft,
            ranges: plan.ranges,
        });
        let outcome = self.propose(commit).await?;
        assert!(
            matches!(outcome, Outcome::SegmentCommitted { .. }),
            "{outcome:?}"
        );
        Ok(())
    }

    /// The numbers of all batches of the head, as they are read back.
    async fn head(&self) -> Vec<u64> {
        let state = self.replica.state();
        let data = state.data().expect("a data shard");
        let known = data.partition(self.partition()).expect("known");
        let mut offset = known.tiered_end();
        let mut numbers = Vec::new();
        while let Some(position) = data.head_lookup(self.partition(), offset) {
            let bytes = self
                .replica
                .read_batches(&[position])
                .await
                .expect("readable");
            let bytes = bytes.expect("held while a state names it").remove(0);
            numbers.push(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")));
            offset = position.batch.range.end();
        }
        assert_eq!(offset, known.end(), "the head has a gap");
        numbers
    }
}

/// Nothing that this file waits for takes long on a log that is not stalled.
async fn within<T>(what: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, what).await;
    waited.expect("it waits for ever")
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test)
}

/// Fills the disk from all shards at once, makes room, fills it again, comes back from a restart.
async fn fill_and_flush(world: &mut World, sizes: &[usize]) -> u64 {
    let mut node = world.start().await.expect("a fresh node");
    node.put_topics().await;
    let mut ends = vec![0; SHARDS as usize];
    let mut flushed = ends.clone();
    for (round, bytes) in sizes.iter().enumerate() {
        // What was owed at worst and not used is room again: until nothing more goes in.
        let before: u64 = ends.iter().sum();
        for _ in 0..100 {
            let (taken, refusals) = node.fill(*bytes).await;
            for refusal in &refusals {
                let full = matches!(refusal, AppendRefusal::DiskFull { .. });
                assert!(
                    full && refusal.durability() == Durability::NotWritten,
                    "{refusal}"
                );
            }
            ends.iter_mut()
                .zip(&taken)
                .for_each(|(end, taken)| *end += taken);
            if taken.iter().sum::<u64>() == 0 {
                break;
            }
        }
        let written = ends.iter().sum::<u64>() - before;
        assert!(
            written > 20,
            "round {round}: {written} appends of {bytes} bytes are too few"
        );
        // What makes no room waits outside with the appends.
        let first = &node.shards[0];
        let tick = Command::Tick { time: ShardTime(1) };
        let mut refused = None;
        for _ in 0..1000 {
            refused = first.propose(tick.clone()).await.err();
            if refused.is_some() {
                break;
            }
        }
        let refused = refused.expect("ticks have no end");
        assert!(refused.to_string().contains("bytes of room"), "{refused}");
        // Deleting a topic begins and ends at the catalog, and makes room like what lies between.
        // A data shard takes neither; the log does.
        let topic = first.partition().topic;
        let shard = first.replica.shard();
        for deletes in [
            Command::DeleteTopic { topic },
            Command::TopicEnded { topic, shard },
        ] {
            let outcome = first.propose(deletes).await.expect("the reserve takes it");
            assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        }

        // A kill here, at the worst moment, loses nothing, and the next life has room to start in.
        if round % 2 == 0 {
            node.stop().await;
            node = world.start().await.expect("it comes back");
        }
        for ((shard, end), flushed) in node.shards.iter().zip(&ends).zip(&flushed) {
            let expected: Vec<_> = (*flushed..*end).collect();
            assert_eq!(shard.head().await, expected, "round {round}");
        }
        for shard in &node.shards {
            shard.flush().await.expect("the reserve takes it");
        }
        flushed.clone_from(&ends);
        node.keep().await;
    }
    let room = node.wal.room();
    node.stop().await;
    room
}

#[test]
fn shards_that_fill_the_disk_together_are_refused_and_their_flushes_get_through() {
    for (seed, sizes) in [[9000; 4], [40_000; 4], [2000, 50_000, 9000, 3000]]
        .iter()
        .enumerate()
    {
        run(async {
            let mut world = World::new(seed as u64);
            let room = fill_and_flush(&mut world, sizes).await;
            assert!(
                room > 8 * FILE_BYTES,
                "{sizes:?}: {room} bytes of room at the end"
            );
        });
    }
}

#[test]
fn a_disk_smaller_than_the_budget_is_found_full_before_anybody_leans_on_it() {
    for files in [16, 21] {
        run(async {
            let mut world = World::new(files);
            world.disk.set_capacity(files * FILE_BYTES);
            let room = fill_and_flush(&mut world, &[9000, 40_000, 2000]).await;
            assert!(
                room > FILE_BYTES,
                "{files} files: {room} bytes of room at the end"
            );
            let free = world.disk.space(Path::new("/")).expect("told").free;
            assert!(free > 0, "checkpoints had no room");
        });
    }
}

#[test]
fn a_shard_that_cannot_flush_stops_alone() {
    run(async {
        let mut world = World::new(3);
        world.options.disk_bytes = 24 * FILE_BYTES;
        let mut node = world.start().await.expect("a fresh node");
        node.put_topics().await;
        // What the first shard holds is never flushed, and lies in the oldest file.
        for number in 0..20 {
            let answer = within(node.shards[0].queue(number, 9000))
                .await
                .expect("room");
            within(answer).await.expect("written");
        }
        node.shards[0].appender.set_share(Share::of(1));
        for round in 0..15 {
            for shard in &node.shards[1..] {
                for _ in 0..10 {
                    let queued = within(shard.queue(shard.end(), 9000)).await;
                    let answer =
                        queued.unwrap_or_else(|refused| unreachable!("{round}: {refused}"));
                    within(answer).await.expect("written");
                }
                shard.flush().await.expect("room");
            }
            node.keep().await;
        }
        let held: Vec<_> = (0..20).collect();
        assert_eq!(node.shards[0].head().await, held);
    });
}

#[test]
fn a_disk_that_somebody_else_fills_costs_no_node_its_life() {
    for checkpointed in [false, true] {
        run(async {
            let mut world = World::new(4);
            let mut node = world.start().await.expect("a fresh node");
            node.put_topics().await;
            if checkpointed {
                node.keep().await;
                for shard in &node.shards {
                    shard.flush().await.expect("room");
                }
                node.keep().await;
            }
            let mut ends = vec![0; SHARDS as usize];
            let before: Vec<_> = checkpoints(&node);
            crowd(&world.disk);
            // What appends leave to do, checkpoints among it, goes on around them.
            for round in 0..3 {
                let (taken, refusals) = node.fill(9000).await;
                for (end, taken) in ends.iter_mut().zip(&taken) {
                    *end += taken;
                }
                for refusal in refusals {
                    let full = matches!(refusal, AppendRefusal::DiskFull { .. });
                    let durability = refusal.durability();
                    assert!(full && durability == Durability::NotWritten, "{refusal}");
                    let told = refusal.to_string();
                    assert!(told.contains("file system that it is on is full"), "{told}");
                }
                if round == 0 {
                    for shard in &node.shards {
                        shard.flush().await.expect("the reserve takes it");
                    }
                }
                node.keep().await;
            }
            assert_eq!(checkpoints(&node), before, "there is no room for any");
            assert!(node.wal.stats().disk_full);
            let left = world.disk.list(Path::new("/checkpoints")).expect("listed");
            let part = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "tmp");
            assert!(!left.iter().any(part), "{left:?}");
            for (shard, end) in node.shards.iter().zip(&ends) {
                assert_eq!(shard.end(), *end, "readable");
            }
            world.disk.set_capacity(1 << 40);
            node.keep().await;
            for (now, before) in checkpoints(&node).iter().zip(&before) {
                assert!(now > before, "{now} after {before}");
            }
            assert!(!node.wal.stats().disk_full);
            let (taken, _) = node.fill(9000).await;
            assert!(taken.iter().sum::<u64>() > 20, "{taken:?}");
            for (end, taken) in ends.iter_mut().zip(&taken) {
                *end += taken;
            }
            node.stop().await;
            let node = world.start().await.expect("it comes back");
            for (shard, end) in node.shards.iter().zip(&ends) {
                assert_eq!(shard.end(), *end, "all of it");
            }
        });
    }
}

fn checkpoints(node: &Node) -> Vec<RaftIndex> {
    let shards = node.shards.iter();
    shards.map(|shard| shard.replica.checkpointed().0).collect()
}
