//! The bytes on disk stay what they are: a log written by the first version is written and read
//! the same by this one.

use std::path::Path;
use std::sync::Arc;

use esker_types::{ShardId, Term};
use esker_wal::disk::{Staged, Vote};

use crate::world::{SHARD, World, body, flat, id, run};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wal-1.bin");

/// Writes a log with every kind of frame that one node alone can write, and returns its file.
async fn written(world: &mut World) -> Vec<u8> {
    let log = world.open().await.expect("an empty log");
    for index in 1..=3 {
        log.append(SHARD, vec![(id(index, 2), body(index, 1500))])
            .await
            .expect("appended");
    }
    log.vote(
        SHARD,
        Vote {
            term: Term(3),
            node: 77,
            committed: true,
        },
    )
    .await
    .expect("voted");
    log.truncate(SHARD, id(2, 2)).await.expect("cut");
    log.wal.purge(SHARD, id(1, 2));
    log.wal.set_committed(SHARD, id(2, 2));
    let staged = Arc::new(Staged::new(ShardId(2)));
    log.wal
        .stage(&staged, vec![(id(9, 1), body(9, 20))], |_| {});
    log.append(SHARD, vec![(id(3, 3), body(3, 20))])
        .await
        .expect("appended");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    drop(log);
    let mut bytes = Vec::new();
    world
        .disk
        .edit(&world.files()[0], |file| bytes.clone_from(file))
        .expect("it is there");
    let used = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .expect("not empty")
        + 1;
    bytes.truncate(used.next_multiple_of(4096));
    bytes
}

#[test]
#[expect(clippy::disallowed_methods, reason = "golden files lie in the tree")]
fn a_log_is_written_byte_for_byte_as_before_and_the_old_one_is_read() {
    run(async {
        let mut world = World::new(1);
        let now = written(&mut world).await;
        if std::env::var_os("ESKER_BLESS").is_some() {
            std::fs::write(GOLDEN, &now).expect("blessed");
        }
        let golden = std::fs::read(GOLDEN).expect("the golden file");
        assert!(
            now == golden,
            "the bytes of a WAL file changed; a change needs a new version"
        );

        let mut old = World::new(2);
        let path = world.files().remove(0);
        let log = old.open().await.expect("an empty log");
        drop(log);
        let fresh = old.files().remove(0);
        esker_env::Files::remove(&old.disk, &fresh).expect("it is there");
        let file =
            esker_env::Files::open(&old.disk, Path::new(&path), esker_env::OpenMode::CreateNew);
        let file = file.expect("created");
        file.write_all_at(&[std::io::IoSlice::new(&golden)], 0)
            .expect("written");
        file.set_len(old.options.file_bytes).expect("extended");
        let log = old.open().await.expect("the old log");
        let content = log.content(SHARD).await;
        assert_eq!(
            content.bounds.vote,
            Some(Vote {
                term: Term(3),
                node: 77,
                committed: true
            })
        );
        assert_eq!(content.bounds.purged, id(1, 2));
        let expected = [
            (id(2, 2), flat(&body(2, 1500))),
            (id(3, 3), flat(&body(3, 20))),
        ];
        assert_eq!(content.entries, expected);
        assert_eq!(log.wal.bounds(SHARD).committed, id(2, 2));
        assert_eq!(log.recovery.installed_dropped, 1);
    });
}
