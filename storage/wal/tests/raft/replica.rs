//! A single voter on a simulated disk: append, die, come back.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::{Crash, Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_shard::{
    AppendBatch, AppendOutcome, Command, CommitSegment, Genesis, ObjectChecksum, Outcome, PutTopic,
    TopicConfig, Trim,
};
use esker_types::limits::GIB;
use esker_types::{
    ContentHash, Durability, EntryId, Incarnation, LeaderEpoch, NodeId, Offset, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerStamp, RaftIndex, SegmentId, Sequence,
    ShardId, Term, Timestamp, TopicId, TopicName, TopicVersion,
};
use esker_wal::disk::{Checkpoints, Recovery, Wal, WalOptions};
use esker_wal::raft::LogStore;
use esker_wal::raft::types::{Entry, Payload, RaftVote, log_id};
use esker_wal::{
    Alone, AppendAnswer, AppendRefusal, Appender, Error, Keeper, KeeperOptions, Replica, Share,
};
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};

const SHARD: ShardId = ShardId(1);

fn topic() -> TopicId {
    TopicId::new(Incarnation::FIRST, 1).expect("a small sequence")
}

fn partition() -> PartitionId {
    PartitionId {
        topic: topic(),
        index: PartitionIndex(0),
    }
}

/// A disk, and how the logs on it are laid out.
struct World {
    disk: SimDisk,
    options: WalOptions,
    lives: u64,
}

/// One life of a node.
struct Node {
    env: Env,
    wal: Arc<Wal>,
    replica: Replica,
    appender: Appender,
    recovery: Recovery,
}

