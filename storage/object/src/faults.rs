//! A store that misbehaves on purpose, between the real one and every layer of ours.
//!
//! The fault model: a request may fail before or after it took effect, or take effect later than
//! anybody expects; an answer may be short, rotten, another object's, slow or out of date; a write
//! may be acknowledged and lost; and the whole bucket may be away.

mod plan; // which fault strikes which request

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use plan::Plan;
pub use plan::Rule;

use crate::error::Cause;
use crate::request::{Answer, Bucket, Class, Listing, Request};

/// Requests that may be held back at once; one more fails before it takes effect.
const HELD_MAX: usize = 1024;
/// Changes that a stale listing does not know of.
const RECENT_MAX: usize = 256;

/// What goes wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It fails and has no effect.
    FailBefore,
    /// The store answers 503 and does nothing.
    Throttle,
    /// It takes effect, and the answer is lost.
    ApplyThenFail,
    /// The answer is lost, and it takes effect at [`FaultStore::release`]. Reads just fail.
    ApplyLate,
    /// A write or delete is acknowledged and never happens.
    Lose,
    /// A get answers with half the bytes; a put stores half of them.
    ShortBody,
    /// A get answers, or a put stores, with one bit flipped.
    CorruptBody,
    /// A get answers with bytes of another object that was written recently and is long enough.
    SwappedBody,
    /// The answer takes this much longer.
    Slow(Duration),
    /// A listing knows nothing of the last 256 puts and deletes.
    StaleList,
}

/// The faulty store, and the handle to drive it by. Clones drive the same store.
#[derive(Clone, Debug)]
pub struct FaultStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Arc<dyn Bucket>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away: bool,
    plan: Plan,
    held: Vec<Request>,
    recent: VecDeque<Change>,
    injected: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Put(String),
    Deleted(String, u64),
}

impl FaultStore {
    pub(crate) fn over(bucket: Arc<dyn Bucket>) -> Self {
        let shared = Arc::new(Shared {
            bucket,
            state: Mutex::default(),
        });
        Self { shared }
    }

    /// Takes the whole bucket away, or brings it back.
    pub fn away(&self, away: bool) {
        self.with(|state| state.away = away);
    }

    /// Adds a rule. Of several that match a request, the oldest one strikes.
    pub fn script(&self, rule: Rule) {
        self.with(|state| state.plan.script(rule));
    }

    /// From now on, each request that no rule strikes meets each fault of `mix` with its chance
    /// in a thousand, drawn from `seed`.
    pub fn random(&self, seed: u64, mix: &[(Fault, u64)]) {
        self.with(|state| state.plan.random(seed, mix));
    }

    /// Ends every fault. What is held stays held.
    pub fn calm(&self) {
        self.with(|state| {
            state.away = false;
            state.plan = Plan::default();
        });
    }

