//! What is in the log, in memory: each shard's bounds, and where each of its entries lies.
//!
//! ```text
//!   released     purged            committed        last
//!   ──┼────────────┼──────────────────┼───────────────┼──► index
//!     │ head only  │ raft may read                    │
//!     └ held for readers and flushers: not in the bucket yet
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use esker_env::Monotonic;
use esker_types::{EntryId, RaftIndex, ShardId, Term};

use super::body::Body;
use super::file::Place;
use super::frame::FRAME_HEADER_BYTES;
use super::memory::{Memory, Note, Side};
use super::pin::Pinned;
use crate::Error;

/// A raft vote: for whom, in which term, and whether a quorum granted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// The stored form of the candidate's node id.
    pub node: u64,
    /// Whether the candidate became leader.
    pub committed: bool,
}

/// Bounds of one shard's log. An id of zero means "before any entry".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogBounds {
    /// The last vote.
    pub vote: Option<Vote>,
    /// Raft has forgotten entries up to this one.
    pub purged: EntryId,
    /// The last entry, or `purged` if there is none.
    pub last: EntryId,
    /// The last entry known to be committed; may lag.
    pub committed: EntryId,
}

impl LogBounds {
    /// Moves the bounds as a frame says. `None` if the frame cannot follow what is there.
    pub(crate) fn append(&mut self, id: EntryId) -> Option<()> {
        let follows = id.index == self.last.index.next() && id.term >= self.last.term;
        follows.then(|| self.last = id)
    }

    pub(crate) fn truncate(&mut self, last: EntryId) -> Option<()> {
        let inside = self.purged.index <= last.index && last.index <= self.last.index;
        inside.then(|| self.last = last)
    }

    pub(crate) fn purge(&mut self, id: EntryId) {
        if id.index > self.purged.index {
            self.purged = id;
        }
        if id.index > self.last.index {
            self.last = id;
        }
    }
}

/// One entry.
#[derive(Debug)]
struct Slot {
    id: EntryId,
    /// In memory: always until it is on disk, then as long as the budget allows.
    body: Option<Body>,
    /// On disk, once written and synced.
    place: Option<Place>,
}

/// An entry as found.
#[derive(Debug)]
pub(crate) enum Found {
    Cached(Body),
    Placed(Place),
}

/// One shard's log.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) bounds: LogBounds,
    slots: BTreeMap<RaftIndex, Slot>,
    /// Those of the slots whose bytes on disk are known to be damaged.
    pub(super) damaged: BTreeSet<RaftIndex>,
    side: Side,
    /// Raft is to forget what lies below. When it does is for it to say: not while others are sent some of it.
    forgetting: RaftIndex,
}

impl Book {
    /// How many entries it holds in `(from, to]`.
    pub(crate) fn held_in(&self, from: RaftIndex, to: RaftIndex) -> u64 {
        if from < to {
            self.slots.range(from.next()..=to).count() as u64
        } else {
            0
        }
    }

    /// The last that is damaged of what is known to be committed.
    pub(super) fn last_damaged(&self) -> Option<RaftIndex> {
        let upto = self.bounds.committed.index;
        self.damaged.range(..=upto).next_back().copied()
    }

    /// Index of the oldest entry held, purged or not.
    pub(crate) fn oldest(&self) -> Option<RaftIndex> {
        self.slots.first_key_value().map(|(index, _)| *index)
    }
}

/// All shards' logs, and the budget of what is cached of them.
#[derive(Debug)]
pub(crate) struct Books {
    books: BTreeMap<ShardId, Book>,
    memory: Memory,
    /// What is kept for others, by number.
    pins: BTreeMap<u64, Pinned>,
    pins_ever: u64,
}

impl Books {
    pub(crate) fn new(cached_bytes_max: usize) -> Self {
        Self {
            books: BTreeMap::new(),
            memory: Memory::new(cached_bytes_max),
            pins: BTreeMap::new(),
            pins_ever: 0,
        }
    }

    pub(crate) fn book(&self, shard: ShardId) -> Option<&Book> {
        self.books.get(&shard)
    }

    pub(crate) fn book_mut(&mut self, shard: ShardId) -> &mut Book {
        self.books.entry(shard).or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShardId, &Book)> {
        self.books.iter().map(|(shard, book)| (*shard, book))
    }

