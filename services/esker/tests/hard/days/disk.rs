//! Disks are lost while everybody writes: the node dies, its data directory is deleted, another takes
//! its place under a new id. The old one is never seen again, also where its disk turns up once more.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Days, share};
use crate::clients::SOON;
use crate::cluster::{Cluster, esker, text};
use crate::turn;

/// Disks lost in a whole run.
const LOSSES: u32 = 10;
/// How long an operator waits who is told to run a command again.
const REST: Duration = Duration::from_millis(500);
/// How long a disk that turns up again is watched.
const RETURNS_FOR: Duration = Duration::from_secs(1);

/// How the place of a node is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// By one at another address, which is there before the lost one is given up.
    AddFirst,
    /// By one at another address, afterwards.
    RemoveFirst,
    /// By one at the same address, in the same folder.
    SamePlace,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_replaced_under_load() {
    let Some(_turn) = turn().await else { return };
    let losses = share(LOSSES);
    let mut days = Days::begin(&format!("{losses} disks lost"), 2).await;
    let mut gone = BTreeSet::new();
    for _ in 0..losses {
        let ways = [Way::AddFirst, Way::RemoveFirst, Way::SamePlace];
        let way = ways[usize::try_from(days.below(3)).expect("three")];
        let began = Instant::now();
        let standing = days.well().await;
        let shard = u32::try_from(days.below(5)).expect("small");
        let (old, new) = lose(&mut days, &standing.leaders[&shard], way).await;
        println!(
            "{way:?}: {old} is replaced by {new} in {:?}",
            began.elapsed()
        );
        gone.insert(old);
        assert!(!gone.contains(&new), "{new} was given before");
        let standing = days.well().await;
        let ids: Vec<_> = standing.nodes.iter().map(|node| &node.id).collect();
        assert!(
            ids.iter().all(|id| !gone.contains(*id)),
            "{gone:?}: {ids:?}"
        );
        assert!(ids.contains(&&new), "{new}: {ids:?}");
    }
    days.finish().await;
}

/// Adds or removes a node, as an operator who does what is said. Of the nodes that there were the
/// configuration of the first agent knows.
pub(super) fn change(cluster: &Cluster, what: &str, which: &str) -> Value {
    let config = cluster.config_of(&cluster.agents[0].name);
    let began = Instant::now();
    loop {
        match esker(&["cluster", what, which, "--json", "--config", text(&config)]) {
            Ok(answer) => return answer,
            // Before another leads, it says so itself.
            Err(why) if why.contains("run it again") && began.elapsed() < SOON => {
                println!("{why}");
                std::thread::sleep(REST);
            }
            Err(why) => panic!("{why}"),
        }
    }
}

/// Node `old` loses its disk, and is replaced. The ids of both.
pub(super) async fn lose(days: &mut Days, old: &str, way: Way) -> (String, String) {
    let standing = days.well().await;
    let at = days.cluster.node(&standing, old);
    tokio::task::block_in_place(|| days.cluster.kill(&[at], &[]));
    let data = days.cluster.path(&days.cluster.nodes[at].name);
    let kept = days.cluster.path("lost");
    let turns_up = way != Way::SamePlace && days.random.chance(50);
    if turns_up {
        fs::rename(&data, &kept).expect("it is ours");
    } else {
        fs::remove_dir_all(&data).expect("it is ours");
    }
    let remove =
        |days: &Days| _ = tokio::task::block_in_place(|| change(&days.cluster, "remove", old));
    if way != Way::AddFirst {
        remove(days);
    }
    let lost = if way == Way::SamePlace {
        None
    } else {
        let node = days.cluster.new_node();
        Some(std::mem::replace(&mut days.cluster.nodes[at], node))
    };
    days.cluster.start_node(at);
    let server = days.cluster.nodes[at].server.as_mut();
    tokio::task::block_in_place(|| server.expect("it was started").ready());
    let address = days.cluster.nodes[at].address();
    let added = tokio::task::block_in_place(|| change(&days.cluster, "add", &address));
    let new = added["node"].as_str().expect("an id").to_owned();
    if way == Way::AddFirst {
        remove(days);
    }
    for agent in &days.cluster.agents {
        days.cluster.configure(agent);
    }
    if let Some(mut lost) = lost.filter(|_| turns_up) {
        fs::rename(&kept, &data).expect("it is ours");
        lost.start(&days.cluster.path(""));
        tokio::time::sleep(RETURNS_FOR).await;
        let standing = days.cluster.standing().expect("the cluster is well");
        let returned = standing.nodes.iter().any(|node| node.id == old);
        assert!(!returned, "{old} has returned: {standing:?}");
        let server = lost.server.take().expect("it was started");
        let said = tokio::task::block_in_place(|| server.kill());
        println!("{old} turned up again: {:#?}", said.warnings());
    }
    (old.to_owned(), new)
}
