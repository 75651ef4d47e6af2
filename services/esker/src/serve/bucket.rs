//! The bucket of a server, and whose it is.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_env::Env;
use esker_log::{ClaimError, Owner, claim, confirm, nothing_written};
use esker_object::{Kind, Prefix, Store};
use esker_walnode::{Directory, Identity};

use super::ServeError;
use crate::config::Config;

/// How long a start waits for a bucket that was ours already.
const BUCKET_LOOK: Duration = Duration::from_secs(3);

/// The bucket that `config` names.
pub(crate) fn open_bucket(
    env: &Env,
    config: &Config,
    environment: BTreeMap<String, String>,
) -> Result<Store, ServeError> {
    let options = esker_object::Options {
        environment,
        settings: config.object_store.settings.clone(),
        make_folder: true,
        ..esker_object::Options::default()
    };
    Ok(Store::open(&config.bucket(), &options, env)?)
}

/// Who a cluster of one is, with a bucket that is its own. The identity is on disk before the claim is
/// made under it, so a founding that dies half-way goes on. With it, whether our claim was seen there
/// now: a bucket that is away may come back as another's.
pub(super) async fn claimed(
    env: &Env,
    config: &Config,
    directory: &Directory,
    store: &Store,
) -> Result<(Identity, bool), ServeError> {
    let founder = || Identity::founder(env, config.cluster.data_shards);
    let mut identity = directory.alone(env)?.unwrap_or_else(founder);
    if identity.claimed && identity.begun {
        let seen = still_ours(store, owner(&identity)).await?;
        return Ok((identity, seen));
    }
    store.probe().await?;
    if identity.claimed {
        // The log is about to begin; where something lies already, it has begun before.
        confirm(store, identity.cluster, identity.incarnation).await?;
        nothing_written(store, identity.incarnation).await?;
        return Ok((identity, true));
    }
    directory.belongs_to(env, &identity)?;
    claim(store, identity.cluster, identity.incarnation).await?;
    identity.claimed = true;
    directory.belongs_to(env, &identity)?;
    Ok((identity, true))
}

/// Under which name it writes into its bucket.
pub(super) const fn owner(identity: &Identity) -> Owner {
    Owner {
        cluster: identity.cluster,
        incarnation: identity.incarnation,
    }
}

/// Looks again at a bucket that was ours already. One that is away keeps nobody from appending:
/// who keeps order in it looks again before each round. Returns whether our claim was seen.
pub(super) async fn still_ours(store: &Store, owner: Owner) -> Result<bool, ServeError> {
    let look = async {
        store.probe().await?;
        confirm(store, owner.cluster, owner.incarnation).await?;
        Ok(())
    };
    let why = match tokio::time::timeout(BUCKET_LOOK, look).await {
        Ok(Ok(())) => return Ok(true),
        Ok(Err(error)) if !is_away(&error) => return Err(error),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {BUCKET_LOOK:?}"),
    };
    tracing::warn!(
        why,
        "starting without the bucket; appends are taken as long as the head has room"
    );
    Ok(false)
}

fn is_away(error: &ServeError) -> bool {
    match error {
        ServeError::Bucket(error) | ServeError::Claim(ClaimError::Bucket(error)) => {
            matches!(error.kind(), Kind::Unavailable | Kind::Overloaded)
        }
        _ => false,
    }
}

/// Nobody writes under our claim yet: what lies there half-written is of a life that was killed. Only
/// for a cluster of one: of several, other agents may be writing.
pub(super) async fn remove_unfinished(store: &Store, owner: Owner) {
    let ours = Prefix::Incarnation(owner.incarnation);
    match store.remove_unfinished(ours).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed objects that were never finished"),
        // They cost room, no more.
        Err(error) => {
            tracing::warn!(%error, "objects that were never finished stay where they are")
        }
    }
}
