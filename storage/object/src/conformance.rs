//! One suite for every kind of store: what the crates above rely on, and nothing more.

use bytes::Bytes;
use esker_types::limits::OBJECT_LIST_PAGE;
use esker_types::{Incarnation, Lane, RaftIndex, RaftRange, SegmentId, ShardId};
use futures::TryStreamExt;

use crate::error::Kind;
use crate::keys::{Key, Prefix};
use crate::store::{Cursor, Store};

/// Objects of the listing: one full page, and part of another.
const LISTED: u64 = OBJECT_LIST_PAGE as u64 + 30;
/// Puts of the listing at once.
const PUTS_IN_FLIGHT: usize = 16;

/// Runs the suite. The store must hold nothing in the first incarnation.
///
/// # Panics
/// Where the store does not do what is promised, with the promise.
pub async fn run(store: &Store) {
    store.probe().await.expect("the probe passes");
    a_whole_object_is_read_back_in_any_range(store).await;
    a_truncated_or_absent_object_is_told_apart(store).await;
    the_last_write_wins(store).await;
    listings_are_sorted_and_paged(store).await;
    deleting_is_idempotent_and_answers_per_key(store).await;
}

fn key(shard: u32, from: u64) -> Key {
    Key::FlushedSegment {
        incarnation: Incarnation::FIRST,
        shard: ShardId(shard),
        range: RaftRange::new(RaftIndex(from), RaftIndex(from + 1)).expect("from is below"),
        id: SegmentId(u128::from(from)),
    }
}

async fn a_whole_object_is_read_back_in_any_range(store: &Store) {
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let parts = content.chunks(33_333).map(Bytes::copy_from_slice);
    let (key, length) = (key(1, 0), content.len() as u64);
    store
        .put(&key, parts.collect())
        .await
        .expect("a put in parts");
    assert_eq!(store.head(&key).await.expect("a head"), length);
    for (start, end) in [
        (0, length),
        (0, 1),
        (33_332, 33_334),
        (length - 1, length),
        (7, 7),
    ] {
        for lane in [Lane::Tail, Lane::Backfill] {
            let body = store.get_range(&key, start..end, lane).await;
            let range =
                usize::try_from(start).expect("small")..usize::try_from(end).expect("small");
            assert_eq!(
                body.expect("a range"),
                content[range],
                "range {start}..{end}"
            );
        }
    }
    let tail = store.get_tail(&key, length, 10, Lane::Tail).await;
    assert_eq!(tail.expect("a tail"), content[content.len() - 10..]);
    let whole = store.get_tail(&key, length, length * 2, Lane::Tail).await;
    assert_eq!(whole.expect("a tail longer than the object"), content);

    let empty = self::key(1, 1);
    store.put(&empty, vec![]).await.expect("an empty object");
    assert_eq!(store.head(&empty).await.expect("its head"), 0);
}

async fn a_truncated_or_absent_object_is_told_apart(store: &Store) {
    let key = key(2, 0);
    let kind = |result: Result<Bytes, crate::Error>| result.expect_err("it must fail").kind();
    assert_eq!(
        kind(store.get_range(&key, 0..1, Lane::Tail).await),
        Kind::NotFound
    );
    let error = store.head(&key).await.expect_err("a head of nothing");
    assert_eq!(error.kind(), Kind::NotFound);
    store
        .put(&key, vec![Bytes::from_static(b"0123456789")])
        .await
        .expect("a put");
    for range in [5..11, 20..30] {
        let result = store.get_range(&key, range, Lane::Tail).await;
        assert_eq!(
            kind(result),
            Kind::Corrupt,
            "a range that leaves the object is no short answer"
        );
    }
}

async fn the_last_write_wins(store: &Store) {
    let key = key(3, 0);
    for content in [&b"first"[..], b"second", b"3rd"] {
        let parts = vec![Bytes::from_static(content)];
        store.put(&key, parts).await.expect("an overwrite");
        let length = store.head(&key).await.expect("a head");
        let body = store.get_range(&key, 0..length, Lane::Tail).await;
        assert_eq!(body.expect("a read after an overwrite"), content);
    }
}

async fn listings_are_sorted_and_paged(store: &Store) {
    // Written out of order and in parallel.
    futures::stream::iter((0..LISTED).rev().map(Ok::<_, crate::Error>))
        .try_for_each_concurrent(PUTS_IN_FLIGHT, |from| async move {
            let body = Bytes::from(vec![0; usize::try_from(from % 3).expect("small")]);
            store.put(&key(4, from), vec![body]).await
        })
        .await
        .expect("many puts");
    let prefix = Prefix::Flushed(Incarnation::FIRST, ShardId(4));
    let first = store.list(prefix, None).await.expect("a page");
    assert_eq!(first.objects.len(), OBJECT_LIST_PAGE);
    let next = first.next.as_ref().expect("a second page");
    let second = store
        .list(prefix, Some(next))
        .await
        .expect("the second page");
    assert_eq!(second.next, None);
    let all: Vec<_> = first.objects.iter().chain(&second.objects).collect();
    let expected: Vec<_> = (0..LISTED).map(|from| (key(4, from), from % 3)).collect();
    let listed: Vec<_> = all
        .iter()
        .map(|object| (object.key, object.length))
        .collect();
    assert_eq!(
        listed, expected,
        "every object once, in order, with its length"
    );

    let after = Cursor::after(&key(4, LISTED - 2));
    let rest = store.list(prefix, Some(&after)).await.expect("a late page");
    assert_eq!(rest.objects.len(), 1, "a cursor excludes the key it names");
    let nothing = Prefix::Gathered(Incarnation::FIRST, ShardId(4));
    let page = store
        .list(nothing, None)
        .await
        .expect("a listing of nothing");
    assert!(page.objects.is_empty() && page.next.is_none());
    // A shard's prefix must not take in a neighbour whose number begins alike.
    let neighbour = Prefix::Flushed(Incarnation::FIRST, ShardId(3));
    let page = store.list(neighbour, None).await.expect("a neighbour");
    assert_eq!(page.objects.len(), 1);
}

async fn deleting_is_idempotent_and_answers_per_key(store: &Store) {
    let mut keys: Vec<_> = (0..LISTED).map(|from| key(4, from)).collect();
    keys.push(key(5, 0));
    for round in ["once", "twice"] {
        let results = store.delete(&keys).await;
        assert_eq!(results.len(), keys.len());
        for result in results {
            assert!(result.is_ok(), "deleted {round}: {result:?}");
        }
    }
    let prefix = Prefix::Flushed(Incarnation::FIRST, ShardId(4));
    let page = store.list(prefix, None).await.expect("a listing");
    assert!(page.objects.is_empty(), "deleted objects are not listed");
    let rest = [key(1, 0), key(1, 1), key(2, 0), key(3, 0)];
    for result in store.delete(&rest).await {
        result.expect("the suite cleans up");
    }
}
