//! Who leads is found out, and found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_head::Calling;
use esker_log::{Head, HeadError};
use esker_shard::{Append, AppendBatch, Command, Level};
use esker_types::limits::{
    HEAD_CALL_MAX, HEAD_CALLS_MAX, HEAD_NODE_REST, HEAD_PATIENCE, HEAD_POLL_MAX,
};
use esker_types::{ClusterId, ContentHash, Durability, RaftIndex, ShardId, ShardTime, Timestamp};
use futures::FutureExt as _;
use tokio::time::{Instant, sleep};

use crate::posed::{Posed, Step, elsewhere};
use crate::site::{CLUSTER, SHARD, SHARDS, Site, batch, make_partition, run};

const NODES: [&str; 3] = ["node1:7072", "node2:7072", "node3:7072"];
/// What a search without a rest may take.
const AT_ONCE: Duration = Duration::from_millis(1);

async fn is_led(head: &Calling) {
    head.read_index(SHARD).await.expect("it is led");
}

/// A command that an agent proposes, and that changes nothing.
fn boundary() -> Command {
    let to = RaftIndex(1);
    Command::RaiseGcBoundary { to }
}

/// Entries of the shard so far.
async fn entries(site: &Site) -> u64 {
    site.head()
        .progress(SHARD)
        .await
        .expect("it leads")
        .mark
        .index
        .0
}

