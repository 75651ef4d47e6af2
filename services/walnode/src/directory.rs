//! A node's data directory, taken: one process has it, to the last thread that may write there.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use esker_env::{Env, Lock};

use crate::disk_id::DiskId;
use crate::identity::{self, Identity, IdentityError};
use crate::node::NodeError;

/// How long to wait for a process that is on its way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const LOCK_REST: Duration = Duration::from_millis(50);

/// A data directory that is ours.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: Box<dyn Lock>,
}

impl Directory {
    /// Makes the directory if it is not there, and takes it; waits a little for a process that is
    /// just ending.
    ///
    /// # Errors
    /// [`NodeError::Locked`], [`NodeError::Io`].
    pub async fn take(env: &Env, path: &Path) -> Result<Self, NodeError> {
        let io = |source| NodeError::Io {
            path: path.to_owned(),
            source,
        };
        env.files.create_dir_all(path).map_err(io)?;
        let began = env.clock.monotonic();
        loop {
            match env.files.lock(&path.join("lock")) {
                Ok(lock) => {
                    let path = path.to_owned();
                    return Ok(Self { path, lock });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(io(error)),
            }
            if env.clock.monotonic().since(began) >= LOCK_PATIENCE {
                let path = path.to_owned();
                return Err(NodeError::Locked { path });
            }
            tokio::time::sleep(LOCK_REST).await;
        }
    }

    /// Whose it is; `None` if it is nobody's yet, and empty.
    ///
    /// # Errors
    /// [`IdentityError`], also for a log without an identity: who founded a cluster beside it would
    /// take its records for his own.
    pub fn identity(&self, env: &Env) -> Result<Option<Identity>, IdentityError> {
        let identity = Identity::load(&*env.files, &self.path)?;
        if identity.is_none() && self.holds_a_log(env)? {
            let path = self.path.clone();
            return Err(IdentityError::Missing { path });
        }
        Ok(identity)
    }

    /// Whose it is, for a cluster of one; `None` if it is nobody's yet, and empty.
    ///
    /// # Errors
    /// As [`Directory::identity`], and for a directory of one of several nodes.
    pub fn alone(&self, env: &Env) -> Result<Option<Identity>, IdentityError> {
        let identity = self.identity(env)?;
        match &identity {
            Some(of) if of.disk.is_some() => Err(IdentityError::OneOfSeveral {
                path: self.path.clone(),
                node: of.node,
                cluster: of.cluster,
            }),
            _ => Ok(identity),
        }
    }

    /// Which disk it is on, drawn if nobody has asked before; and whose it is, for one of several
    /// nodes, `None` until it is adopted.
    ///
    /// # Errors
    /// As [`Directory::identity`], and for a directory of a cluster of one, or an identity that was
    /// given to another disk.
    pub fn one_of_several(&self, env: &Env) -> Result<(DiskId, Option<Identity>), IdentityError> {
        let identity = self.identity(env)?;
        let path = || self.path.clone();
        let disk = DiskId::load_or_draw(env, &self.path)?;
        let adopted = identity.as_ref();
        match adopted.map(|identity| (identity.disk, identity.cluster)) {
            Some((None, cluster)) => Err(IdentityError::OneAlone {
                path: path(),
                cluster,
            }),
            Some((Some(adopted), _)) if adopted != disk => Err(IdentityError::Copied {
                path: identity::path(&self.path),
                adopted,
                disk,
            }),
            _ => Ok((disk, identity)),
        }
    }

    fn holds_a_log(&self, env: &Env) -> Result<bool, IdentityError> {
        let path = self.path.join("wal");
        match env.files.list(&path) {
            Ok(files) => Ok(!files.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    /// Writes whose it is, durably.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn belongs_to(&self, env: &Env, identity: &Identity) -> Result<(), IdentityError> {
        identity.save(&*env.files, &self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_lock(self) -> Box<dyn Lock> {
        self.lock
    }
}
