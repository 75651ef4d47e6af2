//! A log that lost files is refused: what is missing in it was acknowledged, and raft would take it
//! for something that never was.

use std::path::{Path, PathBuf};

use esker_env::Files;
use esker_tests::node::{Node, World, partition, run};
use esker_wal::Error;

const WAL: &str = "/wal";
const CHECKPOINTS: &str = "/checkpoints";

/// A node that has appended through several files and was checkpointed on the way, then ended.
async fn lived(seed: u64) -> World {
    let mut world = World::new(seed);
    let node = world.start().await.expect("a fresh node");
    node.put_topic(1).await;
    append(&node, 20).await;
    node.replica.checkpoint().await.expect("made");
    append(&node, 20).await;
    node.replica.close().await;
    world
}

async fn append(node: &Node, batches: u8) {
    for number in 0..batches {
        node.append(partition(0), &[vec![number; 100_000]]).await;
    }
}

fn files(world: &World, directory: &str) -> Vec<PathBuf> {
    let mut files = world
        .disk
        .mount()
        .list(Path::new(directory))
        .expect("listed");
    files.retain(|path| {
        path.extension()
            .is_some_and(|kind| kind == "wal" || kind == "ckp")
    });
    files
}

/// What the next start says once `gone` are gone.
async fn refusal(world: &mut World, gone: &[PathBuf]) -> Error {
    for path in gone {
        world.disk.mount().remove(path).expect("removed");
    }
    world.start().await.expect_err("it is not all there")
}

#[test]
fn without_any_file_of_the_log_and_once_they_are_back_it_goes_on() {
    run(async {
        let mut world = lived(1).await;
        let (all, disk) = (files(&world, WAL), world.disk.mount());
        let away = |path: &PathBuf| path.with_extension("away");
        for path in &all {
            disk.rename(path, &away(path)).expect("moved away");
        }
        for _ in 0..2 {
            let refused = refusal(&mut world, &[]).await;
            assert!(matches!(refused, Error::NoFile { .. }), "{refused}");
            assert_eq!(
                files(&world, WAL),
                [] as [PathBuf; 0],
                "nothing stands in their place"
            );
        }
        for path in &all {
            disk.rename(&away(path), path).expect("moved back");
        }
        let node = world.start().await.expect("all of it is back");
        assert_eq!(node.replica.state().head_size().batches, 40);
    });
}

#[test]
fn without_its_newest_files() {
    run(async {
        let mut world = lived(2).await;
        let all = files(&world, WAL);
        assert!(all.len() >= 3, "{all:?}");
        let refused = refusal(&mut world, &all[1..]).await;
        assert!(matches!(refused, Error::Incomplete { .. }), "{refused}");
    });
}

/// Whatever was flushed is in the bucket; where it was decided is not.
#[test]
fn without_its_newest_files_though_nothing_in_them_is_unflushed() {
    run(async {
        let mut world = World::new(5);
        let node = world.start().await.expect("a fresh node");
        node.put_topic(1).await;
        append(&node, 20).await;
        node.flush().await;
        assert_eq!(node.replica.state().head_size().batches, 0);
        node.replica.checkpoint().await.expect("made");
        node.replica.close().await;
        let all = files(&world, WAL);
        let refused = refusal(&mut world, &all[1..]).await;
        assert!(matches!(refused, Error::Incomplete { .. }), "{refused}");
        assert!(
            refused.to_string().contains("below its checkpoint"),
            "{refused}"
        );
    });
}

#[test]
fn without_its_oldest_file() {
    run(async {
        let mut world = lived(3).await;
        let all = files(&world, WAL);
        let refused = refusal(&mut world, &all[..1]).await;
        // Which of several checks finds it is all one.
        let told = matches!(refused, Error::Incomplete { .. } | Error::Corrupt { .. });
        assert!(told, "{refused}");
    });
}

#[test]
fn without_the_checkpoint_that_entries_went_into() {
    run(async {
        let mut world = lived(4).await;
        let all = files(&world, CHECKPOINTS);
        assert!(!all.is_empty());
        let refused = refusal(&mut world, &all).await;
        assert!(matches!(refused, Error::Incomplete { .. }), "{refused}");
        assert!(
            refused.to_string().contains("went into a checkpoint"),
            "{refused}"
        );
    });
}
