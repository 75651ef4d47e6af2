//! One stream of appends.
//!
//! ```text
//!   request ─► [check] [check] [check]      side by side, in the order they came
//!                 └──────► submit           one after the other: the order of the producer
//!                             └► [answer] [answer] ─► reply      in order within a partition
//! ```
//! Bounds: appends on their way per stream, and through them bytes. A client that does not read its
//! replies is not read from any more.

use std::collections::HashMap;
use std::sync::Arc;

use esker_env::{Env, Monotonic};
use esker_log::{Appended, Appends, NewAppend, Ready};
use esker_proto::v1::{self, append_reply, append_request::Payload};
use esker_types::limits::{REPLY_STALL_MAX, STREAM_APPENDS_MAX, STREAM_CHECKS_MAX};
use esker_types::{FencingToken, PartitionIndex, Timestamp};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, FuturesUnordered, Stream, StreamExt};
use tokio::sync::oneshot;
use tonic::Status;

use crate::fault;
use crate::stream::{Sender, Unsent};
use crate::traffic::Traffic;

/// Works off one stream.
pub(crate) struct Appending<S> {
    appends: Appends,
    env: Env,
    traffic: Traffic,
    requests: S,
    /// Checks under way, in the order of their requests.
    checks: FuturesOrdered<BoxFuture<'static, Checked>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// The last append of each partition on its way: told when its reply is out.
    last: HashMap<Lane, oneshot::Receiver<()>>,
    replies: Sender<v1::AppendReply>,
}

/// What replies are in order of.
type Lane = (Arc<str>, u32);

/// A request whose batch was checked.
struct Checked {
    id: u64,
    lane: Lane,
    began: Monotonic,
    bytes: usize,
    ready: Result<Ready, v1::Error>,
}

/// A reply that is due, and whom it holds up.
struct Answered {
    reply: v1::AppendReply,
    told: oneshot::Sender<()>,
}

impl<S: Stream<Item = Result<v1::AppendRequest, Status>> + Unpin> Appending<S> {
    pub(crate) fn new(
        appends: Appends,
        env: Env,
        traffic: Traffic,
        requests: S,
        replies: Sender<v1::AppendReply>,
    ) -> Self {
        Self {
            appends,
            env,
            traffic,
            requests,
            checks: FuturesOrdered::new(),
            answers: FuturesUnordered::new(),
            last: HashMap::new(),
            replies,
        }
    }

    /// Until the client has closed its side and everything is answered, or is gone.
    ///
    /// # Errors
    /// A malformed message, which ends the stream once what came before it is answered; or a client
    /// that takes no replies.
    pub(crate) async fn run(mut self) -> Result<(), v1::Error> {
        let mut open = true;
        let mut ended = Ok(());
        loop {
            let room = self.checks.len() < STREAM_CHECKS_MAX
                && self.checks.len() + self.answers.len() < STREAM_APPENDS_MAX;
            tokio::select! {
                biased;
                Some(answered) = self.answers.next(), if !self.answers.is_empty() => {
                    match self.replies.send(answered.reply).await {
                        Ok(()) => {}
                        Err(Unsent::Gone) => return Ok(()),
                        Err(Unsent::Stalled) => return Err(stalled()),
                    }
                    // Whoever waits for this reply may go; nobody may wait.
                    let _ = answered.told.send(());
                }
                Some(checked) = self.checks.next(), if !self.checks.is_empty() => {
                    self.submit(checked).await;
                }
                request = self.requests.next(), if open && room => match request {
                    Some(Ok(request)) => self.check(request),
                    Some(Err(status)) => {
                        ended = Err(fault::of_message(&status).unwrap_or_else(|| (&status).into()));
                        open = false;
                    }
                    None => open = false,
                },
                else => return ended,
            }
        }
    }

