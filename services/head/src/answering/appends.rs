//! A stream of appends: handed to the head one after the other, answered as the answers come.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use esker_log::{Answer, Head, HeadError, Leader, Mark};
use esker_proto::internal as wire;
use esker_proto::streams::Came;
use esker_shard::AppendOutcome;
use esker_types::ShardId;
use esker_types::limits::{HEAD_APPEND_BYTES_MAX, HEAD_APPENDS_MAX};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::sessions::Turn;
use super::{Answering, Refusals, catch_up};
use crate::words::{self, Append, Call};

/// Messages of answers that wait for the caller.
const ANSWERS_WAITING: usize = 16;
/// How long the last word of a stream waits for who reads the ones before it.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);
/// Answers of one message.
const ANSWERS_JOINED_MAX: usize = 1024;

type Outcome = Result<AppendOutcome, HeadError>;

/// An append that is answered.
struct Done {
    number: u64,
    bytes: usize,
    outcome: Outcome,
}

/// An append that the head has taken, or not.
struct Handed {
    number: u64,
    bytes: usize,
    answer: Result<Answer<'static, AppendOutcome>, HeadError>,
}

struct Appending {
    head: Arc<dyn Head>,
    shard: ShardId,
    refusals: Arc<Refusals>,
    answers: mpsc::Sender<Result<wire::AppendAnswers, Status>>,
    /// The one that waits for the head to take it. No other is read meanwhile.
    handing: Option<Pin<Box<dyn Future<Output = Handed> + Send>>>,
    /// Those it has taken.
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    bytes: usize,
    /// One has to be sent again: none is proposed any more, so that it keeps its place.
    broken: Option<Broken>,
}

struct Broken {
    leader: Option<Leader>,
    what: String,
}

/// The answers to `calls`. Their handler is a task of its own, so that it ends as it should however
/// the call ends.
pub(super) fn answers(
    answering: &Answering,
    shard: ShardId,
    (mut turn, stopping): (Turn, watch::Receiver<bool>),
    seen: Option<Mark>,
    calls: Came<wire::AppendCall>,
) -> BoxStream<'static, Result<wire::AppendAnswers, Status>> {
    let (answers, told) = mpsc::channel(ANSWERS_WAITING);
    let appending = Appending {
        head: Arc::clone(&answering.head),
        shard,
        refusals: answering.refusals(),
        answers: answers.clone(),
        handing: None,
        under_way: FuturesUnordered::new(),
        bytes: 0,
        broken: None,
    };
    // The service has stopped once nobody listens for it: not before the last word is on its way.
    let heard = stopping.clone();
    tokio::spawn(async move {
        turn.come().await;
        let ended = tokio::select! {
            biased;
            () = turn.over() => Some(Status::aborted("a later attempt of its session has begun")),
            () = answers.closed() => None,
            ended = appending.run(seen, calls, stopping) => ended.err(),
        };
        // A later attempt need not wait for it.
        drop(turn);
        if let Some(status) = ended {
            // Whoever takes nothing any more need not be told.
            let _ = tokio::time::timeout(LAST_WORD_MAX, answers.send(Err(status))).await;
        }
        drop(heard);
    });
    ReceiverStream::new(told).boxed()
}

impl Appending {
    async fn run(
        mut self,
        seen: Option<Mark>,
        mut calls: Came<wire::AppendCall>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), Status> {
        if let Err(error) = catch_up(&*self.head, self.shard, seen).await {
            self.broken = Some(Broken {
                leader: named(&error),
                what: error.to_string(),
            });
        }
        let (mut open, mut stops) = (true, false);
        while open || self.handing.is_some() || !self.under_way.is_empty() {
            let room =
                self.under_way.len() < HEAD_APPENDS_MAX && self.bytes < HEAD_APPEND_BYTES_MAX;
            tokio::select! {
                biased;
                Some(done) = self.under_way.next() => self.tell(done).await?,
                handed = wait(&mut self.handing) => self.take(handed).await?,
                () = told(&mut stopping), if open => (open, stops) = (false, true),
                call = calls.message(), if open && room && self.handing.is_none() => {
                    match call? {
                        Some(call) => self.hand(call).await?,
                        None => open = false,
                    }
                }
            }
        }
        if stops { Err(super::stops()) } else { Ok(()) }
    }

