//! What is in the log, and what of it is in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, OpenMode};

use super::super::file::WalFile;
use super::*;
use crate::disk::body::BESIDE_BYTES;

const SHARD: ShardId = ShardId(1);

fn id(index: u64, term: u64) -> EntryId {
    EntryId {
        term: Term(term),
        index: RaftIndex(index),
    }
}

fn body(bytes: usize) -> Body {
    Body::new(&vec![0; bytes], Vec::new())
}

/// Somewhere in a file.
fn a_place() -> Place {
    let (env, _, _) = Env::simulated(1);
    let path = Path::new("/somewhere");
    let file = env.files.open(path, OpenMode::CreateNew).unwrap();
    let file = Arc::new(WalFile {
        sequence: 1,
        uuid: 7,
        path: path.to_owned(),
        file,
    });
    Place {
        file,
        offset: 0,
        bytes: 100,
        crc: 0,
    }
}

#[test]
fn a_log_has_no_hole_and_its_terms_never_fall() {
    let mut books = Books::new(1000);
    books.append(SHARD, id(1, 2), body(1)).unwrap();
    assert!(books.append(SHARD, id(3, 2), body(1)).is_err(), "a hole");
    assert!(
        books.append(SHARD, id(2, 1), body(1)).is_err(),
        "an older term"
    );
    books.append(SHARD, id(2, 3), body(1)).unwrap();
    assert!(books.truncate(SHARD, id(3, 3)).is_none(), "beyond the end");
    books.truncate(SHARD, id(1, 2)).unwrap();
    books.append(SHARD, id(2, 4), body(1)).unwrap();
    assert_eq!(books.book(SHARD).unwrap().bounds.last, id(2, 4));
}

#[test]
fn what_came_again_and_is_not_on_disk_yet_stays_in_memory() {
    let mut books = Books::new(0);
    let place = a_place();
    books.append(SHARD, id(1, 1), body(96)).unwrap();
    books.append(SHARD, id(2, 1), body(96)).unwrap();
    books.placed(SHARD, id(2, 1), place);
    // A leader of another term cut it off, and one after that has it.
    books.truncate(SHARD, id(1, 1)).unwrap();
    books.append(SHARD, id(2, 1), body(96)).unwrap();
    books.evict();
    let (_, found) = books.find(SHARD, RaftIndex(2)).unwrap();
    assert!(matches!(found, Found::Cached(_)));
}

#[test]
fn what_is_followed_leaves_memory_first() {
    const FOLLOWED: ShardId = ShardId(2);
    let each = body(96).memory();
    // Room for 16, of which 4 are those of what is followed.
    let mut books = Books::new(16 * each);
    books.book_mut(SHARD).bounds.vote = Some(Vote::default());
    books.lead(SHARD, true);
    let is_cached = |books: &Books, shard, index| {
        let (_, found) = books.find(shard, RaftIndex(index)).unwrap();
        matches!(found, Found::Cached(_))
    };
    let mut index = 0;
    let mut append = |books: &mut Books, times| {
        for _ in 0..times {
            index += 1;
            for shard in [SHARD, FOLLOWED] {
                books.append(shard, id(index, 1), body(96)).unwrap();
                books.placed(shard, id(index, 1), a_place());
                books.evict();
            }
        }
    };
    append(&mut books, 12);
    assert!((1..=12).all(|index| is_cached(&books, SHARD, index)));
    let followed = (1..=12).filter(|index| is_cached(&books, FOLLOWED, *index));
    assert_eq!(
        followed.collect::<Vec<_>>(),
        [9, 10, 11, 12],
        "the last ones"
    );
    // More than the budget is led: its oldest go.
    append(&mut books, 1);
    assert!(!is_cached(&books, SHARD, 1) && is_cached(&books, SHARD, 2));
    // Somebody else leads it, and this node the other: what there is goes in that order.
    books.lead(SHARD, false);
    books.lead(FOLLOWED, true);
    append(&mut books, 10);
    assert!((12..=23).all(|index| is_cached(&books, FOLLOWED, index)));
    let led_before = (1..=23).filter(|index| is_cached(&books, SHARD, *index));
    assert_eq!(led_before.collect::<Vec<_>>(), [20, 21, 22, 23]);
    assert_eq!(books.cached_bytes(), 16 * each);
    books.release(FOLLOWED, RaftIndex(23));
    books.release(SHARD, RaftIndex(23));
    assert_eq!(books.cached_bytes(), 0);
}

