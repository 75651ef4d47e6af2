//! The handle and its verbs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::Env;
use esker_types::Lane;
use esker_types::limits::{
    LIST_PAGES_MAX, OBJECT_DELETES_IN_FLIGHT, OBJECT_GET_BYTES_MAX, OBJECT_LIST_PAGE,
    OBJECT_PUT_BYTES_MAX,
};
use futures::StreamExt;

use crate::breaker::Breaker;
use crate::counting::{Counters, Counting, Tally};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::keys::{Key, Prefix};
use crate::limit::Limit;
use crate::open::{self, Options};
use crate::request::{Answer, Bucket, Class, Request};
use crate::retry::Retry;

/// One bucket, or a prefix of one. Cloning is cheap and shares budgets and counters.
///
/// Contract of every verb:
/// 1. It ends within its budget of attempts and time (`Options::budget`).
/// 2. An error of kind [`Unavailable`](crate::Kind::Unavailable) says nothing about a write: it
///    may have taken effect, or may yet. No key is ever written with two contents, so doing it
///    again is safe.
/// 3. Dropping the future stops further attempts, not the one under way.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    env: Env,
    retry: Retry,
    tally: Arc<Tally>,
}

/// One object of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Object {
    /// Where it lies.
    pub key: Key,
    /// Its length in bytes.
    pub length: u64,
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most [`OBJECT_LIST_PAGE`] objects, in ascending order of their keys' texts.
    pub objects: Vec<Object>,
    /// What is no key of ours on this page.
    pub foreign: Foreign,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
}

/// Names in a listing that are no keys of ours. Nothing of ours reads or deletes them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Foreign {
    /// How many.
    pub names: usize,
    /// The first of them.
    pub first: Option<String>,
}

/// A place between two names of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(String);

impl Cursor {
    /// Just behind `key`, whether or not there is such an object.
    #[must_use]
    pub fn after(key: &Key) -> Self {
        Self(key.to_string())
    }
}

impl Foreign {
    fn add(&mut self, names: usize, first: Option<String>) {
        self.names += names;
        self.first = self.first.take().or(first);
    }
}

impl Store {
    /// Opens the store that `url` names: `file:///path`, `s3://bucket/prefix`, `gs://…`, `az://…`,
    /// `memory://name`. Reaches no network; [`Store::probe`] does.
    ///
    /// # Errors
    /// [`Error::Open`] if the URL or a setting is wrong, or a folder cannot be made.
    pub fn open(url: &str, options: &Options, env: &Env) -> Result<Self, Error> {
        let backend = Arc::new(open::backend(url, options, env)?);
        Ok(Self::over(url, backend, options, env))
    }

    /// Opens the store with faults between its layers and the real one. None is active at first.
    ///
    /// # Errors
    /// As [`Store::open`].
    #[cfg(feature = "testing")]
    pub fn open_with_faults(
        url: &str,
        options: &Options,
        env: &Env,
    ) -> Result<(Self, crate::faults::FaultStore), Error> {
        let backend = Arc::new(open::backend(url, options, env)?);
        let faults = crate::faults::FaultStore::over(backend);
        let store = Self::over(url, Arc::new(faults.clone()), options, env);
        Ok((store, faults))
    }

    /// Puts the layers over `backend`, innermost first.
    pub(crate) fn over(url: &str, backend: Arc<dyn Bucket>, options: &Options, env: &Env) -> Self {
        let budget = &options.budget;
        let tally = Arc::new(Tally::default());
        let counting = Arc::new(Counting::new(backend, Arc::clone(&tally)));
        let deadline = Arc::new(Deadline::new(counting, budget));
        let limit = Arc::new(Limit::new(deadline, budget, Arc::clone(&tally)));
        let clock = Arc::clone(&env.clock);
        let breaker = Arc::new(Breaker::new(limit, budget, clock, Arc::clone(&tally)));
        let retry = Retry::new(breaker, budget, env, Arc::clone(&tally));
        Self {
            inner: Arc::new(Inner {
                url: url.to_owned(),
                env: env.clone(),
                retry,
                tally,
            }),
        }
    }

    /// Writes the object `key`, made of `parts` in order; none of them is copied. `key` must not
    /// have been written with other content, ever: that is what makes the write idempotent.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`OBJECT_PUT_BYTES_MAX`]; [`Error::Request`].
    pub async fn put(&self, key: &Key, parts: Vec<Bytes>) -> Result<(), Error> {
        let path = key.to_string();
        let request = Request::Put { path, parts };
        within(&request, OBJECT_PUT_BYTES_MAX)?;
        self.inner.retry.call(request).await.map(drop)
    }