    /// Hands an append to the head, or says why not.
    async fn hand(&mut self, call: wire::AppendCall) -> Result<(), Status> {
        let malformed = |fault| {
            self.refusals.malformed.fetch_add(1, Ordering::Relaxed);
            Status::invalid_argument(fault)
        };
        let append = match words::read_call(call).map_err(malformed)? {
            Call::Append(append) => append,
            Call::Beginning(_) => return Err(malformed("a stream begins twice")),
        };
        let (number, bytes) = (append.number, append.bytes.len());
        if let Some(broken) = &self.broken {
            let outcome = Err(broken.refuse(self.shard));
            return self
                .tell(Done {
                    number,
                    bytes: 0,
                    outcome,
                })
                .await;
        }
        self.bytes += bytes;
        let (head, shard) = (Arc::clone(&self.head), self.shard);
        self.handing = Some(Box::pin(async move {
            let Append {
                batch,
                bytes: payload,
                ..
            } = append;
            let answer = head.append(shard, batch, payload).await;
            Handed {
                number,
                bytes,
                answer,
            }
        }));
        Ok(())
    }

    /// The head has taken an append, or not.
    async fn take(&mut self, handed: Handed) -> Result<(), Status> {
        self.handing = None;
        let Handed {
            number,
            bytes,
            answer,
        } = handed;
        match answer {
            Ok(answer) => {
                let done = async move {
                    let outcome = answer.await;
                    Done {
                        number,
                        bytes,
                        outcome,
                    }
                };
                self.under_way.push(done.boxed());
                Ok(())
            }
            Err(error) => {
                let outcome = Err(error);
                self.tell(Done {
                    number,
                    bytes,
                    outcome,
                })
                .await
            }
        }
    }

    /// Tells the answer, with all that are there by now.
    async fn tell(&mut self, first: Done) -> Result<(), Status> {
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(done) = next {
            self.bytes -= done.bytes;
            if let Err(error) = &done.outcome {
                self.note(done.number, error);
            }
            answers.push(words::append_answer(done.number, done.outcome));
            next = if answers.len() < ANSWERS_JOINED_MAX {
                self.under_way.next().now_or_never().flatten()
            } else {
                None
            };
        }
        let mark = self.head.mark(self.shard).map(words::mark);
        let answers = wire::AppendAnswers { mark, answers };
        let gone = |_| Status::cancelled("the caller has gone");
        self.answers.send(Ok(answers)).await.map_err(gone)
    }

    /// After an append that will be sent again, nothing overtakes it.
    fn note(&mut self, number: u64, error: &HeadError) {
        let again = matches!(
            error,
            HeadError::NotLeader { .. } | HeadError::Unknown { .. }
        );
        if again && self.broken.is_none() {
            self.broken = Some(Broken {
                leader: named(error),
                what: format!("nothing is proposed after append {number} of the stream: {error}"),
            });
        }
    }
}

impl Broken {
    fn refuse(&self, shard: ShardId) -> HeadError {
        HeadError::NotLeader {
            shard,
            leader: self.leader.clone(),
            what: self.what.clone(),
        }
    }
}

fn named(error: &HeadError) -> Option<Leader> {
    match error {
        HeadError::NotLeader { leader, .. } => leader.clone(),
        _ => None,
    }
}

/// Waits until the service stops.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // Its sender is the service: gone, it has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Waits for ever while there is none.
async fn wait(handing: &mut Option<Pin<Box<dyn Future<Output = Handed> + Send>>>) -> Handed {
    match handing {
        Some(handing) => handing.await,
        None => std::future::pending().await,
    }
}
