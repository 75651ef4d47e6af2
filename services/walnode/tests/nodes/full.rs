//! A leader whose own log is full, while the others have room.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use esker_env::Files as _;
use esker_env::sim::SimDisk;
use esker_log::HeadError;
use esker_types::limits::{FULL_HANDOVER, FULL_REST, LEAD_ROOM_MIN};
use tokio::time::{Instant, sleep, timeout};

use super::trio::{NODES, PATIENCE, Trio, World, run};

/// What the disk still holds that comes to be full.
const LEFT_BYTES: u64 = 8 << 20;

/// Three nodes and their disks.
async fn trio() -> (Trio, BTreeMap<u64, SimDisk>) {
    let disks: BTreeMap<_, _> = NODES.map(|node| (node, SimDisk::new(node))).into();
    let world = |node, network: &_| World::simulated(node, &disks[&node], network);
    (Trio::found(world).await, disks)
}

/// Has `disk` take little more than it has.
fn fill(disk: &SimDisk) {
    let space = disk.mount().space(Path::new("/")).expect("a disk");
    disk.set_capacity(space.total - space.free + LEFT_BYTES);
}

/// Appends at `leader` until it has no room; the number of the next batch.
async fn fill_up(trio: &Trio, leader: u64) -> u64 {
    let mut number = 0;
    loop {
        match trio.append_at(leader, number).await {
            Ok(()) => number += 1,
            Err(HeadError::DiskFull { .. }) => return number,
            Err(other) => unreachable!("batch {number}: {other}"),
        }
    }
}

#[test]
fn a_leader_without_room_hands_over_to_who_has_some_and_is_given_nothing() {
    run(async {
        let (trio, disks) = trio().await;
        let full = trio.settled(Duration::from_secs(10)).await;
        fill(&disks[&full]);
        let filled = fill_up(&trio, full).await;
        assert!(filled > 0, "it had some");
        assert!(trio.nodes[&full].wal().room() < LEAD_ROOM_MIN);

        let handed = timeout(FULL_HANDOVER * 10, async {
            while trio.led_by(full) > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        });
        handed.await.expect("it leads nothing any more");
        let leader = trio.leader().await;
        assert_ne!(leader, full);
        let mut numbers = filled..;
        for number in numbers.by_ref().take(20) {
            let appended = trio.append_at(leader, number).await;
            appended.expect("whoever leads now has room");
        }

        // It leads less than the others by two: as long as it has no room nobody evens that out.
        let term = trio.replica(leader).leads_in();
        let began = Instant::now();
        while began.elapsed() < FULL_REST + PATIENCE / 4 {
            assert_eq!(trio.led_by(full), 0, "after {:?}", began.elapsed());
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(trio.replica(leader).leads_in(), term, "once and for all");

        disks[&full].set_capacity(u64::MAX);
        let given = timeout(PATIENCE, async {
            while trio.led_by(full) == 0 {
                // It looks for room once there is something to write.
                let number = numbers.next().expect("there is no last");
                trio.append(number).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
        given.await.expect("it has room, and is given its part");
    });
}

#[test]
fn where_nobody_has_room_nothing_is_handed_over() {
    run(async {
        let (trio, disks) = trio().await;
        let full = trio.settled(Duration::from_secs(10)).await;
        disks.values().for_each(fill);
        let filled = fill_up(&trio, full).await;
        let began = Instant::now();
        let (term, led) = (trio.replica(full).leads_in(), trio.led_by(full));
        while began.elapsed() < FULL_REST {
            let refused = trio.append_at(full, filled).await;
            assert!(
                matches!(refused, Err(HeadError::DiskFull { .. })),
                "{refused:?}"
            );
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(trio.replica(full).leads_in(), term);
        assert_eq!(trio.led_by(full), led);
    });
}
