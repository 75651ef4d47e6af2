//! What came with a snapshot: no part of the log before it is adopted, and there at the next start once a
//! checkpoint covers it, whatever the log did meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_types::{EntryId, RaftIndex};
use esker_wal::disk::{Body, Staged, Vote};

use crate::world::{Log, SHARD, World, body, flat, id, run};

/// What the snapshot covers.
const LAST: u64 = 20;

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<(EntryId, Body)> {
    let entries = indexes.map(|index| (id(index, term), body(index, 700)));
    entries.collect()
}

async fn stage(log: &Log, indexes: std::ops::RangeInclusive<u64>) -> Arc<Staged> {
    let staged = Arc::new(Staged::new(SHARD));
    log.wal.stage(&staged, entries(indexes, 2), |_| {});
    log.vote(SHARD, Vote::default()).await.expect("synced");
    staged
}

async fn held(log: &Log, index: u64) -> Option<(EntryId, Vec<u8>)> {
    let read = log.wal.read_entry(SHARD, RaftIndex(index)).await;
    let (id, body) = read.expect("readable")?;
    Some((id, flat(&body)))
}

fn covered() -> BTreeMap<esker_types::ShardId, RaftIndex> {
    BTreeMap::from([(SHARD, RaftIndex(LAST))])
}

#[test]
fn what_is_staged_is_no_part_of_the_log_until_it_is_adopted() {
    run(async {
        let mut world = World::new(21);
        let log = world.open().await.expect("an empty log");
        log.append(SHARD, entries(1..=8, 1)).await.expect("follows");
        let before = log.content(SHARD).await.entries;
        let staged = stage(&log, 5..=LAST).await;
        assert_eq!(log.content(SHARD).await.entries, before);
        assert_eq!(held(&log, 9).await, None);
        // Let go of, it was never there.
        drop(staged);
        log.append(SHARD, entries(9..=9, 1)).await.expect("follows");
        let before = log.content(SHARD).await;
        drop(log);
        let log = world.open().await.expect("it opens");
        assert_eq!(log.content(SHARD).await, before);
        assert_eq!(log.recovery.installed_dropped, LAST - 4);
    });
}

/// The head of a snapshot is on disk before raft learns that its own log contradicts it.
#[test]
fn what_is_cut_off_after_a_head_came_leaves_the_head_alone() {
    run(async {
        let mut world = World::new(22);
        let log = world.open().await.expect("an empty log");
        log.append(SHARD, entries(1..=LAST + 3, 1))
            .await
            .expect("follows");
        let staged = stage(&log, 5..=LAST).await;
        log.truncate(SHARD, id(3, 1)).await.expect("cut");
        log.wal.adopt(&staged);
        log.wal.purge(SHARD, id(LAST, 2));
        log.append(SHARD, entries(LAST + 1..=LAST + 2, 2))
            .await
            .expect("it goes on above");
        let mut log = log;
        for life in 1..=3 {
            for index in 5..=LAST {
                let expected = Some((id(index, 2), flat(&body(index, 700))));
                assert_eq!(held(&log, index).await, expected, "life {life}");
            }
            assert_eq!(log.wal.bounds(SHARD).last, id(LAST + 2, 2));
            drop(log);
            log = world.open_with(covered()).await.expect("it opens");
        }
    });
}

/// Neither a copy at the tail nor a later snapshot brings back what one of them has.
#[test]
fn an_adopted_head_is_moved_and_replaced_like_any_other() {
    run(async {
        let mut world = World::new(23);
        world.options.file_bytes = 128 << 10;
        world.options.group_bytes = 32 << 10;
        let log = world.open().await.expect("an empty log");
        // One that never became whole, and one that did.
        drop(stage(&log, 5..=10).await);
        let staged = stage(&log, 5..=LAST).await;
        log.wal.adopt(&staged);
        log.wal.purge(SHARD, id(LAST, 2));
        let other = esker_types::ShardId(9);
        for index in 1..=200 {
            let entry = (id(index, 1), body(index, 3000));
            log.append(other, vec![entry]).await.expect("follows");
            log.wal.purge(other, id(index, 1));
            log.wal.release(other, RaftIndex(index));
        }
        let oldest = world.files().remove(0);
        while world.files().contains(&oldest) {
            log.wal.move_oldest().await.expect("moved");
            log.vote(SHARD, Vote::default()).await.expect("synced");
            tokio::task::yield_now().await;
        }
        drop(log);
        let log = world.open_with(covered()).await.expect("it opens");
        for index in 5..=LAST {
            let expected = Some((id(index, 2), flat(&body(index, 700))));
            assert_eq!(held(&log, index).await, expected);
        }
        assert_eq!(log.wal.bounds(SHARD).last, id(LAST, 2));
    });
}