impl World {
    fn new(seed: u64) -> Self {
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
        }
    }

    fn env(&mut self) -> Env {
        self.lives += 1;
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        }
    }

    async fn open(
        &self,
        env: &Env,
        covered: BTreeMap<ShardId, RaftIndex>,
    ) -> Result<(Arc<Wal>, Recovery), Error> {
        let (directory, on_fatal) = (Path::new("/wal"), Arc::new(|_: &_| {}));
        Wal::open(env, directory, self.options.clone(), covered, on_fatal).await
    }

    async fn start(&mut self) -> Result<Node, Error> {
        let env = self.env();
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints"))?;
        let covered: BTreeMap<_, _> = checkpoints
            .indexes()?
            .into_iter()
            .map(|(shard, id)| (shard, id.index))
            .collect();
        let (wal, recovery) = self.open(&env, covered).await?;
        let genesis = Genesis {
            shard: SHARD,
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        };
        let node = NodeId::new(Incarnation::FIRST, 1).expect("a small sequence");
        let replica =
            Replica::open(&env, Arc::clone(&wal), checkpoints, node, genesis, Alone).await?;
        replica.found_alone().await?;
        replica.lead().await.map_err(|error| Error::Raft {
            shard: SHARD,
            what: error.to_string(),
        })?;
        let appender = Appender::start(replica.clone(), Arc::clone(&env.clock), Share::of(GIB));
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
    async fn propose(&self, command: Command) -> Outcome {
        let outcome = self
            .replica
            .propose(&command, Vec::new())
            .await
            .expect("it leads");
        outcome.await.expect("applied").1
    }

    async fn put_topic(&self) {
        let put = PutTopic {
            topic: topic(),
            name: TopicName::new("t").expect("a name"),
            version: TopicVersion(1),
            config: TopicConfig::default(),
            partitions: vec![PartitionIndex(0)],
        };
        let outcome = self.propose(Command::PutTopic(put)).await;
        assert!(matches!(outcome, Outcome::TopicPut { .. }), "{outcome:?}");
    }

    async fn append(&self, number: u64, bytes: usize) -> AppendAnswer {
        self.appender
            .append(batch(number, bytes), payload(number, bytes))
            .await?
            .await
    }

    /// Commits a segment that holds all of the head, as a flusher would once it is in the bucket.
    async fn flush(&self) -> Option<RaftIndex> {
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

    fn keeper(&self, options: KeeperOptions) -> Keeper {
        let replicas = vec![self.replica.clone()];
        Keeper::new(
            Arc::clone(&self.wal),
            replicas,
            Arc::clone(&self.env.clock),
            options,
        )
    }

    /// Every batch of the head, in order, as a reader gets it.
    async fn head(&self) -> Vec<(u64, Bytes)> {
        let state = self.replica.state();
        let data = state.data().expect("a data shard");
        let Some(known) = data.partition(partition()) else {
            return Vec::new();
        };
        let mut offset = known.tiered_end().max(known.log_start());
        let mut read = Vec::new();
        while let Some(position) = data.head_lookup(partition(), offset) {
            let bytes = self.replica.read_batch(&position).await.expect("readable");
            read.push((offset.get(), bytes.expect("held while a state names it")));
            offset = position.batch.range.end();
        }
        assert_eq!(offset, known.end(), "the head has a gap");
        read
    }

    async fn stop(self) {
        self.replica.close().await;
    }
}

fn producer() -> ProducerId {
    ProducerId::new(Incarnation::FIRST, 1).expect("a small sequence")
}

/// One record, numbered by its producer.
fn batch(number: u64, bytes: usize) -> AppendBatch {
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

fn payload(number: u64, bytes: usize) -> Bytes {
    number
        .to_le_bytes()
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test)
}

fn accepted(answer: AppendAnswer) -> u64 {
    match answer.expect("answered").1 {
        AppendOutcome::Accepted { range, .. } | AppendOutcome::Duplicate { range } => {
            range.start().get()
        }
        AppendOutcome::Rejected(error) => unreachable!("{error}"),
    }
}

#[test]
fn appends_get_dense_offsets_and_survive_a_restart() {
    run(async {
        let mut world = World::new(1);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        for number in 0..50 {
            assert_eq!(accepted(node.append(number, 1000).await), number);
        }
        let before = (node.replica.state(), node.head().await);
        node.stop().await;
        let node = world.start().await.expect("it comes back");
        let read = node.head().await;
        assert_eq!(read.len(), 50);
        assert_eq!(read, before.1);
        let (was, is) = (
            before.0.data().cloned(),
            node.replica.state().data().cloned(),
        );
        assert_eq!(was, is);
        // A retry of what was acked before the restart gets its old offset.
        assert_eq!(accepted(node.append(48, 1000).await), 48);
        assert_eq!(accepted(node.append(50, 1000).await), 50);
    });
}

#[test]
fn a_vote_and_a_truncation_are_on_disk_before_raft_hears_so() {
    for seed in 0..40 {
        run(async {
            let mut world = World::new(seed);
            let mut lives = Vec::new();
            for term in 1..=5 {
                let env = world.env();
                let opened = world.open(&env, BTreeMap::new()).await.expect("it opens");
                let mut store = LogStore::new(Arc::clone(&opened.0), SHARD);
                lives.push(opened);
                if term > 1 {
                    let vote = store
                        .read_vote()
                        .await
                        .expect("read")
                        .expect("it was saved");
                    assert_eq!(vote.leader_id.term, term - 1, "seed {seed}");
                    let last = store.get_log_state().await.expect("read").last_log_id;
                    assert_eq!(last.map(|id| id.index), Some(0), "seed {seed}");
                }
                let entries: Vec<_> = (u64::from(term > 1)..4)
                    .map(|index| blank(term, index))
                    .collect();
                store
                    .append(entries, IOFlushed::noop())
                    .await
                    .expect("queued");
                store
                    .truncate_after(Some(blank(1, 0).log_id))
                    .await
                    .expect("cut");
                let vote = RaftVote {
                    leader_id: LeaderId { term, voted_for: 7 },
                    committed: false,
                };
                store.save_vote(&vote).await.expect("saved");
                world.disk.crash(Crash::PowerCut);
            }
        });
    }
}

fn blank(term: u64, index: u64) -> Entry {
    let id = EntryId {
        term: Term(term),
        index: RaftIndex(index + 1),
    };
    Entry {
        log_id: log_id(id).expect("above zero"),
        payload: Payload::Blank,
    }
}

#[test]
fn appends_that_wait_share_entries_and_syncs() {
    run(async {
        let mut world = World::new(2);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let (applied, groups) = (node.replica.state().applied(), node.wal.stats().groups);
        let mut answers = Vec::new();
        for number in 0..500 {
            let queued = node
                .appender
                .append(batch(number, 100), payload(number, 100))
                .await;
            answers.push(queued.expect("admitted"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(
                accepted(answer.await),
                number,
                "answered in the order of the calls"
            );
        }
        let entries = node.replica.state().applied().index.0 - applied.index.0;
        let groups = node.wal.stats().groups - groups;
        assert!(
            entries <= 20 && groups <= 20,
            "{entries} entries, {groups} groups for 500 appends"
        );
    });
}

#[test]
fn an_append_that_fits_no_group_is_refused_and_many_that_fit_are_not_joined_past_it() {
    run(async {
        let mut world = World::new(7);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let refusal = node
            .append(0, 64 << 10)
            .await
            .expect_err("larger than a group");
        assert_eq!(refusal.durability(), Durability::NotWritten);
        assert!(
            refusal
                .to_string()
                .contains("the limit of this WAL is 57344"),
            "{refusal}"
        );
        // Together they are many times what a group holds, and they all wait at the same time.
        let mut answers = Vec::new();
        for number in 0..300 {
            let bytes = if number % 3 == 0 { 20_000 } else { 50 };
            let queued = node
                .appender
                .append(batch(number, bytes), payload(number, bytes))
                .await;
            answers.push(queued.expect("admitted"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(accepted(answer.await), number);
        }
    });
}

#[test]
fn a_full_head_is_refused_with_both_numbers_and_a_flush_lets_appends_on() {
    run(async {
        let mut world = World::new(3);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        node.appender.set_share(Share::of(20_000));
        let mut number = 0;
        let refusal = loop {
            match node.append(number, 3000).await {
                Ok(_) => number += 1,
                Err(refusal) => break refusal,
            }
            assert!(number < 100);
        };
        assert_eq!(refusal.durability(), Durability::NotWritten);
        assert!(
            matches!(refusal, AppendRefusal::HeadFull { share: 20_000, .. }),
            "{refusal}"
        );
        assert_eq!(number, 6);
        node.flush().await.expect("there is a head");
        assert_eq!(accepted(node.append(number, 3000).await), number);

        // Small batches fill a head by their number.
        node.appender.set_share(Share {
            batches: 3,
            ..Share::of(GIB)
        });
        for _ in 0..2 {
            number += 1;
            accepted(node.append(number, 10).await);
        }
        let refusal = node.append(number + 1, 10).await.expect_err("crowded");
        let crowded = AppendRefusal::HeadCrowded {
            shard: SHARD,
            batches: 3,
            share: 3,
        };
        assert_eq!(refusal, crowded, "{refusal}");
    });
}

#[test]
fn the_log_stays_small_and_a_restart_reads_no_more_after_ten_times_the_history() {
    run(async {
        let mut world = World::new(4);
        let mut node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let options = KeeperOptions {
            files_held: 1,
            ..KeeperOptions::default()
        };
        let mut number = 0;
        let mut read_after = Vec::new();
        for round in 1..=100u64 {
            let mut keeper = node.keeper(options);
            for _ in 0..40 {
                accepted(node.append(number, 3000).await);
                number += 1;
            }
            let flushed = node.flush().await.expect("there is a head");
            // One turn checkpoints; the purge it asks for is written; the next turn releases.
            for _ in 0..3 {
                keeper.turn().await.expect("kept");
                tokio::time::sleep(Duration::from_secs(6)).await;
            }
            let (last, durably_flushed) = node.replica.checkpointed();
            assert!(
                last >= flushed && durably_flushed >= flushed,
                "round {round}"
            );
            let files = node.wal.stats().files;
            assert!(files <= 3, "{files} files in round {round}");
            if round == 10 || round == 100 {
                node.stop().await;
                node = world.start().await.expect("it comes back");
                read_after.push(node.recovery.bytes_read);
                let state = node.replica.state();
                let data = state.data().expect("a data shard");
                assert_eq!(
                    data.partition(partition()).expect("known").end().get(),
                    number
                );
                assert!(node.head().await.is_empty(), "everything is flushed");
            }
        }
        let [early, late] = read_after[..] else {
            unreachable!("two restarts")
        };
        assert!(
            late <= early + world.options.file_bytes,
            "{early} then {late} bytes read"
        );
    });
}

#[test]
fn checkpoints_asked_for_at_the_same_time_are_all_made() {
    run(async {
        let mut world = World::new(6);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        for number in 0..20 {
            accepted(node.append(number, 100).await);
            let wanted = node.replica.state().applied().index;
            let (one, two) = (node.replica.checkpoint(), node.replica.checkpoint());
            let both = async { tokio::join!(one, two, node.append(number + 100, 10)) };
            let waited = tokio::time::timeout(Duration::from_secs(30), both).await;
            let (one, two, _) = waited.expect("neither waits for ever");
            assert!(one.expect("made") >= wanted && two.expect("made") >= wanted);
        }
    });
}

#[test]
fn a_batch_that_no_checkpoint_knows_as_flushed_is_never_released() {
    run(async {
        let mut world = World::new(5);
        let node = world.start().await.expect("a fresh node");
        node.put_topic().await;
        let mut keeper = node.keeper(KeeperOptions {
            files_held: 1,
            ..KeeperOptions::default()
        });
        for number in 0..300 {
            accepted(node.append(number, 3000).await);
        }
        // Checkpoints alone, without a flush, release nothing that is unflushed.
        for _ in 0..3 {
            node.replica.checkpoint().await.expect("made");
            keeper.turn().await.expect("kept");
            tokio::time::sleep(Duration::from_secs(11)).await;
        }
        assert_eq!(node.head().await.len(), 300);
        // A trim moves the log start into the head: the bytes below it are dead, not the rest.
        let trim = Trim {
            partition: partition(),
            to: Offset::new(120).expect("small"),
            planned_version: None,
        };
        let trimmed = node.propose(Command::Trim(trim)).await;
        assert!(matches!(trimmed, Outcome::Trimmed { .. }), "{trimmed:?}");
        assert_eq!(node.head().await.len(), 180);
        node.stop().await;
        let node = world.start().await.expect("it comes back");
        assert_eq!(node.head().await.len(), 180);
        assert_eq!(accepted(node.append(300, 10).await), 300);
    });
}

#[test]
fn no_acked_append_is_lost_to_kills_and_power_cuts() {
    let mut acked_in_all = 0;
    for seed in 0..60 {
        run(async {
            let random = SeededEntropy::new(seed);
            let mut world = World::new(seed);
            let mut acked: Vec<u64> = Vec::new();
            let (mut next, mut flushed) = (0, 0);
            for life in 0..5 {
                let context = format!("seed {seed}, life {life}");
                let node = match world.start().await {
                    Ok(node) => node,
                    Err(error) => unreachable!("{context}: {error}"),
                };
                let state = node.replica.state();
                let known = state.data().and_then(|data| data.partition(partition()));
                if let Some(known) = known {
                    let head = node.head().await;
                    assert_eq!(
                        head.len() as u64,
                        known.end().get() - known.tiered_end().get()
                    );
                    assert!(
                        known.tiered_end().get() >= flushed,
                        "{context}: a flush went back"
                    );
                    for (offset, bytes) in head {
                        let number = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
                        assert_eq!(number, offset, "{context}: another batch at this offset");
                    }
                    for (offset, number) in acked.iter().enumerate() {
                        assert_eq!(offset as u64, *number);
                    }
                    assert!(
                        known.end().get() >= acked.len() as u64,
                        "{context}: an ack is lost"
                    );
                    next = known.end().get();
                    acked = (0..next).collect();
                } else {
                    assert!(acked.is_empty(), "{context}: the topic is lost");
                    node.put_topic().await;
                }
                let mut keeper = node.keeper(KeeperOptions {
                    files_held: 1,
                    files_moved: 2,
                    age: Duration::ZERO,
                    ..KeeperOptions::default()
                });
                world.disk.kill_before(5 + random.below(150));
                for _ in 0..60 {
                    let bytes = 8 + usize::try_from(random.below(9000)).expect("small");
                    let appended =
                        tokio::time::timeout(Duration::from_secs(5), node.append(next, bytes));
                    match appended.await {
                        Ok(Ok((_, AppendOutcome::Accepted { range, .. }))) => {
                            assert_eq!(range.start().get(), next);
                            acked.push(next);
                            next += 1;
                            acked_in_all += 1;
                        }
                        Ok(Ok((_, other))) => unreachable!("{context}: {other:?}"),
                        Ok(Err(_)) | Err(_) => break,
                    }
                    if random.chance(15) {
                        let plan = node
                            .replica
                            .state()
                            .flush_plan(u64::MAX, RaftIndex(u64::MAX));
                        let committed = tokio::time::timeout(Duration::from_secs(5), async {
                            let plan = plan?;
                            let end = plan.ranges[0].1.end().get();
                            let commit = CommitSegment {
                                segment: SegmentId(u128::from(plan.raft.to.0)),
                                length: plan.bytes,
                                checksum: ObjectChecksum(7),
                                raft: plan.raft,
                                ranges: plan.ranges,
                            };
                            let command = Command::CommitSegment(commit);
                            let outcome = node.replica.propose(&command, Vec::new()).await.ok()?;
                            outcome.await.ok().map(|_| end)
                        });
                        if let Ok(Some(end)) = committed.await {
                            flushed = end;
                        }
                    }
                    if random.chance(25) {
                        let turn = tokio::time::timeout(Duration::from_secs(5), keeper.turn());
                        if !matches!(turn.await, Ok(Ok(()))) {
                            break;
                        }
                    }
                }
                node.stop().await;
                let how = if random.chance(50) {
                    Crash::PowerCut
                } else {
                    Crash::Kill
                };
                world.disk.crash(how);
            }
        });
    }
    assert!(acked_in_all > 2000, "{acked_in_all} appends were acked");
}
