//! What raft is told of a log that does not hold what it should.

use std::io;
use std::sync::Arc;

use esker_env::Env;
use esker_types::limits::MIB;
use esker_types::{EntryId, RaftIndex, Term};
use esker_wal::Replica;
use esker_wal::disk::{Wal, WalOptions};
use esker_wal::raft::LogStore;
use esker_wal::raft::types::{Entry, Payload, log_id};
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

/// A start reads its log by numbers of entries, and they may be large.
#[test]
fn a_start_over_large_entries_holds_no_more_of_them_than_one_read_brings() {
    run(async {
        let mut world = World::new(3);
        world.options = WalOptions {
            file_bytes: 8 << 20,
            group_bytes: 2 << 20,
            disk_bytes: 128 << 20,
            ..world.options
        };
        let node = world.start().await.expect("an empty log");
        node.put_topic().await;
        for number in 0..12 {
            accepted(node.append(number, MIB).await);
        }
        let (before, head) = (node.replica.state(), node.head().await);
        assert_eq!(before.applied().index, node.wal.bounds(SHARD).last.index);
        node.stop().await;
        let node = world.start().await.expect("it comes back");
        assert!(node.replica.state().applied().index >= before.applied().index);
        assert_eq!(node.replica.state().data(), before.data());
        assert_eq!(node.head().await, head);

        // As raft looks for memberships, in as many as it asks for at once.
        let mut store = LogStore::new(Arc::clone(&node.wal), SHARD);
        let read = store.try_get_log_entries(0..64).await.expect("it is whole");
        let last = node.wal.bounds(SHARD).last.index;
        assert_eq!(read.len() as u64, last.0, "each of them");
        let bytes = read.iter().map(|entry| match &entry.payload {
            Payload::Normal(proposal) => proposal.entry_bytes(),
            Payload::Blank | Payload::Membership(_) => 0,
        });
        let (bytes, most) = (bytes.sum::<usize>(), Wal::READ_BYTES_MAX + 2 * MIB);
        assert!(bytes <= most, "{bytes} bytes at once");
        let members = |entry: &&Entry| matches!(entry.payload, Payload::Membership(_));
        assert_eq!(read.iter().filter(members).count(), 1);
    });
}
