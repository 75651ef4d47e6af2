//! One thing breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_log::{Answer, Head, HeadError};
use esker_shard::{AppendError, AppendOutcome};
use esker_types::limits::{
    ELECTION_MAX, HEAD_APPEND_BYTES_MAX, HEAD_APPENDS_MAX, HEAD_PATIENCE, MIB,
};
use esker_types::{Durability, PartitionId, ProducerStamp};
use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::posed::{Posed, Step, elsewhere};
use crate::site::{SHARD, Site, accepted, batch, make_partition, range, run, stamp};

const NODES: [&str; 2] = ["node1:7072", "node2:7072"];

/// Less than a node gives it before its process ends.
const STOPS_WITHIN: Duration = Duration::from_millis(100);

type Queued = Answer<'static, AppendOutcome>;

async fn queue(head: &dyn Head, partition: PartitionId, producer: Option<ProducerStamp>) -> Queued {
    let text = format!("{producer:?}");
    let (batch, bytes) = batch(partition, 1, Bytes::from(text), producer);
    head.append(SHARD, batch, bytes)
        .await
        .expect("it is queued")
}

async fn end(site: &Site, partition: PartitionId) -> u64 {
    let bounds = site.head().bounds(SHARD, partition).await;
    bounds.expect("it leads").expect("it is there").end.get()
}

/// A head that does something the first time an append was applied.
fn once(head: &Arc<dyn Head>, first: impl Fn() + Send + Sync + 'static) -> Arc<Posed> {
    let done = AtomicBool::new(false);
    Posed::saying(head, move |step| {
        if step == Step::Appended && !done.swap(true, Ordering::Relaxed) {
            first();
        }
        None
    })
}

fn full() -> HeadError {
    HeadError::HeadFull {
        shard: SHARD,
        what: "it is full".into(),
        limit: 1,
        held: 2,
    }
}

#[test]
fn what_has_a_producer_is_there_once_and_where_it_was() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let network = site.network.clone();
        let head = once(&site.head(), move || _ = network.cut(NODES[0]));
        site.serve(NODES[0], head).await;
        let calling = site.calling(&NODES[..1]);
        let first = queue(&calling, partition, Some(stamp(1, 0))).await;
        assert_eq!(
            first.await,
            Ok(AppendOutcome::Duplicate { range: range(0, 1) })
        );
        let next = queue(&calling, partition, Some(stamp(1, 1))).await;
        assert_eq!(accepted(&next.await.expect("it leads")), range(1, 2));
        assert_eq!(end(&site, partition).await, 2);
    });
}

#[test]
fn what_has_none_is_unknown_and_not_sent_again() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let network = site.network.clone();
        let head = once(&site.head(), move || _ = network.cut(NODES[0]));
        site.serve(NODES[0], head).await;
        let calling = site.calling(&NODES[..1]);
        let plain = queue(&calling, partition, None).await;
        let error = plain.await.expect_err("its answer is lost");
        assert!(matches!(error, HeadError::Unknown { .. }), "{error:?}");
        let next = queue(&calling, partition, None).await;
        assert_eq!(accepted(&next.await.expect("it leads")), range(1, 2));
        assert_eq!(end(&site, partition).await, 2);
    });
}

/// Not even of those that have no producer.
#[test]
fn a_node_that_stops_leaves_nothing_in_doubt() {
    for after in (0..20).step_by(4) {
        run(async {
            let site = Site::start(1).await;
            let partition = make_partition(&*site.head()).await;
            // Most are on their way still.
            let slow = Posed::new(&site.head(), |step| match step {
                Step::Append => sleep(Duration::from_millis(1)).map(|()| None).boxed(),
                _ => std::future::ready(None).boxed(),
            });
            let stops = site.answer(NODES[0], slow).await;
            let calling = site.calling(&NODES);
            let mut answers = Vec::new();
            for sequence in 0..20 {
                answers.push(queue(&calling, partition, Some(stamp(1, sequence))).await);
                answers.push(queue(&calling, partition, None).await);
            }
            sleep(Duration::from_millis(after)).await;
            let stopped = timeout(STOPS_WITHIN, stops.stop()).await;
            stopped.expect("what it has taken is answered");
            sleep(Duration::from_millis(1)).await;
            site.network.cut(NODES[0]);
            site.serve(NODES[1], site.head()).await;
            for (at, answer) in (0..).zip(answers) {
                let outcome = answer.await.expect("the other has taken it");
                assert_eq!(accepted(&outcome), range(at, at + 1), "{after} ms");
            }
            assert_eq!(end(&site, partition).await, 40);
        });
    }
}

