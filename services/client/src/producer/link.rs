//! The one stream of appends, and its breaks.
//!
//! Nothing is sent before the service has opened its side: a connection that nobody has taken, such as one
//! to a process that ends just now, leaves nothing in doubt.

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{AppendReply, AppendRequest};
use esker_types::Durability;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::error::{Code, Error};

/// Requests that wait for the stream's flow control.
const REQUESTS_MAX: usize = 16;
/// How long the service's side is waited for: something on the way may keep it back until there is a reply.
const OPENS_WITHIN: Duration = Duration::from_secs(1);

type Opening =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<AppendReply>>, Status>> + Send>>;

/// The stream, if there is one.
pub(super) enum Link {
    Down,
    Up {
        requests: mpsc::Sender<AppendRequest>,
        replies: Replies,
        gate: Arc<Mutex<Gate>>,
    },
}

/// What passes here may reach the service; what does not, cannot.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: bool,
    passed: u64,
}

/// Why there are no more replies.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) error: Error,
    /// The stream was refused as a whole: what the error says is said of all that was sent.
    pub(super) refused: bool,
}

impl Ended {
    /// Whether nothing of what has no reply was taken: the stream was refused, or the service stops and
    /// has answered all that it took. Nobody else says of a break what he cannot know.
    pub(super) fn took_nothing_more(&self) -> bool {
        let stops = self.error.code() == Code::Unavailable;
        (self.refused || stops) && self.error.durability() == Durability::NotWritten
    }
}

/// What comes of a stream.
#[derive(Debug)]
pub(super) enum Told {
    /// Requests may be sent from now on.
    Opened,
    Reply(AppendReply),
}

pub(super) enum Replies {
    Opening(Opening, Pin<Box<Sleep>>),
    /// It is not waited for any more.
    Late(Opening),
    Open(Box<Streaming<AppendReply>>),
}

impl Link {
    pub(super) fn open(mut client: LogClient<Channel>) -> Self {
        let (requests, mut waiting) = mpsc::channel(REQUESTS_MAX);
        let gate = Arc::new(Mutex::new(Gate::default()));
        let passage = Arc::clone(&gate);
        let outgoing = stream::poll_fn(move |context| {
            let mut gate = lock(&passage);
            if gate.shut {
                return Poll::Ready(None);
            }
            let next = waiting.poll_recv(context);
            gate.passed += u64::from(matches!(next, Poll::Ready(Some(_))));
            next
        });
        let opening = async move { client.append(outgoing).await };
        Self::Up {
            requests,
            replies: Replies::Opening(Box::pin(opening), Box::pin(sleep(OPENS_WITHIN))),
            gate,
        }
    }

    /// Gives the stream up. Says how many of its requests may have reached the service: the first
    /// ones, and no others from now on.
    pub(super) fn take_down(&mut self) -> u64 {
        match std::mem::replace(self, Self::Down) {
            Self::Down => 0,
            Self::Up { gate, .. } => {
                let mut gate = lock(&gate);
                gate.shut = true;
                gate.passed
            }
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }

    /// Whether one request more may be sent.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Down => false,
            Self::Up {
                requests, replies, ..
            } => replies.is_open() && requests.capacity() > 0,
        }
    }

    /// Sends `request`; there must be room. A stream that broke just now says so in its replies.
    pub(super) fn send(&self, request: AppendRequest) {
        if let Self::Up { requests, .. } = self {
            let _ = requests.try_send(request);
        }
    }

    /// Waits for room.
    pub(super) async fn room(requests: Option<mpsc::Sender<AppendRequest>>) {
        match requests {
            // If there never will be, the replies say why.
            Some(requests) => match requests.reserve().await {
                Ok(_) => {}
                Err(_) => pending().await,
            },
            None => pending().await,
        }
    }

    /// Where there will be room; while the stream opens, its replies tell.
    pub(super) fn requests(&self) -> Option<mpsc::Sender<AppendRequest>> {
        match self {
            Self::Up {
                requests, replies, ..
            } if replies.is_open() => Some(requests.clone()),
            _ => None,
        }
    }

    /// What comes next; waits for ever while there is no stream. May be dropped and called again.
    /// After an error the stream is of no use.
    pub(super) async fn told(&mut self) -> Result<Told, Ended> {
        let Self::Up { replies, .. } = self else {
            return pending().await;
        };
        let opened = match replies {
            Replies::Opening(opening, late) => tokio::select! {
                biased;
                opened = opening.as_mut() => opened,
                () = late.as_mut() => return Ok(replies.give_up_waiting()),
            },
            Replies::Late(opening) => opening.as_mut().await,
            Replies::Open(stream) => {
                let told = stream.message().await.map_err(Error::from);
                let told = told.and_then(|reply| {
                    reply.ok_or_else(|| {
                        let text = "the service ended the stream";
                        Error::new(Code::Unavailable, Durability::Unknown, text)
                    })
                });
                return told.map(Told::Reply).map_err(|error| Ended {
                    error,
                    refused: false,
                });
            }
        };
        let opened = opened.map_err(|status| Ended {
            error: status.into(),
            refused: true,
        });
        *replies = Replies::Open(Box::new(opened?.into_inner()));
        Ok(Told::Opened)
    }
}

impl Replies {
    const fn is_open(&self) -> bool {
        !matches!(self, Self::Opening(..))
    }

    fn give_up_waiting(&mut self) -> Told {
        let placeholder = Self::Late(Box::pin(pending()));
        if let Self::Opening(opening, _) = std::mem::replace(self, placeholder) {
            *self = Self::Late(opening);
        }
        Told::Opened
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "Down",
            Self::Up { .. } => "Up",
        })
    }
}

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().expect("no holder panics")
}
