//! The state of each shard, kept in the bucket: what `recover` and readers without a cluster begin
//! with.
//!
//! ```text
//!   Head ─► state without head ─► PUT ─► read back, decode ─► delete the older ones
//! ```
//! A bucket holds one checkpoint of a shard and incarnation, the newest that was verified; more
//! only until somebody has looked again. A shard that has not changed is never written anew: its
//! time and its applied entry alone are no change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use esker_env::{Env, Monotonic, WorkersExt};
use esker_object::{Key, Kind, Object, Prefix, Store};
use esker_shard::checkpoint::{self, BodyHash, Scope};
use esker_shard::{Data, SegmentPlace, State};
use esker_types::limits::{
    BUCKET_CHECKPOINT_AGE, BUCKET_CHECKPOINT_GET_BYTES, BUCKET_CHECKPOINT_SEGMENTS,
    OBJECT_PUT_BYTES_MAX,
};
use esker_types::{Incarnation, RaftIndex, SegmentId, ShardId};

use crate::claim::{self, Owner};
use crate::error::KeepError;
use crate::head::{Head, Progress};

/// Writes bucket checkpoints. It runs no timer: call [`Checkpointer::round`] for each shard, the
/// catalog too, every `BUCKET_CHECKPOINT_LOOK`.
#[derive(Debug)]
pub struct Checkpointer {
    head: Arc<dyn Head>,
    store: Store,
    env: Env,
    owner: Owner,
    age: Duration,
    segments: usize,
    known: BTreeMap<ShardId, Known>,
}

/// A checkpoint that a round has put in the bucket, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpointed {
    /// Where it lies.
    pub key: Key,
    /// Its bytes.
    pub bytes: u64,
    /// Older ones that it has replaced and that are deleted.
    pub deleted: usize,
}

/// What is known of a shard's checkpoint in the bucket.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The newest one; damaged ones count, so that the next lies above.
    newest: Option<(RaftIndex, SegmentId)>,
    /// What the newest holds; `None` if there is none, or none that can be read.
    body: Option<BodyHash>,
    /// The last segment in it.
    last: Option<SegmentPlace>,
    /// Applied index at the last look that found nothing new.
    looked: RaftIndex,
    /// When it was written or found unchanged; `None` if an earlier life of this process did.
    at: Option<Monotonic>,
    /// Older ones may be left.
    untidy: bool,
    /// What was applied here when the newest was found to lie above it: it tells of a life that
    /// this one knows nothing of, also once this one has come as far.
    behind: Option<RaftIndex>,
}

impl Checkpointer {
    /// Checkpoints of `owner`'s shards, from `head` to `store`.
    #[must_use]
    pub fn new(head: Arc<dyn Head>, store: Store, env: Env, owner: Owner) -> Self {
        Self {
            head,
            store,
            env,
            owner,
            age: BUCKET_CHECKPOINT_AGE,
            segments: BUCKET_CHECKPOINT_SEGMENTS,
            known: BTreeMap::new(),
        }
    }

    /// Due at this age, or after this many segments. Default: `BUCKET_CHECKPOINT_AGE` and
    /// `BUCKET_CHECKPOINT_SEGMENTS`.
    #[must_use]
    pub fn due_after(mut self, age: Duration, segments: usize) -> Self {
        (self.age, self.segments) = (age, segments);
        self
    }

    /// Writes a checkpoint of `shard` if one is due, verifies it, and only then deletes the older
    /// ones.
    ///
    /// # Errors
    /// [`KeepError`]. The newest checkpoint that was verified is still there; one that was not may
    /// be there too. After [`KeepError::Ahead`] nothing more is written or deleted by this one.
    pub async fn round(&mut self, shard: ShardId) -> Result<Option<Checkpointed>, KeepError> {
        let mut known = match self.known.get(&shard) {
            Some(known) => *known,
            None => self.learn(shard).await?,
        };
        let done = self.keep(shard, &mut known).await;
        self.known.insert(shard, known);
        done
    }

    /// Another one may have written those of `shard` since: what the bucket has is looked up anew. One
    /// that was found to lie above this head is never forgotten.
    pub fn forget(&mut self, shard: ShardId) {
        if self
            .known
            .get(&shard)
            .is_some_and(|known| known.behind.is_none())
        {
            self.known.remove(&shard);
        }
    }

    /// Looks whether the bucket knows more of `shard` than the head, and writes nothing: another one
    /// does.
    ///
    /// # Errors
    /// [`KeepError`]. After [`KeepError::Ahead`] nothing is written or deleted by this one, ever.
    pub async fn watch(&mut self, shard: ShardId) -> Result<(), KeepError> {
        let mut known = match self.known.get(&shard) {
            Some(known) => *known,
            None => self.learn(shard).await?,
        };
        let found = self.not_ahead(shard, &mut known).await;
        self.known.insert(shard, known);
        found
    }

