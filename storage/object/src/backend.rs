//! The adapter to `object_store`: five requests, one store, causes instead of its errors.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::error::{Cause, cut};
use crate::request::{Answer, Bucket, Listing, Request};

/// A real store, below every layer.
#[derive(Debug)]
pub(crate) struct Backend {
    store: Arc<dyn ObjectStore>,
    order: Order,
}

/// In what order a store lists names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Ascending, so that a page costs its own length.
    Ascending,
    /// None (a local file system), so that a page costs the whole listing, though not its memory.
    Any,
}

impl Backend {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, order: Order) -> Self {
        Self { store, order }
    }

    async fn put(&self, path: &str, parts: Vec<Bytes>) -> Result<Answer, Cause> {
        let payload = PutPayload::from_iter(parts);
        self.store
            .put(&path_of(path)?, payload)
            .await
            .map_err(|error| cause_of(&error))?;
        Ok(Answer::Done)
    }

    async fn get(&self, path: &str, range: Range<u64>) -> Result<Answer, Cause> {
        let location = path_of(path)?;
        let cause = match self.store.get_range(&location, range.clone()).await {
            Ok(body) if body.len() as u64 == range.end - range.start => {
                return Ok(Answer::Body(body));
            }
            Ok(body) => Cause::Short {
                start: range.start,
                end: range.end,
                got: body.len() as u64,
            },
            Err(error) => cause_of(&error),
        };
        Err(self.unless_truncated(&location, &range, cause).await)
    }

    /// Stores cut a range that leaves the object, or say "range not satisfiable" in words of
    /// their own. Where that may be so, the object's length tells a truncated object, which no
    /// further attempt mends, from a store in trouble.
    async fn unless_truncated(&self, location: &Path, range: &Range<u64>, cause: Cause) -> Cause {
        let suspected = match &cause {
            Cause::Short { .. } => true,
            Cause::Unavailable(reason) => {
                let reason = reason.to_ascii_lowercase();
                reason.contains("range") || reason.contains("416")
            }
            _ => false,
        };
        if !suspected {
            return cause;
        }
        match self.store.head(location).await {
            Ok(meta) if meta.size < range.end => Cause::Truncated {
                start: range.start,
                end: range.end,
                length: meta.size,
            },
            _ => cause,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Answer, Cause> {
        let prefix = path_of(prefix)?;
        let prefix = (!prefix.as_ref().is_empty()).then_some(prefix);
        let mut names = match after {
            Some(after) => self
                .store
                .list_with_offset(prefix.as_ref(), &path_of(after)?),
            None => self.store.list(prefix.as_ref()),
        };
        // One name more than asked for says whether there is more.
        let mut entries = Vec::new();
        let mut smallest = BTreeMap::new();
        while let Some(meta) = names.next().await {
            let meta = meta.map_err(|error| cause_of(&error))?;
            let name = meta.location.as_ref().to_owned();
            match self.order {
                Order::Ascending => {
                    entries.push((name, meta.size));
                    if entries.len() > limit {
                        break;
                    }
                }
                Order::Any => {
                    smallest.insert(name, meta.size);
                    if smallest.len() > limit + 1 {
                        smallest.pop_last();
                    }
                }
            }
        }
        entries.extend(smallest);
        let more = entries.len() > limit;
        entries.truncate(limit);
        Ok(Answer::Names(Listing { entries, more }))
    }

    async fn delete(&self, path: &str) -> Result<Answer, Cause> {
        match self.store.delete(&path_of(path)?).await {
            // Stores differ in whether an absent object is an error; to us it is the goal.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Answer::Done),
            Err(error) => Err(cause_of(&error)),
        }
    }
}

impl Bucket for Backend {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            match request {
                Request::Put { path, parts } => self.put(&path, parts).await,
                Request::Get { path, range, .. } => self.get(&path, range).await,
                Request::Head { path } => match self.store.head(&path_of(&path)?).await {
                    Ok(meta) => Ok(Answer::Length(meta.size)),
                    Err(error) => Err(cause_of(&error)),
                },
                Request::List {
                    prefix,
                    after,
                    limit,
                } => self.list(&prefix, after.as_deref(), limit).await,
                Request::Delete { path } => self.delete(&path).await,
            }
        })
    }
}

/// Our keys are valid paths as they stand; `parse` changes nothing, or refuses.
fn path_of(path: &str) -> Result<Path, Cause> {
    Path::parse(path).map_err(|error| rejected(&error))
}

fn rejected(reason: &dyn Display) -> Cause {
    Cause::Rejected(cut(&reason.to_string()))
}

fn cause_of(error: &object_store::Error) -> Cause {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Cause::NotFound,
        Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
            Cause::Denied(cut(&source.to_string()))
        }
        // `Generic` is what is left of a timeout, a 5xx, a reset and a full disk alike.
        Error::Generic { source, .. } => Cause::unavailable(source),
        Error::JoinError { source } => Cause::unavailable(source),
        other => rejected(other),
    }
}
