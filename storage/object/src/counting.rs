//! Requests and bytes as the store's owner is billed for them: each attempt counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;

use crate::error::Cause;
use crate::request::{Answer, Bucket, Request, Verb};

/// What a store was asked since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Writes.
    pub put: Outcomes,
    /// Ranged reads.
    pub get: Outcomes,
    /// Requests for a length.
    pub head: Outcomes,
    /// Pages of listings.
    pub list: Outcomes,
    /// Removals.
    pub delete: Outcomes,
    /// Payload bytes of successful writes.
    pub written_bytes: u64,
    /// Payload bytes of successful reads.
    pub read_bytes: u64,
    /// Attempts that followed a failed one.
    pub retried: u64,
    /// Requests refused here: circuit open, or too many waiting.
    pub refused: u64,
    /// Times the circuit opened.
    pub opened: u64,
}

/// How the requests of one verb ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outcomes {
    /// Done.
    pub done: u64,
    /// Answered: no such object.
    pub not_found: u64,
    /// Failed otherwise.
    pub failed: u64,
    /// Dropped before an answer: a deadline, or a caller that went away.
    pub abandoned: u64,
}

impl Counters {
    /// Requests of every verb and outcome.
    #[must_use]
    pub fn requests(&self) -> u64 {
        [self.put, self.get, self.head, self.list, self.delete]
            .iter()
            .map(|of| of.done + of.not_found + of.failed + of.abandoned)
            .sum()
    }
}

/// The live counters. Each is exact; a snapshot is not a point in time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    verbs: [Cells; 5],
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    opened: AtomicU64,
}

#[derive(Debug, Default)]
struct Cells {
    done: AtomicU64,
    not_found: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
}

impl Tally {
    pub(crate) fn snapshot(&self) -> Counters {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counters {
            put: self.cells(Verb::Put).snapshot(),
            get: self.cells(Verb::Get).snapshot(),
            head: self.cells(Verb::Head).snapshot(),
            list: self.cells(Verb::List).snapshot(),
            delete: self.cells(Verb::Delete).snapshot(),
            written_bytes: read(&self.written_bytes),
            read_bytes: read(&self.read_bytes),
            retried: read(&self.retried),
            refused: read(&self.refused),
            opened: read(&self.opened),
        }
    }

    pub(crate) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn cells(&self, verb: Verb) -> &Cells {
        let at = match verb {
            Verb::Put => 0,
            Verb::Get => 1,
            Verb::Head => 2,
            Verb::List => 3,
            Verb::Delete => 4,
        };
        &self.verbs[at]
    }
}

impl Cells {
    fn snapshot(&self) -> Outcomes {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Outcomes {
            done: read(&self.done),
            not_found: read(&self.not_found),
            failed: read(&self.failed),
            abandoned: read(&self.abandoned),
        }
    }
}

/// Counts what passes through it.
#[derive(Debug)]
pub(crate) struct Counting {
    inner: Arc<dyn Bucket>,
    tally: Arc<Tally>,
}

/// A request under way: dropped unfinished, it counts as abandoned.
struct UnderWay<'a> {
    cells: &'a Cells,
    finished: bool,
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn Bucket>, tally: Arc<Tally>) -> Self {
        Self { inner, tally }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.cells.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Bucket for Counting {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Answer, Cause>> {
        Box::pin(async move {
            let cells = self.tally.cells(request.verb());
            let written = match &request {
                Request::Put { .. } => request.payload_bytes(),
                _ => 0,
            };
            let mut under_way = UnderWay {
                cells,
                finished: false,
            };
            let result = self.inner.call(request).await;
            under_way.finished = true;
            let cell = match &result {
                Ok(_) => &cells.done,
                Err(Cause::NotFound) => &cells.not_found,
                Err(_) => &cells.failed,
            };
            cell.fetch_add(1, Ordering::Relaxed);
            match &result {
                Ok(Answer::Body(body)) => {
                    let read = body.len() as u64;
                    self.tally.read_bytes.fetch_add(read, Ordering::Relaxed);
                }
                Ok(_) => {
                    self.tally
                        .written_bytes
                        .fetch_add(written, Ordering::Relaxed);
                }
                Err(_) => {}
            }
            result
        })
    }
}
