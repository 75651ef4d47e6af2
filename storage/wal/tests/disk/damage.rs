//! Cut at every byte, flip every byte: the answer due in each zone.

use std::path::PathBuf;
use std::time::Duration;

use esker_wal::Error;

use crate::world::{Content, SHARD, World, body, id, run};

/// Entries of the small log under attack, one per group.
const ENTRIES: usize = 6;

/// A log of [`ENTRIES`] groups of a page or two, sealed or not, closed; and its last file.
async fn small_log(seed: u64, sealed: bool) -> (World, PathBuf, Content) {
    let mut world = World::new(seed);
    // Every attack copies and reads the whole file: no larger than it need be.
    world.options.file_bytes = 64 << 10;
    world.options.group_bytes = 24 << 10;
    world.options.shards = 1;
    let log = world.open().await.expect("an empty log");
    for index in 1..=ENTRIES as u64 {
        let bytes = if index % 2 == 0 { 5000 } else { 60 };
        log.append(SHARD, vec![(id(index, 1), body(index, bytes))])
            .await
            .expect("appended");
    }
    if sealed {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let content = log.content(SHARD).await;
    drop(log);
    let file = world.files().pop().expect("one file");
    (world, file, content)
}

/// Where each group begins, and where the last ends: the preamble takes a page.
fn group_starts() -> Vec<usize> {
    let pages = |index: usize| if index.is_multiple_of(2) { 2 } else { 1 };
    (1..=ENTRIES + 1)
        .map(|index| 4096 * (1 + (1..index).map(pages).sum::<usize>()))
        .collect()
}

fn prefix(content: &Content, entries: usize) -> Content {
    let mut cut = content.clone();
    cut.entries.truncate(entries);
    cut.bounds.last = cut.entries.last().map(|(id, _)| *id).unwrap_or_default();
    cut
}

#[test]
fn a_tail_cut_at_any_byte_loses_the_groups_cut_and_no_other() {
    run(async {
        let (world, file, content) = small_log(1, false).await;
        let starts = group_starts();
        let (first, end) = (starts[3], starts[ENTRIES]);
        let mut torn_tails = 0;
        for cut in first..=end {
            // Every byte of the headers, and every seventh of the rest.
            if cut % 4096 > 120 && cut % 7 != 0 {
                continue;
            }
            let mut world = world.on(world.disk.fork(1));
            let zero_from = |bytes: &mut Vec<u8>| bytes[cut..].fill(0);
            world
                .disk
                .edit(&file, zero_from)
                .expect("the file is there");
            let log = world
                .open()
                .await
                .unwrap_or_else(|error| unreachable!("cut at {cut}: {error}"));
            // Nothing is written behind a group that was torn: the node goes on in a new file.
            let torn = log.recovery.torn.is_some();
            assert_eq!(world.files().len(), 1 + usize::from(torn), "cut at {cut}");
            torn_tails += usize::from(torn);
            let found = log.content(SHARD).await;
            let whole = starts.iter().filter(|&&start| start <= cut).count() - 1;
            // Zeroes cut off from the padding of a group change nothing.
            let ends_in_padding = found == prefix(&content, whole + 1);
            assert!(
                ends_in_padding || found == prefix(&content, whole),
                "cut at {cut}"
            );
            // It goes on from there, and what follows survives as well.
            let next = found.bounds.last.index.0 + 1;
            log.append(SHARD, vec![(id(next, 2), body(next, 9000))])
                .await
                .expect("goes on");
            let grown = log.content(SHARD).await;
            drop(log);
            let again = world.open().await.expect("it opens again");
            assert_eq!(again.content(SHARD).await, grown, "cut at {cut}");
        }
        assert!(torn_tails > 100, "{torn_tails}");
    });
}

/// What a start made of a damaged log.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Stopped,
    Whole,
    LastGroupDropped,
}

async fn answer(world: &World, file: &PathBuf, content: &Content, at: usize, bit: u8) -> Answer {
    let mut world = world.on(world.disk.fork(1));
    world
        .disk
        .edit(file, |bytes| bytes[at] ^= bit)
        .expect("the file is there");
    match world.open().await {
        Err(Error::Corrupt { path, .. }) => {
            assert_eq!(&path, file);
            Answer::Stopped
        }
        Err(Error::Version { .. }) if (8..12).contains(&at) => Answer::Stopped,
        Err(error) => unreachable!("byte {at}: {error}"),
        Ok(log) => {
            let found = log.content(SHARD).await;
            if found == *content {
                Answer::Whole
            } else {
                assert_eq!(
                    found,
                    prefix(content, content.entries.len() - 1),
                    "byte {at}"
                );
                Answer::LastGroupDropped
            }
        }
    }
}

#[test]
fn a_flip_below_a_mark_stops_the_node_and_one_above_drops_the_last_group_at_most() {
    run(async {
        for sealed in [false, true] {
            let (world, file, content) = small_log(2, sealed).await;
            let starts = group_starts();
            let last_group = starts[ENTRIES - 1];
            let end = starts[ENTRIES];
            let mut stopped = 0;
            for at in 0..end {
                // Every byte of headers, every third of the payloads.
                if at % 4096 > 120 && at % 3 != 0 {
                    continue;
                }
                let answer = answer(&world, &file, &content, at, 1 << (at % 8)).await;
                let start = *starts
                    .iter()
                    .rev()
                    .find(|&&start| start <= at)
                    .unwrap_or(&0);
                let group = starts.iter().position(|&s| s == start);
                let used = group.map_or(300, |group| {
                    // Headers of group and frame, length of the head, the head, both parts.
                    48 + 32 + 4 + 8 + 4 + if (group + 1) % 2 == 0 { 5000 } else { 60 }
                });
                let matters = at - start < used;
                let proven = sealed || at < last_group;
                match answer {
                    Answer::Whole => {
                        assert!(!matters || group.is_none(), "byte {at} went unnoticed")
                    }
                    Answer::Stopped => {
                        assert!(proven, "byte {at} may be a torn tail");
                        stopped += 1;
                    }
                    Answer::LastGroupDropped => {
                        assert!(!proven, "byte {at} was synced and is gone without a word");
                    }
                }
            }
            assert!(stopped > 1000);
        }
    });
}

#[test]
fn a_file_missing_from_the_sequence_stops_the_node() {
    run(async {
        let mut world = World::new(3);
        let log = world.open().await.expect("an empty log");
        for index in 1..=90 {
            log.append(SHARD, vec![(id(index, 1), body(index, 9000))])
                .await
                .expect("appended");
        }
        drop(log);
        let files = world.files();
        assert!(files.len() >= 3, "{files:?}");
        for (number, gone) in files.iter().enumerate().take(files.len() - 1) {
            let mut world = world.on(world.disk.fork(1));
            esker_env::Files::remove(&world.disk, gone).expect("it is there");
            let error = world.open().await.err().expect("entries are missing");
            assert!(
                matches!(error, Error::Corrupt { .. }),
                "file {number}: {error}"
            );
        }
        // A preamble swapped with another file's is noticed too.
        let world = &mut world.on(world.disk.fork(1));
        let mut first = Vec::new();
        world
            .disk
            .edit(&files[0], |bytes| first.clone_from(bytes))
            .expect("it is there");
        world
            .disk
            .edit(&files[1], |bytes| *bytes = first)
            .expect("it is there");
        assert!(matches!(world.open().await, Err(Error::Corrupt { .. })));
    });
}
