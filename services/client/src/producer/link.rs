//! The one stream of appends, and its breaks.

use std::fmt;
use std::future::pending;
use std::pin::Pin;

use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{AppendReply, AppendRequest};
use esker_types::Durability;
use futures::stream;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::error::{Code, Error};

/// Requests that wait for the stream's flow control.
const REQUESTS_MAX: usize = 16;

type Opening =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<AppendReply>>, Status>> + Send>>;

/// The stream, if there is one.
pub(super) enum Link {
    Down,
    Up {
        requests: mpsc::Sender<AppendRequest>,
        replies: Replies,
    },
}

/// Requests may be sent before the service has opened its side.
pub(super) enum Replies {
    Opening(Opening),
    Open(Box<Streaming<AppendReply>>),
}

impl Link {
    pub(super) fn open(mut client: LogClient<Channel>) -> Self {
        let (requests, mut waiting) = mpsc::channel(REQUESTS_MAX);
        let outgoing = stream::poll_fn(move |context| waiting.poll_recv(context));
        let opening = async move { client.append(outgoing).await };
        Self::Up {
            requests,
            replies: Replies::Opening(Box::pin(opening)),
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self, Self::Down)
    }

    /// Whether one request more may be sent.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Down => false,
            Self::Up { requests, .. } => requests.capacity() > 0,
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

    pub(super) fn requests(&self) -> Option<mpsc::Sender<AppendRequest>> {
        match self {
            Self::Down => None,
            Self::Up { requests, .. } => Some(requests.clone()),
        }
    }

    /// The next reply; waits for ever while there is no stream. May be dropped and called again.
    /// After an error the stream is of no use.
    pub(super) async fn reply(&mut self) -> Result<AppendReply, Error> {
        loop {
            let Self::Up { replies, .. } = self else {
                pending::<()>().await;
                continue;
            };
            match replies {
                Replies::Opening(opening) => {
                    *replies = Replies::Open(Box::new(opening.as_mut().await?.into_inner()));
                }
                Replies::Open(stream) => {
                    return stream.message().await?.ok_or_else(|| {
                        let text = "the service ended the stream";
                        Error::new(Code::Unavailable, Durability::Unknown, text)
                    });
                }
            }
        }
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