    pub(crate) fn cached_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Whether `shard` is led here from now on: what is led stays in memory longer.
    pub(crate) fn lead(&mut self, shard: ShardId, leads: bool) {
        let side = if leads { Side::Led } else { Side::Followed };
        // Who leads has voted, so there is a book.
        let book = self.books.get_mut(&shard);
        if let Some(book) = book.filter(|book| book.side != side) {
            book.side = side;
            let bodies = book.slots.values().filter_map(|slot| slot.body.as_ref());
            let bytes = bodies.map(Body::memory).sum();
            self.memory.change(shard, bytes, side);
        }
    }

    /// Adds an entry at the end of a shard's log.
    pub(crate) fn append(&mut self, shard: ShardId, id: EntryId, body: Body) -> Result<(), Error> {
        let book = self.books.entry(shard).or_default();
        let last = book.bounds.last;
        book.bounds
            .append(id)
            .ok_or(Error::Hole { shard, last, id })?;
        self.memory.add(book.side, body.memory());
        book.slots.insert(
            id.index,
            Slot {
                id,
                body: Some(body),
                place: None,
            },
        );
        Ok(())
    }

    /// An entry is on disk at `place`. It may have been truncated meanwhile.
    pub(crate) fn placed(&mut self, shard: ShardId, id: EntryId, place: Place) {
        let Some(book) = self.books.get_mut(&shard) else {
            return;
        };
        let slot = book.slots.get_mut(&id.index);
        let Some(slot) = slot.filter(|slot| slot.id == id) else {
            return;
        };
        slot.place = Some(place);
        book.damaged.remove(&id.index);
        if slot.body.is_some() {
            let EntryId { index, term } = id;
            self.memory.note(book.side, Note { shard, index, term });
        }
    }

    /// The entry `id` is damaged at `place`. Whether it is still part of its shard's log, lies there, and was
    /// not known to be.
    pub(super) fn damaged(&mut self, shard: ShardId, id: EntryId, place: &Place) -> bool {
        let Some(book) = self.books.get_mut(&shard) else {
            return false;
        };
        let slot = book.slots.get(&id.index).filter(|slot| slot.id == id);
        let lies_there =
            |at: &Place| (at.file.sequence, at.offset) == (place.file.sequence, place.offset);
        let lies = slot
            .and_then(|slot| slot.place.as_ref())
            .is_some_and(lies_there);
        lies && book.damaged.insert(id.index)
    }

    /// An entry was found on disk at start, or came with a snapshot.
    pub(crate) fn restore(&mut self, shard: ShardId, id: EntryId, place: Place) {
        let slot = Slot {
            id,
            body: None,
            place: Some(place),
        };
        let book = self.books.entry(shard).or_default();
        book.damaged.remove(&id.index);
        let old = book.slots.insert(id.index, slot);
        self.forget(shard, old);
    }

    /// The log ends at `last` from here on. Returns where the entries lie that it cuts off: until
    /// the truncation is on disk, the next start still needs them.
    pub(crate) fn truncate(&mut self, shard: ShardId, last: EntryId) -> Option<Vec<Place>> {
        let book = self.books.entry(shard).or_default();
        book.bounds.truncate(last)?;
        let mut cut = book.slots.split_off(&last.index.next());
        book.damaged.retain(|index| *index <= last.index);
        let places = cut
            .values_mut()
            .filter_map(|slot| slot.place.take())
            .collect();
        self.forget(shard, cut.into_values());
        Some(places)
    }

    /// Nobody needs entries up to `upto` any more.
    pub(crate) fn release(&mut self, shard: ShardId, upto: RaftIndex) {
        let book = self.books.entry(shard).or_default();
        let kept = book.slots.split_off(&upto.next());
        book.damaged.retain(|index| *index > upto);
        let gone = std::mem::replace(&mut book.slots, kept);
        self.forget(shard, gone.into_values());
    }

    /// Up to where raft may forget entries of a shard, at most `last`: no pin that comes later needs them.
    pub(crate) fn forget_to(&mut self, shard: ShardId, last: RaftIndex) -> RaftIndex {
        let book = self.books.entry(shard).or_default();
        book.forgetting = book.forgetting.max(last);
        last
    }

    /// Keeps what `pinned` says. `None` if the first entry of the head is released already, or what follows on the
    /// last is purged, or to be.
    pub(crate) fn pin(&mut self, pinned: Pinned, now: Monotonic) -> Option<u64> {
        self.pins_ever += 1;
        self.pin_again(self.pins_ever, pinned, now)
    }

