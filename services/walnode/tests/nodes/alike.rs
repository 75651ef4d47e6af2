//! Replicas that differ though they have applied the same.

use esker_env::sim::SimDisk;
use esker_types::Incarnation;
use esker_types::limits::COMPARE_PERIOD;
use tokio::time::{sleep, timeout};

use super::trio::{NODES, SHARDS, Trio, World, run};

/// The first to differ from the others, if any does.
async fn trio(differs: Option<u64>) -> Trio {
    let world = |node, network: &_| {
        let incarnation = match Some(node) == differs {
            true => Incarnation(Incarnation::FIRST.0 + 1),
            false => Incarnation::FIRST,
        };
        let world = World::simulated(node, &SimDisk::new(node), network);
        World {
            incarnation,
            ..world
        }
    };
    Trio::found(world).await
}

fn found(trio: &Trio) -> u64 {
    let counts = trio.nodes.values().map(|node| node.differences().count());
    counts.sum()
}

/// One took its state to have begun in another incarnation: it applies every entry, and is never the same.
#[test]
fn a_replica_that_differs_is_found_and_told_of() {
    run(async {
        let trio = trio(Some(3)).await;
        let said = timeout(COMPARE_PERIOD * 3, async {
            while found(&trio) == 0 {
                sleep(COMPARE_PERIOD / 20).await;
            }
        });
        said.await.expect("every shard is compared in a period");
    });
}

#[test]
fn of_replicas_that_are_alike_nothing_is_told() {
    run(async {
        let trio = trio(None).await;
        sleep(COMPARE_PERIOD * 2).await;
        let taken = NODES.map(|node| trio.nodes[&node].replicas().iter());
        let taken = taken.into_iter().flatten();
        let taken = taken.filter(|replica| replica.likeness().is_some());
        let all = (SHARDS as usize + 1) * NODES.len();
        assert_eq!(taken.count(), all, "every shard was compared");
        assert_eq!(found(&trio), 0);
    });
}