#[test]
fn what_never_left_is_sent_once_somebody_is_there() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let calling = site.calling(&NODES);
        let mut answers = Vec::new();
        for sequence in 0..5 {
            answers.push(queue(&calling, partition, Some(stamp(1, sequence))).await);
            answers.push(queue(&calling, partition, None).await);
        }
        sleep(HEAD_PATIENCE / 2).await;
        site.serve(NODES[1], site.head()).await;
        for (at, answer) in (0..).zip(answers) {
            let outcome = answer.await.expect("somebody has come");
            assert_eq!(accepted(&outcome), range(at, at + 1));
        }
    });
}

#[test]
fn patience_ends_with_what_is_known() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let nobody = site.calling(&NODES);
        let began = Instant::now();
        let queued = queue(&nobody, partition, Some(stamp(1, 0))).await;
        let error = queued.await.expect_err("nobody is there");
        assert!(matches!(error, HeadError::NotLeader { .. }), "{error:?}");
        assert!(began.elapsed() >= HEAD_PATIENCE && began.elapsed() < HEAD_PATIENCE * 2);

        let silent = Posed::new(&site.head(), |step| match step {
            Step::Appended => std::future::pending().boxed(),
            _ => std::future::ready(None).boxed(),
        });
        site.serve(NODES[0], silent).await;
        let calling = site.calling(&NODES[..1]);
        for producer in [None, Some(stamp(1, 0))] {
            let began = Instant::now();
            let queued = queue(&calling, partition, producer).await;
            let error = queued.await.expect_err("it never says anything");
            assert!(matches!(error, HeadError::Unknown { .. }), "{error:?}");
            assert!(
                began.elapsed() <= HEAD_PATIENCE * 2,
                "{:?}",
                began.elapsed()
            );
        }
        assert_eq!(end(&site, partition).await, 2, "both were made, once");
    });
}

#[test]
fn a_leader_that_falls_silent_is_left_within_three_elections() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let silent = Arc::new(AtomicBool::new(false));
        let quiet = Arc::clone(&silent);
        let head = Posed::new(&site.head(), move |step| {
            if step == Step::Appended && quiet.load(Ordering::Relaxed) {
                return std::future::pending().boxed();
            }
            std::future::ready(None).boxed()
        });
        site.serve(NODES[0], head).await;
        let calling = site.calling(&NODES);
        let first = queue(&calling, partition, Some(stamp(1, 0))).await;
        // Shard 1 begins with the second, which is not there yet.
        first.await.expect("it leads");
        site.serve(NODES[1], site.head()).await;
        silent.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let mut answers = Vec::new();
        for sequence in 1..6 {
            answers.push(queue(&calling, partition, Some(stamp(1, sequence))).await);
        }
        for (sequence, answer) in (1..).zip(answers) {
            let range = range(sequence, sequence + 1);
            assert_eq!(answer.await, Ok(AppendOutcome::Duplicate { range }));
        }
        assert!(began.elapsed() <= 3 * ELECTION_MAX, "{:?}", began.elapsed());
        let plain = queue(&calling, partition, None).await;
        assert_eq!(accepted(&plain.await.expect("it leads")), range(6, 7));
    });
}

#[test]
fn a_leader_whose_network_is_gone_is_left_within_three_elections() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        for node in NODES {
            site.serve(node, site.head()).await;
        }
        let calling = site.calling(&NODES);
        let first = queue(&calling, partition, Some(stamp(1, 0))).await;
        first.await.expect("it leads");
        for sequence in 1..20 {
            let led = NODES.iter().find(|node| site.network.cut(node) > 0);
            let led = led.expect("it was called");
            site.network.refuse(led, true);
            let began = Instant::now();
            let next = queue(&calling, partition, Some(stamp(1, sequence))).await;
            let at = u64::from(sequence);
            assert_eq!(accepted(&next.await.expect("it leads")), range(at, at + 1));
            assert!(began.elapsed() <= ELECTION_MAX, "{:?}", began.elapsed());
            site.network.refuse(led, false);
        }
    });
}

