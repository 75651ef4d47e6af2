//! Restarts, recycling, moved entries, seals.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, Files as _, OpenMode};
use esker_types::{RaftIndex, ShardId, Term};
use esker_wal::Error;
use esker_wal::disk::{Fatal, FileReport, GroupReport, Staged, Vote, Wal};

use crate::world::{DIRECTORY, Log, SHARD, World, body, id, run};

async fn append(log: &Log, shard: ShardId, indexes: std::ops::RangeInclusive<u64>, bytes: usize) {
    for index in indexes {
        log.append(shard, vec![(id(index, 1), body(index, bytes))])
            .await
            .expect("appended");
    }
}

#[test]
fn a_restart_finds_what_was_there() {
    run(async {
        let mut world = World::new(1);
        let log = world.open().await.expect("an empty log");
        assert_eq!(log.recovery.files, 0);
        append(&log, SHARD, 1..=20, 3000).await;
        append(&log, ShardId(7), 1..=3, 10).await;
        let vote = Vote {
            term: Term(4),
            node: 9,
            committed: true,
        };
        log.vote(SHARD, vote).await.expect("voted");
        log.truncate(SHARD, id(15, 1)).await.expect("cut");
        log.append(SHARD, vec![(id(16, 4), body(16, 50))])
            .await
            .expect("appended");
        log.wal.purge(SHARD, id(3, 1));
        log.wal.set_committed(SHARD, id(14, 1));
        append(&log, ShardId(7), 4..=4, 10).await;

        let before = (log.content(SHARD).await, log.content(ShardId(7)).await);
        assert_eq!(before.0.bounds.vote, Some(vote));
        assert_eq!(before.0.entries.len(), 13);
        drop(log);
        let log = world.open().await.expect("it opens again");
        assert_eq!(
            (log.content(SHARD).await, log.content(ShardId(7)).await),
            before
        );
        assert_eq!(log.wal.bounds(SHARD).committed, id(14, 1));
        // Purged, but still held for whoever reads the head.
        let (held, _) = log
            .wal
            .read_entry(SHARD, RaftIndex(2))
            .await
            .expect("read")
            .expect("held");
        assert_eq!(held, id(2, 1));
    });
}

#[test]
fn a_hole_and_an_entry_too_large_are_refused() {
    run(async {
        let mut world = World::new(1);
        let log = world.open().await.expect("an empty log");
        let hole = log
            .append(SHARD, vec![(id(2, 1), body(2, 1))])
            .await
            .expect_err("a hole");
        assert!(hole.to_string().contains("does not follow"), "{hole}");
        let large = log.append(SHARD, vec![(id(1, 1), body(1, 64 << 10))]).await;
        let large = large.expect_err("too large").to_string();
        assert!(
            large.contains("65552 bytes") && large.contains("limit"),
            "{large}"
        );
        append(&log, SHARD, 1..=1, 100).await;

        // What is in front of a hole is written; who asked for all of it is not told that all was.
        let (done, answer) = tokio::sync::oneshot::channel();
        let entries = vec![(id(2, 1), body(2, 1)), (id(4, 1), body(4, 1))];
        let told = move |result: std::io::Result<()>| _ = done.send(result);
        let hole = log.wal.append(SHARD, entries, told);
        assert!(hole.is_err(), "{hole:?}");
        let answer = answer.await.expect("the writer answers");
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(log.content(SHARD).await.entries.len(), 2);
    });
}

#[test]
fn entries_are_read_back_from_disk_once_memory_is_short() {
    run(async {
        let mut world = World::new(2);
        let log = world.open().await.expect("an empty log");
        append(&log, SHARD, 1..=40, 2000).await;
        let stats = log.wal.stats();
        assert!(
            stats.cached_bytes <= world.options.memory_bytes as u64,
            "{stats:?}"
        );
        let content = log.content(SHARD).await;
        assert_eq!(content.entries.len(), 40);
        for (id, bytes) in content.entries {
            assert_eq!(bytes, crate::world::flat(&body(id.index.0, 2000)));
        }
        let some = log
            .wal
            .read(SHARD, RaftIndex(5)..=RaftIndex(30), Some(5000))
            .await;
        assert_eq!(some.expect("read").len(), 3);
    });
}