#[test]
fn who_is_named_is_gone_to_at_once_and_remembered() {
    run(async {
        let site = Site::start(1).await;
        let follower = Posed::following(&site.head(), Some(NODES[1]));
        site.serve(NODES[0], Arc::<Posed>::clone(&follower) as _)
            .await;
        site.serve(NODES[1], site.head()).await;
        // The second is not known before the first has named it.
        let calling = site.calling(&NODES[..1]);
        let began = Instant::now();
        for _ in 0..10 {
            is_led(&calling).await;
        }
        assert!(began.elapsed() <= AT_ONCE, "{:?}", began.elapsed());
        let partition = make_partition(&*site.head()).await;
        let (batch, bytes) = batch(partition, 1, Bytes::from_static(b"a"), None);
        let answer = calling.append(SHARD, batch, bytes).await;
        answer.expect("there is room").await.expect("it is led");
        assert!(began.elapsed() <= AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(follower.calls(), 1, "it was asked once");
    });
}

#[test]
fn where_nobody_is_named_each_is_asked() {
    run(async {
        let site = Site::start(1).await;
        for leads in 0..3 {
            let site_nodes = NODES.map(|node| format!("of{leads}-{node}"));
            for (at, node) in site_nodes.iter().enumerate() {
                let head = site.head();
                let head = if at == leads {
                    head
                } else {
                    Posed::following(&head, None)
                };
                site.serve(node, head).await;
            }
            let nodes: Vec<_> = site_nodes.iter().map(String::as_str).collect();
            let calling = site.calling(&nodes);
            let began = Instant::now();
            is_led(&calling).await;
            assert!(began.elapsed() < Duration::from_millis(50));
            let began = Instant::now();
            is_led(&calling).await;
            assert!(began.elapsed() <= AT_ONCE, "it is remembered");
        }
    });
}

#[test]
fn nodes_that_name_each_other_are_left_when_patience_is_over() {
    run(async {
        let site = Site::start(1).await;
        let first = Posed::following(&site.head(), Some(NODES[1]));
        let second = Posed::following(&site.head(), Some(NODES[0]));
        site.serve(NODES[0], Arc::<Posed>::clone(&first) as _).await;
        site.serve(NODES[1], Arc::<Posed>::clone(&second) as _)
            .await;
        let calling = site.calling(&NODES[..2]);
        let began = Instant::now();
        let error = calling.read_index(SHARD).await.expect_err("nobody leads");
        assert!(
            matches!(
                error,
                HeadError::NotLeader {
                    leader: Some(_),
                    ..
                }
            ),
            "{error:?}"
        );
        let took = began.elapsed();
        assert!(
            took <= HEAD_PATIENCE && took > HEAD_PATIENCE / 2,
            "{took:?}"
        );
        let entries = entries(&site).await;
        let error = calling
            .propose(SHARD, boundary())
            .await
            .expect_err("nobody leads");
        assert_eq!(error.durability(), Durability::NotWritten);
        assert_eq!(entries, self::entries(&site).await);
    });
}

#[test]
fn where_nobody_listens_nothing_was_written() {
    run(async {
        let site = Site::start(1).await;
        for nodes in [&NODES[..], &[], &["no address at all"]] {
            let calling = site.calling(nodes);
            let error = calling
                .propose(SHARD, boundary())
                .await
                .expect_err("nobody is there");
            assert!(
                matches!(error, HeadError::NotLeader { leader: None, .. }),
                "{error:?}"
            );
            let error = calling.progress(SHARD).await.expect_err("nobody is there");
            assert_eq!(error.durability(), Durability::NotWritten);
        }
    });
}

/// Who waits for less hears of what it failed, where it is not heard in time he would hear nothing.
#[test]
fn who_has_less_patience_hears_earlier_of_what_it_failed() {
    run(async {
        let site = Site::start(1).await;
        let calling = site.calling(&NODES);
        let patience = HEAD_PATIENCE / 3;
        let began = Instant::now();
        let asked = calling.progress_within(SHARD, patience).await;
        let error = asked.expect_err("nobody is there");
        assert!(began.elapsed() <= patience, "{:?}", began.elapsed());
        assert!(error.to_string().contains("asked node"), "{error}");

        let head = Posed::following(&site.head(), None);
        site.serve(NODES[0], head).await;
        let began = Instant::now();
        let calling = site.calling(&NODES[..1]);
        let asked = calling.progress_within(SHARD, patience).await;
        let error = asked.expect_err("it does not lead");
        assert!(began.elapsed() <= patience, "{:?}", began.elapsed());
        assert_eq!(error.to_string(), elsewhere(None).to_string());
    });
}

#[test]
fn a_node_that_comes_is_found() {
    run(async {
        let site = Site::start(1).await;
        let calling = site.calling(&NODES);
        let waiting = calling.clone();
        let waiting = tokio::spawn(async move { waiting.propose(SHARD, boundary()).await });
        sleep(HEAD_PATIENCE / 2).await;
        site.serve(NODES[1], site.head()).await;
        let outcome = waiting.await.expect("no panic");
        assert!(outcome.is_ok(), "{outcome:?}");
    });
}

#[test]
fn a_stranger_is_refused_and_counted() {
    run(async {
        let site = Site::start(1).await;
        let refusals = site.serve(NODES[0], site.head()).await;
        let stranger = Calling::new(&site.env, ClusterId(43), SHARDS, vec![NODES[0].into()]);
        let entries = entries(&site).await;
        let error = stranger
            .propose(SHARD, boundary())
            .await
            .expect_err("it is not meant");
        assert!(error.to_string().contains("is of cluster"), "{error}");
        assert_eq!(error.durability(), Durability::NotWritten);
        let partition = make_partition(&*site.head()).await;
        let (batch, bytes) = batch(partition, 1, Bytes::from_static(b"a"), None);
        let answer = stranger
            .append(SHARD, batch, bytes)
            .await
            .expect("it is queued");
        let error = answer.await.expect_err("it is not meant");
        assert_eq!(error.durability(), Durability::NotWritten, "{error}");
        assert!(refusals.misdirected.load(Ordering::Relaxed) > 1);
        assert_eq!(refusals.malformed.load(Ordering::Relaxed), 0);
        assert!(
            entries < self::entries(&site).await,
            "what made the partition"
        );
        let bounds = site
            .head()
            .bounds(SHARD, partition)
            .await
            .expect("it leads");
        assert_eq!(bounds.expect("it is there").end.get(), 0);
        // A node of its own cluster is asked as well.
        let home = Site::start(2).await;
        assert_eq!(CLUSTER, ClusterId(42));
        drop(home);
    });
}

#[test]
fn a_node_that_never_answers_is_waited_for_once() {
    run(async {
        let site = Site::start(1).await;
        let silent = Posed::new(&site.head(), |_| std::future::pending().boxed());
        site.serve(NODES[0], silent).await;
        site.serve(NODES[1], site.head()).await;
        let calling = site.calling(&NODES[..2]);
        // The catalog begins with the first of them, and so does the second shard.
        let began = Instant::now();
        let catalog = calling.read_index(ShardId::CATALOG).await;
        catalog.expect("it is led");
        let took = began.elapsed();
        assert!(took >= HEAD_CALL_MAX && took < HEAD_CALL_MAX + Duration::from_millis(200));
        let began = Instant::now();
        let other = calling.read_index(ShardId(2)).await;
        other.expect("it is led");
        assert!(
            began.elapsed() < HEAD_NODE_REST / 2,
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_node_whose_network_is_gone_is_left_soon() {
    run(async {
        let site = Site::start(1).await;
        for node in NODES {
            site.serve(node, site.head()).await;
        }
        let calling = site.calling(&NODES);
        is_led(&calling).await;
        let led = NODES.iter().find(|node| site.network.cut(node) > 0);
        let led = led.expect("it was called");
        site.network.refuse(led, true);
        let began = Instant::now();
        for _ in 0..10 {
            is_led(&calling).await;
        }
        assert!(
            began.elapsed() < Duration::from_millis(100),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_proposal_whose_answer_is_lost_is_unknown_and_made_once() {
    run(async {
        let site = Site::start(1).await;
        let network = site.network.clone();
        let head = Posed::new(&site.head(), move |step| {
            if step == Step::Proposed {
                network.cut(NODES[0]);
            }
            async { None }.boxed()
        });
        site.serve(NODES[0], head).await;
        site.serve(NODES[1], site.head()).await;
        let entries = entries(&site).await;
        let calling = site.calling(&NODES[..1]);
        let error = calling
            .propose(SHARD, boundary())
            .await
            .expect_err("it is lost");
        assert!(matches!(error, HeadError::Unknown { .. }), "{error:?}");
        sleep(HEAD_PATIENCE).await;
        assert_eq!(entries + 1, self::entries(&site).await);
        // What only looks is asked again.
        is_led(&calling).await;
    });
}

#[test]
fn a_proposal_that_was_refused_is_made_elsewhere_once() {
    run(async {
        let site = Site::start(1).await;
        site.serve(NODES[0], Posed::following(&site.head(), None))
            .await;
        site.serve(NODES[1], site.head()).await;
        let entries = entries(&site).await;
        // From each of them on.
        for nodes in [[NODES[0], NODES[1]], [NODES[1], NODES[0]]] {
            let calling = site.calling(&nodes);
            for _ in 1..=5 {
                let outcome = calling.propose(SHARD, boundary()).await;
                assert!(outcome.is_ok(), "{outcome:?}");
            }
        }
        assert_eq!(entries + 10, self::entries(&site).await);
    });
}

#[test]
fn what_only_a_leader_proposes_is_taken_from_nobody_else() {
    run(async {
        let site = Site::start(1).await;
        site.serve(NODES[0], site.head()).await;
        let calling = site.calling(&NODES[..1]);
        let batch = AppendBatch {
            partition: make_partition(&*site.head()).await,
            bytes: 100,
            records: 1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer: None,
            hash: ContentHash(1),
            expected_end: None,
            fencing: None,
        };
        let append = Append {
            time: ShardTime::ZERO,
            batches: vec![batch],
        };
        let entries = entries(&site).await;
        for command in [
            // Without its bytes: nobody could ever flush it.
            Command::Append(append),
            // All that has a lifetime would end.
            Command::Tick {
                time: ShardTime(u64::MAX),
            },
            Command::RaiseLevel {
                level: Level::NEWEST,
            },
        ] {
            let outcome = calling.propose(SHARD, command).await;
            let refused = matches!(outcome, Err(HeadError::Refused { .. }));
            assert!(refused, "{outcome:?}");
        }
        assert_eq!(entries, self::entries(&site).await);
    });
}

#[test]
fn a_node_that_does_not_know_is_not_asked_twice_to_propose() {
    run(async {
        let site = Site::start(1).await;
        let unknown = HeadError::Unknown {
            shard: SHARD,
            what: "it was lost".into(),
        };
        let says = unknown.clone();
        let head = Posed::saying(&site.head(), move |step| {
            (step == Step::Proposed).then(|| says.clone())
        });
        site.serve(NODES[0], head).await;
        let calling = site.calling(&NODES[..1]);
        let entries = entries(&site).await;
        let outcome = calling.propose(SHARD, boundary()).await;
        assert_eq!(outcome, Err(unknown));
        assert_eq!(entries + 1, self::entries(&site).await);
    });
}

#[test]
fn who_is_behind_what_was_seen_is_not_believed() {
    run(async {
        let site = Site::start(1).await;
        site.serve(NODES[0], site.head()).await;
        let behind = Posed::standing(&site.head(), |mut mark| {
            mark.index = RaftIndex(1);
            mark
        });
        site.serve(NODES[1], Arc::<Posed>::clone(&behind) as _)
            .await;
        let fresh = site.calling(&NODES[1..2]);
        // Whoever has seen nothing takes it as it is.
        assert_eq!(
            fresh.progress(SHARD).await.expect("it answers").mark.index,
            RaftIndex(1)
        );
        let calling = site.calling(&NODES[..2]);
        let mark = calling.read_index(SHARD).await.expect("it leads");
        for _ in 0..4 {
            // Whichever of them it was, the other is asked now.
            for node in &NODES[..2] {
                site.network.cut(node);
            }
            let progress = calling.progress(SHARD).await.expect("one of them knows");
            assert!(progress.mark >= mark, "{progress:?}");
        }
        site.network.refuse(NODES[0], true);
        site.network.cut(NODES[0]);
        let error = calling.progress(SHARD).await.expect_err("nobody knows");
        assert_eq!(error.durability(), Durability::NotWritten);
        let error = calling
            .propose(SHARD, boundary())
            .await
            .expect_err("nobody knows");
        assert_eq!(error.durability(), Durability::NotWritten);
    });
}

/// It leads while it answers, and no more when that is done: what it said counts as seen.
#[test]
fn what_one_said_who_was_deposed_the_next_moment_is_not_taken_back() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let calls = Arc::new(AtomicU64::new(0));
        let deposed = Posed::saying(&site.head(), move |step| {
            let led = step != Step::Call || calls.fetch_add(1, Ordering::Relaxed) == 0;
            (!led).then(|| elsewhere(Some(NODES[1])))
        });
        let behind = Posed::standing(&site.head(), |mut mark| {
            mark.index = RaftIndex(1);
            mark
        });
        site.serve(NODES[0], deposed).await;
        site.serve(NODES[1], behind).await;
        let calling = site.calling(&NODES[..1]);
        let bounds = calling.bounds(SHARD, partition).await.expect("it leads");
        let seen = bounds.expect("it is there").mark;
        assert!(seen.index > RaftIndex(1));
        assert!(calling.mark(SHARD) >= Some(seen), "it is remembered");
        let error = calling.bounds(SHARD, partition).await;
        let error = error.expect_err("who leads now knows less");
        assert_eq!(error.durability(), Durability::NotWritten);
    });
}

#[test]
fn whoever_waits_for_news_goes_on_waiting_where_the_leader_is() {
    run(async {
        let site = Site::start(1).await;
        for node in NODES {
            site.serve(node, site.head()).await;
        }
        let calling = site.calling(&NODES);
        let partition = make_partition(&calling).await;
        let seen = calling.bounds(SHARD, partition).await.expect("it answers");
        let seen = seen.expect("it is there");
        let waiting = calling.clone();
        let waiting = tokio::spawn(async move { waiting.past(SHARD, partition, seen).await });
        for _ in 0..20 {
            sleep(Duration::from_millis(700)).await;
            for node in NODES {
                site.network.cut(node);
            }
        }
        assert!(!waiting.is_finished());
        let (batch, bytes) = batch(partition, 1, Bytes::from_static(b"a"), None);
        let answer = calling.append(SHARD, batch, bytes).await;
        answer.expect("there is room").await.expect("it is led");
        let past = waiting.await.expect("no panic").expect("it hears");
        assert_eq!(past.expect("it is there").end.get(), 1);
    });
}

#[test]
fn whoever_is_cut_off_keeps_nobody_waiting() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        // It believes to lead, and hears of nothing new.
        let cut_off = Posed::saying(&site.head(), |step| {
            (step == Step::ReadIndex).then(|| elsewhere(Some(NODES[1])))
        });
        let leads = Posed::saying(&site.head(), |_| None);
        site.serve(NODES[0], cut_off).await;
        site.serve(NODES[1], Arc::<Posed>::clone(&leads) as _).await;
        let seen = site.head().bounds(SHARD, partition).await;
        let seen = seen.expect("it leads").expect("it is there");
        let calling = site.calling(&NODES[..1]);
        let past = tokio::spawn(async move { calling.past(SHARD, partition, seen).await });
        sleep(HEAD_POLL_MAX + Duration::from_millis(100)).await;
        assert_eq!(leads.calls(), 1, "it is waited for there");
        assert!(!past.is_finished());
        let calling = site.calling(&NODES[..1]);
        let (index, patience) = (seen.mark.index, HEAD_POLL_MAX * 2);
        let stands = calling.progress_past(SHARD, index, patience).await;
        assert_eq!(stands.expect("it is led").mark, seen.mark);
        assert!(leads.calls() > 1, "that, too");
    });
}

/// Who leads one of them may be away from here alone.
#[test]
fn a_shard_that_nobody_answers_for_keeps_no_other_waiting() {
    run(async {
        let site = Site::start(1).await;
        let asked = Arc::new(AtomicU64::new(0));
        let silent = {
            let asked = Arc::clone(&asked);
            let most = HEAD_CALLS_MAX as u64;
            Posed::new(&site.head(), move |step| {
                let first = step == Step::ReadIndex && asked.fetch_add(1, Ordering::Relaxed) < most;
                Box::pin(async move {
                    if first {
                        std::future::pending::<()>().await;
                    }
                    None
                })
            })
        };
        site.serve(NODES[0], silent).await;
        let calling = site.calling(&NODES[..1]);
        let questions: Vec<_> = (0..2 * HEAD_CALLS_MAX)
            .map(|_| {
                let calling = calling.clone();
                tokio::spawn(async move { calling.read_index(SHARD).await.map(drop) })
            })
            .collect();
        while asked.load(Ordering::Relaxed) < HEAD_CALLS_MAX as u64 {
            sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        let other = calling.read_index(ShardId::CATALOG).await;
        other.expect("it is led");
        assert!(began.elapsed() <= AT_ONCE, "{:?}", began.elapsed());
        questions.iter().for_each(tokio::task::JoinHandle::abort);
    });
}
