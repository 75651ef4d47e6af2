//! Budgets of the cache.

use std::path::PathBuf;

use esker_types::limits::{BLOCK_BYTES, GIB, MIB};

use crate::block::OVERHEAD_BYTES;
use crate::error::Error;
use crate::memory::weight_max;

/// The smallest memory budget of a lane: below it, a block of the usual size is not kept.
const MEMORY_BYTES_MIN: usize = 32 * MIB;
const _: () = assert!(weight_max(MEMORY_BYTES_MIN) > BLOCK_BYTES + OVERHEAD_BYTES);
/// The smallest disk budget: a few regions of the smallest size.
const DISK_BYTES_MIN: u64 = 16 * MIB as u64;

/// Budgets of the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Memory for blocks that tail readers asked for. Default: 192 MiB. At least 32 MiB.
    pub tail_bytes: usize,
    /// Memory for blocks that backfills asked for. Default: 64 MiB. At least 32 MiB.
    pub backfill_bytes: usize,
    /// The disk tier; `None` for memory alone. Default: none. With it, up to 64 MiB more of
    /// memory hold blocks on their way to the disk.
    pub disk: Option<Disk>,
}

/// The disk tier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// A folder for the cache alone. Made if missing; emptied of the cache's own files when their
    /// format or size is another.
    pub directory: PathBuf,
    /// Bytes it may fill. Default: 4 GiB. At least 16 MiB.
    pub bytes: u64,
}

impl Disk {
    /// A disk tier of the default size in `directory`.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self {
            directory,
            bytes: 4 * GIB,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tail_bytes: 192 * MIB,
            backfill_bytes: 64 * MIB,
            disk: None,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), Error> {
        at_least(
            "tail_bytes",
            self.tail_bytes as u64,
            MEMORY_BYTES_MIN as u64,
        )?;
        at_least(
            "backfill_bytes",
            self.backfill_bytes as u64,
            MEMORY_BYTES_MIN as u64,
        )?;
        match &self.disk {
            Some(disk) => at_least("disk.bytes", disk.bytes, DISK_BYTES_MIN),
            None => Ok(()),
        }
    }
}

fn at_least(name: &'static str, bytes: u64, min: u64) -> Result<(), Error> {
    if bytes < min {
        return Err(Error::TooSmall { name, bytes, min });
    }
    Ok(())
}
