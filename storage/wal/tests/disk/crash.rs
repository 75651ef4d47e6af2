//! Kills, power cuts, failed writes and syncs, against a model: whatever dies, a start finds the
//! log as it stood after some call, and never before one that was answered.

use std::path::Path;

use esker_env::sim::{Crash, SeededEntropy};
use esker_env::{Files as _, OpenMode};
use esker_types::{RaftIndex, Term};
use esker_wal::Error;
use esker_wal::disk::Vote;

use crate::world::{Content, DIRECTORY, Log, SHARD, World, body, flat, id, run};

/// The log as it must stand after each call so far, and how many were answered.
struct Model {
    states: Vec<Content>,
    answered: usize,
}

impl Model {
    fn now(&self) -> &Content {
        self.states.last().expect("it begins with the empty log")
    }

    /// Takes what a start found as the truth from here on; it must be a state not older than the
    /// last answer.
    fn settle(&mut self, found: Content, context: &str) {
        let allowed = &self.states[self.answered..];
        assert!(
            allowed.contains(&found),
            "{context}: found {:?}, allowed {:?}",
            found.bounds,
            allowed.iter().map(|state| state.bounds).collect::<Vec<_>>()
        );
        *self = Self {
            states: vec![found],
            answered: 0,
        };
    }
}

/// Makes one random call; true if it was answered with success.
async fn step(log: &Log, model: &mut Model, random: &SeededEntropy) -> bool {
    let mut next = model.now().clone();
    let last = next.bounds.last;
    let result = match random.below(10) {
        0 => {
            let term = last.term.0 + random.below(2);
            let vote = Vote {
                term: Term(term),
                node: random.below(3),
                committed: random.chance(50),
            };
            next.bounds.vote = Some(vote);
            model.states.push(next);
            log.vote(SHARD, vote).await
        }
        1 if last.index > next.bounds.purged.index => {
            let room = last.index.0 - next.bounds.purged.index.0;
            let keep = usize::try_from(random.below(room)).expect("few");
            next.entries.truncate(keep);
            let to = next
                .entries
                .last()
                .map_or(next.bounds.purged, |(id, _)| *id);
            next.bounds.last = to;
            model.states.push(next);
            log.truncate(SHARD, to).await
        }
        2 if !next.entries.is_empty() => {
            let gone = usize::try_from(random.below(next.entries.len() as u64)).expect("few");
            let (to, _) = next.entries[gone];
            next.entries.drain(..=gone);
            next.bounds.purged = to;
            model.states.push(next);
            log.wal.purge(SHARD, to);
            log.wal.release(SHARD, RaftIndex(to.index.0));
            return false;
        }
        _ => {
            let count = 1 + random.below(3);
            let mut entries = Vec::new();
            for index in last.index.0 + 1..=last.index.0 + count {
                let bytes = usize::try_from(random.below(20_000)).expect("few");
                let entry = (id(index, last.term.0.max(1)), body(index, bytes));
                next.entries.push((entry.0, flat(&entry.1)));
                next.bounds.last = entry.0;
                model.states.push(next.clone());
                entries.push(entry);
            }
            log.append(SHARD, entries).await
        }
    };
    if result.is_ok() {
        model.answered = model.states.len() - 1;
    }
    result.is_ok()
}

#[test]
fn no_answered_call_is_lost_to_kills_and_power_cuts() {
    let seeds = 120;
    let (mut kills, mut cuts, mut torn) = (0, 0, 0);
    for seed in 0..seeds {
        run(async {
            let random = SeededEntropy::new(seed);
            let mut world = World::new(seed);
            let mut model = Model {
                states: vec![Content::default()],
                answered: 0,
            };
            for life in 0..6 {
                let context = format!("seed {seed}, life {life}");
                let log = match world.open().await {
                    Ok(log) => log,
                    Err(error) => unreachable!("{context}: {error}"),
                };
                torn += u64::from(log.recovery.torn.is_some());
                model.settle(log.content(SHARD).await, &context);
                // Sometimes the power goes right after a start: what it reported must stay.
                if !random.chance(20) {
                    world.disk.kill_before(1 + random.below(60));
                    for _ in 0..40 {
                        if !step(&log, &mut model, &random).await && log.wal.has_failed() {
                            break;
                        }
                    }
                }
                drop(log);
                if random.chance(50) {
                    world.disk.crash(Crash::PowerCut);
                    cuts += 1;
                } else {
                    world.disk.crash(Crash::Kill);
                    kills += 1;
                }
            }
        });
    }
    assert!(
        kills > 300 && cuts > 300 && torn > 10,
        "{kills} kills, {cuts} cuts, {torn} torn tails"
    );
}