    /// The same of a pin that is there, or was, from now on.
    pub(crate) fn pin_again(&mut self, pin: u64, pinned: Pinned, now: Monotonic) -> Option<u64> {
        let book = self.books.get(&pinned.shard);
        let forgotten = |book: &Book| book.bounds.purged.index.max(book.forgetting);
        if book.is_some_and(|book| forgotten(book) > pinned.last) {
            return None;
        }
        if let Some(from) = pinned.from {
            self.find(pinned.shard, from)?;
        }
        self.pins.retain(|_, pin| now < pin.until);
        self.pins.insert(pin, pinned);
        Some(pin)
    }

    /// What a pin keeps, while it does.
    pub(crate) fn pinned(&mut self, pin: u64) -> Option<&mut Pinned> {
        self.pins.get_mut(&pin)
    }

    /// Up to where a shard may be released, and purged, for all that is pinned.
    pub(crate) fn unpinned(&self, shard: ShardId, now: Monotonic) -> (RaftIndex, RaftIndex) {
        let all = (RaftIndex(u64::MAX), RaftIndex(u64::MAX));
        let pins = self.pins.values();
        let pins = pins.filter(|pin| pin.shard == shard && now < pin.until);
        pins.fold(all, |(release, purge), pin| {
            let from = pin.from.unwrap_or(RaftIndex(u64::MAX));
            let below = RaftIndex(from.0.saturating_sub(1));
            (release.min(below), purge.min(pin.last))
        })
    }

    /// The entries at `indexes`, in order, until their bytes pass `bytes_max` (one is always among them)
    /// or one is not held.
    pub(crate) fn find_each(
        &self,
        shard: ShardId,
        indexes: &[RaftIndex],
        bytes_max: usize,
    ) -> Vec<(EntryId, Found)> {
        let Some(book) = self.books.get(&shard) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let slots = indexes.iter().map_while(|index| book.slots.get(index));
        let within = slots.take_while(|slot| {
            bytes += slot.weight();
            bytes <= bytes_max || bytes == slot.weight()
        });
        within.map(|slot| (slot.id, slot.found())).collect()
    }

    /// Bytes of the entries at `indexes` that are held.
    pub(crate) fn weigh(&self, shard: ShardId, indexes: &[RaftIndex]) -> u64 {
        let Some(book) = self.books.get(&shard) else {
            return 0;
        };
        let slots = indexes.iter().filter_map(|index| book.slots.get(index));
        slots.map(|slot| slot.weight() as u64).sum()
    }

    /// Bytes that reading an entry takes from the disk.
    pub(crate) fn bytes_on_disk(&self, shard: ShardId, index: RaftIndex) -> u64 {
        let slot = self
            .books
            .get(&shard)
            .and_then(|book| book.slots.get(&index));
        match slot {
            Some(slot) if slot.body.is_none() => slot.weight() as u64,
            _ => 0,
        }
    }

    pub(crate) fn find(&self, shard: ShardId, index: RaftIndex) -> Option<(EntryId, Found)> {
        let slot = self.books.get(&shard)?.slots.get(&index)?;
        Some((slot.id, slot.found()))
    }

    /// Entries of `range` that are held, in order, until their bytes pass `bytes_max` (one entry
    /// is always among them).
    pub(crate) fn find_run(
        &self,
        shard: ShardId,
        range: RangeInclusive<RaftIndex>,
        bytes_max: usize,
    ) -> Vec<(EntryId, Found)> {
        let Some(book) = self.books.get(&shard).filter(|_| !range.is_empty()) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let within = |slot: &&Slot| {
            let fits = bytes < bytes_max;
            bytes += slot.weight();
            fits
        };
        let slots = book
            .slots
            .range(range)
            .map(|(_, slot)| slot)
            .take_while(within);
        slots.map(|slot| (slot.id, slot.found())).collect()
    }

    /// Shards of which entries lie in the file `sequence`, and the last of each.
    pub(crate) fn holders_of(&self, sequence: u64) -> BTreeMap<ShardId, RaftIndex> {
        let last = |book: &Book| {
            let lies = |slot: &Slot| {
                let place = slot.place.as_ref();
                place.is_some_and(|place| place.file.sequence == sequence)
            };
            let mut there = book.slots.iter().rev().filter(|(_, slot)| lies(slot));
            there.next().map(|(index, _)| *index)
        };
        let holders = self.iter();
        let holders = holders.filter_map(|(shard, book)| Some((shard, last(book)?)));
        holders.collect()
    }

