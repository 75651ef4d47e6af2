//! A cluster's claim on its bucket: who writes there, and in which life.
//!
//! ```text
//!   cluster/<incarnation>-<cluster>.json
//!   {"version":1,"cluster":"<32 hex digits>","incarnation":1,"parent":null,"shards":{}}
//! ```
//! *parent*: the life that this one was rebuilt from, or null. *shards*: the raft index of that
//! life at which each of its shards was taken over; empty if there was none. The key alone decides
//! who claims what; the content tells a person, and `recover`, where it came from.
//!
//! No condition is asked of the bucket: whoever claims writes first and looks second. Of two who do
//! so at the same time at least one sees the other, and withdraws. One that could not withdraw does
//! so when it is begun again, so that it keeps nobody out.
//!
//! Names beside the claims that are none are left alone and reported: builds may differ in what a
//! claim says, never in how it is named.

use std::collections::BTreeMap;

use bytes::Bytes;
use esker_object::{Foreign, Key, Kind, Prefix, Store};
use esker_types::{ClusterId, Incarnation, RaftIndex, ShardId};
use serde::{Deserialize, Serialize};

use crate::error::ClaimError;

/// The version of a claim's content.
const VERSION: u32 = 1;
/// Bytes of a claim: a version, two ids, and an index for each of a cluster's shards.
const CLAIM_BYTES_MAX: u64 = 64 << 10;
/// How often a claim is taken back, each within the bucket's budget of attempts and time.
const WITHDRAWALS_MAX: usize = 3;

/// Whose a bucket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The cluster that has claimed it.
    pub cluster: ClusterId,
    /// The life it is in.
    pub incarnation: Incarnation,
}

/// What a claim says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Who claims.
    pub cluster: ClusterId,
    /// The life that is claimed.
    pub incarnation: Incarnation,
    /// The life it was rebuilt from.
    pub parent: Option<Incarnation>,
    /// Where each shard of that life was taken over.
    pub shards: BTreeMap<ShardId, RaftIndex>,
}

/// Why bytes are no claim.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClaimFault {
    /// A newer build wrote it.
    #[error("its version is {0}, this build reads {VERSION}: run a newer one")]
    Newer(u32),
    /// It is damaged, or something else.
    #[error("{0}")]
    Text(String),
}

/// A claim as JSON has it.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    cluster: String,
    incarnation: u32,
    parent: Option<u32>,
    shards: BTreeMap<u32, u64>,
}

