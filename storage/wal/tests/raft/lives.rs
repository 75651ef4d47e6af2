//! A single voter dies and comes back: what it kept, and what it let go.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use esker_env::sim::{Crash, SeededEntropy};
use esker_shard::{
    AppendOutcome, Command, CommitSegment, HeadPosition, ObjectChecksum, Outcome, Trim,
};
use esker_types::limits::HEAD_READ_DISK_BYTES_MAX;
use esker_types::{EntryId, Offset, RaftIndex, SegmentId, Term};
use esker_wal::raft::LogStore;
use esker_wal::raft::types::{Entry, Payload, RaftVote, log_id};
use esker_wal::{Error, KeeperOptions};
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::{IOFlushed, RaftLogReader as _, RaftLogStorage as _};

use super::world::{Node, SHARD, World, accepted, batch, partition, payload, run};

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

/// Where room is given out late, only the sync says that there is none.
#[test]
fn a_sync_of_a_checkpoint_that_finds_no_room_ends_the_node_as_any_sync_does() {
    // The sync of the file, the sync of its directory.
    for sync in 1..=2 {
        run(async {
            let mut world = World::new(sync);
            let mut node = world.start().await.expect("a fresh node");
            node.put_topic().await;
            accepted(node.append(0, 3000).await);
            for (life, kind) in [(1, ErrorKind::StorageFull), (2, ErrorKind::QuotaExceeded)] {
                // The end of what was written is sealed: no sync comes between.
                tokio::time::sleep(Duration::from_secs(1)).await;
                world.disk.fail_sync_with(sync, kind);
                let failed = node.replica.checkpoint().await;
                failed.expect_err("its sync failed");
                assert!(node.wal.has_failed(), "sync {sync}, life {life}");
                node.append(life, 3000).await.expect_err("nothing is acked");
                node.stop().await;
                world.disk.crash(Crash::PowerCut);
                match world.start().await {
                    Ok(next) if life == 1 => node = next,
                    Err(Error::FailedBefore { failures: 2, .. }) if life == 2 => break,
                    other => unreachable!("life {life}: {:?}", other.map(drop)),
                }
                assert_eq!(node.head().await, [(0, payload(0, 3000))]);
            }
        });
    }
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

/// After a start nothing of the head is in memory.
#[test]
fn batches_of_one_entry_are_read_from_the_disk_once_and_few_of_them_keep_nothing_else() {
    run(async {
        let mut world = World::new(31);
        let node = world.start().await.expect("a new disk");
        node.put_topic().await;
        let mut answers = Vec::new();
        for number in 0..40 {
            let (batch, payload) = (batch(number, 1000), payload(number, 1000));
            let taken = node.appender.append(batch, payload).await;
            answers.push(taken.expect("there is room"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(accepted(answer.await), number);
        }
        node.stop().await;

        let node = world.start().await.expect("the same disk");
        let positions = positions(&node);
        let mut joined = positions.chunk_by(|one, next| one.index == next.index);
        let joined = joined.find(|entry| entry.len() >= 10).expect("they waited");
        let read = async |positions: &[HeadPosition]| {
            let read = node.replica.read_batches(positions).await;
            read.expect("readable").expect("held")
        };
        let all = read(joined).await;
        assert_eq!(all.len(), joined.len());
        for (one, next) in all.iter().zip(&all[1..]) {
            assert_eq!(one.as_ptr_range().end, next.as_ptr(), "read again");
        }
        let few = read(&joined[..2]).await;
        assert_eq!(few, all[..2]);
        assert_ne!(
            few[0].as_ptr_range().end,
            few[1].as_ptr(),
            "the rest is kept"
        );
        assert_eq!(read(&positions).await.len(), 40);
        node.stop().await;
    });
}

#[test]
fn one_read_of_the_head_takes_a_bounded_part_of_the_disk() {
    run(async {
        let mut world = World::new(32);
        world.options.file_bytes = 8 << 20;
        world.options.group_bytes = 2 << 20;
        world.options.disk_bytes = 128 << 20;
        let node = world.start().await.expect("a new disk");
        node.put_topic().await;
        let entries = HEAD_READ_DISK_BYTES_MAX / (1 << 20) + 8;
        for number in 0..entries as u64 {
            assert_eq!(accepted(node.append(number, 1 << 20).await), number);
        }
        node.stop().await;
        let node = world.start().await.expect("the same disk");
        let positions = positions(&node);
        assert_eq!(positions.len(), entries);
        let read = node.replica.read_batches(&positions).await;
        let read = read.expect("readable").expect("held");
        assert_eq!(read.len(), HEAD_READ_DISK_BYTES_MAX / (1 << 20));
        node.stop().await;
    });
}

/// Of every batch of the head.
fn positions(node: &Node) -> Vec<HeadPosition> {
    let state = node.replica.state();
    let data = state.data().expect("a data shard");
    data.head_batches(partition(), Offset::ZERO).collect()
}