    fn check(&mut self, request: v1::AppendRequest) {
        let (id, lane) = (
            request.request_id,
            (request.topic.as_str().into(), request.partition),
        );
        let (appends, now) = (self.appends.clone(), crate::server::now(&self.env));
        let began = self.env.clock.monotonic();
        let bytes = match &request.payload {
            Some(Payload::Batch(batch)) => batch.len(),
            Some(Payload::Records(records)) => esker_proto::encoded_bytes(records),
            None => 0,
        };
        let check = async move {
            let new = new_append(request, now)?;
            appends.check(new).await.map_err(fault::of_append)
        };
        // A task of its own, so that several are checked at the same time.
        let check = tokio::spawn(check);
        let checked = async move {
            let ready = check.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a check panicked");
                Err(v1::Error::new(
                    v1::Code::Internal,
                    esker_types::Durability::NotWritten,
                    "the batch could not be checked; nothing is stored",
                ))
            });
            Checked {
                id,
                lane,
                began,
                bytes,
                ready,
            }
        };
        self.checks.push_back(checked.boxed());
    }

    async fn submit(&mut self, checked: Checked) {
        let Checked {
            id,
            lane,
            began,
            bytes,
            ready,
        } = checked;
        let answer: BoxFuture<'static, Result<Appended, v1::Error>> = match ready {
            Err(error) => futures::future::ready(Err(error)).boxed(),
            Ok(ready) => match self.appends.submit(ready).await {
                Ok(answer) => answer
                    .map(|answer| answer.map_err(fault::of_append))
                    .boxed(),
                Err(error) => futures::future::ready(Err(fault::of_append(error))).boxed(),
            },
        };
        let (told, next) = oneshot::channel();
        let before = self.last.insert(lane, next);
        if self.last.len() > 2 * STREAM_APPENDS_MAX {
            // Partitions whose last reply is out hold nobody up.
            self.last.retain(|_, waiting| {
                waiting
                    .try_recv()
                    .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
            });
        }
        let (env, traffic) = (self.env.clone(), self.traffic.clone());
        let answered = async move {
            let answer = answer.await;
            traffic.append(bytes, env.clock.monotonic().since(began), &answer);
            if let Some(before) = before {
                // Told, or dropped with the stream: either way it is this one's turn.
                let _ = before.await;
            }
            Answered {
                reply: reply(id, answer),
                told,
            }
        };
        self.answers.push(answered.boxed());
    }
}

fn stalled() -> v1::Error {
    let seconds = REPLY_STALL_MAX.as_secs();
    let text = format!(
        "the client took no reply for {seconds} s, the limit; appends without a reply may be stored: \
         send them again with the same producer and sequence"
    );
    let error = v1::Error::new(v1::Code::Overloaded, esker_types::Durability::Unknown, text);
    error.with_limit(seconds, seconds)
}

fn reply(request_id: u64, answer: Result<Appended, v1::Error>) -> v1::AppendReply {
    let result = match answer {
        Ok(Appended { range, duplicate }) => append_reply::Result::Appended(v1::Appended {
            base_offset: range.start().get(),
            end: range.end().get(),
            duplicate,
        }),
        Err(error) => append_reply::Result::Error(error),
    };
    v1::AppendReply {
        request_id,
        result: Some(result),
    }
}

fn new_append(request: v1::AppendRequest, now: Timestamp) -> Result<NewAppend, v1::Error> {
    let topic = fault::topic_name(&request.topic)?;
    let batch = match request.payload {
        Some(Payload::Batch(batch)) => {
            if request.producer.is_some() {
                return Err(fault::invalid(
                    "nothing is stored: `producer` goes with plain records; a batch carries its own",
                ));
            }
            batch
        }
        Some(Payload::Records(records)) => {
            crate::plain::batch(&records.records, request.producer, now)?
        }
        None => {
            return Err(fault::invalid(
                "nothing is stored: the append has neither `batch` nor `records`",
            ));
        }
    };
    let expected_end = request
        .expected_end
        .map(|end| esker_proto::offset("expected_end", end));
    Ok(NewAppend {
        topic,
        partition: PartitionIndex(request.partition),
        batch,
        expected_end: expected_end.transpose()?,
        fencing: request.fencing_token.map(FencingToken),
    })
}
