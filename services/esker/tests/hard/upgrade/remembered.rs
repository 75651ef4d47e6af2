//! Producers of format 1 are answered as they were: a minute after what was left was written, on a disk, a bucket and
//! a clock that are simulated. Under the real clock the golden files are older than the day for which producers
//! are remembered.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_client::v1::append_reply::Result as Answer;
use esker_client::v1::log_client::LogClient;
use esker_client::{Code, Durability};
use esker_env::sim::{Crash, Inline, SeededEntropy, SimClock, SimNetwork};
use esker_env::{Env, write_file};
use esker_object::{Key, Options, Store};
use esker_tests::node::run;
use esker_tests::whole::{ENDPOINT, Site};
use esker_wal::disk::WalOptions;
use tonic::transport::Channel;

use super::left::{Left, Stamped, log, unfolded};
use super::reading::read_live;
use super::writing::stamped;
use crate::blocking_turn;

const SEED: u64 = 61;
/// How long after it was left it is found.
const LATER: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;

#[test]
fn producers_of_format_1_are_answered_as_they_were() {
    let Some(_turn) = blocking_turn() else {
        return;
    };
    run(async {
        let mut left = Left::told();
        let mut site = find().await;
        let whole = site.start().await.expect("what was left is whole");
        let client = whole.serve().await;
        assert_eq!(read_live(&client, &left).await, left.records);
        let mut service = log(ENDPOINT, &whole.env);
        let mut done = Vec::new();
        for producer in left.producers.clone() {
            done.push(goes_on(&mut service, &mut left, &producer).await);
        }
        assert_eq!(done.len(), 3);
        assert_eq!(read_live(&client, &left).await, left.records);

        // Killed with all of it in the bucket, it tells them the same.
        whole.engine.flush_now().await.expect("a bucket");
        site.disk.crash(Crash::Kill);
        drop((client, service, whole));
        let whole = site.start().await.expect("a kill leaves a log that starts");
        let client = whole.serve().await;
        let mut service = log(ENDPOINT, &whole.env);
        for batch in done.iter().chain(&left.producers) {
            is_duplicate(&mut service, batch).await;
        }
        assert_eq!(read_live(&client, &left).await, left.records);
    });
}

/// A site that has what was left, and whose processes begin [`LATER`].
async fn find() -> Site {
    let mut site = Site::new(SEED);
    // Files as large as those that were left; and the head stays what it is until a flush is asked for.
    site.wal = WalOptions {
        file_bytes: 48 * MIB,
        disk_bytes: 1024 * MIB,
        memory_bytes: 16 << 20,
        ..WalOptions::default()
    };
    site.flush.age = Duration::from_hours(1);
    let env = Env {
        clock: Arc::new(SimClock::following_tokio()),
        entropy: Arc::new(SeededEntropy::new(SEED)),
        files: Arc::new(site.disk.mount()),
        workers: Arc::new(Inline),
        network: Arc::new(SimNetwork::new()),
    };
    let url = format!("memory://{}", site.bucket);
    let store = Store::open(&url, &Options::default(), &env).expect("a bucket");
    let mut left_ms = 0;
    for (path, bytes) in unfolded() {
        if let Some(key) = path.strip_prefix("bucket/") {
            let key = Key::parse(key).expect("keys stay what they are");
            if let Key::Checkpoint { id, .. } = key {
                // An id begins with when it was made.
                left_ms = left_ms.max(u64::try_from(id.0 >> 80).expect("48 bits"));
            }
            store.put(&key, vec![bytes.into()]).await.expect("room");
            continue;
        }
        let path = Path::new("/").join(path);
        let folder = path.parent().expect("a folder");
        env.files.create_dir_all(folder).expect("room");
        write_file(&*env.files, &path, &[IoSlice::new(&bytes)]).expect("room");
        env.files.sync_dir(folder).expect("it is there");
    }
    let left = Duration::from_millis(left_ms);
    let origin = Duration::from_millis(env.clock.wall().0);
    site.wall_ahead = left.checked_sub(origin).expect("later") + LATER;
    site
}

/// What `producer` sent last is where it was, a batch with one missing before it is refused, and the one that comes
/// next is taken, once. That one.
async fn goes_on(log: &mut LogClient<Channel>, left: &mut Left, producer: &Stamped) -> Stamped {
    is_duplicate(log, producer).await;

    let mut next = producer.next(vec!["goes on".into()]);
    let gap = next.next(vec!["too early".into()]);
    let answer = stamped(log, &gap, &gap.last, None).await;
    let Answer::Error(error) = answer else {
        panic!("{gap:?}: {answer:?}");
    };
    assert_eq!(error.code(), Code::SequenceGap, "{error:?}");
    let durability = Durability::from(error.durability());
    assert_eq!(durability, Durability::NotWritten, "{error:?}");

    let end = left.end(&next.topic, next.partition);
    let answer = stamped(log, &next, &next.last, None).await;
    let Answer::Appended(taken) = answer else {
        panic!("{next:?}: {answer:?}");
    };
    assert_eq!(
        (taken.base_offset, taken.duplicate),
        (end, false),
        "{next:?}"
    );
    left.add(&next.topic, next.partition, "goes on");
    next.base = end;
    for sent in [&next, producer] {
        is_duplicate(log, sent).await;
    }
    next
}

/// `batch`, sent again, is where it was.
async fn is_duplicate(log: &mut LogClient<Channel>, batch: &Stamped) {
    let answer = stamped(log, batch, &batch.last, None).await;
    let Answer::Appended(again) = answer else {
        panic!("{batch:?}: {answer:?}");
    };
    assert!(again.duplicate, "{batch:?}: {again:?}");
    let range = (again.base_offset, again.end);
    let end = batch.base + batch.last.len() as u64;
    assert_eq!(range, (batch.base, end), "{batch:?}");
}
