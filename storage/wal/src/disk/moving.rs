//! The oldest file: who holds it, and what holds it copied to the tail, so that it comes free.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_env::WorkersExt as _;
use esker_types::{RaftIndex, ShardId};

use super::file::Place;
use super::frame::FrameKind;
use super::queue::Item;
use super::wal::Wal;
use crate::Error;

impl Wal {
    /// Shards that hold the oldest file, and the last of each that lies there, if the log has more files than
    /// `files`: up to it they are to be flushed out of turn, and checkpointed.
    #[must_use]
    pub fn holders_of_oldest(&self, files: usize) -> BTreeMap<ShardId, RaftIndex> {
        let oldest = {
            let held = self.shared.files();
            if held.sequence.len() <= files {
                return BTreeMap::new();
            }
            held.sequence[0].sequence
        };
        self.shared.books().holders_of(oldest)
    }

    /// Copies what still holds the oldest file to the tail, half a group's worth at most, so that the
    /// file can be released. Returns how many entries were copied: none while it would gain nothing,
    /// since most of the log is held, or while there is no room for all that holds the file. What is
    /// damaged stays. Reads the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn move_oldest(&self) -> Result<usize, Error> {
        // A disk that hangs must not be handed the same entries again and again.
        if self.shared.moving.load(Ordering::Acquire) {
            return Ok(0);
        }
        let Some(oldest) = self.worth_moving() else {
            return Ok(0);
        };
        let entries = self
            .shared
            .books()
            .entries_in(oldest, self.shared.options.group_bytes / 2);
        let shared = Arc::clone(&self.shared);
        let load = move || {
            let read = |(shard, id, place): (_, _, Place)| match shared.read(shard, id, &place) {
                Ok(bytes) => Some(Ok(Item::new(shard, FrameKind::Moved, id, vec![bytes]))),
                // It holds the file until it is released.
                Err(Error::Corrupt { .. }) => None,
                Err(error) => Some(Err(error)),
            };
            entries
                .into_iter()
                .filter_map(read)
                .collect::<Result<Vec<_>, Error>>()
        };
        let mut items = self.workers().run(load).await?;
        let books = self.shared.books();
        // Raft may have cut off and written anew what was read meanwhile.
        items.retain(|item| books.lies_in(item.shard, item.id, oldest));
        let count = items.len();
        let shared = Arc::clone(&self.shared);
        shared.moving.store(true, Ordering::Release);
        self.enqueue(books, items, &[], move |_| {
            shared.moving.store(false, Ordering::Release)
        });
        Ok(count)
    }

    /// The oldest file, if copying what holds it makes room in the end.
    fn worth_moving(&self) -> Option<u64> {
        let (oldest, files) = {
            let held = self.shared.files();
            (held.sequence.first()?.sequence, held.sequence.len() as u64)
        };
        let held = self.shared.books().held_by_file();
        let all: u64 = held.values().sum();
        // Two files must come free in a whole round, an eighth of each being lost to their tails.
        let worth = all + 2 * self.shared.options.file_bytes;
        let filled = files * (self.shared.options.file_bytes / 8 * 7);
        let bytes = held.get(&oldest).copied().unwrap_or_default();
        (worth <= filled && self.shared.can_move(bytes)).then_some(oldest)
    }
}