#[test]
fn released_files_are_used_again_and_their_old_bytes_never_show() {
    run(async {
        let mut world = World::new(3);
        let mut log = world.open().await.expect("an empty log");
        for round in 0..40u64 {
            let first = round * 20 + 1;
            append(&log, SHARD, first..=first + 19, 5000).await;
            log.wal.purge(SHARD, id(first + 9, 1));
            append(&log, ShardId(2), round + 1..=round + 1, 10).await;
            log.wal.purge(ShardId(2), id(round + 1, 1));
            log.vote(SHARD, Vote::default()).await.expect("synced");
            let released = log.wal.release(SHARD, RaftIndex(first + 15));
            assert_eq!(
                released,
                RaftIndex(first + 9),
                "held back to what is purged"
            );
            log.wal.release(ShardId(2), RaftIndex(round + 1));
            tokio::task::yield_now().await;
            let files = log.wal.stats().files;
            assert!(files <= 3, "{files} files in round {round}");
            if round % 7 == 0 {
                drop(log);
                log = world.open().await.expect("it opens again");
            }
            let content = log.content(SHARD).await;
            assert_eq!(content.bounds.purged, id(first + 9, 1));
            assert_eq!(content.entries.len(), 10);
        }
        // 40 rounds of 100 kB went through; what exists fits three files and a spare.
        assert!(world.files().len() <= 3);
        assert_eq!(log.wal.oldest(SHARD), Some(RaftIndex(791)));
    });
}

#[test]
fn what_holds_the_oldest_file_is_moved_and_survives() {
    run(async {
        let mut world = World::new(4);
        let log = world.open().await.expect("an empty log");
        let quiet = ShardId(9);
        append(&log, quiet, 1..=2, 700).await;
        append(&log, SHARD, 1..=100, 5000).await;
        log.wal.purge(SHARD, id(100, 1));
        log.vote(SHARD, Vote::default()).await.expect("synced");
        log.wal.release(SHARD, RaftIndex(100));
        tokio::task::yield_now().await;
        let oldest = world.files().remove(0);
        let holders = log.wal.holders_of_oldest(2);
        assert_eq!(holders, BTreeMap::from([(quiet, RaftIndex(2))]));
        assert!(log.wal.holders_of_oldest(100).is_empty());

        assert_eq!(log.wal.move_oldest().await.expect("moved"), 2);
        log.vote(SHARD, Vote::default()).await.expect("synced");
        tokio::task::yield_now().await;
        assert!(
            !world.files().contains(&oldest),
            "the file is still in the sequence"
        );
        let before = log.content(quiet).await;
        assert_eq!(before.entries.len(), 2);
        drop(log);
        let log = world.open().await.expect("it opens again");
        assert_eq!(log.content(quiet).await, before);
    });
}

#[test]
fn installed_entries_count_once_their_checkpoint_does() {
    run(async {
        let mut world = World::new(5);
        let log = world.open().await.expect("an empty log");
        let entries = vec![(id(40, 3), body(40, 10)), (id(44, 3), body(44, 10))];
        let staged = Arc::new(Staged::new(SHARD));
        log.wal.stage(&staged, entries, |_| {});
        log.vote(SHARD, Vote::default()).await.expect("synced");
        drop(log);
        let world_without = &mut world.on(world.disk.fork(1));
        let log = world_without.open().await.expect("it opens");
        assert_eq!(log.recovery.installed_dropped, 2);
        assert!(
            log.wal
                .read_entry(SHARD, RaftIndex(40))
                .await
                .expect("read")
                .is_none()
        );
        drop(log);

        let covered = BTreeMap::from([(SHARD, RaftIndex(50))]);
        let log = world.open_with(covered).await.expect("it opens");
        log.wal.purge(SHARD, id(50, 3));
        let (found, _) = log
            .wal
            .read_entry(SHARD, RaftIndex(44))
            .await
            .expect("read")
            .expect("held");
        assert_eq!(found, id(44, 3));
        log.append(SHARD, vec![(id(51, 3), body(51, 10))])
            .await
            .expect("goes on above");
        drop(log);
        let log = world
            .open_with(BTreeMap::from([(SHARD, RaftIndex(50))]))
            .await
            .expect("it opens");
        assert_eq!(log.content(SHARD).await.bounds.last, id(51, 3));
    });
}