    /// What earlier lives, and others, have left in the bucket.
    async fn learn(&self, shard: ShardId) -> Result<Known, KeepError> {
        let listed = listed(&self.store, self.owner.incarnation, shard).await?;
        let mut known = Known {
            newest: listed.last().map(|one| (one.index, one.id)),
            body: None,
            last: None,
            looked: RaftIndex::ZERO,
            at: None,
            untidy: listed.len() > 1,
            behind: None,
        };
        if let Some(newest) = listed.last() {
            match read(&self.store, &self.env, newest).await {
                Ok(stored) => {
                    known.body = Some(stored.body);
                    known.last = last_place(&stored.state);
                    known.looked = newest.index;
                }
                Err(error @ KeepError::Damaged { .. }) => {
                    tracing::warn!(%error, "a new checkpoint is made at once");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    async fn keep(
        &self,
        shard: ShardId,
        known: &mut Known,
    ) -> Result<Option<Checkpointed>, KeepError> {
        self.not_ahead(shard, known).await?;
        if known.untidy && known.body.is_some() {
            claim::confirm(&self.store, self.owner.cluster, self.owner.incarnation).await?;
            self.tidy(shard, known).await?;
        }
        let progress = self.head.progress(shard).await?;
        if !self.is_due(shard, known, &progress).await? {
            return Ok(None);
        }
        claim::confirm(&self.store, self.owner.cluster, self.owner.incarnation).await?;
        let taken = self.head.checkpoint(shard).await?;
        let index = taken.mark.index;
        let stale = |what: String| KeepError::Stale { shard, what };
        if taken.mark.incarnation != self.owner.incarnation {
            let (theirs, ours) = (taken.mark.incarnation, self.owner.incarnation);
            return Err(stale(format!("for incarnation {theirs}, this is {ours}")));
        }
        let body = checkpoint::body_hash(&taken.chunks)
            .map_err(|error| stale(format!("with no checkpoint: {error}")))?;
        if known.body == Some(body) {
            known.looked = index;
            known.at = Some(self.env.clock.monotonic());
            return Ok(None);
        }
        let id = self.new_id(known, index);
        let new = Listed {
            key: Key::Checkpoint {
                incarnation: self.owner.incarnation,
                shard,
                index,
                id,
            },
            index,
            id,
            length: taken.chunks.iter().map(|chunk| chunk.len() as u64).sum(),
        };
        // Until it is verified it may be there or not, whole or not: the next one lies above it.
        known.newest = Some((index, id));
        known.body = None;
        let stored = self.put(shard, &new, taken.chunks, body).await?;
        *known = Known {
            newest: Some((new.index, new.id)),
            body: Some(body),
            last: last_place(&stored.state),
            looked: index,
            at: Some(self.env.clock.monotonic()),
            untidy: true,
            behind: None,
        };
        let deleted = self.tidy(shard, known).await?;
        Ok(Some(Checkpointed {
            key: new.key,
            bytes: new.length,
            deleted,
        }))
    }

    /// Nothing in the bucket lies above what is applied here.
    async fn not_ahead(&self, shard: ShardId, known: &mut Known) -> Result<(), KeepError> {
        let Some((newest, _)) = known.newest else {
            return Ok(());
        };
        let found = match known.behind {
            Some(applied) => Err(KeepError::Ahead {
                shard,
                newest,
                applied,
            }),
            None => not_ahead(&*self.head, shard, newest).await,
        };
        if let Err(KeepError::Ahead { applied, .. }) = found {
            known.behind = Some(applied);
        }
        found
    }

    async fn is_due(
        &self,
        shard: ShardId,
        known: &Known,
        progress: &Progress,
    ) -> Result<bool, KeepError> {
        if known.body.is_none() {
            return Ok(true);
        }
        if progress.mark.index <= known.looked {
            return Ok(false);
        }
        let now = self.env.clock.monotonic();
        if known.at.is_none_or(|at| now.since(at) >= self.age) {
            return Ok(true);
        }
        let since = self.head.manifest(shard, known.last, self.segments).await?;
        Ok(since.items.len() >= self.segments)
    }

    /// An id above that of a checkpoint of the same entry, which is there only if it is damaged.
    fn new_id(&self, known: &Known, index: RaftIndex) -> SegmentId {
        let (wall, entropy) = (self.env.clock.wall().0, self.env.entropy.next_u128());
        let id = SegmentId::from_parts(wall, entropy);
        match known.newest {
            Some((newest, damaged)) if newest == index && damaged >= id => {
                SegmentId(damaged.0.saturating_add(1))
            }
            _ => id,
        }
    }

    async fn put(
        &self,
        shard: ShardId,
        new: &Listed,
        chunks: Vec<Bytes>,
        body: BodyHash,
    ) -> Result<Stored, KeepError> {
        let bucket = |source| KeepError::Bucket { shard, source };
        let not_stored = |what: String| KeepError::NotStored { key: new.key, what };
        self.store.put(&new.key, chunks).await.map_err(bucket)?;
        let length = match self.store.head(&new.key).await {
            Ok(length) => length,
            Err(error) if error.kind() == Kind::NotFound => {
                return Err(not_stored("nothing".into()));
            }
            Err(error) => return Err(bucket(error)),
        };
        if length != new.length {
            let written = new.length;
            return Err(not_stored(format!(
                "{length} bytes where {written} were written"
            )));
        }
        let stored = match read(&self.store, &self.env, new).await {
            Err(KeepError::Damaged { what, .. }) => return Err(not_stored(what)),
            other => other?,
        };
        if stored.body != body {
            return Err(not_stored("another state than was written".into()));
        }
        Ok(stored)
    }

    /// Deletes what is older than the newest, which is verified.
    async fn tidy(&self, shard: ShardId, known: &mut Known) -> Result<usize, KeepError> {
        let Some(newest) = known.newest else {
            return Ok(0);
        };
        let mut listed = listed(&self.store, self.owner.incarnation, shard).await?;
        listed.retain(|one| (one.index, one.id) < newest);
        let deleted = delete(&self.store, &listed).await?;
        known.untidy = false;
        Ok(deleted)
    }
}

/// A checkpoint that a listing has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    pub(crate) index: RaftIndex,
    pub(crate) id: SegmentId,
    pub(crate) length: u64,
}

/// A checkpoint as the bucket has it, checked.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) state: State,
    pub(crate) body: BodyHash,
}

/// A checkpoint of entry `newest` in the bucket tells of nothing that this head has not applied.
pub(crate) async fn not_ahead(
    head: &dyn Head,
    shard: ShardId,
    newest: RaftIndex,
) -> Result<(), KeepError> {
    if head.progress(shard).await?.mark.index >= newest {
        return Ok(());
    }
    // One that has just begun has yet to apply what it has.
    let applied = head.read_index(shard).await?.index;
    if applied >= newest {
        return Ok(());
    }
    Err(KeepError::Ahead {
        shard,
        newest,
        applied,
    })
}

/// Checkpoints of a shard in the bucket, oldest first.
pub(crate) async fn listed(
    store: &Store,
    incarnation: Incarnation,
    shard: ShardId,
) -> Result<Vec<Listed>, KeepError> {
    let objects = store
        .list_all(Prefix::Checkpoints(incarnation, shard))
        .await;
    let (objects, _) = objects.map_err(|source| KeepError::Bucket { shard, source })?;
    let checkpoint = |object: Object| match object.key {
        Key::Checkpoint { index, id, .. } => Some(Listed {
            key: object.key,
            index,
            id,
            length: object.length,
        }),
        _ => None,
    };
    let mut listed: Vec<_> = objects.into_iter().filter_map(checkpoint).collect();
    listed.sort_by_key(|one| (one.index, one.id));
    Ok(listed)
}

/// Reads a checkpoint and checks that it is what its key says.
pub(crate) async fn read(store: &Store, env: &Env, of: &Listed) -> Result<Stored, KeepError> {
    let key = of.key;
    let Key::Checkpoint {
        incarnation,
        shard,
        index,
        ..
    } = key
    else {
        unreachable!("a listing of checkpoints holds checkpoints");
    };
    let damaged = |what: String| KeepError::Damaged { key, what };
    if of.length > OBJECT_PUT_BYTES_MAX as u64 {
        let length = of.length;
        return Err(damaged(format!(
            "{length} bytes are more than were ever written"
        )));
    }
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < of.length {
        let at = bytes.len() as u64;
        let end = of.length.min(at + BUCKET_CHECKPOINT_GET_BYTES as u64);
        let part = store.get_for_upkeep(&key, at..end).await;
        bytes.extend_from_slice(&part.map_err(|source| match source.kind() {
            Kind::NotFound | Kind::Corrupt => damaged(source.to_string()),
            _ => KeepError::Bucket { shard, source },
        })?);
    }
    let bytes = bytes.freeze();
    let decode = move || {
        let decoded = checkpoint::decode(&bytes)?;
        Ok((decoded, checkpoint::body_hash(&[bytes])?))
    };
    let decoded: Result<_, esker_shard::Error> = env.workers.run(decode).await;
    let (decoded, body) = decoded.map_err(|error| damaged(error.to_string()))?;
    let state = decoded.state;
    let found = (state.incarnation(), state.shard(), state.applied().index);
    if found != (incarnation, shard, index) || decoded.scope != Scope::Bucket {
        let (incarnation, shard, index) = found;
        return Err(damaged(format!(
            "it is one of {shard} of incarnation {incarnation} at entry {index}"
        )));
    }
    Ok(Stored { state, body })
}

/// Deletes checkpoints that a newer, verified one has replaced; all of them, or an error. How many
/// there were.
pub(crate) async fn delete(store: &Store, older: &[Listed]) -> Result<usize, KeepError> {
    let keys: Vec<_> = older.iter().map(|one| one.key).collect();
    for (key, result) in keys.iter().zip(store.delete(&keys).await) {
        result.map_err(|source| KeepError::OlderStays { key: *key, source })?;
    }
    Ok(keys.len())
}

fn last_place(state: &State) -> Option<SegmentPlace> {
    let last = state.data().map(Data::manifest)?.next_back()?;
    Some(last.place())
}
