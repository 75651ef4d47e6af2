//! The way to the pump of a shard: bounded, and first come, first served.

use std::sync::Arc;

use bytes::Bytes;
use esker_log::{Answer, HeadError};
use esker_shard::{AppendBatch, AppendOutcome};
use esker_types::ShardId;
use esker_types::limits::{HEAD_APPEND_BYTES_MAX, HEAD_APPENDS_MAX};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::pump::Pump;
use super::ways::Ways;

/// An append that has no answer yet.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) batch: AppendBatch,
    pub(super) bytes: Bytes,
    pub(super) answer: oneshot::Sender<Result<AppendOutcome, HeadError>>,
    /// Its place and its bytes, given back with it.
    pub(super) room: [OwnedSemaphorePermit; 2],
}

/// The queue of a shard. Its pump ends with it.
#[derive(Debug)]
pub(super) struct Queue {
    shard: ShardId,
    letters: mpsc::Sender<Letter>,
    /// Held until the letter is in the queue: whoever waits for room lets nobody overtake.
    door: Mutex<()>,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Queue {
    /// Starts the pump of `shard`.
    pub(super) fn start(shard: ShardId, ways: Arc<Ways>) -> Self {
        let (letters, taken) = mpsc::channel(HEAD_APPENDS_MAX);
        tokio::spawn(Pump::new(shard, ways, taken).run());
        Self {
            shard,
            letters,
            door: Mutex::default(),
            places: Arc::new(Semaphore::new(HEAD_APPENDS_MAX)),
            bytes: Arc::new(Semaphore::new(HEAD_APPEND_BYTES_MAX)),
        }
    }

    /// Queues an append, of at most `BATCH_BYTES_MAX` bytes.
    pub(super) async fn append(
        &self,
        batch: AppendBatch,
        bytes: Bytes,
    ) -> Result<Answer<'static, AppendOutcome>, HeadError> {
        let shard = self.shard;
        let _turn = self.door.lock().await;
        let place = Arc::clone(&self.places).acquire_owned().await;
        let share = Arc::clone(&self.bytes)
            .acquire_many_owned(batch.bytes)
            .await;
        let closed = "nobody closes it";
        let (answer, answered) = oneshot::channel();
        let letter = Letter {
            batch,
            bytes,
            answer,
            room: [place.expect(closed), share.expect(closed)],
        };
        let sent = self.letters.send(letter).await;
        sent.map_err(|_| HeadError::NotLeader {
            shard,
            leader: None,
            what: "the task that sends its appends has died".into(),
        })?;
        Ok(Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                let what = "the task that sends its appends has died".into();
                Err(HeadError::Unknown { shard, what })
            })
        }))
    }
}