/// Claims `incarnation` of an empty bucket for `cluster`. Killed half-way, it is run again with the
/// same ids; once it has returned, running it again changes nothing.
///
/// # Errors
/// [`ClaimError`]. Only after [`ClaimError::Bucket`], [`ClaimError::NotStored`] and
/// [`ClaimError::NotWithdrawn`] may a claim of ours be left behind.
pub async fn claim(
    store: &Store,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<(), ClaimError> {
    let claim = Claim {
        cluster,
        incarnation,
        parent: None,
        shards: BTreeMap::new(),
    };
    let (others, foreign) = others(store, cluster, incarnation).await?;
    report(&foreign);
    if let Some(&(theirs, by)) = others.last() {
        if left_over(store, &claim).await? {
            withdraw(store, &claim, by).await?;
        }
        let incarnation = theirs;
        return Err(ClaimError::Taken { by, incarnation });
    }
    let found = found(store, &claim).await?;
    let fresh = found == Found::Nothing;
    if fresh {
        nothing_written(store, incarnation).await?;
    }
    if found != Found::Ours {
        let (key, bytes) = (claim.key(), claim.encode());
        store.put(&key, vec![bytes]).await?;
        let stored = self::found(store, &claim).await?;
        if stored != Found::Ours {
            return Err(ClaimError::NotStored { key });
        }
    }
    let rival = self::others(store, cluster, incarnation).await?.0.pop();
    let Some((theirs, by)) = rival.filter(|(theirs, _)| *theirs >= incarnation) else {
        return Ok(());
    };
    if fresh || left_over(store, &claim).await? {
        withdraw(store, &claim, by).await?;
    }
    Err(ClaimError::Rival {
        by,
        incarnation: theirs,
    })
}

/// Whether a claim of ours stands there that nothing was written under: it was made beside
/// another's, and could not be taken back.
async fn left_over(store: &Store, claim: &Claim) -> Result<bool, ClaimError> {
    match found(store, claim).await {
        Ok(Found::Nothing) | Err(ClaimError::Other { .. }) => return Ok(false),
        Ok(Found::Scraps | Found::Ours) => {}
        Err(error) => return Err(error),
    }
    match nothing_written(store, claim.incarnation).await {
        Ok(()) => Ok(true),
        Err(ClaimError::NotEmpty { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes our claim back, for the sake of `by`: nothing was written under it, and whoever claims
/// again looks first.
async fn withdraw(store: &Store, claim: &Claim, by: ClusterId) -> Result<(), ClaimError> {
    let key = claim.key();
    let mut tries = 1;
    loop {
        let withdrawn = store.delete(&[key]).await.into_iter().collect();
        match withdrawn {
            Ok(()) => return Ok(()),
            Err(source) if tries == WITHDRAWALS_MAX => {
                return Err(ClaimError::NotWithdrawn { by, key, source });
            }
            Err::<(), _>(_) => tries += 1,
        }
    }
}

/// Warns of names beside the claims that are none.
pub(crate) fn report(foreign: &Foreign) {
    if let Some(name) = &foreign.first {
        let names = foreign.names;
        tracing::warn!(
            names,
            name,
            "no claims, and nothing of ours: left alone; delete what nobody needs there"
        );
    }
}

/// Makes sure that the bucket is still ours: to be asked at each start, and before each round of
/// the collector and each bucket checkpoint. What stands beside the claims and is none.
///
/// # Errors
/// [`ClaimError::Superseded`] if the cluster was rebuilt under a higher incarnation: this process
/// must stop. [`ClaimError::Missing`], [`ClaimError::Bucket`].
pub async fn confirm(
    store: &Store,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<Foreign, ClaimError> {
    let (mut others, foreign) = others(store, cluster, incarnation).await?;
    if let Some((theirs, by)) = others.pop().filter(|(theirs, _)| *theirs > incarnation) {
        return Err(ClaimError::Superseded {
            incarnation: theirs,
            by,
            ours: incarnation,
        });
    }
    let key = Key::Cluster {
        incarnation,
        cluster,
    };
    // A listing may be late where a head is not.
    match store.head(&key).await {
        Ok(_) => Ok(foreign),
        Err(error) if error.kind() == Kind::NotFound => Err(ClaimError::Missing { key }),
        Err(error) => Err(error.into()),
    }
}

/// Claims on the bucket but for ours, by incarnation, and what is no claim.
async fn others(
    store: &Store,
    cluster: ClusterId,
    incarnation: Incarnation,
) -> Result<(Vec<(Incarnation, ClusterId)>, Foreign), ClaimError> {
    let (objects, foreign) = store.list_all(Prefix::Clusters).await?;
    let claims = objects.into_iter().filter_map(|object| match object.key {
        Key::Cluster {
            incarnation,
            cluster,
        } => Some((incarnation, cluster)),
        _ => None,
    });
    let others = claims.filter(|claim| *claim != (incarnation, cluster));
    Ok((others.collect(), foreign))
}

/// What stands where a claim is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// What a write that went wrong has left.
    Scraps,
    Ours,
}

async fn found(store: &Store, claim: &Claim) -> Result<Found, ClaimError> {
    let key = claim.key();
    let length = match store.head(&key).await {
        Ok(length) => length,
        Err(error) if error.kind() == Kind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    let bytes = store
        .get_for_upkeep(&key, 0..length.min(CLAIM_BYTES_MAX))
        .await?;
    match Claim::decode(&bytes) {
        Ok(written) if written == *claim => Ok(Found::Ours),
        Ok(_) => Err(ClaimError::Other {
            key,
            what: "it was made otherwise, such as by a recovery".into(),
        }),
        Err(ClaimFault::Newer(version)) => Err(ClaimError::Other {
            key,
            what: format!("its version is {version}, this build writes {VERSION}"),
        }),
        Err(ClaimFault::Text(_)) => Ok(Found::Scraps),
    }
}

/// Makes sure that nobody has written under `incarnation`: who takes it up now begins at its
/// beginning.
///
/// # Errors
/// [`ClaimError::NotEmpty`], [`ClaimError::Bucket`].
pub async fn nothing_written(store: &Store, incarnation: Incarnation) -> Result<(), ClaimError> {
    let page = store.list(Prefix::Incarnation(incarnation), None).await?;
    match page.objects.first() {
        Some(object) => Err(ClaimError::NotEmpty {
            incarnation,
            key: object.key,
        }),
        None => Ok(()),
    }
}

impl Claim {
    /// Where it lies.
    #[must_use]
    pub const fn key(&self) -> Key {
        Key::Cluster {
            incarnation: self.incarnation,
            cluster: self.cluster,
        }
    }

    /// Its content: the same bytes for the same claim.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let shards = self.shards.iter().map(|(shard, index)| (shard.0, index.0));
        let written = Written {
            version: VERSION,
            cluster: self.cluster.to_string(),
            incarnation: self.incarnation.get(),
            parent: self.parent.map(Incarnation::get),
            shards: shards.collect(),
        };
        let mut json = serde_json::to_vec(&written).expect("numbers and texts are JSON");
        json.push(b'\n');
        json.into()
    }

    /// Reads what [`Claim::encode`] wrote. Fields that it does not know are skipped.
    ///
    /// # Errors
    /// [`ClaimFault`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ClaimFault> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let text = |error: serde_json::Error| ClaimFault::Text(error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(text)?;
        if version > VERSION {
            return Err(ClaimFault::Newer(version));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(text)?;
        let life = |number| {
            let fault = || ClaimFault::Text(format!("{number} is no incarnation"));
            Incarnation::new(number).ok_or_else(fault)
        };
        let no_cluster = || ClaimFault::Text(format!("`{}` is no cluster id", written.cluster));
        Ok(Self {
            cluster: ClusterId::parse(&written.cluster).ok_or_else(no_cluster)?,
            incarnation: life(written.incarnation)?,
            parent: written.parent.map(life).transpose()?,
            shards: written
                .shards
                .iter()
                .map(|(shard, index)| (ShardId(*shard), RaftIndex(*index)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_reads_as_it_was_written() {
        let first = Claim {
            cluster: ClusterId(0xfeed),
            incarnation: Incarnation::FIRST,
            parent: None,
            shards: BTreeMap::new(),
        };
        let rebuilt = Claim {
            incarnation: Incarnation::new(2).unwrap(),
            parent: Some(Incarnation::FIRST),
            shards: [(ShardId(0), RaftIndex(7)), (ShardId(1), RaftIndex(70))].into(),
            ..first
        };
        let golden = include_str!("../tests/golden/claims.json");
        let written = [&first, &rebuilt].map(Claim::encode);
        assert_eq!(written.concat(), golden.as_bytes());
        for (claim, bytes) in [first, rebuilt].iter().zip(&written) {
            assert_eq!(Claim::decode(bytes).as_ref(), Ok(claim));
        }
    }

    #[test]
    fn what_is_no_claim_is_told_so() {
        let good = r#"{"version":1,"cluster":"0000000000000000000000000000feed","incarnation":1,"parent":null,"shards":{}}"#;
        assert!(Claim::decode(good.as_bytes()).is_ok());
        for (from, to, said) in [
            ("\"version\":1", "\"version\":2", "version is 2"),
            ("\"incarnation\":1", "\"incarnation\":0", "no incarnation"),
            ("feed", "FEED", "no cluster id"),
            ("{}}", "{}", "EOF"),
            ("\"shards\":{}", "\"shards\":{\"x\":1}", "x"),
        ] {
            let wrong = good.replace(from, to);
            let error = Claim::decode(wrong.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
