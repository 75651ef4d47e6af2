//! One stream of appends to a node.
//!
//! Nothing but its beginning is sent before the node has opened its side: a connection that nobody has
//! taken, such as one to a process that ends just now, leaves nothing in doubt.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use esker_proto::internal::head_client::HeadClient;
use esker_proto::internal::{AppendAnswers, AppendCall};
use esker_proto::streams;
use esker_proto::tuning::PEER_MESSAGE_BYTES_MAX;
use esker_types::ShardId;
use futures::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::gate::Gate;
use super::search::{nothing_done, stops};
use super::ways::Ways;
use crate::words::Append;
use crate::words::{Beginning, append_call, beginning};

/// Messages that wait for the stream's flow control.
const MESSAGES_MAX: usize = 64;

type Opening =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<AppendAnswers>>, Status>> + Send>>;

/// The stream, if there is one.
pub(super) enum Link {
    Down,
    Up(Up),
}

pub(super) struct Up {
    messages: mpsc::Sender<AppendCall>,
    /// Messages so far.
    sent: u64,
    answers: Answers,
    gate: Gate,
}

enum Answers {
    Opening(Opening),
    Open(Box<Streaming<AppendAnswers>>),
}

/// What comes of a stream.
#[derive(Debug)]
pub(super) enum Told {
    /// Appends may be sent from now on.
    Opened,
    Answers(AppendAnswers),
}

/// Why there are no more answers.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    /// Nothing that has no answer was taken: nothing of the stream was listened to, or the node stops and
    /// has answered all that it took.
    pub(super) took_nothing_more: bool,
}

impl Link {
    pub(super) fn open(ways: &Arc<Ways>, shard: ShardId, node: Channel, begins: Beginning) -> Self {
        let (messages, waiting) = mpsc::channel(MESSAGES_MAX);
        let gate = Gate::default();
        let request = ways.request(shard, stream::empty());
        let carrying = streams::carrying(node, gate.before(ReceiverStream::new(waiting)));
        let mut client =
            HeadClient::new(carrying).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
        let opening = async move { client.append(request).await };
        let mut up = Up {
            messages,
            sent: 0,
            answers: Answers::Opening(Box::pin(opening)),
            gate,
        };
        up.put(beginning(begins));
        Self::Up(up)
    }

    /// Gives the stream up. How many of its messages may have reached the node.
    pub(super) fn take_down(&mut self) -> u64 {
        match std::mem::replace(self, Self::Down) {
            Self::Down => 0,
            Self::Up(up) => up.gate.shut(),
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }

    /// Whether the node has yet to open its side.
    pub(super) const fn is_opening(&self) -> bool {
        matches!(
            self,
            Self::Up(Up {
                answers: Answers::Opening(_),
                ..
            })
        )
    }

    /// The number of the next message, if there is room for it.
    pub(super) fn place(&self) -> Option<u64> {
        match self {
            Self::Up(up) if !self.is_opening() && up.messages.capacity() > 0 => Some(up.sent + 1),
            _ => None,
        }
    }

    /// Sends `append`; there must be room. A stream that broke just now says so in its answers.
    pub(super) fn send(&mut self, append: Append) {
        if let Self::Up(up) = self {
            up.put(append_call(append));
        }
    }

    /// What to wait for until there is room; while the stream opens, what it tells.
    pub(super) fn messages(&self) -> Option<mpsc::Sender<AppendCall>> {
        match self {
            Self::Up(up) if !self.is_opening() => Some(up.messages.clone()),
            _ => None,
        }
    }

    /// What comes next; waits for ever while there is no stream. May be dropped and called again.
    pub(super) async fn told(&mut self) -> Result<Told, Ended> {
        let Self::Up(up) = self else {
            return pending().await;
        };
        match &mut up.answers {
            Answers::Opening(opening) => {
                let opened = opening.as_mut().await.map_err(|status| Ended {
                    took_nothing_more: nothing_done(&status),
                    status,
                });
                up.answers = Answers::Open(Box::new(opened?.into_inner()));
                Ok(Told::Opened)
            }
            Answers::Open(stream) => {
                let told = stream.message().await;
                let none = || Status::unavailable("the node ended the stream");
                let told = told.and_then(|told| told.ok_or_else(none));
                told.map(Told::Answers).map_err(|status| Ended {
                    took_nothing_more: stops(&status),
                    status,
                })
            }
        }
    }
}

impl Up {
    fn put(&mut self, message: AppendCall) {
        self.sent += 1;
        let _ = self.messages.try_send(message);
    }
}

/// Waits for room.
pub(super) async fn room(messages: Option<mpsc::Sender<AppendCall>>) {
    match messages {
        // If there never will be, the answers say why.
        Some(messages) => match messages.reserve().await {
            Ok(_) => {}
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "Down",
            Self::Up(_) => "Up",
        })
    }
}