#[test]
fn damage_counts_up_to_what_is_committed() {
    let mut book = Book {
        damaged: [3, 7].map(RaftIndex).into(),
        ..Book::default()
    };
    assert_eq!(book.last_damaged(), None);
    book.bounds.committed = id(6, 1);
    assert_eq!(book.last_damaged(), Some(RaftIndex(3)));
    book.bounds.committed = id(7, 1);
    assert_eq!(book.last_damaged(), Some(RaftIndex(7)));
}

#[test]
fn what_leaves_the_log_leaves_the_budget() {
    let mut books = Books::new(0);
    for index in 1..=10 {
        books.append(SHARD, id(index, 1), body(96)).unwrap();
    }
    // 96 of payload, 4 of a head's length, and what an entry takes beside its bytes.
    let each = 100 + BESIDE_BYTES;
    assert_eq!(books.cached_bytes(), 10 * each);
    books.truncate(SHARD, id(8, 1)).unwrap();
    books.release(SHARD, RaftIndex(5));
    assert_eq!(books.cached_bytes(), 3 * each);
    // Nothing is on disk yet, so nothing may be evicted, however small the budget.
    books.evict();
    assert_eq!(books.cached_bytes(), 3 * each);
    assert_eq!(
        books
            .find_run(SHARD, RaftIndex(1)..=RaftIndex(9), 150)
            .len(),
        2
    );
}

#[test]
fn what_is_flushed_leaves_memory_before_what_is_not() {
    let mut books = Books::new(usize::MAX);
    let is_cached = |books: &Books, index| {
        let (_, found) = books.find(SHARD, RaftIndex(index)).unwrap();
        matches!(found, Found::Cached(_))
    };
    for index in 1..=4 {
        books.append(SHARD, id(index, 1), body(96)).unwrap();
    }
    for index in [1, 2, 4] {
        books.placed(SHARD, id(index, 1), a_place());
    }
    let left = books.unload(SHARD, RaftIndex(3));
    assert_eq!(left.len(), 2);
    let on_disk = [1, 2, 3, 4].map(|index| books.bytes_on_disk(SHARD, RaftIndex(index)) > 0);
    assert_eq!(
        on_disk,
        [true, true, false, false],
        "what is in memory is read there"
    );
    let cached: Vec<_> = (1..=4).filter(|index| is_cached(&books, *index)).collect();
    assert_eq!(cached, [3, 4], "the third is nowhere else yet");
    assert_eq!(books.cached_bytes(), 2 * body(96).memory());
    // What left is not taken from the account again.
    books.placed(SHARD, id(3, 1), a_place());
    assert_eq!(books.unload(SHARD, RaftIndex(3)).len(), 1);
    assert_eq!(books.cached_bytes(), body(96).memory());
    books.release(SHARD, RaftIndex(4));
    assert_eq!(books.cached_bytes(), 0);
}

#[test]
fn what_is_forgotten_or_is_to_be_is_not_kept_for_anybody() {
    let mut books = Books::new(1000);
    for index in 1..=9 {
        books.append(SHARD, id(index, 1), body(1)).unwrap();
    }
    let now = Monotonic(Duration::from_secs(100));
    let keeps = |from, last| Pinned {
        shard: SHARD,
        from,
        last: RaftIndex(last),
        until: Monotonic(now.0 + Duration::from_secs(60)),
    };
    let first = Some(RaftIndex(3));
    let pin = books.pin(keeps(first, 5), now).expect("all is there");
    assert_eq!(books.unpinned(SHARD, now), (RaftIndex(2), RaftIndex(5)));
    let over = Monotonic(now.0 + Duration::from_secs(60));
    let all = (RaftIndex(u64::MAX), RaftIndex(u64::MAX));
    assert_eq!(books.unpinned(SHARD, over), all);

    // Raft is told to forget up to 6, and has not yet.
    assert_eq!(books.forget_to(SHARD, RaftIndex(6)), RaftIndex(6));
    assert_eq!(books.book(SHARD).unwrap().bounds.purged, EntryId::default());
    assert_eq!(books.pin_again(pin, keeps(first, 5), over), None);
    assert_eq!(books.pin(keeps(None, 5), over), None);
    assert!(books.pin(keeps(None, 6), over).is_some());
    books.release(SHARD, RaftIndex(3));
    assert_eq!(books.pin(keeps(first, 6), over), None);
}
