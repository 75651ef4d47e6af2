//! Made anew when the files change.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use esker_env::{Env, Monotonic, WorkersExt as _};

use super::material::{Made, mark};
use super::{RENEW_PERIOD, TlsError};

/// What was made of files, and is made again when they have changed: they are looked at once in
/// [`RENEW_PERIOD`], by who asks. Files that cannot be used leave what was made before, and are said.
pub(super) struct Renewed<T: Made> {
    env: Env,
    from: T::From,
    paths: Vec<PathBuf>,
    now: Mutex<Now<T>>,
}

struct Now<T> {
    made: Arc<T>,
    /// Of the files that were looked at last.
    mark: Option<u64>,
    looked: Monotonic,
}

impl<T: Made> Renewed<T> {
    /// Makes it. Reads files: call it at the start.
    pub(super) fn make(env: &Env, from: T::From) -> Result<Self, TlsError> {
        let paths = T::paths(&from);
        let mark = mark(env, &paths)?;
        let made = Arc::new(T::make(env, &from)?);
        Ok(Self {
            env: env.clone(),
            from,
            paths,
            now: Mutex::new(Now {
                made,
                mark: Some(mark),
                looked: env.clock.monotonic(),
            }),
        })
    }

    /// The names of its own certificate.
    pub(super) fn names(&self) -> Arc<[String]> {
        Arc::clone(self.with(|now| Arc::clone(&now.made)).names())
    }

    /// What is made of the files as they were within [`RENEW_PERIOD`].
    pub(super) async fn now(self: &Arc<Self>) -> Arc<T> {
        let clock = self.env.clock.monotonic();
        let (made, due) = self.with(|now| {
            let due = clock.since(now.looked) >= RENEW_PERIOD;
            if due {
                now.looked = clock;
            }
            (Arc::clone(&now.made), due)
        });
        if !due {
            return made;
        }
        let this = Arc::clone(self);
        let renewed = self.env.workers.run(move || this.look());
        renewed.await.unwrap_or(made)
    }

    /// What is made of the files, if they have changed and can be used.
    fn look(&self) -> Option<Arc<T>> {
        let seen = mark(&self.env, &self.paths);
        let (before, known) = self.with(|now| {
            let known = std::mem::replace(&mut now.mark, seen.as_ref().ok().copied());
            (Arc::clone(&now.made), known)
        });
        let made = match seen {
            Ok(seen) if known == Some(seen) => return None,
            Ok(_) => T::make(&self.env, &self.from),
            // Said once, until they are there again.
            Err(_) if known.is_none() => return None,
            Err(error) => Err(error),
        };
        let renamed = |made: T| match self.paths.first() {
            Some(certificate) if made.names() != before.names() => Err(TlsError::Renamed {
                certificate: certificate.clone(),
                before: before.names().to_vec(),
                now: made.names().to_vec(),
            }),
            _ => Ok(made),
        };
        match made.and_then(renamed) {
            Ok(made) => {
                tracing::info!(files = ?self.paths, "certificates were read again");
                let made = Arc::new(made);
                self.with(|now| now.made = Arc::clone(&made));
                Some(made)
            }
            Err(error) => {
                tracing::error!(%error, "the certificates stay those of before");
                None
            }
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Now<T>) -> R) -> R {
        change(&mut self.now.lock().expect("nothing panics under this lock"))
    }
}

impl<T: Made> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewed({:?})", self.paths)
    }
}
