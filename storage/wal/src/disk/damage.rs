//! Entries whose bytes on this disk are no longer what was written. They stay part of the log, and are known
//! until they are released, cut off or replaced: others have them whole.

use bytes::Bytes;
use esker_types::{EntryId, RaftIndex, ShardId};

use super::file::Place;
use super::shared::Shared;
use super::wal::Wal;
use crate::Error;

impl Shared {
    /// Reads the entry `id` of a shard where it lies. That it is damaged is noted, and said once. Blocks.
    pub(super) fn read(&self, shard: ShardId, id: EntryId, place: &Place) -> Result<Bytes, Error> {
        let read = place.read();
        read.inspect_err(|error| self.note(shard, id, place, error))
    }

    /// Notes that the entry `id` of a shard is damaged at `place`, if this is what `error` says.
    pub(super) fn note(&self, shard: ShardId, id: EntryId, place: &Place, error: &Error) {
        if matches!(error, Error::Corrupt { .. }) && self.books().damaged(shard, id, place) {
            tracing::error!(
                %shard, entry = %id, %error,
                "an entry of the log is damaged on this disk, and stays where it is: others are to lead its \
                 shard, if they have it whole"
            );
        }
    }
}

impl Wal {
    /// Entries of a shard that are known to be damaged on this disk.
    #[must_use]
    pub fn damaged(&self, shard: ShardId) -> usize {
        let books = self.shared.books();
        books.book(shard).map_or(0, |book| book.damaged.len())
    }

    /// The last of them that is committed, as far as this node knows: whoever is to lead must have it.
    pub(crate) fn last_damaged(&self, shard: ShardId) -> Option<RaftIndex> {
        let books = self.shared.books();
        books.book(shard)?.last_damaged()
    }

    /// Whether a shard's log has the entry `id`, or had it and raft needs it no more. Its bytes may be
    /// damaged.
    pub(crate) fn has(&self, shard: ShardId, id: EntryId) -> bool {
        let books = self.shared.books();
        let book = books.book(shard);
        let purged = book.map(|book| book.bounds.purged).unwrap_or_default();
        let held = books.find(shard, id.index);
        id.index <= purged.index || held.is_some_and(|(held, _)| held == id)
    }

    /// Whether it has that entry so that a crash does not take it: on disk, and not known to be damaged there; or
    /// had it.
    pub(crate) fn keeps(&self, shard: ShardId, id: EntryId) -> bool {
        let books = self.shared.books();
        books.book(shard).is_some_and(|book| {
            let is_whole = !book.damaged.contains(&id.index);
            id.index <= book.bounds.purged.index
                || (is_whole && books.place_of(shard, id).is_some())
        })
    }
}
