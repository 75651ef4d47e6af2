//! Files whose durability is explicit.
//!
//! Nothing is durable before it is synced: bytes by [`File::sync_data`], names (created, renamed,
//! removed) by [`Files::sync_dir`]. All calls block; they are made from [`crate::Workers`].

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Offset, length and memory of a read or write past the page cache are multiples of this. 4 KiB is
/// the largest logical block of the disks in use.
pub const DIRECT_ALIGN: usize = 4096;

/// Bytes written at a time by [`File::write_zeroes`].
pub(crate) const ZEROES_AT_ONCE: usize = 1 << 20;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A file that must not exist yet, to read and write.
    CreateNew,
}

/// Room on the file system that holds a path, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// What an unprivileged process may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Held while a process owns a directory; released on drop or death.
pub trait Lock: Send + Sync + fmt::Debug {}

/// An open file. Positions are in bytes from its start.
pub trait File: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or extends it (with zeroes) to `bytes`.
    ///
    /// # Errors
    /// What the file system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reads into `buffer` from `at`; returns how many bytes there were, fewer than asked for only
    /// at the end of the file.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Like [`File::read_at`], but from the disk itself: bytes that only the page cache holds, as
    /// a kill or a failed sync may leave them, are not returned. Call [`File::sync_data`] first.
    ///
    /// # Errors
    /// What the file system says.
    fn read_past_cache_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `parts`, one after the other, from `at`.
    ///
    /// # Errors
    /// What the file system says; then any part of it may have been written.
    fn write_all_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()>;

    /// Like [`File::write_all_at`], but past the page cache where the file system lets it, and
    /// `at` and the bytes of all parts are multiples of [`DIRECT_ALIGN`]. `through` is memory that
    /// the parts are copied into, kept from call to call: it stays as large as the largest write.
    ///
    /// A page of the cache costs a write more than the disk does when it has to be found first;
    /// what nobody reads back soon need not be there.
    ///
    /// # Errors
    /// As [`File::write_all_at`].
    fn write_past_cache_at(
        &self,
        parts: &[IoSlice<'_>],
        at: u64,
        through: &mut Aligned,
    ) -> io::Result<()> {
        let _ = through;
        self.write_all_at(parts, at)
    }

    /// Writes `bytes` zeroes from the start, past the page cache where the file system lets it:
    /// what nobody will read need not be copied there, nor push out what somebody will.
    ///
    /// # Errors
    /// As [`File::write_all_at`].
    fn write_zeroes(&self, bytes: u64) -> io::Result<()> {
        let zeroes = vec![0; ZEROES_AT_ONCE];
        write_repeated(&zeroes, bytes, |part, at| {
            self.write_all_at(&[IoSlice::new(part)], at)
        })
    }

    /// Returns once the bytes written so far, and the length needed to read them, are on the disk.
    ///
    /// # Errors
    /// What the file system says. After an error nothing may be assumed of what was written since
    /// the last success, not even by syncing again: a kernel may forget dirty pages it failed to
    /// write (Rebello et al., USENIX ATC '20).
    fn sync_data(&self) -> io::Result<()>;
}

/// A file system.
pub trait Files: Send + Sync + fmt::Debug {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, or what the file system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Paths of the files and directories directly in `directory`, sorted.
    ///
    /// # Errors
    /// `NotFound`, or what the file system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes `directory` and its parents, durably.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dir_all(&self, directory: &Path) -> io::Result<()>;

    /// Gives the file at `from` the name `to`, in the same directory, over what stood there.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the file at `path`.
    ///
    /// # Errors
    /// `NotFound`, or what the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns once the names in `directory` are on the disk as they stand.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Room on the file system that holds `path`.
    ///
    /// # Errors
    /// What the file system says.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the exclusive lock at `path` (made if missing), or says that another process has it.
    ///
    /// # Errors
    /// `WouldBlock` if another holds it, or what the file system says.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// Whether a write failed for want of room, the disk's or the user's, and nothing else is wrong.
/// A [`FailedSync`] is something else, whatever its reason.
#[must_use]
pub fn is_out_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A sync that failed: what it was to make durable may be lost, and nothing is tried again.
#[derive(Debug)]
pub struct FailedSync(io::Error);

impl FailedSync {
    /// What a sync said, so that it is not taken for what a write says: it has a kind of its own.
    #[must_use]
    pub fn of(error: io::Error) -> io::Error {
        io::Error::other(Self(error))
    }

    /// Whether `error` is one.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl fmt::Display for FailedSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sync failed: {}", self.0)
    }
}

impl std::error::Error for FailedSync {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Memory that begins at a multiple of [`DIRECT_ALIGN`].
#[derive(Debug, Default)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Vec::new(),
            start: 0,
            bytes: 0,
        }
    }

    pub(crate) fn zeroed(bytes: usize) -> Self {
        let memory = vec![0u8; bytes + DIRECT_ALIGN];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        Self {
            memory,
            start,
            bytes,
        }
    }

    /// Makes it hold `parts`, one after the other.
    pub(crate) fn fill(&mut self, parts: &[IoSlice<'_>]) {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if self.start + bytes > self.memory.len() {
            *self = Self::zeroed(bytes);
        }
        self.bytes = bytes;
        let mut rest = self.bytes_mut();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// Hands `block` to `write` over and over, with its position, until `bytes` are written.
pub(crate) fn write_repeated(
    block: &[u8],
    bytes: u64,
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    (0..bytes).step_by(block.len()).try_for_each(|at| {
        let length = usize::try_from(bytes - at).map_or(block.len(), |rest| rest.min(block.len()));
        write(&block[..length], at)
    })
}

/// Writes `parts` as the whole file `path` and makes it durable: after a crash at any point the
/// old content is there, or the new one, never a mixture. A leftover `<path>.tmp` is overwritten.
///
/// # Errors
/// What the file system says; the old content then still stands, unless only the last step (the
/// sync of the directory) failed: then it is one of the two. Of a sync it is a [`FailedSync`].
pub fn replace_file(files: &dyn Files, path: &Path, parts: &[IoSlice<'_>]) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    write_file(files, &temporary, parts)?;
    rename_file(files, &temporary, path)
}

/// Writes `parts` as the whole file `path`, anew, and syncs them. Its name may still be lost.
///
/// # Errors
/// What the file system says; a part of the file may be there then. Of a sync it is a [`FailedSync`].
pub fn write_file(files: &dyn Files, path: &Path, parts: &[IoSlice<'_>]) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.open(path, OpenMode::CreateNew)?;
    file.write_all_at(parts, 0)?;
    file.sync_data().map_err(FailedSync::of)
}

/// Puts the file `from`, which is synced, in the place of `to`, durably. Both are in one folder.
///
/// # Errors
/// As [`replace_file`].
pub fn rename_file(files: &dyn Files, from: &Path, to: &Path) -> io::Result<()> {
    let directory = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    files.rename(from, to)?;
    files.sync_dir(directory).map_err(FailedSync::of)
}