#[test]
fn what_a_node_no_longer_takes_goes_to_the_next_in_order_and_is_not_in_doubt() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let taken = AtomicU64::new(0);
        let ousted = Posed::saying(&site.head(), move |step| {
            let ousted = step == Step::Append && taken.fetch_add(1, Ordering::Relaxed) == 50;
            // Once: it would take the next ones again.
            ousted.then(|| elsewhere(Some(NODES[1])))
        });
        site.serve(NODES[0], ousted).await;
        site.serve(NODES[1], site.head()).await;
        let calling = site.calling(&NODES[..1]);
        let mut answers = Vec::new();
        for sequence in 0..100 {
            // Those without a producer are not in doubt either.
            let producer = (sequence % 2 == 0).then(|| stamp(1, sequence / 2));
            answers.push(queue(&calling, partition, producer).await);
        }
        for (at, answer) in (0..).zip(answers) {
            let outcome = answer.await.expect("nothing is in doubt");
            assert_eq!(accepted(&outcome), range(at, at + 1));
        }
        assert_eq!(end(&site, partition).await, 100);
    });
}

#[test]
fn what_apply_decided_without_one_before_it_is_sent_again() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        // The third is lost on its way, and those behind it are not.
        let taken = AtomicU64::new(0);
        let losing = Posed::saying(&site.head(), move |step| {
            let third = step == Step::Taken && taken.fetch_add(1, Ordering::Relaxed) == 2;
            third.then(|| HeadError::Unknown {
                shard: SHARD,
                what: "it was lost".into(),
            })
        });
        site.serve(NODES[0], losing).await;
        let calling = site.calling(&NODES[..1]);
        let mut answers = Vec::new();
        for sequence in 0..5 {
            answers.push(queue(&calling, partition, Some(stamp(1, sequence))).await);
        }
        for (at, answer) in (0..).zip(answers) {
            let outcome = answer.await.expect("it leads");
            assert_eq!(accepted(&outcome), range(at, at + 1));
        }
    });
}

#[test]
fn a_refusal_of_what_may_be_written_stays_unknown() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let network = site.network.clone();
        let appends = AtomicU64::new(0);
        let head = Posed::saying(&site.head(), move |step| match step {
            Step::Append if appends.fetch_add(1, Ordering::Relaxed) > 0 => Some(full()),
            Step::Appended => {
                network.cut(NODES[0]);
                None
            }
            _ => None,
        });
        site.serve(NODES[0], head).await;
        let calling = site.calling(&NODES[..1]);
        let again = queue(&calling, partition, Some(stamp(1, 0))).await;
        let error = again.await.expect_err("it is full by now");
        assert_eq!(error.durability(), Durability::Unknown);
        assert!(error.to_string().contains("it is full"), "{error}");
        // Of what was never sent before it says the truth.
        let first = queue(&calling, partition, Some(stamp(1, 1))).await;
        assert_eq!(first.await, Err(full()));
        assert_eq!(end(&site, partition).await, 1);
    });
}

#[test]
fn a_rejection_is_final() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        site.serve(NODES[0], site.head()).await;
        let calling = site.calling(&NODES[..1]);
        let gap = queue(&calling, partition, Some(stamp(1, 0))).await;
        gap.await.expect("it leads");
        let gap = queue(&calling, partition, Some(stamp(1, 7))).await;
        let expected = stamp(1, 1).sequence;
        let rejected = AppendOutcome::Rejected(AppendError::SequenceGap { expected });
        assert_eq!(gap.await, Ok(rejected));
    });
}

#[test]
fn what_is_under_way_is_bounded_and_keeps_its_order() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let (open, gate) = watch::channel(false);
        let held = Posed::new(&site.head(), move |step| {
            let mut gate = gate.clone();
            async move {
                if step == Step::Append {
                    let _ = gate.wait_for(|open| *open).await;
                }
                None
            }
            .boxed()
        });
        site.serve(NODES[0], held).await;
        let calling = site.calling(&NODES[..1]);
        let large = |number: u64| {
            let bytes = Bytes::from(vec![u8::try_from(number).expect("few"); MIB - 100]);
            batch(
                partition,
                1,
                bytes,
                Some(stamp(1, u32::try_from(number).expect("few"))),
            )
        };
        let mut answers = Vec::new();
        let queued = loop {
            let (batch, bytes) = large(answers.len() as u64);
            let queued = calling.append(SHARD, batch, bytes);
            match timeout(Duration::from_millis(200), queued).await {
                Ok(answer) => answers.push(answer.expect("there is room")),
                // It was dropped while it waited: it is as if it had never been.
                Err(_) => break answers.len(),
            }
        };
        assert_eq!(queued, HEAD_APPEND_BYTES_MAX / (MIB - 100));
        open.send_replace(true);
        // More than the head holds: what it refuses it refuses, and what it takes is in order.
        let mut end = 0;
        for answer in answers {
            match answer.await {
                Ok(AppendOutcome::Rejected(AppendError::SequenceGap { .. }))
                | Err(HeadError::HeadFull { .. }) => {}
                Ok(AppendOutcome::Accepted { range: at, .. }) => {
                    assert_eq!(at, range(end, end + 1));
                    end += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(end > 1, "{end}");
    });
}

