//! Whether a head has room.
//!
//! A node that refuses appends is ready all the same: it reads, and what makes room is this node
//! itself, by flushing. To take it away from its readers would help no append.

use std::path::Path;

use esker_log::Progress;
use esker_types::ShardId;
use esker_types::limits::BATCH_BYTES_DEFAULT;

/// Why appends to `shard` are refused, or the next of the usual size will be; `None` if there is
/// room.
pub(super) fn full(shard: ShardId, progress: &Progress) -> Option<String> {
    let (bytes, limit) = (progress.head.bytes, progress.head_bytes_max);
    let (batches, most) = (progress.head.batches, progress.head_batches_max);
    let until = "until the bucket takes some";
    if is_full(bytes, limit) {
        return Some(format!(
            "appends to shard {shard} are refused: its head holds {bytes} bytes, the limit is {limit} \
             (its share of wal.head), {until}"
        ));
    }
    (batches > 0 && batches >= most).then(|| {
        format!(
            "appends to shard {shard} are refused: its head holds {batches} batches, the limit is \
             {most}, {until}"
        )
    })
}

/// The same of a node's log, with `room` bytes left for appends. `full` is a folder whose file
/// system has no room for a file that the budget allows.
pub(super) fn log_full(room: u64, full: Option<&Path>) -> Option<String> {
    if room >= BATCH_BYTES_DEFAULT as u64 {
        return None;
    }
    let why = match full {
        Some(folder) => format!(
            "and the file system of {} is full: make room on it, or wait until the bucket takes \
             some",
            folder.display()
        ),
        None => "the limit is wal.disk, until the bucket takes some".to_owned(),
    };
    Some(format!(
        "appends are refused: the WAL has room for {room} bytes, {why}"
    ))
}

/// Less is free than a batch of the usual size takes, or, of a small head, an eighth.
fn is_full(bytes: u64, limit: u64) -> bool {
    let needed = (BATCH_BYTES_DEFAULT as u64).min(limit / 8);
    bytes + needed > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_head_is_full_once_a_usual_batch_finds_no_room() {
        for (bytes, limit, full) in [
            (0, MIB, false),
            (7 * MIB / 8, MIB, false),
            (7 * MIB / 8 + 1, MIB, true),
            (99 * MIB, 100 * MIB, false),
            (99 * MIB + 1, 100 * MIB, true),
            (101 * MIB, 100 * MIB, true),
        ] {
            assert_eq!(is_full(bytes, limit), full, "{bytes} of {limit}");
        }
    }

    #[test]
    fn a_log_is_full_by_its_budget_or_by_its_file_system() {
        let data = Path::new("/data");
        assert_eq!(
            (log_full(MIB, None), log_full(MIB, Some(data))),
            (None, None)
        );
        let told = log_full(MIB - 1, None).expect("no room");
        assert!(
            told.contains("1048575 bytes, the limit is wal.disk"),
            "{told}"
        );
        let told = log_full(MIB - 1, Some(data)).expect("no room");
        assert!(told.contains("the file system of /data is full"), "{told}");
        assert!(!told.contains("wal.disk"), "{told}");
    }
}
