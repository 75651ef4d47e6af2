//! A shard's state in a file of its own: what a start begins from, so that the log below it need
//! not be read again.
//!
//! ```text
//!   checkpoints/<shard>.ckp
//!   magic 8 │ version u32 │ shard u32 │ term u64 │ index u64 │ membership length u32 │ state length u64 │
//!   membership │ state │ crc u32
//! ```
//! Little-endian. The CRC-32C covers all before it. Membership and state are opaque here. It is
//! written beside the old one and becomes current in one step, the rename: after a crash there is the
//! old one or the new one.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use crc_fast::{CrcAlgorithm, Digest};
use esker_env::{Env, OpenMode, rename_file, write_file};
use esker_types::{EntryId, RaftIndex, ShardId, Term};

use crate::Error;

const MAGIC: &[u8; 8] = b"ESKERLCP";
/// The version this binary writes; it reads no other.
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4 + 8;
/// What a name ends in that is not current.
const BESIDE: &str = ".tmp";
/// Bytes of a checkpoint that a start is willing to read: ten thousand partitions take a few MiB.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;

/// A shard's state at an entry.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The shard.
    pub shard: ShardId,
    /// The last entry whose effect it holds.
    pub last: EntryId,
    /// Raft's membership at that entry, encoded.
    pub membership: Bytes,
    /// The state, encoded, in parts.
    pub state: Vec<Bytes>,
}

impl Checkpoint {
    /// Bytes of the state, encoded.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.state.iter().map(|part| part.len() as u64).sum()
    }

    /// The checkpoint that the bytes of a whole file hold; `None` if they hold none.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        decode(bytes)
    }

    /// The checkpoint in the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::Version`].
    pub fn read(env: &Env, path: &Path) -> Result<Self, Error> {
        let file = env.files.open(path, OpenMode::Read);
        let file = file.map_err(|source| io_error("opening", path, source))?;
        let size = file.size();
        let size = size.map_err(|source| io_error("measuring", path, source))?;
        if size > CHECKPOINT_BYTES_MAX {
            return Err(corrupt(path, "it is larger than any can be"));
        }
        let size = usize::try_from(size);
        let size = size.map_err(|_| corrupt(path, "it does not fit in memory"))?;
        let mut bytes = vec![0; size];
        let read = file.read_at(&mut bytes, 0);
        let read = read.map_err(|source| io_error("reading", path, source))?;
        bytes.truncate(read);
        if bytes.starts_with(MAGIC)
            && let Some(version) = bytes.get(8..12).map(|mut version| version.get_u32_le())
            && version != VERSION
        {
            return Err(Error::Version {
                path: path.to_owned(),
                version,
            });
        }
        decode(&bytes.into()).ok_or_else(|| corrupt(path, "its checksum or lengths are off"))
    }
}

/// The folder of a node's checkpoints. All calls block.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    env: Env,
    directory: PathBuf,
    /// Written so far: each has a name of its own until it is current.
    written: Arc<AtomicU64>,
}

/// A checkpoint that is on disk and not current yet. Let go of, it is gone.
#[derive(Debug)]
pub struct Prepared {
    env: Env,
    beside: PathBuf,
    path: PathBuf,
    placed: AtomicBool,
}