    /// How many requests were harmed so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.with(|state| state.injected)
    }

    /// How many requests wait to take effect.
    #[must_use]
    pub fn held(&self) -> usize {
        self.with(|state| state.held.len())
    }

    /// Lets every held request take effect now, in the order they came, whatever happened
    /// meanwhile. How many did.
    pub async fn release(&self) -> usize {
        let held = self.with(|state| std::mem::take(&mut state.held));
        let mut landed = 0;
        for request in held {
            landed += usize::from(self.apply(request).await.is_ok());
        }
        landed
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.state.lock().expect("no holder panics"))
    }

    /// Does the request faithfully and remembers what changed.
    async fn apply(&self, request: Request) -> Result<Answer, Cause> {
        let change = match &request {
            Request::Put { path, .. } => Some(Change::Put(path.clone())),
            Request::Delete { path } => {
                let head = Request::Head { path: path.clone() };
                match self.shared.bucket.call(head).await {
                    Ok(Answer::Length(length)) => Some(Change::Deleted(path.clone(), length)),
                    _ => None,
                }
            }
            _ => None,
        };
        let answer = self.shared.bucket.call(request).await?;
        if let Some(change) = change {
            self.with(|state| {
                if state.recent.len() == RECENT_MAX {
                    state.recent.pop_front();
                }
                state.recent.push_back(change);
            });
        }
        Ok(answer)
    }

    async fn misbehave(&self, fault: Fault, request: Request) -> Result<Answer, Cause> {
        match fault {
            Fault::FailBefore => Err(lost("connection reset")),
            Fault::Throttle => Err(lost("503 SlowDown")),
            Fault::ApplyThenFail => {
                self.apply(request).await?;
                Err(lost("connection reset after the request was done"))
            }
            Fault::ApplyLate => {
                let changes = matches!(request, Request::Put { .. } | Request::Delete { .. });
                self.with(|state| {
                    if changes && state.held.len() < HELD_MAX {
                        state.held.push(request);
                    }
                });
                Err(lost("no answer"))
            }
            Fault::Lose => match request {
                Request::Put { .. } | Request::Delete { .. } => Ok(Answer::Done),
                read => self.apply(read).await,
            },
            Fault::ShortBody => {
                self.damage(request, |body| body.slice(..body.len() / 2))
                    .await
            }
            Fault::CorruptBody => {
                // What a put was harmed by, a get must not set right.
                let stores = matches!(request, Request::Put { .. });
                let bit = if stores { 0x10 } else { 0x20 };
                self.damage(request, move |body| flip(bit, body)).await
            }
            Fault::SwappedBody => match request {
                Request::Get { path, range, .. } => self.swapped(path, range).await,
                other => self.apply(other).await,
            },
            Fault::Slow(by) => {
                tokio::time::sleep(by).await;
                self.apply(request).await
            }
            Fault::StaleList => match request {
                Request::List {
                    prefix,
                    after,
                    limit,
                } => self.stale_list(prefix, after, limit).await,
                other => self.apply(other).await,
            },
        }
    }

    /// Harms the body that a put stores or a get answers with.
    async fn damage(
        &self,
        request: Request,
        harm: impl Fn(Bytes) -> Bytes,
    ) -> Result<Answer, Cause> {
        match request {
            Request::Put { path, parts } => {
                let parts = vec![harm(Bytes::from(parts.concat()))];
                self.apply(Request::Put { path, parts }).await
            }
            other => match self.apply(other).await? {
                Answer::Body(body) => Ok(Answer::Body(harm(body))),
                answer => Ok(answer),
            },
        }
    }

    async fn swapped(&self, path: String, range: Range<u64>) -> Result<Answer, Cause> {
        let others: Vec<_> = self.with(|state| {
            let puts = state.recent.iter().rev().filter_map(|change| match change {
                Change::Put(other) if *other != path => Some(other.clone()),
                _ => None,
            });
            puts.collect()
        });
        let class = Class::Foreground;
        for other in others {
            let get = Request::Get {
                path: other,
                range: range.clone(),
                class,
            };
            if let Ok(answer) = self.apply(get.clone()).await.and_then(|a| get.check(a)) {
                return Ok(answer);
            }
        }
        self.apply(Request::Get { path, range, class }).await
    }

    async fn stale_list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Answer, Cause> {
        let request = Request::List {
            prefix: prefix.clone(),
            after: after.clone(),
            limit,
        };
        let Answer::Names(Listing { mut entries, more }) = self.apply(request).await? else {
            unreachable!("a list is answered with names");
        };
        for change in self.with(|state| state.recent.clone()) {
            match change {
                Change::Put(path) => entries.retain(|(name, _)| *name != path),
                Change::Deleted(path, length) => {
                    let known = entries.iter().any(|(name, _)| *name == path);
                    let follows = after.as_ref().is_none_or(|after| path > *after);
                    if !known && follows && path.starts_with(&prefix) {
                        entries.push((path, length));
                    }
                }
            }
        }
        entries.sort();
        let more = more || entries.len() > limit;
        entries.truncate(limit);
        Ok(Answer::Names(Listing { entries, more }))
    }
}

impl Bucket for FaultStore {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            let fault = self.with(|state| {
                let fault = if state.away {
                    Some(Fault::FailBefore)
                } else {
                    state.plan.strike(&request)
                };
                state.injected += u64::from(fault.is_some());
                fault
            });
            match fault {
                Some(fault) => self.misbehave(fault, request).await,
                None => self.apply(request).await,
            }
        })
    }
}

fn lost(how: &str) -> Cause {
    Cause::Unavailable(format!("{how} (injected)"))
}

/// Flips `bit` of the byte in the middle.
fn flip(bit: u8, body: Bytes) -> Bytes {
    let mut bytes = Vec::from(body);
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= bit;
    }
    bytes.into()
}

#[cfg(test)]
mod tests;
