//! Bytes that rot while a log is open.

use esker_types::{RaftIndex, ShardId};
use esker_wal::Error;
use esker_wal::disk::{Body, Vote};

use crate::world::{Log, SHARD, World, body, flat, id, run};

const QUIET: ShardId = ShardId(9);

/// A log of many files, the oldest held by three entries of [`QUIET`] of which the second is damaged.
async fn held_by_rot(world: &mut World) -> Log {
    let log = world.open().await.expect("an empty log");
    for index in 1..=3 {
        append(&log, QUIET, index, 700).await;
    }
    for index in 1..=100 {
        append(&log, SHARD, index, 5000).await;
    }
    log.wal.purge(SHARD, id(100, 1));
    log.vote(SHARD, Vote::default()).await.expect("synced");
    log.wal.release(SHARD, RaftIndex(100));
    tokio::task::yield_now().await;
    let path = world.files().remove(0);
    let rot = |bytes: &mut Vec<u8>| {
        let second = bytes
            .windows(600)
            .position(|run| run.iter().all(|byte| *byte == 2));
        bytes[second.expect("it is there") + 300] ^= 1;
    };
    world.disk.edit(&path, rot).expect("it is the oldest");
    log
}

async fn append(log: &Log, shard: ShardId, index: u64, bytes: usize) {
    let entry = (id(index, 1), body(index, bytes));
    log.append(shard, vec![entry]).await.expect("appended");
}

#[test]
fn what_is_damaged_stays_in_its_file_and_the_rest_is_moved() {
    run(async {
        let mut world = World::new(41);
        let log = held_by_rot(&mut world).await;
        let oldest = world.files().remove(0);
        assert_eq!(log.wal.damaged(QUIET), 0, "nobody has read it");
        assert_eq!(log.wal.move_oldest().await.expect("the rest is whole"), 2);
        log.vote(SHARD, Vote::default()).await.expect("synced");
        for _ in 0..3 {
            assert_eq!(log.wal.move_oldest().await.expect("it is left alone"), 0);
            assert_eq!(log.wal.damaged(QUIET), 1);
        }
        let holders = log.wal.holders_of_oldest(2).into_keys();
        assert_eq!(holders.collect::<Vec<_>>(), [QUIET], "it is to be flushed");
        assert!(world.files().contains(&oldest));
        for index in [1, 3] {
            let read = log.wal.read_entry(QUIET, RaftIndex(index)).await;
            let (_, read) = read.expect("whole").expect("held");
            assert_eq!(flat(&read), flat(&body(index, 700)));
        }
        let read = log.wal.read_entry(QUIET, RaftIndex(2)).await;
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
        // A start does not go on over it.
        let twin = world.disk.fork(1);
        let started = world.on(twin).open().await;
        assert!(matches!(started, Err(Error::Corrupt { .. })));

        log.wal.purge(QUIET, id(2, 1));
        log.vote(SHARD, Vote::default()).await.expect("synced");
        assert_eq!(log.wal.release(QUIET, RaftIndex(2)), RaftIndex(2));
        log.vote(SHARD, Vote::default()).await.expect("synced");
        tokio::task::yield_now().await;
        assert_eq!(log.wal.damaged(QUIET), 0);
        assert!(!world.files().contains(&oldest), "nothing holds it");
        let before = log.content(QUIET).await;
        assert_eq!(before.entries.len(), 1);
        drop(log);
        let log = world.open().await.expect("nothing is damaged any more");
        assert_eq!(log.content(QUIET).await, before);
    });
}

/// What it was, others have: written anew by raft, it is whole.
#[test]
fn what_is_cut_off_is_damaged_no_more() {
    run(async {
        let mut world = World::new(42);
        let log = held_by_rot(&mut world).await;
        let all = RaftIndex(1)..=RaftIndex(3);
        log.wal
            .read(QUIET, all.clone(), None)
            .await
            .expect_err("it is damaged");
        assert_eq!(log.wal.damaged(QUIET), 1);
        log.truncate(QUIET, id(1, 1)).await.expect("cut");
        assert_eq!(log.wal.damaged(QUIET), 0);
        append(&log, QUIET, 2, 700).await;
        assert_eq!(
            log.wal.read(QUIET, all, None).await.expect("whole").len(),
            2
        );
    });
}

#[test]
fn an_entry_without_its_bytes_is_not_written() {
    run(async {
        let mut world = World::new(43);
        let log = world.open().await.expect("an empty log");
        let lost = Body::new(&[], Vec::new());
        let entries = vec![(id(1, 1), body(1, 10)), (id(2, 1), lost)];
        let refused = log.append(SHARD, entries).await.expect_err("nobody has it");
        assert!(refused.to_string().contains("lost"), "{refused}");
        assert_eq!(log.wal.bounds(SHARD).last, id(1, 1));
    });
}
