//! Why a bucket cannot be kept: its claim, its checkpoints, retention, collection.

use esker_object::Key;
use esker_shard::Refusal;
use esker_types::{ClusterId, Incarnation, RaftIndex, ShardId};

use super::{HeadError, ReadError};

/// Why a bucket is not this cluster's, or not any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimError {
    /// The bucket did not answer. Nobody is refused by that: try again.
    #[error("the claims on the bucket cannot be read or written: {0}")]
    Bucket(#[from] esker_object::Error),
    /// The bucket is another cluster's. Nothing was written.
    #[error(
        "the bucket belongs to cluster {by}, incarnation {incarnation}: take an empty bucket or \
         prefix, or start the cluster's own data directory; what is in the bucket can be read with \
         --direct; if that cluster was only begun and never ran, delete its claim `{}`", Key::Cluster { incarnation: *incarnation, cluster: *by }
    )]
    Taken {
        /// Whose it is.
        by: ClusterId,
        /// The life it is in.
        incarnation: Incarnation,
    },
    /// Objects stand where this cluster would write its own. Nothing was written.
    #[error(
        "the bucket holds objects of incarnation {incarnation} and no claim of ours on it, such as \
         `{key}`: take an empty bucket or prefix; what is in this one can be read with --direct"
    )]
    NotEmpty {
        /// The life in which they were written.
        incarnation: Incarnation,
        /// One of them.
        key: Key,
    },
    /// Somebody else claimed the bucket at the same time. Our claim was taken back.
    #[error(
        "cluster {by} has claimed incarnation {incarnation} of the bucket at the same time; \
         see that only one cluster is begun on it, and begin it again"
    )]
    Rival {
        /// Who.
        by: ClusterId,
        /// Which life.
        incarnation: Incarnation,
    },
    /// Somebody else claimed the bucket at the same time, and our claim could not be taken back.
    /// Nothing was written under it.
    #[error(
        "cluster {by} has claimed the bucket at the same time, and our own claim `{key}` could not \
         be taken back, so that neither can begin: start this one again, which tries anew, or \
         delete `{key}`: {source}"
    )]
    NotWithdrawn {
        /// Who else claims it.
        by: ClusterId,
        /// Our claim.
        key: Key,
        /// Why it is still there.
        source: esker_object::Error,
    },
    /// The bucket acknowledged the claim and has something else.
    #[error("the bucket acknowledged the claim `{key}` and does not have it as written")]
    NotStored {
        /// Where.
        key: Key,
    },
    /// A claim under our key that is not the one we make.
    #[error("the claim `{key}` is not one of this cluster: {what}")]
    Other {
        /// Where.
        key: Key,
        /// How it differs.
        what: String,
    },
    /// Our claim is gone.
    #[error(
        "the claim `{key}` is gone from the bucket: somebody removed it; nothing more is written \
         or deleted there until it is put back"
    )]
    Missing {
        /// Where it was.
        key: Key,
    },
    /// The cluster was rebuilt from this bucket. This process must stop.
    #[error(
        "cluster {by} lives on as incarnation {incarnation} of the bucket, ours is {ours}: this \
         one has ended and must stop"
    )]
    Superseded {
        /// Which life it is in by now.
        incarnation: Incarnation,
        /// Who claimed it.
        by: ClusterId,
        /// Our life.
        ours: Incarnation,
    },
}

/// Why an engine ends: its process must end with it.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The head is gone.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The bucket is no longer this cluster's.
    #[error(transparent)]
    Superseded(ClaimError),
}

/// Why a round of keeping order (checkpoint, retention, collector) did not end. Nothing that was
/// acknowledged depends on it; the next round begins anew.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeepError {
    /// The bucket is not ours; see [`ClaimError::Superseded`].
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The head did not answer.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A segment cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bucket did not answer.
    #[error("{shard}: {source}")]
    Bucket {
        /// The shard that was looked at.
        shard: ShardId,
        /// What the bucket said.
        source: esker_object::Error,
    },
    /// The head answered for another life of the cluster, or with an older state than before.
    #[error("the head of {shard} answered {what}")]
    Stale {
        /// The shard.
        shard: ShardId,
        /// With what, and what was due.
        what: String,
    },
    /// The bucket knows of entries that this head does not have. Nothing of the shard is written
    /// over it or deleted.
    #[error(
        "the bucket has a checkpoint of {shard} of entry {newest}, and only {applied} entries are \
         here: the data directory is older than the bucket, such as one restored from a copy, and \
         what was acknowledged since is not in it. Stop, and bring the newer directory back; no \
         checkpoint of the shard is replaced meanwhile, and all of the bucket can be read with \
         --direct"
    )]
    Ahead {
        /// The shard.
        shard: ShardId,
        /// The last entry in the bucket's checkpoint.
        newest: RaftIndex,
        /// The last entry applied here when that was found.
        applied: RaftIndex,
    },
    /// The bucket acknowledged a checkpoint and has something else. Older ones are kept.
    #[error("the bucket acknowledged the checkpoint `{key}` and does not have it: {what}")]
    NotStored {
        /// Where.
        key: Key,
        /// What it has instead.
        what: String,
    },
    /// A checkpoint in the bucket that cannot be read. Nothing of its shard is deleted until a new
    /// one is verified.
    #[error("the checkpoint `{key}` cannot be read: {what}")]
    Damaged {
        /// Where.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
    /// An object that had to go first could not be deleted.
    #[error("`{key}` must be deleted before anything else is, and was not: {source}")]
    OlderStays {
        /// Which.
        key: Key,
        /// What the bucket said.
        source: esker_object::Error,
    },
    /// Nothing that may go could be deleted.
    #[error(
        "{failed} objects that nothing names were to be deleted, and none was: see that this cluster \
         may delete objects of the bucket"
    )]
    NoneDeleted {
        /// How many.
        failed: usize,
    },
    /// The shard refused a command that it should have taken.
    #[error("{shard} refused: {refusal}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Why.
        refusal: Refusal,
    },
}

impl KeepError {
    /// Whether this process has lost its bucket and must stop.
    #[must_use]
    pub const fn ends_us(&self) -> bool {
        matches!(self, Self::Claim(ClaimError::Superseded { .. }))
    }
}