#[test]
fn whoever_came_first_goes_first() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let calling = site.calling(&NODES[..1]);
        // All but a little room is taken, by what the head will not take.
        let (mut answers, large) = (Vec::new(), HEAD_APPEND_BYTES_MAX / MIB * 2 - 1);
        for _ in 0..large {
            let (large, bytes) = batch(partition, 1, Bytes::from(vec![1; MIB / 2]), None);
            let answer = calling.append(SHARD, large, bytes).await;
            answers.push(answer.expect("there is room"));
        }
        let (first, bytes) = batch(partition, 2, Bytes::from(vec![2; MIB]), None);
        let mut first = calling.append(SHARD, first, bytes);
        assert!(first.as_mut().now_or_never().is_none(), "there is no room");
        let refused = AtomicUsize::new(0);
        let head = Posed::saying(&site.head(), move |step| {
            let large = step == Step::Append && refused.fetch_add(1, Ordering::Relaxed) < large;
            large.then(full)
        });
        site.serve(NODES[0], head).await;
        for answer in answers {
            assert_eq!(answer.await, Err(full()));
        }
        // There is room now, and the first has not looked.
        let (second, bytes) = batch(partition, 1, Bytes::from_static(b"a"), None);
        let mut second = calling.append(SHARD, second, bytes);
        assert!(second.as_mut().now_or_never().is_none(), "it is not first");
        let first = first.await.expect("there is room").await;
        let second = second.await.expect("there is room").await;
        let (first, second) = (first.expect("it leads"), second.expect("it leads"));
        assert_eq!(accepted(&first).end(), accepted(&second).start());
    });
}

#[test]
fn as_many_are_under_way_as_there_may_be() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let calling = site.calling(&NODES[..1]);
        let mut answers = Vec::new();
        for _ in 0..HEAD_APPENDS_MAX {
            answers.push(queue(&calling, partition, None).await);
        }
        let (one_more, bytes) = batch(partition, 1, Bytes::from_static(b"a"), None);
        let waits = calling.append(SHARD, one_more, bytes);
        assert!(timeout(Duration::from_millis(100), waits).await.is_err());
        site.serve(NODES[0], site.head()).await;
        for (at, answer) in (0..).zip(answers) {
            let outcome = answer.await.expect("somebody has come");
            assert_eq!(accepted(&outcome), range(at, at + 1));
        }
    });
}

#[test]
fn with_the_caller_everything_ends() {
    run(async {
        let site = Site::start(1).await;
        let partition = make_partition(&*site.head()).await;
        let ended = Arc::new(Notify::new());
        /// Says when it is dropped.
        struct Told(Arc<Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let tell = Arc::clone(&ended);
        let silent = Posed::new(&site.head(), move |step| {
            let told = Told(Arc::clone(&tell));
            if step == Step::Appended {
                return async move {
                    let _told = told;
                    std::future::pending().await
                }
                .boxed();
            }
            std::mem::forget(told);
            async { None }.boxed()
        });
        site.serve(NODES[0], silent).await;
        let calling = site.calling(&NODES[..1]);
        let sent = queue(&calling, partition, Some(stamp(1, 0))).await;
        let clone = calling.clone();
        drop(calling);
        sleep(Duration::from_millis(50)).await;
        let dropped = Instant::now();
        drop(clone);
        let error = sent.await.expect_err("nobody awaits it any more");
        assert!(matches!(error, HeadError::Unknown { .. }), "{error:?}");
        // Its stream, too: the node no longer waits for an answer to tell.
        timeout(Duration::from_millis(100), ended.notified())
            .await
            .expect("the stream has ended");
        assert!(dropped.elapsed() < Duration::from_millis(100));
    });
}