impl Checkpoints {
    /// The checkpoints in `directory`, which is made if missing, and which nobody else uses. What was being
    /// written when a process died is removed: it takes room.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(env: &Env, directory: &Path) -> Result<Self, Error> {
        let made = env.files.create_dir_all(directory);
        // What is listed now must not be taken back by a power cut later.
        let named = made.and_then(|()| env.files.sync_dir(directory));
        named.map_err(|source| io_error("making", directory, source))?;
        let listed = env.files.list(directory);
        let listed = listed.map_err(|source| io_error("listing", directory, source))?;
        let half = |path: &PathBuf| {
            path.as_os_str()
                .as_encoded_bytes()
                .ends_with(BESIDE.as_bytes())
        };
        for path in listed.into_iter().filter(half) {
            let removed = env.files.remove(&path);
            removed.map_err(|source| io_error("removing", &path, source))?;
        }
        Ok(Self {
            env: env.clone(),
            directory: directory.to_owned(),
            written: Arc::default(),
        })
    }

    /// Makes `checkpoint` the current one of its shard, durably.
    ///
    /// # Errors
    /// [`Error::Io`]; then the old one, or this one, is current. If there was no room for it, the
    /// old one is, and nothing is left behind. After an `esker_env::FailedSync` the node must end.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.prepare(checkpoint)?.make_current()
    }

    /// Writes `checkpoint` beside the current one of its shard: whatever room it needs, it has.
    ///
    /// # Errors
    /// [`Error::Io`]; then nothing is left behind. After an `esker_env::FailedSync` the node must end.
    pub fn prepare(&self, checkpoint: &Checkpoint) -> Result<Prepared, Error> {
        let path = self.path(checkpoint.shard);
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_extension(format!("ckp.{number}{BESIDE}"));
        // From here on, so that what there was room for does not stay: others need it more.
        let prepared = Prepared {
            env: self.env.clone(),
            beside,
            path,
            placed: AtomicBool::new(false),
        };
        let head = head(checkpoint);
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut parts = vec![IoSlice::new(&head), IoSlice::new(&checkpoint.membership)];
        parts.extend(checkpoint.state.iter().map(|part| IoSlice::new(part)));
        parts.iter().for_each(|part| digest.update(part));
        let crc = u32::try_from(digest.finalize())
            .expect("a CRC-32 has 32 bits")
            .to_le_bytes();
        parts.push(IoSlice::new(&crc));
        let written = write_file(&*self.env.files, &prepared.beside, &parts);
        written.map_err(|source| io_error("writing", &prepared.beside, source))?;
        Ok(prepared)
    }

    /// The current checkpoint of `shard`, if it ever had one.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`], [`Error::Version`].
    pub fn load(&self, shard: ShardId) -> Result<Option<Checkpoint>, Error> {
        self.read(&self.path(shard), shard)
    }

    /// The last entry of every shard's current checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoints::load`].
    pub fn indexes(&self) -> Result<Vec<(ShardId, EntryId)>, Error> {
        let listed = self.env.files.list(&self.directory);
        let paths = listed.map_err(|source| io_error("listing", &self.directory, source))?;
        let mut indexes = Vec::new();
        for path in paths {
            let stem = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".ckp"));
            let Some(shard) = stem.and_then(|stem| stem.parse().ok()).map(ShardId) else {
                continue;
            };
            if let Some(checkpoint) = self.read(&path, shard)? {
                indexes.push((shard, checkpoint.last));
            }
        }
        Ok(indexes)
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.directory.join(format!("{:010}.ckp", shard.0))
    }

    fn read(&self, path: &Path, shard: ShardId) -> Result<Option<Checkpoint>, Error> {
        let checkpoint = match Checkpoint::read(&self.env, path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        if checkpoint.shard != shard {
            return Err(corrupt(path, "it belongs to another shard"));
        }
        Ok(Some(checkpoint))
    }
}

impl Prepared {
    /// Makes it the current checkpoint of its shard, durably; once.
    ///
    /// # Errors
    /// [`Error::Io`]; then the old one, or this one, is current. After an `esker_env::FailedSync` the
    /// node must end.
    pub fn make_current(&self) -> Result<(), Error> {
        if self.placed.load(Ordering::Acquire) {
            return Ok(());
        }
        let renamed = rename_file(&*self.env.files, &self.beside, &self.path);
        renamed.map_err(|source| io_error("renaming", &self.beside, source))?;
        self.placed.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !*self.placed.get_mut() {
            // At the latest, the next start does it.
            drop(self.env.files.remove(&self.beside));
        }
    }
}

/// What stands before membership and state.
fn head(checkpoint: &Checkpoint) -> Vec<u8> {
    let state_bytes: usize = checkpoint.state.iter().map(Bytes::len).sum();
    let mut head = Vec::with_capacity(FIXED_BYTES);
    head.put_slice(MAGIC);
    head.put_u32_le(VERSION);
    head.put_u32_le(checkpoint.shard.0);
    head.put_u64_le(checkpoint.last.term.0);
    head.put_u64_le(checkpoint.last.index.0);
    head.put_u32_le(u32::try_from(checkpoint.membership.len()).expect("a few nodes"));
    head.put_u64_le(state_bytes as u64);
    head
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset: 0,
        what: format!("the checkpoint: {what}"),
    }
}

fn decode(bytes: &Bytes) -> Option<Checkpoint> {
    let checked = bytes.len().checked_sub(4)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..checked]);
    if u64::from((&bytes[checked..]).get_u32_le()) != digest.finalize() {
        return None;
    }
    let mut from = bytes.slice(..checked);
    let mut magic = [0; 8];
    from.try_copy_to_slice(&mut magic).ok()?;
    from.try_get_u32_le().ok()?;
    let shard = ShardId(from.try_get_u32_le().ok()?);
    let term = Term(from.try_get_u64_le().ok()?);
    let index = RaftIndex(from.try_get_u64_le().ok()?);
    let membership_bytes = from.try_get_u32_le().ok()? as usize;
    let state_bytes = usize::try_from(from.try_get_u64_le().ok()?).ok()?;
    if &magic != MAGIC || from.len() != membership_bytes.checked_add(state_bytes)? {
        return None;
    }
    let membership = from.split_to(membership_bytes);
    let last = EntryId { term, index };
    Some(Checkpoint {
        shard,
        last,
        membership,
        state: vec![from],
    })
}

#[cfg(test)]
mod tests {
    use esker_env::sim::Crash;
    use esker_env::{FailedSync, is_out_of_room};

    use super::*;

