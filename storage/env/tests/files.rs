//! One suite for every file system, and what only the simulated one can show.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use esker_env::sim::{Crash, SimDisk};
use esker_env::{Aligned, File, Files, OpenMode, SystemFiles, is_out_of_room, replace_file};

fn write(file: &dyn File, at: u64, bytes: &[u8]) {
    file.write_all_at(&[IoSlice::new(bytes)], at)
        .expect("a write");
}

fn read(file: &dyn File, at: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0xee; bytes];
    let read = file.read_at(&mut buffer, at).expect("a read");
    buffer.truncate(read);
    buffer
}

/// What every file system must do.
fn conformance(files: &dyn Files, root: &Path) {
    let directory = root.join("a/b");
    files.create_dir_all(&directory).expect("made");
    files.create_dir_all(&directory).expect("made twice");
    let path = directory.join("one");

    let missing = files
        .open(&path, OpenMode::ReadWrite)
        .expect_err("not there yet");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let file = files.open(&path, OpenMode::CreateNew).expect("created");
    let twice = files
        .open(&path, OpenMode::CreateNew)
        .expect_err("there already");
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);

    // Parts are written one after the other, empty ones and more than one call takes included.
    let parts: Vec<_> = (0..3000u32).map(u32::to_le_bytes).collect();
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    slices.insert(7, IoSlice::new(&[]));
    file.write_all_at(&slices, 5).expect("written");
    assert_eq!(file.size().expect("its length"), 5 + 12_000);
    assert_eq!(read(&*file, 0, 9), [0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read(&*file, 5 + 2999 * 4, 100), 2999u32.to_le_bytes());

    // Past the cache the same bytes come back, wherever one asks and however much.
    file.sync_data().expect("synced");
    for (at, bytes) in [
        (0, 1),
        (5, 4096),
        (4095, 2),
        (8191, 5000),
        (12_004, 50),
        (50_000, 1),
    ] {
        let mut direct = vec![0; bytes];
        let found = file
            .read_past_cache_at(&mut direct, at)
            .expect("a direct read");
        direct.truncate(found);
        assert_eq!(direct, read(&*file, at, bytes), "{bytes} bytes at {at}");
    }

    // Zeroes go to the disk by another way, and everybody sees them; lengths that are no whole
    // number of blocks as well.
    for bytes in [8192, 4097, (1 << 20) + 4096 + 1] {
        write(&*file, 0, &[9; 10_000]);
        file.write_zeroes(bytes).expect("written");
        let long = usize::try_from(bytes).expect("small");
        assert_eq!(read(&*file, 0, long), vec![0; long]);
        assert!(file.size().expect("its length") >= bytes);
    }

    // Whole blocks go past the cache, which shows them at once; other bytes go as they may.
    let mut through = Aligned::new();
    let block: Vec<u8> = (0..4096u32).map(|at| (at % 251) as u8).collect();
    for (at, lengths) in [
        (4096, vec![4096]),
        (8192, vec![1, 4000, 95, 8192 - 4096]),
        (0, vec![4096; 40]),
        (10, vec![4096]),
        (4096, vec![7, 0, 12]),
    ] {
        let parts: Vec<_> = lengths.iter().map(|length| &block[..*length]).collect();
        let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let seen = read(&*file, at, 1 << 20);
        let written = file.write_past_cache_at(&slices, at, &mut through);
        written.expect("written");
        let whole = parts.concat();
        assert_eq!(read(&*file, at, whole.len()), whole, "{lengths:?} at {at}");
        let after = read(&*file, at, 1 << 20);
        assert!(after.len() >= seen.len(), "nothing is cut off");
    }

    // A handle stays its file's, whatever the file is called by now, and whoever has its old name.
    let opened = files.open(&path, OpenMode::ReadWrite).expect("there");
    let renamed = directory.join("renamed");
    files.rename(&path, &renamed).expect("renamed");
    for step in 0..2u8 {
        let bytes = [step + 1; 4096];
        let written = opened.write_past_cache_at(&[IoSlice::new(&bytes)], 0, &mut through);
        written.expect("written by a handle from before");
        opened.sync_data().expect("synced");
        let mut direct = [0; 4096];
        let found = opened.read_past_cache_at(&mut direct, 0).expect("read");
        assert_eq!(
            (found, direct, read(&*file, 0, 4096)),
            (4096, bytes, bytes.to_vec())
        );
        if step == 0 {
            files.open(&path, OpenMode::CreateNew).expect("another");
        }
    }
    files.rename(&renamed, &path).expect("back");

    write(&*file, 0, &block);
    file.set_len(3).expect("cut");
    file.set_len(6).expect("extended");
    assert_eq!(read(&*file, 0, 10), [0, 1, 2, 0, 0, 0]);

    let two = directory.join("two");
    replace_file(files, &two, &[IoSlice::new(b"old")]).expect("written");
    replace_file(files, &two, &[IoSlice::new(b"n"), IoSlice::new(b"ew")]).expect("replaced");
    assert_eq!(
        read(&*files.open(&two, OpenMode::Read).expect("open"), 0, 10),
        b"new"
    );
    assert_eq!(files.list(&directory).expect("listed"), [path.clone(), two]);

    files.remove(&path).expect("removed");
    files.sync_dir(&directory).expect("synced");
    assert_eq!(
        files.remove(&path).expect_err("gone").kind(),
        ErrorKind::NotFound
    );
    assert!(files.space(&directory).expect("its room").free > 0);

    let lock = files.lock(&root.join("lock")).expect("ours");
    let taken = files.lock(&root.join("lock")).expect_err("held");
    assert_eq!(taken.kind(), ErrorKind::WouldBlock);
    drop(lock);
    files.lock(&root.join("lock")).expect("free again");
}

