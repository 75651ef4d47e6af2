//! Snapshots whose heads come piece by piece: what is held of them, and what becomes of one that does not
//! come to its end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use esker_env::sim::{Crash, Sluggish};
use esker_env::{Env, Files as _};
use esker_types::limits::{
    MIB, SNAPSHOT_BYTES_IN_FLIGHT, SNAPSHOT_FOLLOW_MAX, SNAPSHOT_PART_BYTES, SNAPSHOT_PIN_MAX,
};
use esker_types::{EntryId, NodeId, RaftIndex};
use esker_wal::disk::{Body, Checkpoint, Checkpoints};
use esker_wal::peers::PeerError;
use esker_wal::raft::Incoming;
use futures::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::trio::{PATIENCE, Trio};
use super::world::{SHARD, World, batch, crowd, payload, run};

/// Bytes of a batch of a large head, and how many there are: the head is many times what may be held of it.
const BATCH_BYTES: usize = 200 << 10;
const BATCHES: u64 = 160;
/// What a batch's entry has beside it.
const ENTRY_BYTES: usize = BATCH_BYTES + 1024;

/// Bytes that are in memory somewhere.
#[derive(Clone, Default)]
struct Held {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// Some of them.
struct Counted(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Held {
    /// `body`, counted until the last who holds some of it lets go.
    fn counted(&self, body: &Body) -> Body {
        let bytes = body.payload().concat();
        let now = bytes.len() + self.now.fetch_add(bytes.len(), Ordering::Relaxed);
        self.most.fetch_max(now, Ordering::Relaxed);
        let counted = Counted(bytes.into(), Arc::clone(&self.now));
        Body::new(&body.head(), vec![Bytes::from_owner(counted)])
    }
}

/// A world with room for a large head.
fn large(seed: u64) -> World {
    let mut world = World::new(seed);
    world.options.file_bytes = 16 * MIB as u64;
    world.options.group_bytes = 4 * MIB;
    world.options.disk_bytes = 256 * MIB as u64;
    world
}

/// A checkpoint, and the log's entries that it names.
async fn large_snapshot() -> (Checkpoint, Vec<(EntryId, Body)>) {
    let mut world = large(1);
    let node = world.start().await.expect("it starts");
    node.put_topic().await;
    for number in 0..BATCHES {
        let queued = node
            .appender
            .append(batch(number, BATCH_BYTES), payload(number, BATCH_BYTES));
        queued.await.expect("taken").await.expect("acknowledged");
    }
    let last = node.replica.checkpoint().await.expect("room for it");
    let checkpoints = Checkpoints::open(&node.env, Path::new("/checkpoints")).expect("it is there");
    let checkpoint = checkpoints.load(SHARD).expect("readable").expect("one");
    let flushed = node.replica.state().flushed();
    let mut head = Vec::new();
    for index in flushed.0 + 1..=last.0 {
        let entry = node.wal.read_entry(SHARD, RaftIndex(index)).await;
        head.push(entry.expect("readable").expect("held"));
    }
    node.stop().await;
    (checkpoint, head)
}

/// Another node's log, whose disk takes its time.
async fn slow(world: &mut World) -> (Env, Arc<esker_wal::disk::Wal>) {
    let workers = Arc::new(Sluggish::new(1, Duration::from_secs(1)));
    let env = Env {
        workers,
        ..world.env()
    };
    let opened = world.open(&env, Default::default()).await;
    (env, opened.expect("an empty log").0)
}

#[test]
fn of_a_head_of_any_size_no_more_than_the_bound_is_held() {
    run(async {
        let (checkpoint, head) = large_snapshot().await;
        let bytes: usize = head.iter().map(|(_, body)| body.payload_bytes()).sum();
        let bound = SNAPSHOT_BYTES_IN_FLIGHT + SNAPSHOT_PART_BYTES + ENTRY_BYTES;
        assert!(bytes > 5 * bound, "{bytes} bytes of head");
        let mut world = large(2);
        let (env, wal) = slow(&mut world).await;
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints")).expect("none");
        let (held, indexes): (Held, Vec<_>) =
            (Held::default(), head.iter().map(|(id, _)| *id).collect());
        let begun = Incoming::begin(Arc::clone(&wal), checkpoints, checkpoint, 0).await;
        let mut incoming = begun.expect("a state");
        for (id, body) in &head {
            let taken = incoming.take(*id, held.counted(body)).await;
            taken.expect("it is the next, and there is room");
        }
        let most = held.most.load(Ordering::Relaxed);
        assert!(most <= bound, "{most} of {bytes} bytes were held");
        assert!(
            most > SNAPSHOT_PART_BYTES,
            "one part after the other: {most}"
        );
        let snapshot = incoming.finish().await.expect("it is whole");
        assert_eq!(held.now.load(Ordering::Relaxed), 0, "all of it is on disk");
        assert!(wal.stats().bytes > bytes as u64);
        let hidden = wal.read_entry(SHARD, indexes[0].index).await;
        assert!(hidden.expect("readable").is_none(), "raft has not said so");
        drop(snapshot);
    });
}

#[test]
fn a_head_that_the_state_does_not_name_is_refused_and_one_that_ends_early() {
    run(async {
        let (checkpoint, head) = large_snapshot().await;
        let mut world = large(3);
        let env = world.env();
        let (wal, _) = world.open(&env, Default::default()).await.expect("empty");
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints")).expect("none");
        let begin =
            || Incoming::begin(Arc::clone(&wal), checkpoints.clone(), checkpoint.clone(), 0);
        let (id, body) = &head[1];
        let mut incoming = begin().await.expect("a state");
        let error = incoming.take(*id, body.clone()).await;
        let error = error.expect_err("it is not the first").to_string();
        assert!(error.contains("does not go on with entry"), "{error}");
        drop(incoming);

        let mut incoming = begin().await.expect("a state");
        for (id, body) in &head[..7] {
            incoming.take(*id, body.clone()).await.expect("the next");
        }
        let error = incoming.finish().await.expect_err("there are more");
        let said = format!("ends after 7 of {} entries", head.len());
        assert!(error.to_string().contains(&said), "{error}");

        let mut other = checkpoint.clone();
        other.last.index = other.last.index.next();
        let error = Incoming::begin(Arc::clone(&wal), checkpoints.clone(), other, 0).await;
        error.expect_err("its state is at another entry");
        let left = env.files.list(Path::new("/checkpoints")).expect("listed");
        assert!(left.is_empty(), "checkpoints that never were: {left:?}");
    });
}

#[test]
fn a_log_without_room_for_a_head_says_so_before_it_takes_any() {
    run(async {
        let (checkpoint, _) = large_snapshot().await;
        let mut world = large(4);
        world.options.file_bytes = 8 * MIB as u64;
        world.options.group_bytes = MIB;
        world.options.disk_bytes = 4 * world.options.file_bytes;
        let env = world.env();
        let (wal, _) = world.open(&env, Default::default()).await.expect("empty");
        let checkpoints = Checkpoints::open(&env, Path::new("/checkpoints")).expect("none");
        let written = wal.stats().bytes;
        for _ in 0..100 {
            let (wal, checkpoints) = (Arc::clone(&wal), checkpoints.clone());
            let begun = Incoming::begin(wal, checkpoints, checkpoint.clone(), 0).await;
            let error = begun.expect_err("it is larger than the log");
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
            assert!(
                error.to_string().contains("nothing of the snapshot"),
                "{error}"
            );
        }
        // Or so its sender says: entries come with what was refused in them.
        let mut roomy = large(5);
        let env = roomy.env();
        let (other, _) = roomy.open(&env, Default::default()).await.expect("empty");
        let begin = |bytes| {
            let checkpoints = checkpoints.clone();
            Incoming::begin(Arc::clone(&other), checkpoints, checkpoint.clone(), bytes)
        };
        begin(0).await.expect("there is room");
        for too_much in [240 << 20, u64::MAX] {
            let error = begin(too_much).await.expect_err("it is told at once");
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
        }
        assert_eq!(wal.stats().bytes, written, "it took room from the next");
        assert!(!wal.has_failed());
    });
}

/// A trio of which one is down and so far behind that entries will not do. Who it is.
async fn with_one_behind(seed: u64, batches: u64) -> (Trio, NodeId) {
    let mut trio = Trio::new(seed).await;
    trio.append(0).await;
    let late = trio.follower().await;
    trio.crash(late, Crash::PowerCut).await;
    for number in 1..batches {
        trio.append(number).await;
    }
    trio.let_go().await;
    for node in trio.up() {
        let replica = trio.replica(node);
        let purged = replica.wal().bounds(SHARD).purged.index;
        assert!(purged.0 > batches, "it comes by entries: {purged}");
    }
    (trio, late)
}

/// Has the first head that goes anywhere stop after `entries`; told once it has. How many have begun.
fn stops_after(trio: &Trio, entries: usize) -> (Arc<Notify>, Arc<Notify>, Arc<AtomicU64>) {
    let (stopped, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let begun = Arc::new(AtomicU64::new(0));
    let ends = (
        Arc::clone(&stopped),
        Arc::clone(&goes_on),
        Arc::clone(&begun),
    );
    trio.mesh.befall(move |head| {
        if begun.fetch_add(1, Ordering::Relaxed) > 0 {
            return head;
        }
        let (stopped, goes_on) = (Arc::clone(&stopped), Arc::clone(&goes_on));
        let numbered = head.enumerate().then(move |(at, entry)| {
            let (stopped, goes_on) = (Arc::clone(&stopped), Arc::clone(&goes_on));
            async move {
                if at == entries {
                    stopped.notify_one();
                    goes_on.notified().await;
                }
                entry
            }
        });
        numbered.boxed()
    });
    ends
}

async fn told(stopped: &Notify) {
    let told = timeout(PATIENCE, stopped.notified()).await;
    told.expect("a snapshot is sent");
}

#[test]
fn who_dies_in_the_middle_of_a_head_has_none_of_it() {
    for (seed, entries) in [0, 1, 20, 59].into_iter().enumerate() {
        for how in [Crash::Kill, Crash::PowerCut] {
            run(async {
                let (mut trio, late) = with_one_behind(700 + seed as u64, 60).await;
                let (stopped, goes_on, begun) = stops_after(&trio, entries);
                trio.start(late).await;
                told(&stopped).await;
                // What has come is on the disk by now.
                sleep(Duration::from_millis(50)).await;
                trio.crash(late, how).await;
                // Where nobody is any more.
                goes_on.notify_one();
                trio.start(late).await;
                let applied = trio.replica(late).state().applied().index;
                assert!(applied.0 < 60, "{applied}");
                trio.append(60).await;
                trio.converge().await;
                assert!(begun.load(Ordering::Relaxed) > 1, "another came");
                for _ in 0..2 {
                    assert_eq!(trio.head(late).await, (0..=60).collect::<Vec<_>>());
                    trio.crash(late, how).await;
                    trio.start(late).await;
                    trio.converge().await;
                }
            });
        }
    }
}

#[test]
fn a_head_whose_leader_dies_or_fails_leaves_nothing_and_the_next_one_comes() {
    for (seed, dies) in [(710, true), (711, false)] {
        run(async {
            let (mut trio, late) = with_one_behind(seed, 60).await;
            let leader = trio.leader().await;
            let (stopped, _, begun) = if dies {
                stops_after(&trio, 30)
            } else {
                let begun = Arc::new(AtomicU64::new(0));
                let count = Arc::clone(&begun);
                let stopped = Arc::new(Notify::new());
                let tell = Arc::clone(&stopped);
                trio.mesh.befall(move |head| {
                    if count.fetch_add(1, Ordering::Relaxed) > 2 {
                        return head;
                    }
                    tell.notify_one();
                    let torn = stream::iter([Err(PeerError("torn".into()))]);
                    head.take(30).chain(torn).boxed()
                });
                (stopped, Arc::new(Notify::new()), begun)
            };
            trio.start(late).await;
            told(&stopped).await;
            if dies {
                trio.crash(leader, Crash::PowerCut).await;
            }
            trio.append(60).await;
            trio.converge().await;
            assert!(begun.load(Ordering::Relaxed) > 1, "another came");
            assert_eq!(trio.head(late).await, (0..=60).collect::<Vec<_>>());
            if dies {
                trio.start(leader).await;
            }
            trio.converge().await;
        });
    }
}

/// A disk without room for the state says so while nothing depends on it, and never to raft.
#[test]
fn a_disk_that_others_fill_before_or_while_a_snapshot_comes_costs_no_node_its_life() {
    for (seed, early) in [(730, true), (731, false)] {
        run(async {
            let (mut trio, late) = with_one_behind(seed, 60).await;
            let (stopped, goes_on, begun) = stops_after(&trio, 30);
            trio.start(late).await;
            if early {
                crowd(trio.disk(late));
                let taken = timeout(Duration::from_secs(2), stopped.notified());
                taken.await.expect_err("its head is not read");
                assert!(begun.load(Ordering::Relaxed) > 0, "it was sent");
                trio.disk(late).set_capacity(1 << 40);
            } else {
                told(&stopped).await;
                crowd(trio.disk(late));
                goes_on.notify_one();
            }
            trio.append(60).await;
            trio.converge().await;
            let once = begun.load(Ordering::Relaxed) == 1;
            assert!(early || once, "whole, it needs no more room");
            trio.disk(late).set_capacity(1 << 40);
            trio.crash(late, Crash::PowerCut).await;
            trio.start(late).await;
            trio.converge().await;
            assert_eq!(trio.head(late).await, (0..=60).collect::<Vec<_>>());
            let left = trio.disk(late).mount().list(Path::new("/checkpoints"));
            assert_eq!(
                left.expect("listed").len(),
                1,
                "one checkpoint, and nothing beside it"
            );
        });
    }
}

/// What waits in line for longer than it is kept is kept anew once it is sent, or not sent at all; what does not wait
/// that long can be sent, whatever the bucket takes meanwhile.
#[test]
fn what_waits_in_line_is_kept_or_is_not_sent() {
    let moment = Duration::from_secs(1);
    let long = SNAPSHOT_PIN_MAX + moment;
    for (seed, waits, flushed, newer) in [
        (740, long, false, false),
        (741, long, false, true),
        (742, 5 * moment, true, true),
    ] {
        run(async {
            let (mut trio, late) = with_one_behind(seed, 200).await;
            let (stopped, goes_on, begun) = stops_after(&trio, 20);
            let mut next = 200..;
            let mut next = || next.next().expect("it has no end");
            trio.mesh.line_up(waits + moment);
            let leader = trio.leader().await;
            let first = trio.replica(leader).checkpointed().0;
            trio.start(late).await;
            sleep(waits).await;
            trio.mesh.line_up(Duration::ZERO);
            if flushed {
                trio.flush().await;
            }
            if newer {
                go_on_from_newer(&mut trio, late, next()).await;
            }
            told(&stopped).await;
            let sent = match waits == long && newer {
                true => trio.replica(leader).checkpointed().0,
                false => first,
            };
            go_on_from_newer(&mut trio, late, next()).await;
            let purged = trio.replica(leader).wal().bounds(SHARD).purged.index;
            assert!(purged <= sent, "{purged} of {sent}: what follows is gone");
            goes_on.notify_one();
            trio.append(next()).await;
            trio.converge().await;
            assert_eq!(begun.load(Ordering::Relaxed), 1, "one is sent, and enough");
        });
    }
}

/// The same, after one batch more.
async fn go_on_from_newer(trio: &mut Trio, late: NodeId, number: u64) {
    trio.append(number).await;
    forget(trio, late).await;
}

/// Has those that run make checkpoints, and forget what they may.
async fn forget(trio: &Trio, late: NodeId) {
    for node in trio.up().into_iter().filter(|node| *node != late) {
        let replica = trio.replica(node);
        replica.checkpoint().await.expect("raft runs");
        for _ in 0..10 {
            replica.forget().await.expect("raft runs");
            sleep(Duration::from_millis(20)).await;
        }
        replica.release();
    }
}

/// What the bucket takes while a head is sent is kept for who is sent it, for a time.
#[test]
fn what_is_flushed_while_it_is_sent_is_sent_to_its_end() {
    for (waits, transfers) in [(Duration::from_secs(1), 1), (2 * SNAPSHOT_PIN_MAX, 2)] {
        run(async {
            let (mut trio, late) = with_one_behind(720, 200).await;
            // A part is 16 KiB here, and has been read when its first entry is seen.
            let (stopped, goes_on, begun) = stops_after(&trio, 20);
            trio.start(late).await;
            told(&stopped).await;
            let leader = trio.leader().await;
            trio.flush().await;
            trio.append(200).await;
            trio.flush().await;
            sleep(waits).await;
            forget(&trio, late).await;
            let wal = trio.replica(leader).wal();
            let kept = wal.oldest(SHARD).is_some_and(|oldest| oldest.0 < 200);
            assert_eq!(kept, transfers == 1, "{:?}", wal.oldest(SHARD));
            goes_on.notify_one();
            trio.append(201).await;
            trio.converge().await;
            assert_eq!(begun.load(Ordering::Relaxed), transfers);
            assert_eq!(trio.head(late).await, [201]);
            // And no longer.
            let wal = trio.replica(leader).wal();
            trio.replica(leader).release();
            assert!(wal.oldest(SHARD).is_none_or(|oldest| oldest.0 > 200));
            sleep(2 * SNAPSHOT_FOLLOW_MAX).await;
            let covered = trio.replica(leader).checkpoint().await;
            for _ in 0..10 {
                trio.replica(leader).forget().await.expect("raft runs");
                sleep(Duration::from_millis(20)).await;
            }
            let purged = wal.bounds(SHARD).purged.index;
            assert_eq!(purged, covered.expect("raft runs"), "what follows is kept");
        });
    }
}
