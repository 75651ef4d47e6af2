//! A file system of the machine.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the seam the ban points to"
)]

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::{
    Aligned, DIRECT_ALIGN, File, Files, Lock, OpenMode, Space, ZEROES_AT_ONCE, write_repeated,
};

/// Parts handed to one `pwritev` (Linux takes at most `IOV_MAX` = 1024).
const PARTS_PER_WRITE: usize = 1024;

/// The file systems of the machine.
#[derive(Debug)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => _ = options.write(true),
            OpenMode::CreateNew => _ = options.write(true).create_new(true),
        }
        let file = options.open(path)?;
        let direct = match mode {
            OpenMode::Read => Direct::Named(path.to_owned()),
            OpenMode::ReadWrite | OpenMode::CreateNew => Direct::Opened(open_direct(path, mode)?),
        };
        Ok(Arc::new(SystemFile { file, direct }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        if directory.as_os_str().is_empty() || directory.parent().is_none() {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(directory)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let room = rustix::fs::statvfs(path)?;
        Ok(Space {
            free: room.f_bavail.saturating_mul(room.f_frsize),
            total: room.f_blocks.saturating_mul(room.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(SystemLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The kernel drops an advisory lock with the last handle, however the process ends.
#[derive(Debug)]
struct SystemLock {
    _file: fs::File,
}

impl Lock for SystemLock {}

#[derive(Debug)]
struct SystemFile {
    file: fs::File,
    direct: Direct,
}

/// The way past the page cache.
#[derive(Debug)]
enum Direct {
    /// Opened with a file that may be written: one that is renamed meanwhile cannot be found by what
    /// it was called. `None` where the file system has no such way.
    Opened(Option<fs::File>),
    /// To be opened where a file that is only read is read so.
    Named(PathBuf),
}

impl File for SystemFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        read_fully(&self.file, buffer, at)
    }

    fn read_past_cache_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let opened;
        let direct = match &self.direct {
            Direct::Opened(direct) => direct,
            Direct::Named(path) => {
                opened = open_direct(path, OpenMode::Read)?;
                &opened
            }
        };
        match direct {
            Some(direct) => read_direct(direct, buffer, at),
            // What was synced may be dropped from the cache instead; the next read then comes from
            // the disk.
            None => {
                drop_cache(&self.file, buffer.len(), at)?;
                read_fully(&self.file, buffer, at)
            }
        }
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        write_fully(&self.file, parts, at)
    }

    fn write_past_cache_at(
        &self,
        parts: &[IoSlice<'_>],
        at: u64,
        through: &mut Aligned,
    ) -> io::Result<()> {
        // Also where it goes into the cache: many small parts cost the system more than a copy.
        through.fill(parts);
        self.write_aligned(through.bytes(), at)
    }

    fn write_zeroes(&self, bytes: u64) -> io::Result<()> {
        let zeroes = Aligned::zeroed(ZEROES_AT_ONCE);
        write_repeated(zeroes.bytes(), bytes, |part, at| {
            self.write_aligned(part, at)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl SystemFile {
    /// Writes `bytes`, whose memory is aligned, past the cache where that can be.
    fn write_aligned(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let all = &[IoSlice::new(bytes)];
        let whole =
            bytes.len().is_multiple_of(DIRECT_ALIGN) && at.is_multiple_of(DIRECT_ALIGN as u64);
        let direct = match &self.direct {
            Direct::Opened(Some(direct)) if whole => direct,
            _ => return self.write_all_at(all, at),
        };
        match write_fully(direct, all, at) {
            // The disk's blocks are larger than any we know of.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.write_all_at(all, at),
            written => written,
        }
    }
}

/// Writes all of `parts` from `at`.
fn write_fully(file: &fs::File, parts: &[IoSlice<'_>], mut at: u64) -> io::Result<()> {
    for parts in parts.chunks(PARTS_PER_WRITE) {
        // `advance_slices` needs slices of its own to move within.
        let mut rest: Vec<IoSlice<'_>> = parts.to_vec();
        let mut rest = rest.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match rustix::io::pwritev(file, rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            at += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends.
fn read_fully(file: &fs::File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A handle past the page cache; `None` from a file system that has none, as tmpfs and some network
/// file systems.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path, mode: OpenMode) -> io::Result<Option<fs::File>> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(mode != OpenMode::Read)
        .custom_flags(direct)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_direct(path: &Path, mode: OpenMode) -> io::Result<Option<fs::File>> {
    let _ = (path, mode);
    Ok(None)
}

#[cfg(target_os = "linux")]
fn drop_cache(file: &fs::File, bytes: usize, at: u64) -> io::Result<()> {
    let bytes = std::num::NonZeroU64::new(bytes as u64);
    Ok(rustix::fs::fadvise(
        file,
        at,
        bytes,
        rustix::fs::Advice::DontNeed,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn drop_cache(file: &fs::File, _bytes: usize, _at: u64) -> io::Result<()> {
    file.sync_all()
}

/// Reads through an aligned copy, since neither the caller's position nor its memory need be
/// aligned.
fn read_direct(file: &fs::File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let align = DIRECT_ALIGN as u64;
    let start = at / align * align;
    let skip = usize::try_from(at - start).expect("less than the alignment");
    let span = (skip + buffer.len()).next_multiple_of(DIRECT_ALIGN);

    let mut aligned = Aligned::zeroed(span);
    let read = read_fully(file, aligned.bytes_mut(), start)?;

    let found = read.saturating_sub(skip).min(buffer.len());
    buffer[..found].copy_from_slice(&aligned.bytes()[skip..skip + found]);
    Ok(found)
}
