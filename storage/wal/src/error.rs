//! What can go wrong.

use std::io;
use std::path::PathBuf;

use esker_types::{EntryId, ShardId};

/// Why the WAL, or a part of it, cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system said no.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Stored bytes are not what was written. Nothing was changed: the file is kept as it is.
    #[error(
        "{path} is damaged at byte {offset}: {what}; keep the file, and replace this node under a \
         new id",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A checkpoint whose bytes are whole, and yet no state of its shard.
    #[error("the checkpoint of {shard} cannot be used: {what}")]
    Checkpoint {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        what: String,
    },
    /// The log lacks what its shard's checkpoint, or its own account, counts on. Nothing was
    /// changed.
    #[error(
        "the log of {shard} is not all there: {what}; put its files back as they were: nothing was \
         changed, and what is missing was acknowledged"
    )]
    Incomplete {
        /// The shard.
        shard: ShardId,
        /// What is missing.
        what: String,
    },
    /// The log had begun, and has no file any more.
    #[error(
        "{directory} holds no file of the log, and held some: put the files of the log and of its \
         checkpoints back as they were; nothing was changed, and a new log in its place would be \
         taken for what was acknowledged",
        directory = directory.display()
    )]
    NoFile {
        /// Where they were.
        directory: PathBuf,
    },
    /// Written by another version.
    #[error(
        "{path} has format version {version}, this binary reads version 1: start the binary that \
         wrote it",
        path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An entry that does not follow the end of its log.
    #[error("entry {id} does not follow {last}, the last of {shard}")]
    Hole {
        /// The shard.
        shard: ShardId,
        /// Where its log ends.
        last: EntryId,
        /// The entry.
        id: EntryId,
    },
    /// Raft cannot start, or has ended.
    #[error("raft of {shard}: {what}")]
    Raft {
        /// The shard.
        shard: ShardId,
        /// What it said.
        what: String,
    },
    /// An entry without its bytes: who sent it has lost them.
    #[error(
        "entry {id} of {shard} came without its bytes, which its sender has lost, and is not written: \
         another node has to lead that has it whole"
    )]
    Lost {
        /// The shard.
        shard: ShardId,
        /// The entry.
        id: EntryId,
    },
    /// An entry that fits no group.
    #[error("an entry of {shard} has {bytes} bytes, the limit is {bytes_max}")]
    EntryTooLarge {
        /// The shard.
        shard: ShardId,
        /// Bytes of the entry.
        bytes: usize,
        /// The most an entry may have.
        bytes_max: usize,
    },
    /// Groups that files cannot hold.
    #[error(
        "groups of {group_bytes} bytes: they must exceed 16 KiB, be 16 MiB at most, and fit twice \
         into a WAL file, which has {file_bytes} bytes"
    )]
    GroupTooLarge {
        /// Bytes of a group.
        group_bytes: usize,
        /// Bytes of one file.
        file_bytes: u64,
    },
    /// The log ended by a failed write or sync more than once on this disk.
    #[error(
        "the disk under {path} failed {failures} times; replace it, or remove that file to try \
         once more",
        path = path.display()
    )]
    FailedBefore {
        /// The note left by those failures.
        path: PathBuf,
        /// How many.
        failures: u32,
    },
    /// The budget is too small for what must fit it at the same time.
    #[error(
        "a WAL budget of {disk_bytes} bytes holds {files} files of {file_bytes} bytes, it must hold \
         at least {files_min}: one being written, and the rest, each of which takes {usable_bytes} \
         bytes however groups fall, for {heads_bytes} bytes of heads, {in_flight_bytes} in flight \
         and {reserve_bytes} in reserve; raise the budget, or make files and groups smaller"
    )]
    BudgetTooSmall {
        /// The budget.
        disk_bytes: u64,
        /// Bytes of one file.
        file_bytes: u64,
        /// How many fit.
        files: u64,
        /// How many must.
        files_min: u64,
        /// What the heads of all shards may hold together.
        heads_bytes: u64,
        /// An entry of any size on its way.
        in_flight_bytes: u64,
        /// What appends leave to commands, moved entries and raft.
        reserve_bytes: u64,
        /// Bytes of one file that are certain.
        usable_bytes: u64,
    },
    /// The disk is too small for the files that must exist at the same time.
    #[error(
        "the disk under {path} has {free_bytes} free bytes and {files} WAL files of {file_bytes} \
         bytes; there must be at least {files_min} files, and one more file's worth free for \
         checkpoints: make room on it, or make files and groups smaller",
        path = path.display()
    )]
    DiskTooSmall {
        /// The log's folder.
        path: PathBuf,
        /// Bytes that may still be written.
        free_bytes: u64,
        /// Files there are, spares included.
        files: u64,
        /// Files that must be.
        files_min: u64,
        /// Bytes of one file.
        file_bytes: u64,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io {
                doing,
                path,
                source,
            } => Self::new(
                source.kind(),
                format!("{doing} {}: {source}", path.display()),
            ),
            Error::Corrupt { .. } => Self::new(io::ErrorKind::InvalidData, error),
            other => Self::other(other),
        }
    }
}
