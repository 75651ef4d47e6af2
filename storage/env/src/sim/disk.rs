//! A file system that knows synced from unsynced bytes.
//!
//! Fault model, and why a node must survive it:
//! - *Kill*: nothing is lost, open handles are. The page cache outlives the process.
//! - *Power cut*: of the bytes written since the last sync of a file, any 512-byte sectors may
//!   have reached the disk, in any order, and the rest not. Of the names changed since the last
//!   sync of a directory, any first few changes may have.
//! - *Failed sync*: the error is told once; the pages count as clean from then on although they may
//!   never have been written, so that a second sync succeeds and proves nothing.
//! - *Failed, short or refused write*: an error, with any part of the bytes written.
//! - *Rot*: a test may change stored bytes with [`SimDisk::edit`].

mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::files::{File, Files, Lock, OpenMode, Space};
use crate::sim::SeededEntropy;
use inode::Inode;

/// How a node died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process alone: the page cache survives.
    Kill,
    /// The power: what was not synced may be lost, in part or whole.
    PowerCut,
}

/// A simulated file system. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life this handle belongs to, after which it only answers with errors; `None` for the
    /// handle of whoever drives the simulation.
    mounted: Option<u64>,
}

type InodeId = u64;

struct State {
    /// The names as a running process sees them, and as the disk has them.
    names: BTreeMap<PathBuf, InodeId>,
    durable_names: BTreeMap<PathBuf, InodeId>,
    /// Changes of names not synced yet, oldest first.
    pending: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    locks: BTreeSet<PathBuf>,
    /// Handles from before the last crash answer with an error.
    life: u64,
    /// The process was killed by [`SimDisk::kill_before`] and the next has not begun.
    dead: bool,
    capacity: u64,
    quota: u64,
    faults: Faults,
    counts: Counts,
    entropy: SeededEntropy,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, InodeId),
    Unlink(PathBuf),
    /// Within one directory, and in one step, as a journaling file system does it.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename { to: path, .. } => path,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, InodeId>) {
        match self {
            Self::Link(path, inode) => _ = names.insert(path, inode),
            Self::Unlink(path) => _ = names.remove(&path),
            Self::Rename { from, to } => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
        }
    }
}

/// Errors due, counted in calls from now.
#[derive(Default)]
struct Faults {
    sync_fails_in: Option<u64>,
    /// What that sync says; `None` for nothing in particular.
    sync_says: Option<io::ErrorKind>,
    write_fails_in: Option<u64>,
    /// The process dies before this write, sync or change of names.
    dies_in: Option<u64>,
}

impl Faults {
    fn failed_sync(&mut self, what: &str) -> io::Error {
        let kind = self.sync_says.take().unwrap_or(io::ErrorKind::Other);
        io::Error::new(kind, format!("simulated: {what}"))
    }
}

/// Calls made so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
}