#[test]
fn the_system_conforms() {
    let root = tempfile::tempdir().expect("a folder");
    conformance(&SystemFiles, root.path());
}

#[test]
fn the_simulation_conforms() {
    conformance(&SimDisk::new(1), Path::new("/"));
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_may_tear_the_rest() {
    let (mut kept, mut lost) = (false, false);
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let path = Path::new("/f");
        let file = disk.open(path, OpenMode::CreateNew).expect("created");
        write(&*file, 0, &[1; 4096]);
        file.sync_data().expect("synced");
        disk.sync_dir(Path::new("/")).expect("synced");
        write(&*file, 512, &[2; 2048]);
        disk.crash(Crash::PowerCut);

        assert!(
            file.size().is_err(),
            "a handle from before the crash still answers"
        );
        let file = disk.open(path, OpenMode::Read).expect("still there");
        let bytes = read(&*file, 0, 4096);
        for (sector, bytes) in bytes.chunks(512).enumerate() {
            assert!(
                bytes.iter().all(|&byte| byte == bytes[0]),
                "a sector was torn"
            );
            let rewritten = (1..5).contains(&sector);
            kept |= rewritten && bytes[0] == 2;
            lost |= rewritten && bytes[0] == 1;
            assert!(rewritten || bytes[0] == 1, "a synced sector was lost");
        }
    }
    assert!(kept && lost, "seeds never differed");
}

#[test]
fn a_kill_keeps_the_cache_and_a_later_power_cut_takes_it() {
    let mut lost = false;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk
            .open(Path::new("/f"), OpenMode::CreateNew)
            .expect("created");
        disk.sync_dir(Path::new("/")).expect("synced");
        write(&*file, 0, b"cached");
        disk.crash(Crash::Kill);
        let file = disk.open(Path::new("/f"), OpenMode::Read).expect("there");
        assert_eq!(read(&*file, 0, 6), b"cached");
        disk.crash(Crash::PowerCut);
        let file = disk.open(Path::new("/f"), OpenMode::Read).expect("there");
        lost |= read(&*file, 0, 6) != b"cached";
    }
    assert!(lost);
}

#[test]
fn a_failed_sync_tells_once_and_only_a_read_past_the_cache_shows_the_loss() {
    let mut lost = false;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk
            .open(Path::new("/f"), OpenMode::CreateNew)
            .expect("created");
        write(&*file, 0, &[0; 8192]);
        file.sync_data().expect("synced");
        write(&*file, 0, &[7; 8192]);
        disk.fail_sync(1);
        file.sync_data().expect_err("the failure is told");
        file.sync_data().expect("and told only once");
        assert_eq!(
            read(&*file, 0, 8192),
            [7; 8192],
            "the cache still shows the new bytes"
        );
        let mut disk_bytes = vec![0; 8192];
        file.read_past_cache_at(&mut disk_bytes, 0)
            .expect("a direct read");
        lost |= disk_bytes.contains(&0);
    }
    assert!(lost);
}

#[test]
fn a_full_disk_refuses_and_a_failing_write_writes_a_part() {
    let disk = SimDisk::new(3);
    disk.set_capacity(1000);
    let file = disk
        .open(Path::new("/f"), OpenMode::CreateNew)
        .expect("created");
    write(&*file, 0, &[1; 900]);
    let full = file
        .write_all_at(&[IoSlice::new(&[2; 200])], 900)
        .expect_err("full");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert!(is_out_of_room(&full));
    disk.set_quota(950);
    let over = file
        .write_all_at(&[IoSlice::new(&[2; 200])], 900)
        .expect_err("over the quota");
    assert_eq!(over.kind(), ErrorKind::QuotaExceeded);
    assert!(is_out_of_room(&over));
    write(&*file, 0, &[3; 900]);
    disk.fail_write(2);
    write(&*file, 0, &[4; 10]);
    file.write_all_at(&[IoSlice::new(&[5; 10])], 0)
        .expect_err("due");
    write(&*file, 0, &[6; 10]);
}

#[test]
fn a_rename_that_is_not_synced_leaves_the_old_or_the_new_file() {
    let (mut old, mut new) = (false, false);
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let path = Path::new("/current");
        replace_file(&disk, path, &[IoSlice::new(b"old")]).expect("written");
        let fresh = disk
            .open(Path::new("/next"), OpenMode::CreateNew)
            .expect("created");
        write(&*fresh, 0, b"new");
        fresh.sync_data().expect("synced");
        disk.rename(Path::new("/next"), path).expect("renamed");
        disk.crash(Crash::PowerCut);
        let content = read(
            &*disk.open(path, OpenMode::Read).expect("one of them"),
            0,
            3,
        );
        old |= content == b"old";
        new |= content == b"new";
        assert!(content == b"old" || content == b"new");
    }
    assert!(old && new);
}
