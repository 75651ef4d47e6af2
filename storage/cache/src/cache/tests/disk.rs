use std::io::IoSlice;
use std::path::Path;

use esker_env::OpenMode;

use super::*;
use crate::settings::Disk;

const BLOCK: usize = 256 * 1024;
/// What fits the tail's memory with room to spare.
const BLOCKS: u32 = 64;

async fn open(directory: &Path, bytes: u64) -> Cache {
    let settings = Settings {
        tail_bytes: BUDGET,
        backfill_bytes: BUDGET,
        disk: Some(Disk {
            directory: directory.to_owned(),
            bytes,
        }),
    };
    Cache::open(settings, &*Env::real().files).await.unwrap()
}

async fn read_all(cache: &Cache, lane: Lane) {
    for block in 0..BLOCKS {
        read(cache, key(block), lane, BLOCK).await;
    }
}

/// A folder that a closed cache filled with all blocks.
async fn filled(directory: &Path) {
    let cache = open(directory, 64 * MIB as u64).await;
    read_all(&cache, Lane::Tail).await;
    cache.close().await;
    assert_eq!(cache.counters().errors, 0);
    assert!(cache.counters().disk_written_bytes > 0);
}

/// Flips one bit in every 16 KiB of the disk tier's files, from `offset` on.
fn flip(directory: &Path, offset: u64) {
    let files = Env::real().files;
    for path in files.list(directory).unwrap() {
        if !path.to_str().unwrap().contains("foyer-storage") {
            continue;
        }
        let file = files.open(&path, OpenMode::ReadWrite).unwrap();
        let size = file.size().unwrap();
        for at in (offset..size).step_by(16 * 1024) {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            byte[0] ^= 4;
            file.write_all_at(&[IoSlice::new(&byte)], at).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_closed_is_hit_on_disk_by_both_lanes() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let cache = open(folder.path(), 64 * MIB as u64).await;
    for lane in [Lane::Backfill, Lane::Tail] {
        read_all(&cache, lane).await;
    }
    let counters = cache.counters();
    assert!(
        counters.disk_hits >= u64::from(BLOCKS) * 9 / 10,
        "{counters:?}"
    );
    assert_eq!((counters.errors, counters.corrupt), (0, 0), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_loaded_anew_wherever_it_was() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let cache = open(folder.path(), 64 * MIB as u64).await;
    read_all(&cache, Lane::Tail).await;
    let before = cache.counters().loads;
    for block in 0..4 {
        cache.forget(key(block));
        read(&cache, key(block), Lane::Backfill, BLOCK).await;
    }
    assert_eq!(cache.counters().loads, before + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_writes_nothing_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), 64 * MIB as u64).await;
    for block in 0..4 * BLOCKS {
        read(&cache, key(block), Lane::Backfill, BLOCK).await;
    }
    cache.close().await;
    assert_eq!(cache.counters().disk_written_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_memory_evicts_are_found_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), 256 * MIB as u64).await;
    for block in 0..4 * BLOCKS {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
        // At a pace that the writer keeps up with.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for block in 0..4 * BLOCKS {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
    }
    let counters = cache.counters();
    assert!(counters.disk_hits > u64::from(BLOCKS), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_came_from_disk_is_not_written_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk_bytes = 256 * MIB as u64;
    let cache = open(folder.path(), disk_bytes).await;
    for block in 0..4 * BLOCKS {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    cache.close().await;
    let cache = open(folder.path(), disk_bytes).await;
    // What is on disk; the reads of a backfill leave no trace in the tail's memory.
    let mut on_disk = Vec::new();
    for block in 0..4 * BLOCKS {
        let hits = cache.counters().disk_hits;
        read(&cache, key(block), Lane::Backfill, BLOCK).await;
        if cache.counters().disk_hits > hits {
            on_disk.push(key(block));
        }
    }
    assert!(on_disk.len() > 2 * BLOCKS as usize, "{}", on_disk.len());
    cache.close().await;
    let cache = open(folder.path(), disk_bytes).await;
    for &key in &on_disk {
        read(&cache, key, Lane::Tail, BLOCK).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let counters = cache.counters();
    assert_eq!(counters.disk_written_bytes, 0, "{counters:?}");
    let read_bytes = (on_disk.len() * BLOCK) as u64;
    assert!(
        counters.tail_bytes < read_bytes,
        "some were evicted: {counters:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_found_when_opening_is_a_miss_and_never_wrong_data() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    flip(folder.path(), 100);
    let cache = open(folder.path(), 64 * MIB as u64).await;
    read_all(&cache, Lane::Tail).await;
    let counters = cache.counters();
    assert!(counters.loads > 0, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_under_a_running_cache_is_a_miss_and_never_wrong_data() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let cache = open(folder.path(), 64 * MIB as u64).await;
    flip(folder.path(), 5000);
    read_all(&cache, Lane::Tail).await;
    let counters = cache.counters();
    assert_eq!(
        (counters.loads, counters.disk_hits),
        (u64::from(BLOCKS), 0),
        "{counters:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_deleted_under_a_running_cache_harms_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let cache = open(folder.path(), 64 * MIB as u64).await;
    read(&cache, key(0), Lane::Tail, BLOCK).await;
    folder.close().unwrap();
    read_all(&cache, Lane::Tail).await;
    for block in 0..4 * BLOCKS {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
    }
    cache.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_made_leaves_a_cache_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    let files = Env::real().files;
    files.open(&taken, OpenMode::CreateNew).unwrap();
    let cache = open(&taken, 64 * MIB as u64).await;
    assert_eq!(cache.counters().errors, 1);
    read_all(&cache, Lane::Tail).await;
    read_all(&cache, Lane::Tail).await;
    assert_eq!(cache.counters().memory_hits, u64::from(BLOCKS));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_size_or_format_empties_the_folder_of_our_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let files = Env::real().files;
    let theirs = folder.path().join("notes.txt");
    files.open(&theirs, OpenMode::CreateNew).unwrap();
    let cache = open(folder.path(), 128 * MIB as u64).await;
    read_all(&cache, Lane::Tail).await;
    assert_eq!(cache.counters().disk_hits, 0);
    files.open(&theirs, OpenMode::Read).unwrap();
    cache.close().await;

    let marker = folder.path().join("esker-cache.format");
    let file = files.open(&marker, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[IoSlice::new(b"esker-cache 0")], 0)
        .unwrap();
    let cache = open(folder.path(), 128 * MIB as u64).await;
    read_all(&cache, Lane::Tail).await;
    let counters = cache.counters();
    assert_eq!((counters.disk_hits, counters.errors), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_shed_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), 64 * MIB as u64).await;
    // Many times what the disk tier takes, as fast as memory goes.
    for block in 0..1024 {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
    }
    for block in 0..1024 {
        read(&cache, key(block), Lane::Tail, BLOCK).await;
    }
    let counters = cache.counters();
    assert_eq!((counters.errors, counters.corrupt), (0, 0), "{counters:?}");
    assert!(counters.tail_bytes <= BUDGET as u64, "{counters:?}");
    // A runtime that ends while foyer takes back a block of the disk waits for itself: it drops the
    // task that is being spawned under the lock which that drop takes.
    cache.close().await;
}
