//! One stream of appends.
//!
//! ```text
//!   request ─► weigh ─► share of the budget     one after the other
//!                └──► [check] [check] [check]   side by side, in the order they came
//!                        └──────► submit        one after the other: the order of the producer
//!                                    └► [answer] [answer] ─► reply      in order within a partition
//! ```
//! Bounds: appends on their way per stream, and bytes of them in the whole agent. A client that does
//! not read its replies is not read from any more: a request is taken in only if there is room for
//! its reply, so that no answer, and no share, ever waits for a client.
//!
//! What an agent holds before it can weigh it: of each stream one message that is coming in, and of
//! those that wait for a share as much as the budget once more. Plain records, which take sixty
//! times their bytes once they are decoded, are made a batch in the same step, before anything is
//! waited for: as many such messages are there as the runtime has threads. In the worst case, every
//! peer malign, that is
//!
//! ```text
//!   budget     2 × 256 MiB
//!   streams    4096 (`APPEND_STREAMS_MAX`) × 9 MiB (`MESSAGE_BYTES_MAX`) that do not end
//!   HTTP/2     4096 (`CONNECTIONS_MAX`) × 4 MiB (`SERVER_CONNECTION_WINDOW_BYTES`) that nobody reads
//! ```
//! of which only the first line is what sound clients come to, so the port is not for strangers. Calls of other kinds
//! hold one message while it comes in, and what they answer; their number is bounded for each connection
//! alone. Those that last have places of their own: reads `READ_STREAMS_MAX`, verifications, which hold two
//! windows and a page of the manifest, `VERIFICATIONS_MAX`.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use bytes::Bytes;
use esker_env::{Env, Monotonic};
use esker_log::{Appended, Appends, NewAppend, Ready};
use esker_proto::v1::{self, append_reply, append_request::Payload};
use esker_types::limits::{
    APPEND_OVERHEAD_BYTES, REPLY_STALL_MAX, STREAM_APPENDS_MAX, STREAM_CHECKS_MAX,
};
use esker_types::{Durability, FencingToken, PartitionIndex, Timestamp, TopicName};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, FuturesUnordered, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::Status;

use crate::budget::{Budget, NoShare, Share};
use crate::fault;
use crate::server::Stopping;
use crate::stream::{Sender, Unsent};
use crate::traffic::Traffic;

/// Works off one stream.
pub(crate) struct Appending<S> {
    agent: Taking,
    requests: S,
    /// The one request that waits for its share.
    weighed: Option<BoxFuture<'static, Weighed>>,
    /// Checks under way, in the order of their requests.
    checks: FuturesOrdered<BoxFuture<'static, Checked>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// The last append of each partition on its way: told when its reply is out.
    last: HashMap<Lane, oneshot::Receiver<()>>,
    replies: Sender<v1::AppendReply>,
}

/// What all streams of an agent have in common, and this one's place among them.
pub(crate) struct Taking {
    pub(crate) appends: Appends,
    pub(crate) env: Env,
    pub(crate) traffic: Traffic,
    pub(crate) budget: Budget,
    pub(crate) stopping: Stopping,
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What replies are in order of. Those to names that are none are in order of each other.
type Lane = Option<(TopicName, u32)>;

/// A request, and what goes with it to its reply.
struct Asked {
    id: u64,
    lane: Lane,
    began: Monotonic,
    bytes: usize,
}

/// A request that has its share, or will have none.
struct Weighed {
    asked: Asked,
    new: NewAppend,
    share: Result<Share, NoShare>,
}

/// A request whose batch was checked.
struct Checked {
    asked: Asked,
    ready: Result<(Ready, Share), v1::Error>,
}

/// A reply that is due, and whom it holds up.
struct Answered {
    reply: v1::AppendReply,
    told: oneshot::Sender<()>,
}

impl<S: Stream<Item = Result<v1::AppendRequest, Status>> + Unpin> Appending<S> {
    pub(crate) fn new(agent: Taking, requests: S, replies: Sender<v1::AppendReply>) -> Self {
        Self {
            agent,
            requests,
            weighed: None,
            checks: FuturesOrdered::new(),
            answers: FuturesUnordered::new(),
            last: HashMap::new(),
            replies,
        }
    }

