//! A disk that does not answer: callers are not blocked, and the process is told to end.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use esker_env::{Env, File, Files, Lock, OpenMode, Space, SystemFiles};
use esker_types::RaftIndex;
use esker_wal::disk::{Wal, WalOptions};

use crate::world::{SHARD, body, id};

/// Syncs wait here while it is closed.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock().expect("unpoisoned") = true;
    }

    fn open(&self) {
        *self.closed.lock().expect("unpoisoned") = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("unpoisoned");
        drop(
            self.opened
                .wait_while(closed, |closed| *closed)
                .expect("unpoisoned"),
        );
    }
}

/// The machine's files, whose syncs pass a gate, and those of folders another.
#[derive(Debug, Default)]
struct Gated {
    files: Arc<Gate>,
    folders: Arc<Gate>,
}

#[derive(Debug)]
struct GatedFile(Arc<dyn File>, Arc<Gate>);

impl Files for Gated {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GatedFile(
            SystemFiles.open(path, mode)?,
            Arc::clone(&self.files),
        )))
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        SystemFiles.list(directory)
    }
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        SystemFiles.create_dir_all(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemFiles.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemFiles.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.folders.pass();
        SystemFiles.sync_dir(directory)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemFiles.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        SystemFiles.lock(path)
    }
}

impl File for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }
    fn read_past_cache_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_past_cache_at(buffer, at)
    }
    fn write_all_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.0.write_all_at(parts, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
}

/// Waits, with ten times the slack a loaded machine needs.
async fn comes(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(what(), "it did not come within ten seconds");
}

/// A log on `files`, and how often it was told to end.
async fn open(
    folder: &Path,
    files: Arc<Gated>,
    sync_fatal: Duration,
) -> (Arc<Wal>, Arc<AtomicUsize>) {
    let env = Env {
        files,
        ..Env::real()
    };
    let options = WalOptions {
        file_bytes: 1 << 20,
        group_bytes: 256 << 10,
        disk_bytes: 16 << 20,
        sync_fatal,
        ..WalOptions::default()
    };
    let told = Arc::new(AtomicUsize::new(0));
    let on_fatal = {
        let told = Arc::clone(&told);
        Arc::new(move |_: &_| _ = told.fetch_add(1, Ordering::SeqCst))
    };
    let opened = Wal::open(&env, folder, options, BTreeMap::new(), on_fatal).await;
    let (wal, _) = opened.expect("an empty log");
    comes(|| wal.stats().spares > 0).await;
    (wal, told)
}

#[tokio::test]
async fn a_folder_whose_sync_hangs_while_a_file_is_taken_back_ends_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let gated = Arc::new(Gated::default());
    let folders = Arc::clone(&gated.folders);
    // The disk of a loaded machine may take its time for all that is written here.
    let (wal, told) = open(folder.path(), gated, Duration::from_secs(3)).await;
    let entries = (1..=12).map(|index| (id(index, 1), body(index, 200 << 10)));
    wal.append(SHARD, entries, drop).expect("they follow");
    assert!(wal.wait_synced(SHARD, RaftIndex(12)).await);
    wal.purge(SHARD, id(12, 1));
    comes(|| wal.release(SHARD, RaftIndex(12)) == RaftIndex(12)).await;
    let files = wal.stats().files;
    assert!(files > 1 || wal.stats().spares > 0, "{files} files");
    // The next that is taken back.
    folders.close();
    let entries = (13..=24).map(|index| (id(index, 1), body(index, 200 << 10)));
    wal.append(SHARD, entries, drop).expect("they follow");
    comes(|| told.load(Ordering::SeqCst) > 0).await;
    assert!(wal.has_failed());
    folders.open();
}

#[tokio::test]
async fn a_sync_that_hangs_ends_the_process_and_blocks_nobody_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let gated = Arc::new(Gated::default());
    let gate = Arc::clone(&gated.files);
    let (wal, told) = open(folder.path(), gated, Duration::from_millis(300)).await;
    let acked = Arc::new(AtomicBool::new(false));
    let ack = |acked: &Arc<AtomicBool>| {
        let acked = Arc::clone(acked);
        move |result: io::Result<()>| acked.store(result.is_ok(), Ordering::SeqCst)
    };
    wal.append(SHARD, [(id(1, 1), body(1, 100))], ack(&acked))
        .expect("follows");
    comes(|| acked.load(Ordering::SeqCst)).await;

    gate.close();
    let second = Arc::new(AtomicBool::new(false));
    wal.append(SHARD, [(id(2, 1), body(2, 100))], ack(&second))
        .expect("it does not wait");
    wal.purge(SHARD, id(1, 1));
    let all = RaftIndex(1)..=RaftIndex(9);
    assert_eq!(wal.read(SHARD, all, None).await.expect("readable").len(), 1);
    comes(|| told.load(Ordering::SeqCst) > 0).await;
    assert!(wal.has_failed() && !second.load(Ordering::SeqCst));
    assert!(
        wal.sync_age()
            .is_some_and(|age| age > Duration::from_millis(300))
    );
    assert!(!wal.wait_synced(SHARD, RaftIndex(2)).await);
    tokio::time::sleep(Duration::from_millis(700)).await;
    gate.open();
    comes(|| wal.sync_age().is_none()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(told.load(Ordering::SeqCst), 1, "it is told once");
    assert!(!second.load(Ordering::SeqCst), "acked after the end");
}