    /// Reads `range` of the object `key`: exactly as many bytes as the range has. An empty range
    /// is answered without a request.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`OBJECT_GET_BYTES_MAX`]; [`Error::BackwardRange`];
    /// [`Error::Request`], of kind [`Corrupt`](crate::Kind::Corrupt) if the range leaves the
    /// object and of kind [`NotFound`](crate::Kind::NotFound) if there is none.
    pub async fn get_range(
        &self,
        key: &Key,
        range: Range<u64>,
        lane: Lane,
    ) -> Result<Bytes, Error> {
        let class = match lane {
            Lane::Tail => Class::Foreground,
            Lane::Backfill => Class::Background,
        };
        self.get(key, range, class).await
    }

    /// As [`Store::get_range`], for whoever keeps the bucket: it waits behind no reader.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn get_for_upkeep(&self, key: &Key, range: Range<u64>) -> Result<Bytes, Error> {
        self.get(key, range, Class::Upkeep).await
    }

    async fn get(&self, key: &Key, range: Range<u64>, class: Class) -> Result<Bytes, Error> {
        if range.end < range.start {
            return Err(Error::BackwardRange {
                key: key.to_string(),
                start: range.start,
                end: range.end,
            });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let request = Request::Get {
            path: key.to_string(),
            range,
            class,
        };
        within(&request, OBJECT_GET_BYTES_MAX)?;
        match self.inner.retry.call(request).await? {
            Answer::Body(body) => Ok(body),
            other => unreachable!("a get was answered with {other:?}"),
        }
    }

    /// Reads the last `bytes` of an object of known `length`, or all of it if it is shorter.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub async fn get_tail(
        &self,
        key: &Key,
        length: u64,
        bytes: u64,
        lane: Lane,
    ) -> Result<Bytes, Error> {
        self.get_range(key, length.saturating_sub(bytes)..length, lane)
            .await
    }

    /// The length of the object `key` in bytes.
    ///
    /// # Errors
    /// [`Error::Request`], of kind [`NotFound`](crate::Kind::NotFound) if there is none.
    pub async fn head(&self, key: &Key) -> Result<u64, Error> {
        let path = key.to_string();
        match self.inner.retry.call(Request::Head { path }).await? {
            Answer::Length(length) => Ok(length),
            other => unreachable!("a head was answered with {other:?}"),
        }
    }

    /// One page of the objects under `prefix`, from `after` on. On stores in a folder a page
    /// costs a walk through all of `prefix`.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn list(&self, prefix: Prefix, after: Option<&Cursor>) -> Result<Page, Error> {
        let request = Request::List {
            prefix: prefix.to_string(),
            after: after.map(|cursor| cursor.0.clone()),
            limit: OBJECT_LIST_PAGE,
        };
        let listing = match self.inner.retry.call(request).await? {
            Answer::Names(listing) => listing,
            other => unreachable!("a list was answered with {other:?}"),
        };
        let last = listing.entries.last();
        let next = last
            .filter(|_| listing.more)
            .map(|(name, _)| Cursor(name.clone()));
        let (mut objects, mut foreign) = (Vec::new(), Foreign::default());
        for (name, length) in listing.entries {
            match Key::parse(&name) {
                Some(key) => objects.push(Object { key, length }),
                None => foreign.add(1, Some(name)),
            }
        }
        Ok(Page {
            objects,
            foreign,
            next,
        })
    }

    /// All objects under `prefix`, of which there are few, ascending; and what names there are
    /// that are no keys of ours.
    ///
    /// # Errors
    /// [`Error::TooMany`] beyond [`LIST_PAGES_MAX`] pages; [`Error::Request`].
    pub async fn list_all(&self, prefix: Prefix) -> Result<(Vec<Object>, Foreign), Error> {
        let (mut objects, mut foreign, mut after) = (Vec::new(), Foreign::default(), None);
        for _ in 0..LIST_PAGES_MAX {
            let page = self.list(prefix, after.as_ref()).await?;
            objects.extend(page.objects);
            foreign.add(page.foreign.names, page.foreign.first);
            after = page.next;
            if after.is_none() {
                return Ok((objects, foreign));
            }
        }
        Err(Error::TooMany {
            prefix: prefix.to_string(),
            limit: LIST_PAGES_MAX * OBJECT_LIST_PAGE,
        })
    }

    /// Removes the objects `keys`, a bounded number at a time. The results are in the order of
    /// the keys; an object that is not there counts as removed.
    pub async fn delete(&self, keys: &[Key]) -> Vec<Result<(), Error>> {
        futures::stream::iter(keys.iter().map(ToString::to_string))
            .map(|path| async move {
                let request = Request::Delete { path };
                self.inner.retry.call(request).await.map(drop)
            })
            .buffered(OBJECT_DELETES_IN_FLIGHT)
            .collect()
            .await
    }

    /// What this store was asked since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.tally.snapshot()
    }

    /// The URL it was opened by.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }
}

/// Refuses a request whose payload exceeds `limit`.
fn within(request: &Request, limit: usize) -> Result<(), Error> {
    let (bytes, limit) = (request.payload_bytes(), limit as u64);
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        verb: request.verb(),
        key: request.path().to_owned(),
        bytes,
        limit,
    })
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.inner.url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
