//! How a log is laid out, and what it tells of itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use esker_types::limits::{
    DATA_SHARDS_DEV, FSYNC_FATAL, HEAD_DISK_BYTES_DEV, HEAD_MEMORY_BYTES, WAL_FILE_BYTES,
    WAL_GROUP_BYTES_MAX, WAL_SEAL_IDLE, WAL_STALL_FATAL,
};

use super::room::Measures;
use super::wal::ENTRY_FRAMING_BYTES;
use crate::Error;

/// How a WAL is laid out.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The log has begun: one without a file is lost, and refused as one whose checkpoints are there
    /// always is. Default: false, a directory without a file is a new log.
    pub begun: bool,
    /// Bytes of one file. Default: [`WAL_FILE_BYTES`].
    pub file_bytes: u64,
    /// Bytes of one group: what one write and one sync carry. An entry must fit one. Default:
    /// [`WAL_GROUP_BYTES_MAX`], which is also the most.
    pub group_bytes: usize,
    /// Bytes of all files together, spares included. Default: [`HEAD_DISK_BYTES_DEV`].
    pub disk_bytes: u64,
    /// Shards whose replicas this node holds, the catalog's among them: the reserve has room for a
    /// command of each. Default: those of `dev`.
    pub shards: usize,
    /// Bytes that the heads of all shards may hold together, the sum of their shares; a budget that
    /// does not hold them beside its reserve is refused. Default: 0, nothing was shared out.
    pub heads_bytes: u64,
    /// Bytes of entries kept in memory once they are on disk. Default: [`HEAD_MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// Idleness after which the tail is sealed. Default: [`WAL_SEAL_IDLE`].
    pub seal_idle: Duration,
    /// A sync that takes longer ends the process. Default: [`FSYNC_FATAL`].
    pub sync_fatal: Duration,
    /// A frame that waits for a file longer than this ends the process. Default:
    /// [`WAL_STALL_FATAL`].
    pub stall_fatal: Duration,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            begun: false,
            file_bytes: WAL_FILE_BYTES,
            group_bytes: WAL_GROUP_BYTES_MAX,
            disk_bytes: HEAD_DISK_BYTES_DEV,
            shards: DATA_SHARDS_DEV as usize + 1,
            heads_bytes: 0,
            memory_bytes: HEAD_MEMORY_BYTES,
            seal_idle: WAL_SEAL_IDLE,
            sync_fatal: FSYNC_FATAL,
            stall_fatal: WAL_STALL_FATAL,
        }
    }
}

impl WalOptions {
    /// Makes sure that files take groups, and the budget the files.
    ///
    /// # Errors
    /// [`Error::GroupTooLarge`], [`Error::BudgetTooSmall`].
    pub fn check(&self) -> Result<(), Error> {
        let measures = Measures::of(self);
        let holds_an_entry = self.group_bytes > 2 * ENTRY_FRAMING_BYTES;
        if !(measures.fit() && holds_an_entry) || self.group_bytes > WAL_GROUP_BYTES_MAX {
            return Err(Error::GroupTooLarge {
                group_bytes: self.group_bytes,
                file_bytes: self.file_bytes,
            });
        }
        let files_min = measures.files_for(measures.at_least() + self.heads_bytes);
        if measures.files_max < files_min {
            return Err(Error::BudgetTooSmall {
                disk_bytes: self.disk_bytes,
                file_bytes: self.file_bytes,
                files: measures.files_max,
                files_min,
                heads_bytes: self.heads_bytes,
                in_flight_bytes: self.group_bytes as u64,
                reserve_bytes: measures.reserve.total(),
                usable_bytes: measures.usable(),
            });
        }
        Ok(())
    }
}

/// Why the log failed. Whoever hears of it ends the process.
#[derive(Clone, Debug)]
pub struct Fatal {
    /// What was being done.
    pub doing: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the system said.
    pub error: String,
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { doing, path, error } = self;
        write!(f, "the WAL failed {doing} {}: {error}", path.display())
    }
}

/// Called once, when the log fails.
pub type OnFatal = Arc<dyn Fn(&Fatal) + Send + Sync>;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups written, seals included.
    pub groups: u64,
    /// Bytes written in groups, padding included.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Nanoseconds spent in fdatasync.
    pub sync_nanos: u64,
    /// The longest of them.
    pub sync_nanos_max: u64,
    /// Files in the sequence.
    pub files: u64,
    /// Files ready to be used.
    pub spares: u64,
    /// The disk had no room for the last spare, which the budget allows.
    pub disk_full: bool,
    /// Bytes of entries in memory.
    pub cached_bytes: u64,
    /// Bytes waiting for the writer.
    pub queued_bytes: u64,
}
