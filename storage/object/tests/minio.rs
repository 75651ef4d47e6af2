//! The suite over a real MinIO, and what becomes of calls when that server dies or hangs.
//!
//! Needs its binary: `ESKER_MINIO=$(.ci/minio | tail -1) cargo test -p esker-object --test minio`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_env::Env;
use esker_env::sim::SimClock;
use esker_object::minio::Minio;
use esker_object::{Budget, Error, Key, Kind, Store, conformance};
use esker_types::{Incarnation, Lane, RaftIndex, RaftRange, SegmentId, ShardId};
use tempfile::TempDir;

const BUCKET: &str = "bucket";
/// Bytes of the objects that are written while the server dies.
const BYTES: u64 = 64 * 1024;
/// Long past any deadline of these tests: what is not over by then hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A server with one empty bucket, or `None` on a machine without its binary.
fn server() -> Option<(TempDir, Minio)> {
    let Some(binary) = Minio::binary() else {
        #[expect(clippy::disallowed_macros, reason = "who runs the tests should know")]
        {
            println!("skipped: ESKER_MINIO does not name a MinIO binary; .ci/minio makes one");
        }
        return None;
    };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let minio = Minio::start(&binary, folder.path()).expect("MinIO starts");
    minio.make_bucket(BUCKET).expect("a bucket");
    Some((folder, minio))
}

fn open(minio: &Minio, prefix: &str, budget: Budget, env: &Env) -> Store {
    let mut options = minio.options();
    options.budget = budget;
    Store::open(&format!("s3://{BUCKET}/{prefix}"), &options, env).expect("a good URL")
}

/// The real world, but for a clock that stands still: the circuit's pause ends when a test says.
fn stopped_clock() -> (Env, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new());
    let mut env = Env::real();
    env.clock = Arc::<SimClock>::clone(&clock);
    (env, clock)
}

fn key(writer: u32, from: u64) -> Key {
    Key::FlushedSegment {
        incarnation: Incarnation::FIRST,
        shard: ShardId(writer),
        range: RaftRange::new(RaftIndex(from), RaftIndex(from + 1)).expect("from is below"),
        id: SegmentId(u128::from(from)),
    }
}

/// What [`key`] holds: no two objects alike.
fn content(writer: u32, from: u64) -> Bytes {
    let seed = u64::from(writer) * 7919 + from;
    (0..BYTES)
        .map(|i| (i.wrapping_mul(31).wrapping_add(seed) % 251) as u8)
        .collect()
}

async fn put(store: &Store, writer: u32, from: u64) -> Result<(), Error> {
    let parts = vec![content(writer, from)];
    store.put(&key(writer, from), parts).await
}

async fn get(store: &Store, writer: u32, from: u64) -> Result<Bytes, Error> {
    store
        .get_range(&key(writer, from), 0..BYTES, Lane::Tail)
        .await
}