#[test]
fn a_file_tells_an_operator_what_it_holds() {
    run(async {
        let mut world = World::new(9);
        let log = world.open().await.expect("an empty log");
        append(&log, SHARD, 1..=3, 5000).await;
        log.truncate(SHARD, id(2, 1)).await.expect("cut");
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(log);
        let path = world.files().remove(0);
        let report = FileReport::read(&world.env(), &path).expect("a WAL file");
        let kinds = |group: &GroupReport| group.frames.iter().map(|frame| frame.kind).collect();
        let kinds: Vec<Vec<_>> = report.groups.iter().map(kinds).collect();
        let expected: [&[&str]; 5] = [&["entry"], &["entry"], &["entry"], &["truncate"], &[]];
        assert_eq!(kinds, expected);
        assert_eq!(report.groups[2].frames[0].id, id(3, 1));
        assert_eq!(
            (report.sequence, report.end),
            (1, 4096 * (1 + 3 * 2 + 1 + 1))
        );
        assert_eq!(report.groups[1].mark, (1, report.groups[1].offset));
        assert_eq!((report.torn, report.proof), (false, None));
        let batches = |group: &GroupReport| group.frames.first().map(|frame| frame.batch_bytes);
        let batches: Vec<_> = report.groups.iter().map(batches).collect();
        let expected = [Some(5004), Some(5004), Some(5004), Some(0), None];
        assert_eq!(batches, expected);

        // What later groups call synced is damage, not a torn tail.
        let file = world.env().files.open(&path, OpenMode::ReadWrite);
        let place = report.groups[1].offset + 100;
        let write = file
            .expect("it is there")
            .write_all_at(&[IoSlice::new(b"rot")], place);
        write.expect("written");
        let rotten = FileReport::read(&world.env(), &path).expect("a WAL file");
        assert_eq!((rotten.end, rotten.torn), (report.groups[1].offset, true));
        assert_eq!(rotten.proof, Some(report.groups[2].offset));
    });
}

#[test]
fn an_idle_tail_is_sealed_once() {
    run(async {
        let mut world = World::new(6);
        let log = world.open().await.expect("an empty log");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let groups = log.wal.stats().groups;
        append(&log, SHARD, 1..=1, 10).await;
        assert_eq!(log.wal.stats().groups, groups + 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            log.wal.stats().groups,
            groups + 2,
            "one seal, and then quiet"
        );
    });
}

#[test]
fn a_full_budget_stalls_without_loss_and_a_release_lets_it_go_on() {
    run(async {
        let mut world = World::new(7);
        world.options.disk_bytes = 8 * world.options.file_bytes;
        let log = world.open().await.expect("an empty log");
        let promised = log.wal.room();
        let mut index = 0;
        while log.wal.room() > 100_000 {
            index += 1;
            append(&log, SHARD, index..=index, 10_000).await;
        }
        // Each entry takes three pages. What room there was said to be, there was.
        assert!(promised > 300_000 && index * 12_288 > promised - 100_000);
        // Into the reserve and past it: the writer waits, the entries with it.
        let purge_at = index;
        log.wal.purge(SHARD, id(purge_at, 1));
        log.vote(SHARD, Vote::default())
            .await
            .expect("the reserve takes it");
        let waiting = async {
            for _ in 0..150 {
                index += 1;
                append(&log, SHARD, index..=index, 10_000).await;
            }
        };
        let release = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!((1..64 << 10).contains(&log.wal.stats().queued_bytes));
            log.wal.release(SHARD, RaftIndex(purge_at));
        };
        let both = async { tokio::join!(waiting, release) };
        tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .expect("it went on");
        let content = log.content(SHARD).await;
        assert_eq!(content.entries.len() as u64, index - purge_at);
        assert!(world.files().len() <= 8);
    });
}

