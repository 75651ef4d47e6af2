//! A log on a simulated disk, and the calls tests make.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use esker_env::sim::{Inline, SeededEntropy, SimClock, SimDisk, SimNetwork};
use esker_env::{Env, Files};
use esker_types::{EntryId, RaftIndex, ShardId, Term};
use esker_wal::Error;
use esker_wal::disk::{Body, LogBounds, Recovery, Vote, Wal, WalOptions};
use tokio::sync::oneshot;

pub(crate) const DIRECTORY: &str = "/wal";
pub(crate) const SHARD: ShardId = ShardId(1);

/// A disk that outlives the logs opened on it.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) options: WalOptions,
    /// Why logs ended, as their owner was told.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    lives: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let options = WalOptions {
            file_bytes: 256 << 10,
            group_bytes: 64 << 10,
            disk_bytes: 4 << 20,
            memory_bytes: 16 << 10,
            seal_idle: Duration::from_millis(10),
            ..WalOptions::default()
        };
        Self {
            disk: SimDisk::new(seed),
            options,
            told: Arc::default(),
            lives: 0,
        }
    }

    /// The same, on `disk`.
    pub(crate) fn on(&self, disk: SimDisk) -> Self {
        Self {
            disk,
            options: self.options.clone(),
            told: Arc::default(),
            lives: self.lives,
        }
    }

    pub(crate) async fn open(&mut self) -> Result<Log, Error> {
        self.open_with(BTreeMap::new()).await
    }

    pub(crate) async fn open_with(
        &mut self,
        checkpointed: BTreeMap<ShardId, RaftIndex>,
    ) -> Result<Log, Error> {
        self.lives += 1;
        let env = self.env();
        let (options, told) = (self.options.clone(), Arc::clone(&self.told));
        let opened = Wal::open(
            &env,
            Path::new(DIRECTORY),
            options,
            checkpointed,
            Arc::new(move |fatal| told.lock().expect("unpoisoned").push(fatal.to_string())),
        )
        .await;
        // The maker of spares runs now, so that what a test counts does not depend on when.
        tokio::task::yield_now().await;
        let (wal, recovery) = opened?;
        Ok(Log { wal, recovery })
    }

    /// The world as a process sees it that starts now.
    pub(crate) fn env(&self) -> Env {
        Env {
            clock: Arc::new(SimClock::following_tokio()),
            entropy: Arc::new(SeededEntropy::new(self.lives)),
            files: Arc::new(self.disk.mount()),
            workers: Arc::new(Inline),
            network: Arc::new(SimNetwork::new()),
        }
    }

    /// Files of the sequence, oldest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let listed = self
            .disk
            .list(Path::new(DIRECTORY))
            .expect("the folder is there");
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "wal");
        listed.into_iter().filter(is_log).collect()
    }
}

/// An open log.
pub(crate) struct Log {
    pub(crate) wal: Arc<Wal>,
    pub(crate) recovery: Recovery,
}

impl Log {
    /// Appends entries and waits until they are on disk.
    pub(crate) async fn append(
        &self,
        shard: ShardId,
        entries: Vec<(EntryId, Body)>,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let reply = move |result| _ = done.send(result);
        self.wal
            .append(shard, entries, reply)
            .map_err(io::Error::from)?;
        answer.await.expect("the writer answers")
    }

    pub(crate) async fn vote(&self, shard: ShardId, vote: Vote) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.wal
            .save_vote(shard, vote, move |result| _ = done.send(result));
        answer.await.expect("the writer answers")
    }

    pub(crate) async fn truncate(&self, shard: ShardId, last: EntryId) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let reply = move |result| _ = done.send(result);
        self.wal
            .truncate(shard, last, reply)
            .map_err(io::Error::from)?;
        answer.await.expect("the writer answers")
    }

    /// What a reader finds: the bounds, and every entry that raft may read.
    pub(crate) async fn content(&self, shard: ShardId) -> Content {
        let bounds = LogBounds {
            committed: EntryId::default(),
            ..self.wal.bounds(shard)
        };
        let all = RaftIndex(1)..=RaftIndex(u64::MAX);
        let read = self
            .wal
            .read(shard, all, None)
            .await
            .expect("it can be read");
        let entries = read
            .into_iter()
            .map(|(id, body)| (id, flat(&body)))
            .collect();
        Content { bounds, entries }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Content {
    pub(crate) bounds: LogBounds,
    pub(crate) entries: Vec<(EntryId, Vec<u8>)>,
}

pub(crate) fn flat(body: &Body) -> Vec<u8> {
    [&body.head()[..], &body.payload().concat()].concat()
}

pub(crate) fn id(index: u64, term: u64) -> EntryId {
    EntryId {
        term: Term(term),
        index: RaftIndex(index),
    }
}

/// A body that tells its index, of about `bytes`, in a small and a large part.
pub(crate) fn body(index: u64, bytes: usize) -> Body {
    let payload = vec![u8::try_from(index % 251).expect("below 251"); bytes];
    Body::new(
        &index.to_le_bytes(),
        vec![Bytes::from_static(b"part"), payload.into()],
    )
}

/// Runs a test on one thread with time that passes only when everybody waits.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(test)
}
