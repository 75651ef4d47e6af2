//! What the disk does: one write and one fdatasync after the other, into a file written before, as
//! the WAL does.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Aligned, Clock, Env, File, Files, OpenMode, WorkersExt};

use super::histogram::Histogram;
use crate::sample::Lines;

/// Bytes of the file: written again from its start once it is full, as the WAL's files are.
pub(super) const FILE_BYTES: u64 = 256 << 20;
/// What writes begin at a multiple of, as the WAL's groups do.
pub(super) const ALIGNMENT: u64 = 4096;
/// Bytes that the file is first written in.
const CHUNK_BYTES: usize = 1 << 20;

/// What the disk did.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Of one write, with its sync.
    pub(crate) write_bytes: u64,
    pub(crate) bytes_per_second: f64,
    pub(crate) latency: Histogram,
}

/// Writes `write_bytes` at a time, each synced, for as long as `lasting`, to a file that is made
/// and removed in `directory`.
pub(crate) async fn measure(
    env: &Env,
    directory: PathBuf,
    write_bytes: u64,
    lasting: Duration,
) -> io::Result<Disk> {
    let (files, clock) = (Arc::clone(&env.files), Arc::clone(&env.clock));
    let work = move || {
        let path = directory.join("limit-of-the-disk");
        let measured = write(&*files, &*clock, &path, write_bytes, lasting);
        files.remove(&path)?;
        measured
    };
    env.workers.run(work).await
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn write(
    files: &dyn Files,
    clock: &dyn Clock,
    path: &Path,
    write_bytes: u64,
    lasting: Duration,
) -> io::Result<Disk> {
    let write_bytes = write_bytes
        .clamp(ALIGNMENT, FILE_BYTES)
        .next_multiple_of(ALIGNMENT);
    let mut content = vec![0; usize::try_from(write_bytes).unwrap_or(CHUNK_BYTES)];
    Lines::new(1).fill(&mut content);
    let mut through = Aligned::new();
    let file = written_before(files, path, &mut through)?;
    let mut latency = Histogram::new();
    let (began, mut at, mut written) = (clock.monotonic(), 0, 0);
    loop {
        let before = clock.monotonic();
        if before.since(began) >= lasting {
            let seconds = before.since(began).as_secs_f64();
            return Ok(Disk {
                write_bytes,
                bytes_per_second: written as f64 / seconds,
                latency,
            });
        }
        file.write_past_cache_at(&[IoSlice::new(&content)], at, &mut through)?;
        file.sync_data()?;
        latency.add(clock.monotonic().since(before));
        written += write_bytes;
        at += write_bytes;
        if at + write_bytes > FILE_BYTES {
            at = 0;
        }
    }
}

/// A file of [`FILE_BYTES`], made at `path`.
pub(super) fn written_before(
    files: &dyn Files,
    path: &Path,
    through: &mut Aligned,
) -> io::Result<Arc<dyn File>> {
    let file = files.open(path, OpenMode::CreateNew)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    Lines::new(2).fill(&mut chunk);
    for at in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        file.write_past_cache_at(&[IoSlice::new(&chunk)], at, through)?;
    }
    file.sync_data()?;
    Ok(file)
}
