//! openraft's own suite for log stores, run on ours.
//!
//! Its state machine is a plain one that remembers what it was given: the suite applies entries
//! with gaps between them, which ours refuses, since a gap would mean a lost entry. Ours is tried
//! in whole replicas instead.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex};

use esker_env::Env;
use esker_env::sim::SimDisk;
use esker_types::{EntryId, RaftIndex, ShardId, Term};
use esker_wal::disk::{Wal, WalOptions};
use esker_wal::raft::LogStore;
use esker_wal::raft::types::{Applied, Entry, LogId, Payload, RaftVote, TypeConfig, log_id};
use futures::{Stream, TryStreamExt as _};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError, alias};

type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
type RaftSnapshot = alias::SnapshotOf<TypeConfig, ()>;

/// Remembers the last entry and the membership, and nothing else.
#[derive(Clone, Debug, Default)]
struct Plain {
    last: Option<LogId>,
    membership: StoredMembership,
    /// Shared with the builder, which is a clone.
    snapshot: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl RaftStateMachine<TypeConfig> for Plain {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.last = Some(entry.log_id);
            if let Payload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Applied::Blank);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> io::Result<()> {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        *self.snapshot.lock().expect("unpoisoned") = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let snapshot = self.snapshot.lock().expect("unpoisoned").clone();
        Ok(snapshot.map(|meta| RaftSnapshot { meta, snapshot: () }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Plain {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
        };
        *self.snapshot.lock().expect("unpoisoned") = Some(meta.clone());
        Ok(RaftSnapshot { meta, snapshot: () })
    }
}

/// The suite begins some logs in the middle, as no raft does; ours refuses that as a hole. What
/// lies before is purged here first, and not shown.
struct FromAnywhere {
    store: LogStore,
    hidden: Option<LogId>,
}

impl RaftLogReader<TypeConfig> for FromAnywhere {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        self.store.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.store.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for FromAnywhere {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.store.get_log_state().await?;
        let shown = |id: &LogId| Some(*id) != self.hidden;
        Ok(LogState {
            last_purged_log_id: state.last_purged_log_id.filter(shown),
            last_log_id: state.last_log_id.filter(shown),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let empty = self.store.get_log_state().await?.last_log_id.is_none();
        let first = entries.first().map_or(0, |entry| entry.log_id.index);
        if empty && first > 0 {
            self.hidden = log_id(EntryId {
                term: Term(0),
                index: RaftIndex(first),
            });
            self.store.purge(self.hidden.expect("above zero")).await?;
        }
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.store.truncate_after(last.or(self.hidden)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.hidden = None;
        self.store.purge(upto).await
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, FromAnywhere, Plain> for Builder {
    async fn build(&self) -> Result<((), FromAnywhere, Plain), StorageError<TypeConfig>> {
        let (env, ..) = Env::simulated(1);
        let env = Env {
            files: Arc::new(SimDisk::new(1)),
            ..env
        };
        let options = WalOptions {
            file_bytes: 1 << 20,
            group_bytes: 256 << 10,
            disk_bytes: 16 << 20,
            ..WalOptions::default()
        };
        let directory = Path::new("/wal");
        let on_fatal = Arc::new(|_: &_| {});
        let opened = Wal::open(&env, directory, options, BTreeMap::new(), on_fatal).await;
        let (wal, _) = opened.expect("an empty log");
        let store = LogStore::new(wal, ShardId(1));
        Ok((
            (),
            FromAnywhere {
                store,
                hidden: None,
            },
            Plain::default(),
        ))
    }
}

#[test]
fn the_log_store_passes() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime
        .expect("a runtime")
        .block_on(Suite::test_all(Builder))
        .expect("the suite passes");
}
