//! Whose a data directory is, and whose a bucket: one process, one cluster.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use esker_log::Error;
use esker_object::{Key, Options, Store};
use esker_tests::node::run;
use esker_tests::whole::{Site, Whole};
use esker_types::{Lane, SegmentId};
use esker_walnode::{Directory, IdentityError, NodeError};

#[test]
fn a_directory_is_one_process_s_until_nobody_writes_there_any_more() {
    run(async {
        let mut site = Site::new(61);
        let first = site.start().await.expect("started");
        first.create("gravel", 1).await;
        match site.start().await {
            Err(NodeError::Locked { path }) => assert_eq!(path, Path::new("/data")),
            other => unreachable!("{other:?}"),
        }
        first
            .append("gravel", 0, &[vec![1]], None)
            .await
            .expect("durable");
        let engine = first.engine.clone();
        first.close().await;
        // Somebody who may still append keeps the lock, whatever was closed.
        assert!(matches!(site.start().await, Err(NodeError::Locked { .. })));
        drop(engine);
        let second = site.start().await.expect("started");
        assert_eq!(second.read("gravel", 0, 0).await.len(), 1);
    });
}

#[test]
fn a_log_without_an_identity_is_nobody_s_to_begin_with() {
    run(async {
        let mut site = Site::new(62);
        let whole = site.start().await.expect("started");
        let env = whole.env.clone();
        whole.close().await;
        let identity = Path::new("/data/identity.json");
        env.files.remove(identity).expect("it was there");
        let directory = Directory::take(&env, Path::new("/data"))
            .await
            .expect("free");
        match directory.identity(&env) {
            Err(IdentityError::Missing { path }) => assert_eq!(path, Path::new("/data")),
            other => unreachable!("{other:?}"),
        }
    });
}

#[test]
fn a_directory_that_lost_its_log_is_not_founded_again() {
    run(async {
        let mut site = Site::new(64);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let values = [vec![7; 100]];
        whole
            .append("gravel", 0, &values, None)
            .await
            .expect("durable");
        whole.engine.flush_now().await.expect("flushed");
        let env = whole.env.clone();
        whole.close().await;
        // Its log, then its checkpoints too, then its spares: in the end an empty disk to which
        // somebody restored the identity.
        let list = |folder: &str| env.files.list(Path::new(folder)).expect("listed");
        for (folder, kind) in [("wal", "wal"), ("checkpoints", "ckp"), ("wal", "spare")] {
            let folder = format!("/data/{folder}");
            let mut gone = list(&folder);
            gone.retain(|path| path.extension().is_some_and(|known| known == kind));
            assert!(!gone.is_empty(), "{kind}");
            for path in gone {
                env.files.remove(&path).expect("removed");
            }
            let before = list("/data/wal");
            let refused = site.start().await.expect_err("no log, or not all of it");
            let NodeError::Wal(esker_wal::Error::NoFile { .. }) = &refused else {
                unreachable!("{refused:?}");
            };
            assert!(refused.to_string().contains("as they were"), "{refused}");
            assert_eq!(list("/data/wal"), before, "nothing was written");
        }
    });
}

async fn tiered(whole: &Whole) -> u64 {
    whole.reader("gravel", 0, 0).await.bounds().tiered_end.get()
}

#[test]
fn nothing_is_flushed_into_a_bucket_that_has_lost_our_claim() {
    run(async {
        let mut site = Site::new(63);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let values = [vec![7; 100]];
        let append = || whole.append("gravel", 0, &values, None);
        append().await.expect("durable");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(tiered(&whole).await, 1);
        let (key, claim) = without_claim(&whole).await;
        let store = whole.engine.store();
        tokio::time::sleep(Duration::from_secs(61)).await;
        append().await.expect("durable");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(tiered(&whole).await, 1, "the head keeps it");
        let told = |said: &str| said.contains(&key.to_string()) && said.contains("put back");
        let error = whole.engine.flush_now().await.expect_err("not ours");
        assert!(told(&error.to_string()), "{error}");
        assert_eq!(tiered(&whole).await, 1, "not by force, either");
        let shards = whole.engine.head().shards().into_iter();
        let troubles: Vec<_> = shards
            .filter_map(|s| whole.engine.flush_trouble(s))
            .collect();
        assert!(troubles.len() == 1 && told(&troubles[0]), "{troubles:?}");
        store.put(&key, vec![claim]).await.expect("put back");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(tiered(&whole).await, 2);
        whole.engine.flush_now().await.expect("ours again");
        let mut shards = whole.engine.head().shards().into_iter();
        assert!(shards.all(|shard| whole.engine.flush_trouble(shard).is_none()));
    });
}