/// After a write of unknown outcome: all of the object or nothing, and the same write again is
/// done.
async fn resolves(store: &Store, writer: u32, from: u64) {
    match store.head(&key(writer, from)).await {
        Ok(length) => assert_eq!(length, BYTES, "no part of an object is ever seen"),
        Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{error}"),
    }
    put(store, writer, from).await.expect("a second try");
    let read = get(store, writer, from).await.expect("a get");
    assert_eq!(read, content(writer, from));
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_conforms_with_a_prefix_and_without() {
    let Some((_folder, minio)) = server() else {
        return;
    };
    for prefix in ["", "some/prefix"] {
        let store = open(&minio, prefix, Budget::default(), &Env::real());
        conformance::run(&store).await;
        assert_eq!(store.counters().retried, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_segments_size_is_put_in_parts_and_read_in_ranges() {
    const PART: usize = 1024 * 1024;
    const PARTS: u8 = 64;
    const BYTES: u64 = PART as u64 * PARTS as u64;
    let Some((_folder, minio)) = server() else {
        return;
    };
    let store = open(&minio, "", Budget::default(), &Env::real());
    let parts = (0..PARTS).map(|part| Bytes::from(vec![part; PART]));
    store.put(&key(1, 0), parts.collect()).await.unwrap();
    assert_eq!(store.head(&key(1, 0)).await.unwrap(), BYTES);
    // Each range takes in the end of one part and the start of the next.
    for part in 1..PARTS {
        let middle = u64::from(part) * PART as u64;
        let range = middle - 1..middle + 1;
        let read = store.get_range(&key(1, 0), range, Lane::Tail).await;
        assert_eq!(read.unwrap()[..], [part - 1, part]);
    }
    assert_eq!(store.counters().written_bytes, BYTES);
    assert_eq!(store.counters().retried, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_denied_at_once() {
    let Some((_folder, minio)) = server() else {
        return;
    };
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let mut options = minio.options();
        options.environment.insert(variable.into(), "wrong".into());
        let store = Store::open("s3://bucket", &options, &Env::real()).unwrap();
        let error = store.probe().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert_eq!(store.counters().requests(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_fails_the_probe_at_its_first_request() {
    let Some((_folder, minio)) = server() else {
        return;
    };
    let store = Store::open("s3://absent/p", &minio.options(), &Env::real()).unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(!error.is_retriable(), "{error}");
    assert!(error.to_string().contains("probe at `put`"), "{error}");
    assert_eq!(store.counters().requests(), 1);
}

/// Writers in flight when the server is killed, calls while it is away, and its return.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_opens_the_circuit_and_its_return_closes_it() {
    const WRITERS: u32 = 8;
    /// Objects to be acknowledged before the server dies.
    const WARM: usize = 40;
    let Some((_folder, mut minio)) = server() else {
        return;
    };
    let budget = Budget {
        attempts: 3,
        pause_first: Duration::from_millis(10),
        breaker_failures: 8,
        ..Budget::default()
    };
    let pause = budget.breaker_pause;
    let (env, clock) = stopped_clock();
    let store = open(&minio, "", budget, &env);

    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut from = 0;
                loop {
                    if let Err(error) = put(&store, writer, from).await {
                        return (from, error);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    from += 1;
                }
            })
        })
        .collect();
    let warm = async {
        while done.load(Ordering::Relaxed) < WARM {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANGS, warm).await.expect("it serves");
    minio.kill();

    let mut acknowledged = Vec::new();
    for writer in writers {
        let ended = tokio::time::timeout(HANGS, writer).await;
        let (from, error) = ended.expect("every call ends").unwrap();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        acknowledged.push(from);
    }
    assert_eq!(acknowledged.len(), WRITERS as usize);
    assert_eq!(store.counters().opened, 1);

    // Open: nothing is asked.
    let before = store.counters();
    for _ in 0..100 {
        let error = get(&store, 0, 0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        assert!(error.to_string().contains("circuit is open"), "{error}");
    }
    assert_eq!(store.counters().requests(), before.requests());
    assert_eq!(store.counters().refused, before.refused + 100);

    // The pause is over and the server is not back: one request finds out.
    clock.advance(pause);
    assert_eq!(
        get(&store, 0, 0).await.unwrap_err().kind(),
        Kind::Unavailable
    );
    assert_eq!(store.counters().requests(), before.requests() + 1);

    minio.restart().expect("MinIO starts again");
    clock.advance(pause);
    for (writer, acknowledged) in (0..WRITERS).zip(acknowledged) {
        for from in 0..acknowledged {
            let read = get(&store, writer, from).await.unwrap();
            assert_eq!(
                read,
                content(writer, from),
                "what was acknowledged is there"
            );
        }
        resolves(&store, writer, acknowledged).await;
    }
    assert_eq!(store.counters().opened, 1);
}

/// The server takes connections and answers none of them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_frozen_server_end_by_their_deadlines() {
    let Some((_folder, minio)) = server() else {
        return;
    };
    let budget = Budget {
        attempts: 2,
        pause_first: Duration::from_millis(10),
        request_timeout: Duration::from_millis(500),
        ..Budget::default()
    };
    let store = open(&minio, "", budget, &Env::real());
    put(&store, 1, 0).await.unwrap();
    let before = store.counters();

    minio.freeze().expect("MinIO is frozen");
    let calls = async {
        let read = get(&store, 1, 0).await.unwrap_err();
        let written = put(&store, 1, 1).await.unwrap_err();
        let listed = store.probe().await.unwrap_err();
        [read, written, listed]
    };
    let errors = tokio::time::timeout(HANGS, calls).await;
    for error in errors.expect("every call ends") {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let told = error.to_string();
        assert!(
            told.contains("after 2 attempts: no answer within 500ms"),
            "{told}"
        );
    }
    let after = store.counters();
    assert_eq!(after.requests(), before.requests() + 6);
    assert_eq!(after.get.abandoned, 2);
    assert_eq!(after.put.abandoned, 4);
    assert_eq!(after.written_bytes, before.written_bytes);

    minio.thaw().expect("MinIO goes on");
    assert_eq!(get(&store, 1, 0).await.unwrap(), content(1, 0));
    resolves(&store, 1, 1).await;
    store.probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_opens_the_circuit_for_all_callers() {
    const CALLERS: u32 = 4;
    let Some((_folder, minio)) = server() else {
        return;
    };
    let budget = Budget {
        attempts: 2,
        pause_first: Duration::from_millis(10),
        request_timeout: Duration::from_millis(500),
        breaker_failures: CALLERS,
        ..Budget::default()
    };
    let pause = budget.breaker_pause;
    let (env, clock) = stopped_clock();
    let store = open(&minio, "", budget, &env);
    put(&store, 1, 0).await.unwrap();
    let before = store.counters();

    minio.freeze().expect("MinIO is frozen");
    let calls = futures::future::join_all((0..CALLERS).map(|_| get(&store, 1, 0)));
    let errors = tokio::time::timeout(HANGS, calls).await;
    for error in errors.expect("every call ends") {
        assert_eq!(error.unwrap_err().kind(), Kind::Unavailable);
    }
    assert_eq!(store.counters().opened, 1);
    // A first attempt each; of the second ones, those that began before the circuit opened.
    let asked = store.counters().get.abandoned;
    assert!((4..8).contains(&asked), "{asked} gets were let through");
    put(&store, 1, 1).await.unwrap_err();
    assert_eq!(store.counters().put, before.put);

    minio.thaw().expect("MinIO goes on");
    clock.advance(pause);
    assert_eq!(get(&store, 1, 0).await.unwrap(), content(1, 0));
    put(&store, 1, 1).await.unwrap();
    // Closed: while it is open, one call at a time is let through.
    let refused = store.counters().refused;
    for read in futures::future::join_all((0..CALLERS).map(|_| get(&store, 1, 0))).await {
        assert_eq!(read.unwrap(), content(1, 0));
    }
    assert_eq!(store.counters().refused, refused);
    assert_eq!(store.counters().opened, 1);
}
