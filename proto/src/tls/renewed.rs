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
    /// Of the files that it was made of.
    mark: u64,
    /// What was said last of files that cannot be used.
    told: Option<String>,
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
                mark,
                told: None,
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
        let (before, known) = self.with(|now| (Arc::clone(&now.made), now.mark));
        let made = match mark(&self.env, &self.paths) {
            Ok(seen) if seen == known => Ok(None),
            // What cannot be used yet may be later: it may be valid from then on.
            Ok(seen) => self.again(&before).map(|made| Some((made, seen))),
            Err(error) => Err(error),
        };
        let told = made.as_ref().err().map(ToString::to_string);
        let said = self.with(|now| std::mem::replace(&mut now.told, told.clone()));
        if let Some(error) = told.filter(|told| said.as_ref() != Some(told)) {
            tracing::error!(%error, "the certificates stay those of before");
        }
        let (made, seen) = made.ok()??;
        tracing::info!(files = ?self.paths, "certificates were read again");
        let made = Arc::new(made);
        self.with(|now| (now.made, now.mark) = (Arc::clone(&made), seen));
        Some(made)
    }

    /// Makes it of the files as they are now, for the same names as `before`.
    fn again(&self, before: &T) -> Result<T, TlsError> {
        let made = T::make(&self.env, &self.from)?;
        match self.paths.first() {
            Some(certificate) if made.names() != before.names() => Err(TlsError::Renamed {
                certificate: certificate.clone(),
                before: before.names().to_vec(),
                now: made.names().to_vec(),
            }),
            _ => Ok(made),
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