    /// Until the client has closed its side and everything is answered, or is gone.
    ///
    /// # Errors
    /// A malformed message, which ends the stream once what came before it is answered; an agent that
    /// stops, once all that it took is; or a client that takes no replies.
    pub(crate) async fn run(mut self) -> Result<(), v1::Error> {
        let mut open = true;
        let mut ended = Ok(());
        let stopping = self.agent.stopping.clone().told();
        tokio::pin!(stopping);
        loop {
            let on_their_way = self.checks.len() + self.answers.len();
            let room = self.replies.room();
            let next = open
                && self.weighed.is_none()
                && self.checks.len() < STREAM_CHECKS_MAX
                && on_their_way < room;
            tokio::select! {
                biased;
                Some(answered) = self.answers.next(), if !self.answers.is_empty() => {
                    match self.replies.put(answered.reply) {
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
                Some(weighed) = its_turn(&mut self.weighed), if self.weighed.is_some() => {
                    self.weighed = None;
                    self.check(weighed);
                }
                // Nothing is on its way then.
                taken = self.replies.taken(), if open && room == 0 => match taken {
                    Ok(()) => {}
                    Err(Unsent::Gone) => return Ok(()),
                    Err(Unsent::Stalled) => return Err(stalled()),
                },
                () = &mut stopping, if open => {
                    ended = Err(fault::stops_appends());
                    open = false;
                }
                request = self.requests.next(), if next => match request {
                    Some(Ok(request)) => self.weigh(request),
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

    /// Asks for the share of a request that may be one.
    fn weigh(&mut self, request: v1::AppendRequest) {
        let id = request.request_id;
        let now = crate::server::now(&self.agent.env);
        let topic = fault::topic_name(&request.topic);
        let asked = Asked {
            id,
            lane: topic.clone().ok().map(|topic| (topic, request.partition)),
            began: self.agent.env.clock.monotonic(),
            bytes: bytes(&request),
        };
        match topic.and_then(|topic| new_append(topic, request, now)) {
            Ok(new) => {
                let budget = self.agent.budget.clone();
                let weight = weight(&new.batch);
                let weighed = async move {
                    let share = budget.take(weight).await;
                    Weighed { asked, new, share }
                };
                self.weighed = Some(weighed.boxed());
            }
            Err(error) => self.refuse(asked, error),
        }
    }

    /// Nothing comes of it; its reply has its turn all the same.
    fn refuse(&mut self, asked: Asked, error: v1::Error) {
        let ready = Err(error);
        let checked = futures::future::ready(Checked { asked, ready });
        self.checks.push_back(checked.boxed());
    }

    fn check(&mut self, weighed: Weighed) {
        let Weighed { asked, new, share } = weighed;
        let mut share = match share {
            Ok(share) => share,
            Err(none) => return self.refuse(asked, fault::no_share_to_append(none)),
        };
        let appends = self.agent.appends.clone();
        let kept = new.batch.len() + APPEND_OVERHEAD_BYTES;
        let check = async move {
            let ready = appends.check(new).await.map_err(fault::of_append)?;
            share.keep(kept);
            Ok((ready, share))
        };
        // Several are checked at the same time, each in a task of its own; one alone needs no wake-up.
        let check: BoxFuture<'static, Option<_>> = if self.checks.is_empty() {
            AssertUnwindSafe(check)
                .catch_unwind()
                .map(Result::ok)
                .boxed()
        } else {
            tokio::spawn(check).map(Result::ok).boxed()
        };
        let checked = async move {
            let ready = check.await.unwrap_or_else(|| {
                tracing::error!("a check panicked, as said above");
                Err(v1::Error::new(
                    v1::Code::Internal,
                    Durability::NotWritten,
                    "the batch could not be checked; nothing is stored",
                ))
            });
            Checked { asked, ready }
        };
        self.checks.push_back(checked.boxed());
    }

    async fn submit(&mut self, checked: Checked) {
        let Checked { asked, ready } = checked;
        let Asked {
            id,
            lane,
            began,
            bytes,
        } = asked;
        let answer: BoxFuture<'static, Result<Appended, v1::Error>> = match ready {
            Err(error) => futures::future::ready(Err(error)).boxed(),
            Ok((ready, share)) => match self.agent.appends.submit(ready).await {
                Ok(answer) => answer
                    .map(move |answer| {
                        drop(share);
                        answer.map_err(fault::of_append)
                    })
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
        let (env, traffic) = (self.agent.env.clone(), self.agent.traffic.clone());
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

/// What comes of `waiting`, if somebody waits.
async fn its_turn(waiting: &mut Option<BoxFuture<'static, Weighed>>) -> Option<Weighed> {
    match waiting {
        Some(waiting) => Some(waiting.await),
        None => None,
    }
}

/// Bytes of a request's records, as they came.
fn bytes(request: &v1::AppendRequest) -> usize {
    match &request.payload {
        Some(Payload::Batch(batch)) => batch.len(),
        Some(Payload::Records(records)) => esker_proto::encoded_bytes(records),
        None => 0,
    }
}

/// Bytes of memory that `batch` takes until it is answered; while it is checked, what it decodes
/// to is part of that.
fn weight(batch: &Bytes) -> usize {
    batch.len() + esker_record::decoded_bytes_most(batch) + APPEND_OVERHEAD_BYTES
}

fn stalled() -> v1::Error {
    let seconds = REPLY_STALL_MAX.as_secs();
    let text = format!(
        "the client took no reply for {seconds} s, the limit; appends without a reply may be stored: \
         send them again with the same producer and sequence"
    );
    let error = v1::Error::new(v1::Code::Overloaded, Durability::Unknown, text);
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

fn new_append(
    topic: TopicName,
    request: v1::AppendRequest,
    now: Timestamp,
) -> Result<NewAppend, v1::Error> {
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