    /// Entries that lie in the file `sequence` and are not known to be damaged, at most `bytes_max` of them.
    pub(crate) fn entries_in(
        &self,
        sequence: u64,
        bytes_max: usize,
    ) -> Vec<(ShardId, EntryId, Place)> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for (shard, book) in &self.books {
            let whole = |slot: &&Slot| !book.damaged.contains(&slot.id.index);
            for slot in book.slots.values().filter(whole) {
                if let Some(place) = slot.place.as_ref().filter(|p| p.file.sequence == sequence) {
                    bytes += place.bytes as usize;
                    if bytes > bytes_max && !found.is_empty() {
                        return found;
                    }
                    found.push((*shard, slot.id, place.clone()));
                }
            }
        }
        found
    }

    /// Bytes of frames that are held in each file, by its sequence.
    pub(crate) fn held_by_file(&self) -> BTreeMap<u64, u64> {
        let mut held = BTreeMap::new();
        let slots = self.books.values().flat_map(|book| book.slots.values());
        for place in slots.filter_map(|slot| slot.place.as_ref()) {
            *held.entry(place.file.sequence).or_default() +=
                FRAME_HEADER_BYTES as u64 + u64::from(place.bytes);
        }
        held
    }

    /// Whether the entry `id` is still part of its shard's log, and lies in the file `sequence`.
    pub(crate) fn lies_in(&self, shard: ShardId, id: EntryId, sequence: u64) -> bool {
        let place = self.place_of(shard, id);
        place.is_some_and(|place| place.file.sequence == sequence)
    }

    /// Where the entry `id` lies on disk, if it does, and is still part of its shard's log.
    pub(super) fn place_of(&self, shard: ShardId, id: EntryId) -> Option<&Place> {
        let slot = self.books.get(&shard)?.slots.get(&id.index)?;
        slot.place.as_ref().filter(|_| slot.id == id)
    }

    /// Drops from memory what is on disk as well, until the budget is met.
    pub(crate) fn evict(&mut self) {
        while let Some(Note { shard, index, term }) = self.memory.next() {
            let Some(book) = self.books.get_mut(&shard) else {
                continue;
            };
            let slot = book.slots.get_mut(&index);
            // A note may be of an entry that was cut off, and came again: that one may not be on disk yet.
            let body = slot
                .filter(|slot| slot.id.term == term && slot.place.is_some())
                .and_then(|slot| slot.body.take());
            let bytes = body.map_or(0, |body| body.memory());
            self.memory.take(book.side, bytes);
        }
    }

    /// What is on disk of a shard up to `upto` leaves memory before anything else does: it is flushed, and of use
    /// only to a follower that is seconds behind. Who gets the bodies lets go of them where nobody waits.
    #[must_use]
    pub(crate) fn unload(&mut self, shard: ShardId, upto: RaftIndex) -> Vec<Body> {
        let Some(book) = self.books.get_mut(&shard) else {
            return Vec::new();
        };
        let slots = book.slots.range_mut(..=upto).map(|(_, slot)| slot);
        let bodies = slots.filter(|slot| slot.place.is_some());
        let bodies: Vec<_> = bodies.filter_map(|slot| slot.body.take()).collect();
        let bytes = bodies.iter().map(Body::memory).sum();
        self.memory.take(book.side, bytes);
        bodies
    }

    /// `slots` of `shard` are none any more.
    fn forget(&mut self, shard: ShardId, slots: impl IntoIterator<Item = Slot>) {
        let books = &self.books;
        let side = books
            .get(&shard)
            .map_or_else(Side::default, |book| book.side);
        let bodies = slots.into_iter().filter_map(|slot| slot.body);
        self.memory
            .take(side, bodies.map(|body| body.memory()).sum());
        self.memory.sweep(side, |note| {
            let book = books.get(&note.shard);
            !book.is_some_and(|book| book.slots.contains_key(&note.index))
        });
    }
}

impl Slot {
    fn found(&self) -> Found {
        match (&self.body, &self.place) {
            (Some(body), _) => Found::Cached(body.clone()),
            (None, Some(place)) => Found::Placed(place.clone()),
            (None, None) => unreachable!("an entry leaves memory only once it is on disk"),
        }
    }

    fn weight(&self) -> usize {
        match (&self.body, &self.place) {
            (Some(body), _) => body.weight(),
            (None, place) => place.as_ref().map_or(0, |place| place.bytes as usize),
        }
    }
}

#[cfg(test)]
mod tests;
