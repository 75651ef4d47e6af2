//! What raft is told of a log that does not hold what it should.

use std::io;
use std::sync::Arc;

use esker_env::Env;
use esker_types::{EntryId, RaftIndex, Term};
use esker_wal::Replica;
use esker_wal::raft::LogStore;
use esker_wal::raft::types::{Entry, log_id};
use futures::TryStreamExt as _;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};

use super::world::{SHARD, World, accepted, run};

/// A replica with some entries.
async fn begun(world: &mut World) -> (Env, LogStore, Replica) {
    let node = world.start().await.expect("an empty log");
    node.put_topic().await;
    for number in 0..4 {
        accepted(node.append(number, 100).await);
    }
    let store = LogStore::new(Arc::clone(&node.wal), SHARD);
    (node.env, store, node.replica)
}

#[test]
fn a_follower_is_not_sent_what_follows_on_something_purged() {
    run(async {
        let (_env, mut store, _replica) = begun(&mut World::new(1)).await;
        let last = store.get_log_state().await.expect("it is open").last_log_id;
        // As openraft counts them.
        let end = last.expect("it has entries").index + 1;
        let read = 0..end;
        let all: io::Result<Vec<Entry>> = store.entries_stream(read).await.try_collect().await;
        let all = all.expect("it has them");
        assert_eq!(all.len() as u64, end);
        let none = store.limited_get_log_entries(end, end).await;
        assert_eq!(none.expect("nothing was asked").len(), 0);

        store.purge(all[1].log_id).await.expect("it is open");
        let sent = store.limited_get_log_entries(1, end).await;
        assert_eq!(sent.expect("it was purged").len(), 0);
        let sent = store.limited_get_log_entries(2, end).await;
        assert_eq!(sent.expect("it is there").len() as u64, end - 2);
    });
}

#[test]
fn a_log_that_differs_from_what_was_committed_is_refused() {
    run(async {
        let (_env, mut store, _replica) = begun(&mut World::new(2)).await;
        let committed = |term, index| {
            log_id(EntryId {
                term: Term(term),
                index: RaftIndex(index),
            })
        };
        let own = store.try_get_log_entries(1..2).await.expect("it is there");
        let own = Some(own[0].log_id);
        store.save_committed(own).await.expect("it is open");
        assert_eq!(store.read_committed().await.expect("it agrees"), own);
        let ahead = committed(9, 1000);
        store.save_committed(ahead).await.expect("it is open");
        assert_eq!(store.read_committed().await.expect("not here yet"), None);
        let other = committed(9, 2);
        store.save_committed(other).await.expect("it is open");
        let error = store.read_committed().await.expect_err("another entry");
        assert!(error.to_string().contains("was committed"), "{error}");
    });
}
