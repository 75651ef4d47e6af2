//! Replicas that differ though they have applied the same.

use esker_env::sim::SimDisk;
use esker_types::Incarnation;
use esker_types::limits::COMPARE_PERIOD;
use tokio::time::{sleep, timeout};

use super::trio::{Trio, World, run};

/// The last takes its state to have begun in another incarnation: it applies every entry, and is never the same.
async fn trio() -> Trio {
    let world = |node, network: &_| {
        let world = World::simulated(node, &SimDisk::new(node), network);
        let incarnation = match node {
            3 => Incarnation::FIRST.next().expect("there are many"),
            _ => Incarnation::FIRST,
        };
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

#[test]
fn a_replica_that_differs_is_found_and_told_of() {
    run(async {
        let trio = trio().await;
        let said = timeout(COMPARE_PERIOD * 3, async {
            while found(&trio) == 0 {
                sleep(COMPARE_PERIOD / 20).await;
            }
        });
        said.await.expect("every shard is compared in a period");
    });
}