    fn checkpoint(index: u64) -> Checkpoint {
        Checkpoint {
            shard: ShardId(3),
            last: EntryId {
                term: Term(2),
                index: RaftIndex(index),
            },
            membership: Bytes::from_static(b"members"),
            state: vec![Bytes::from_static(b"sta"), Bytes::from_static(b"te")],
        }
    }

    #[test]
    fn the_newest_one_is_current_and_a_flipped_bit_stops_the_node() {
        let (env, _, disk) = Env::simulated(1);
        let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
        assert!(checkpoints.load(ShardId(3)).unwrap().is_none());
        checkpoints.save(&checkpoint(7)).unwrap();
        checkpoints.save(&checkpoint(9)).unwrap();
        let read = checkpoints.load(ShardId(3)).unwrap().unwrap();
        assert_eq!(
            (read.last, read.state.concat()),
            (checkpoint(9).last, b"state".to_vec())
        );
        assert_eq!(
            checkpoints.indexes().unwrap(),
            [(ShardId(3), checkpoint(9).last)]
        );

        let path = checkpoints.path(ShardId(3));
        let mut size = 0;
        disk.edit(&path, |bytes| size = bytes.len()).unwrap();
        for at in 0..size {
            disk.edit(&path, |bytes| bytes[at] ^= 4).unwrap();
            assert!(checkpoints.load(ShardId(3)).is_err(), "byte {at}");
            disk.edit(&path, |bytes| bytes[at] ^= 4).unwrap();
        }
        checkpoints.load(ShardId(3)).unwrap().unwrap();
    }

    #[test]
    fn what_a_death_left_half_written_is_removed_by_the_next_start() {
        for dies_in in 1..6 {
            let (env, _, disk) = Env::simulated(1);
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            checkpoints.save(&checkpoint(7)).unwrap();
            disk.kill_before(dies_in);
            let _ = checkpoints.save(&checkpoint(9));
            disk.crash(Crash::Kill);
            let files = Arc::new(disk.mount());
            let env = Env { files, ..env };
            Checkpoints::open(&env, Path::new("/c")).unwrap();
            let left = env.files.list(Path::new("/c")).unwrap();
            assert_eq!(left, [checkpoints.path(ShardId(3))], "{dies_in}");
        }
    }

    #[test]
    fn what_was_saved_or_read_is_still_current_after_a_power_cut() {
        let shard = ShardId(3);
        // Killed before each write, sync and change of names of a save, or not at all.
        for (dies_in, seed) in (1..12).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
            let (env, _, disk) = Env::simulated(seed);
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            checkpoints.save(&checkpoint(7)).unwrap();
            disk.kill_before(dies_in);
            let saved = checkpoints.save(&checkpoint(9)).is_ok();
            // The page cache outlives the process: what the next one reads may be a name that was
            // never synced.
            disk.crash(Crash::Kill);
            let env = Env {
                files: Arc::new(disk.mount()),
                ..env
            };
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            let relied_on = checkpoints.load(shard).unwrap().unwrap().last.index;
            assert!(relied_on == RaftIndex(9) || !saved, "{dies_in}");
            disk.crash(Crash::PowerCut);
            let env = Env {
                files: Arc::new(disk.mount()),
                ..env
            };
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            let kept = checkpoints.load(shard).unwrap().unwrap().last.index;
            assert_eq!(kept, relied_on, "killed before {dies_in}, seed {seed}");
        }
    }

    #[test]
    fn no_room_is_what_a_write_says_and_never_a_sync() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            // The sync of the file, the sync of its directory.
            for sync in 1..=2 {
                let (env, _, disk) = Env::simulated(sync);
                let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
                checkpoints.save(&checkpoint(7)).unwrap();
                disk.fail_sync_with(sync, kind);
                let failed = checkpoints.save(&checkpoint(9)).unwrap_err();
                let Error::Io { source, .. } = &failed else {
                    unreachable!("{failed}");
                };
                assert!(FailedSync::is(source), "{failed}");
                let told = io::Error::from(failed);
                assert!(!is_out_of_room(&told), "{told}");
                assert!(told.to_string().contains("a sync failed"), "{told}");
            }
        }
        let (env, _, disk) = Env::simulated(1);
        let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
        disk.set_capacity(8);
        let full = io::Error::from(checkpoints.save(&checkpoint(9)).unwrap_err());
        assert!(is_out_of_room(&full), "{full}");
    }

    #[test]
    fn a_save_that_returned_survives_a_power_cut() {
        for seed in 0..32 {
            let (env, _, disk) = Env::simulated(seed);
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            for index in [7, 9] {
                checkpoints.save(&checkpoint(index)).unwrap();
            }
            disk.crash(Crash::PowerCut);
            let env = Env {
                files: Arc::new(disk.mount()),
                ..env
            };
            let checkpoints = Checkpoints::open(&env, Path::new("/c")).unwrap();
            let kept = checkpoints.load(ShardId(3)).unwrap().unwrap();
            assert_eq!(kept.last.index, RaftIndex(9), "seed {seed}");
        }
    }
}