#[test]
fn what_a_start_goes_on_from_is_not_taken_back_wherever_the_life_before_was_killed() {
    let mut lives = 0;
    for call in 1..=90 {
        for seed in 0..3 {
            run(async {
                let mut world = World::new(seed);
                let log = world.open().await.expect("an empty log");
                drop(log);
                // Spares are at hand, so that a start has nothing of its own to sync.
                let bytes = world.options.file_bytes;
                for name in ["1.spare", "2.spare", "3.spare"] {
                    let path = Path::new(DIRECTORY).join(name);
                    let file = world
                        .disk
                        .open(&path, OpenMode::CreateNew)
                        .expect("created");
                    file.set_len(bytes)
                        .and_then(|()| file.sync_data())
                        .expect("synced");
                }
                world.disk.sync_dir(Path::new(DIRECTORY)).expect("synced");
                world.disk.crash(Crash::Kill);
                let log = world.open().await.expect("it opens");
                world.disk.kill_before(call);
                for index in 1..=60 {
                    let entry = (id(index, 1), body(index, 20_000));
                    if log.append(SHARD, vec![entry]).await.is_err() {
                        break;
                    }
                }
                drop(log);
                world.disk.crash(Crash::Kill);

                let log = world.open().await.expect("it opens after a kill");
                let next = log.content(SHARD).await.bounds.last.index.0 + 1;
                log.append(SHARD, vec![(id(next, 2), body(next, 100))])
                    .await
                    .expect("acked");
                let acked = log.content(SHARD).await;
                drop(log);
                world.disk.crash(Crash::PowerCut);
                let log = world.open().await.expect("it opens after a power cut");
                assert_eq!(log.content(SHARD).await, acked, "call {call}, seed {seed}");
                lives += 1;
            });
        }
    }
    assert_eq!(lives, 270);
}

/// Runs a fixed load with a fault at one call, and then cuts the power: what was answered is
/// there, and nothing was answered after the failure. False once the fault lies past the load.
async fn survives(seed: u64, fault: impl Fn(&World)) -> bool {
    let mut world = World::new(seed);
    let random = SeededEntropy::new(seed);
    let mut model = Model {
        states: vec![Content::default()],
        answered: 0,
    };
    let log = world.open().await.expect("an empty log");
    fault(&world);
    for _ in 0..60 {
        step(&log, &mut model, &random).await;
        if log.wal.has_failed() {
            break;
        }
    }
    let failed = log.wal.has_failed();
    if failed {
        let syncs = world.disk.syncs();
        assert!(
            !step(&log, &mut model, &random).await,
            "answered after a failure"
        );
        assert!(!log.wal.wait_synced(SHARD, RaftIndex(1)).await);
        assert_eq!(world.disk.syncs(), syncs, "synced again after a failure");
        model.states.truncate(model.states.len().max(1));
    }
    drop(log);
    world.disk.crash(if random.chance(50) {
        Crash::PowerCut
    } else {
        Crash::Kill
    });
    let log = world.open().await.expect("one failure is survived");
    model.settle(log.content(SHARD).await, &format!("seed {seed}"));
    // What this start reported stays, although the failed sync had left it in the cache alone.
    let reported = log.content(SHARD).await;
    drop(log);
    world.disk.crash(Crash::PowerCut);
    let log = world.open().await.expect("it opens");
    assert_eq!(log.content(SHARD).await, reported, "seed {seed}");
    failed
}

#[test]
fn a_failed_sync_at_any_call_is_not_acked_and_not_tried_again() {
    let mut failures = 0;
    for call in 1..=60 {
        for seed in 0..4 {
            failures += u32::from(run(survives(seed, |world| world.disk.fail_sync(call))));
        }
    }
    assert!(failures > 150, "{failures} failures");
}

#[test]
fn a_failed_write_at_any_call_is_not_acked() {
    let mut failures = 0;
    for call in 1..=60 {
        for seed in 0..4 {
            failures += u32::from(run(survives(seed, |world| world.disk.fail_write(call))));
        }
    }
    assert!(failures > 150, "{failures} failures");
}

#[test]
fn a_disk_that_failed_twice_is_refused_until_somebody_says_otherwise() {
    run(async {
        let mut world = World::new(1);
        for failure in 1..=2 {
            let log = world.open().await.expect("still accepted");
            world.disk.fail_sync(1);
            log.vote(SHARD, Vote::default())
                .await
                .expect_err("the sync failed");
            drop(log);
            world.disk.crash(Crash::Kill);
            assert!(failure <= 2);
        }
        let refused = world.open().await.err().expect("twice is enough");
        assert!(
            matches!(refused, Error::FailedBefore { failures: 2, .. }),
            "{refused}"
        );
        esker_env::Files::remove(&world.disk, "/wal/failed".as_ref()).expect("the note is there");
        world.open().await.expect("an operator said so");
    });
}