#[test]
fn a_seal_without_room_is_no_stall_and_is_written_once_there_is() {
    run(async {
        let mut world = World::new(17);
        world.options.disk_bytes = 8 * world.options.file_bytes;
        let log = world.open().await.expect("an empty log");
        append(&log, SHARD, 1..=30, 10_000).await;
        log.wal.purge(SHARD, id(30, 1));
        // Entries that ask for no room, until the last file is full to its last page.
        let room = |log: &Log| 8 * world.options.file_bytes - 8 * 4096 - log.wal.stats().bytes;
        let mut index = 30;
        while room(&log) > 0 {
            index += 1;
            let bytes = if room(&log) > 16_384 { 10_000 } else { 10 };
            append(&log, SHARD, index..=index, bytes).await;
        }
        let full = log.wal.stats();
        assert_eq!((full.files, full.spares), (8, 0));
        tokio::time::sleep(world.options.stall_fatal * 3).await;
        assert_eq!(*world.told.lock().expect("unpoisoned"), [""; 0]);
        assert_eq!(log.wal.stats(), full, "there is no room for a seal");
        // The oldest file is let go of, and takes it.
        log.wal.release(SHARD, RaftIndex(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let sealed = log.wal.stats();
        assert_eq!(
            (sealed.groups, sealed.bytes, sealed.frames),
            (full.groups + 1, full.bytes + 4096, full.frames)
        );
    });
}

#[test]
fn a_budget_that_holds_too_few_files_is_refused() {
    run(async {
        let mut world = World::new(8);
        world.options.disk_bytes = 6 * world.options.file_bytes;
        let refused = world.open().await.err().expect("too small");
        let expected = "holds 6 files of 262144 bytes, it must hold at least 7: one being written, \
                        and the rest, each of which takes 192512 bytes however groups fall, for 0 \
                        bytes of heads, 65536 in flight and ";
        assert!(refused.to_string().contains(expected), "{refused}");
        // What the heads may hold comes on top, and so does a command of each further shard.
        world.options.disk_bytes = 7 * world.options.file_bytes;
        drop(world.open().await.expect("just large enough"));
        world.options.heads_bytes = 200_000;
        let refused = world.open().await.err().expect("too small");
        let files = matches!(
            refused,
            Error::BudgetTooSmall {
                files: 7,
                files_min: 8,
                ..
            }
        );
        assert!(files, "{refused}");
        (world.options.heads_bytes, world.options.shards) = (0, 50);
        let refused = world.open().await.err().expect("too small");
        assert!(matches!(refused, Error::BudgetTooSmall { .. }), "{refused}");
    });
}

#[test]
fn a_disk_that_holds_too_few_files_is_refused() {
    run(async {
        let mut world = World::new(8);
        world.disk.set_capacity(7 * world.options.file_bytes);
        let refused = world.open().await.err().expect("too small");
        let files = matches!(
            refused,
            Error::DiskTooSmall {
                files: 0,
                files_min: 7,
                ..
            }
        );
        assert!(files, "{refused}");
        world.disk.set_capacity(8 * world.options.file_bytes);
        let log = world.open().await.expect("just large enough");
        append(&log, SHARD, 1..=1, 100).await;
        tokio::task::yield_now().await;
        // A file's worth stays free for checkpoints.
        let free = world.disk.space(Path::new("/")).expect("told").free;
        assert!(free >= world.options.file_bytes, "{free}");
    });
}

#[test]
fn a_log_that_nobody_makes_room_in_ends_aloud_and_blames_no_disk() {
    // The budget is used up, or the disk is, or the quota of the user.
    let file_bytes = World::new(10).options.file_bytes;
    let disk = |world: &World| world.disk.set_capacity(9 * file_bytes);
    let quota = |world: &World| world.disk.set_quota(9 * file_bytes);
    run(ends_aloud(8, disk));
    run(ends_aloud(16, disk));
    run(ends_aloud(16, quota));
}

async fn ends_aloud(budget: u64, limit: impl Fn(&World)) {
    let mut world = World::new(10);
    world.options.disk_bytes = budget * world.options.file_bytes;
    limit(&world);
    let log = world.open().await.expect("an empty log");
    // As a follower's entries do, these ask nobody for room.
    let filling = async {
        for index in 1..=1000 {
            let entry = vec![(id(index, 1), body(index, 10_000))];
            if log.append(SHARD, entry).await.is_err() {
                return index;
            }
        }
        unreachable!("ten megabytes fit two")
    };
    let bound = world.options.stall_fatal * 2;
    let waited = tokio::time::timeout(bound, filling).await;
    let refused = waited.expect("it never hangs for ever");
    let told = world.told.lock().expect("unpoisoned").join("; ");
    assert!(
        told.contains(&format!(
            "for a file, and all {} are held; raise the WAL's budget",
            budget.min(9)
        )),
        "{told}"
    );
    assert!(refused > 130 && log.wal.has_failed());
    let files = world
        .disk
        .mount()
        .list(Path::new(DIRECTORY))
        .expect("listed");
    let files = files.iter().filter(|path| path.extension().is_some());
    assert!(
        files.clone().count() as u64 <= budget,
        "{:?}",
        files.collect::<Vec<_>>()
    );
    drop(log);
    world.options.disk_bytes *= 2;
    world.disk.set_capacity(u64::MAX);
    world.disk.set_quota(u64::MAX);
    let log = world.open().await.expect("with a larger budget it goes on");
    assert_eq!(log.content(SHARD).await.entries.len() as u64, refused - 1);
    append(&log, SHARD, refused..=refused, 10_000).await;
}

#[tokio::test]
async fn files_of_an_earlier_life_are_used_again_on_a_disk_of_the_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let (env, options) = (Env::real(), World::new(1).options);
    let mut next = 1;
    for life in 0..2 {
        let told = Arc::new(|_: &Fatal| {});
        let opened = Wal::open(&env, folder.path(), options.clone(), BTreeMap::new(), told).await;
        let (wal, recovery) = opened.expect("it opens");
        let log = Log { wal, recovery };
        if life == 1 {
            assert!(log.recovery.files > 4, "{:?}", log.recovery);
            // All but the files at the end.
            log.wal.purge(SHARD, id(next - 12, 1));
            append(&log, SHARD, next..=next, 10).await;
            log.wal.release(SHARD, RaftIndex(next - 12));
            next += 1;
        }
        append(&log, SHARD, next..=next + 40, 30_000).await;
        next += 41;
        drop(log);
        // Its threads have it until they end.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