impl SimDisk {
    /// An empty disk without a limit.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            directories: BTreeSet::from([PathBuf::from("/")]),
            inodes: BTreeMap::new(),
            next_inode: 1,
            locks: BTreeSet::new(),
            life: 0,
            dead: false,
            capacity: u64::MAX,
            quota: u64::MAX,
            faults: Faults::default(),
            counts: Counts::default(),
            entropy: SeededEntropy::new(seed ^ 0x6469_736b),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            mounted: None,
        }
    }

    /// The disk as a process sees it that starts now: after the next crash, nothing that is left
    /// of the process can change it any more.
    #[must_use]
    pub fn mount(&self) -> Self {
        let life = self.state().life;
        Self {
            state: Arc::clone(&self.state),
            mounted: Some(life),
        }
    }

    /// The node dies, and faults due are called off. Every open handle and lock is gone; the next life sees what survived.
    pub fn crash(&self, how: Crash) {
        let mut state = self.state();
        state.life += 1;
        state.dead = false;
        state.faults = Faults::default();
        state.locks.clear();
        if how == Crash::PowerCut {
            state.cut_power();
        }
    }

    /// The `calls`-th sync from now fails (1 = the next).
    pub fn fail_sync(&self, calls: u64) {
        self.state().faults.sync_fails_in = Some(calls);
    }

    /// The `calls`-th sync from now fails with `kind` (1 = the next): a file system that gives out
    /// room late, or over a network, may say only then that there is none.
    pub fn fail_sync_with(&self, calls: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        state.faults.sync_fails_in = Some(calls);
        state.faults.sync_says = Some(kind);
    }

    /// The `calls`-th write from now fails, with part of its bytes written (1 = the next).
    pub fn fail_write(&self, calls: u64) {
        self.state().faults.write_fails_in = Some(calls);
    }

    /// The process is killed just before the `calls`-th write, sync or change of names from now
    /// (1 = the next): that call and all later ones of this life fail.
    pub fn kill_before(&self, calls: u64) {
        self.state().faults.dies_in = Some(calls);
    }

    /// Bytes the disk holds at most; writes past that fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes this user may hold at most; writes past that fail with `QuotaExceeded`, and
    /// [`Files::space`] knows nothing of it.
    pub fn set_quota(&self, bytes: u64) {
        self.state().quota = bytes;
    }

    /// Changes the stored bytes of the file at `path`, as rot or a surgeon would.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.state().inode_at(path)?.edit(change);
        Ok(())
    }

    /// A disk of its own with the same content: files, names, and what is synced.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let twin = Self::new(seed);
        {
            let from = self.state();
            let mut to = twin.state();
            to.names.clone_from(&from.names);
            to.durable_names.clone_from(&from.durable_names);
            to.pending.clone_from(&from.pending);
            to.directories.clone_from(&from.directories);
            to.inodes.clone_from(&from.inodes);
            to.next_inode = from.next_inode;
            to.capacity = from.capacity;
            to.quota = from.quota;
        }
        twin
    }

    /// Syncs made so far, failed ones included.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().counts.syncs
    }

    /// Writes made so far, failed ones included.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().counts.writes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// The state, if the process that holds this handle still lives.
    fn living(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if self.mounted.is_some_and(|life| life != state.life) {
            return Err(io::Error::other("simulated: this process is dead"));
        }
        Ok(state)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk")
            .field("files", &state.names.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn cut_power(&mut self) {
        // Changes of names reach the disk in order: any first few of those pending.
        let kept = self.entropy.below(self.pending.len() as u64 + 1);
        let mut names = std::mem::take(&mut self.durable_names);
        for (at, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if (at as u64) < kept {
                change.apply(&mut names);
            }
        }
        self.names.clone_from(&names);
        self.durable_names = names;
        for inode in self.inodes.values_mut() {
            inode.cut_power(&self.entropy);
        }
        let linked: BTreeSet<_> = self.names.values().copied().collect();
        self.inodes.retain(|id, _| linked.contains(id));
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode_at(&mut self, path: &Path) -> io::Result<&mut Inode> {
        let id = *self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.inodes.get_mut(&id).expect("a name points to an inode"))
    }

    /// Called before each change: whether the process lives to make it.
    fn live_on(&mut self) -> io::Result<()> {
        if strikes(&mut self.faults.dies_in) {
            self.life += 1;
            self.locks.clear();
            self.dead = true;
        }
        if self.dead {
            Err(io::Error::other("simulated: the process is dead"))
        } else {
            Ok(())
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.inodes.get(id))
            .map(Inode::len)
            .sum()
    }
}

/// Counts a fault down; true when it strikes.
fn strikes(due: &mut Option<u64>) -> bool {
    match due {
        Some(1) => {
            *due = None;
            true
        }
        Some(calls) => {
            *calls -= 1;
            false
        }
        None => false,
    }
}

impl Files for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.living()?;
        let inode = match (state.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (None, OpenMode::CreateNew) => {
                state.live_on()?;
                let parent = path.parent().unwrap_or(Path::new("/"));
                if !state.directories.contains(parent) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change_name(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
            life: state.life,
            writable,
        }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.living()?;
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = state.names.keys().chain(&state.directories);
        let mut inside: Vec<_> = all
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect();
        inside.sort();
        Ok(inside)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.living()?;
        state
            .directories
            .extend(directory.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.living()?;
        state.live_on()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.living()?;
        state.live_on()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.living()?;
        state.live_on()?;
        state.counts.syncs += 1;
        if strikes(&mut state.faults.sync_fails_in) {
            return Err(state.faults.failed_sync("the sync of a directory failed"));
        }
        let (synced, pending) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|change: &NameChange| change.path().parent() == Some(directory));
        state.pending = pending;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.living()?;
        Ok(Space {
            free: state.capacity.saturating_sub(state.used()),
            total: state.capacity,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.living()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let life = state.life;
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
            life,
        }))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: InodeId,
    life: u64,
    writable: bool,
}

impl SimFile {
    fn with<T>(&self, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(io::Error::other(
                "simulated: this handle died with its process",
            ));
        }
        call(&mut state)
    }

    fn with_inode<T>(&self, call: impl FnOnce(&mut Inode, &SeededEntropy) -> T) -> io::Result<T> {
        self.with(|state| {
            let inode = state
                .inodes
                .get_mut(&self.inode)
                .ok_or(io::ErrorKind::NotFound)?;
            Ok(call(inode, &state.entropy))
        })
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with_inode(|inode, _| inode.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with_inode(|inode, _| inode.set_len(bytes))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.with_inode(|inode, _| inode.read_at(buffer, at))
    }

    fn read_past_cache_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.with_inode(|inode, _| inode.read_past_cache_at(buffer, at))
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.with(|state| {
            state.live_on()?;
            state.counts.writes += 1;
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let fails = strikes(&mut state.faults.write_fails_in);
            let (limit, full) = match state.quota < state.capacity {
                true => (state.quota, io::ErrorKind::QuotaExceeded),
                false => (state.capacity, io::ErrorKind::StorageFull),
            };
            let room = limit.saturating_sub(state.used());
            let inode = state
                .inodes
                .get_mut(&self.inode)
                .ok_or(io::ErrorKind::NotFound)?;
            let grows = (at + bytes.len() as u64).saturating_sub(inode.len());
            if fails || grows > room {
                let written = state.entropy.below(bytes.len() as u64 + 1);
                let written = usize::try_from(written.min(room)).expect("no more than was asked");
                inode.write_at(&bytes[..written], at);
                return Err(if fails {
                    io::Error::other("simulated: a write failed")
                } else {
                    full.into()
                });
            }
            inode.write_at(&bytes, at);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state| {
            state.live_on()?;
            state.counts.syncs += 1;
            let fails = strikes(&mut state.faults.sync_fails_in);
            let inode = state
                .inodes
                .get_mut(&self.inode)
                .ok_or(io::ErrorKind::NotFound)?;
            if fails {
                inode.fail_sync(&state.entropy);
                return Err(state.faults.failed_sync("a sync failed"));
            }
            inode.sync();
            Ok(())
        })
    }
}