/// Takes our claim away, as if the folder were not mounted any more; gives it back as it was.
async fn without_claim(whole: &Whole) -> (Key, Bytes) {
    let key = Key::Cluster {
        incarnation: whole.owner.incarnation,
        cluster: whole.owner.cluster,
    };
    let store = whole.engine.store();
    let length = store.head(&key).await.expect("it was claimed");
    let claim = store.get_range(&key, 0..length, Lane::Tail).await;
    store.delete(&[key]).await.remove(0).expect("deleted");
    (key, claim.expect("it is there"))
}

#[test]
fn no_flush_is_committed_where_our_claim_is_not_however_lately_it_was_seen() {
    run(async {
        let mut site = Site::new(65);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let values = [vec![7; 100]];
        let append = || whole.append("gravel", 0, &values, None);
        append().await.expect("durable");
        whole.engine.flush_now().await.expect("it is ours");
        let (key, claim) = without_claim(&whole).await;
        append().await.expect("durable");
        let error = whole.engine.flush_now().await.expect_err("not ours");
        assert!(
            matches!(error, Error::NotOurs { claim, .. } if claim == key),
            "{error}"
        );
        assert_eq!(tiered(&whole).await, 1, "the head keeps it");
        let error = whole.engine.flush_now().await.expect_err("not ours");
        assert!(matches!(error, Error::NotConfirmed { .. }), "{error}");
        let store = whole.engine.store();
        store.put(&key, vec![claim]).await.expect("put back");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(tiered(&whole).await, 2, "it is ours again");
    });
}

#[test]
fn what_is_due_before_the_claim_is_looked_at_again_is_not_committed_either() {
    run(async {
        let mut site = Site::new(66);
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let values = [vec![7; 100]];
        let append = || whole.append("gravel", 0, &values, None);
        append().await.expect("durable");
        whole.engine.flush_now().await.expect("it is ours");
        let (key, claim) = without_claim(&whole).await;
        let puts = || whole.engine.store().counters().put.done;
        let before = puts();
        // Flushes of five seconds' age, a claim that is looked at once a minute.
        for _ in 0..5 {
            append().await.expect("durable");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(tiered(&whole).await, 1, "the head keeps it");
        assert_eq!(puts() - before, 1, "one flush finds it out");
        let shards = whole.engine.head().shards().into_iter();
        let mut troubles = shards.filter_map(|s| whole.engine.flush_trouble(s));
        let trouble = troubles.next().expect("it is told");
        assert!(trouble.contains(&key.to_string()), "{trouble}");
        let store = whole.engine.store();
        store.put(&key, vec![claim]).await.expect("put back");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(tiered(&whole).await, 6, "it is ours again");
        assert_eq!(whole.read("gravel", 0, 0).await.len(), 6);
    });
}

#[test]
fn a_name_beside_our_claim_that_is_none_stops_nothing() {
    run(async {
        let mut site = Site::new(64);
        let whole = site.start().await.expect("started");
        let beside = format!("memory://{}/cluster", site.bucket);
        let beside = Store::open(&beside, &Options::default(), &whole.env).expect("a bucket");
        let notes = Key::Probe(SegmentId(5));
        beside.put(&notes, vec![]).await.expect("put");
        whole.close().await;
        let whole = site.start().await.expect("started");
        whole.create("gravel", 1).await;
        let done = whole.append("gravel", 0, &[vec![7; 100]], None).await;
        done.expect("durable");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(tiered(&whole).await, 1);
        beside.head(&notes).await.expect("left alone");
    });
}
