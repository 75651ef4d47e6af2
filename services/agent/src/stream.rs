//! A stream of replies, and the task that makes them.
//!
//! ```text
//!   task ─ send ─► replies, bounded ─► client
//!     └─ its end: an error, or a bug ─► the last thing the client sees
//! ```
//! A task that dies must not look like the end of what there is to say.

use std::future::Future;
use std::pin::Pin;

use esker_proto::v1::Error;
use esker_types::limits::REPLY_STALL_MAX;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::budget::{Budget, Share};
use crate::gate::bug;

/// What a call answers with.
pub(crate) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where a task puts its replies.
pub(crate) struct Sender<T>(mpsc::Sender<Held<T>>);

/// A reply, and what it holds until it is taken.
struct Held<T>(
    T,
    #[expect(dead_code, reason = "held, not read")] Option<Share>,
);

/// Why a reply was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unsent {
    /// The client has gone.
    Gone,
    /// It has taken nothing for [`REPLY_STALL_MAX`].
    Stalled,
}

/// Runs `task` with room for `waiting` replies; what it returns ends the stream.
pub(crate) fn replies<T, F>(waiting: usize, task: impl FnOnce(Sender<T>) -> F) -> Replies<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(waiting);
    let task = tokio::spawn(task(Sender(sender)));
    let end = futures::stream::once(task).filter_map(|ended| async {
        match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error.into())),
            Err(error) => {
                tracing::error!(%error, "what made a stream's replies panicked");
                let text = "the stream ended in a bug of the server: what has no reply may be done";
                Some(Err(bug(text).into()))
            }
        }
    });
    let replies = ReceiverStream::new(receiver).map(|Held(reply, _)| Ok(reply));
    Box::pin(replies.chain(end))
}

impl<T> Sender<T> {
    /// Sends a reply of `bytes`: beside others if `budget` can spare a share for it, else alone. So no
    /// client waits for what another one leaves where it is.
    pub(crate) async fn send_within(
        &self,
        reply: T,
        bytes: usize,
        budget: &Budget,
    ) -> Result<(), Unsent> {
        if let Some(share) = budget.take_spare(bytes) {
            return self.send_held(reply, Some(share)).await;
        }
        let alone = self.0.reserve_many(self.0.max_capacity());
        match tokio::time::timeout(REPLY_STALL_MAX, alone).await {
            Ok(Ok(mut places)) => {
                let place = places.next().expect("a channel has a place");
                place.send(Held(reply, None));
                Ok(())
            }
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Stalled),
        }
    }

    /// Sends a reply that holds nothing.
    pub(crate) async fn send(&self, reply: T) -> Result<(), Unsent> {
        self.send_held(reply, None).await
    }

    async fn send_held(&self, reply: T, share: Option<Share>) -> Result<(), Unsent> {
        let sent = self.0.send(Held(reply, share));
        match tokio::time::timeout(REPLY_STALL_MAX, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Stalled),
        }
    }

    /// Replies for which there is room.
    pub(crate) fn room(&self) -> usize {
        self.0.capacity()
    }

    /// Sends one reply for which there is room, as [`Sender::room`] says.
    pub(crate) fn put(&self, reply: T) -> Result<(), Unsent> {
        self.0
            .try_send(Held(reply, None))
            .map_err(|unsent| match unsent {
                TrySendError::Closed(_) => Unsent::Gone,
                TrySendError::Full(_) => Unsent::Stalled,
            })
    }

    /// Ready once there is room for a reply.
    pub(crate) async fn taken(&self) -> Result<(), Unsent> {
        match tokio::time::timeout(REPLY_STALL_MAX, self.0.reserve()).await {
            Ok(Ok(_room)) => Ok(()),
            Ok(Err(_)) => Err(Unsent::Gone),
            Err(_) => Err(Unsent::Stalled),
        }
    }

    /// Ready once the client has gone.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_proto::v1::Code;

    #[tokio::test]
    async fn a_task_that_panics_is_told_after_what_it_sent() {
        let mut stream = replies(4, |replies| async move {
            replies.put(7).unwrap();
            panic!("as any bug would");
        });
        assert_eq!(stream.next().await.unwrap().unwrap(), 7);
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
        assert_eq!(Error::from(&status).code(), Code::Internal);
        assert!(!status.message().contains("any bug"), "{status}");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_noticed() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let budget = Budget::new(30, crate::budget::Held::default());
        let stream = replies(2, |replies| async move {
            let mut sent = 0;
            let unsent = loop {
                match replies.send_within(sent, 10, &budget).await {
                    Ok(()) => sent += 1,
                    Err(unsent) => break unsent,
                }
            };
            ended.send((sent, unsent)).unwrap();
            Ok(())
        });
        // The second would have waited alone, for which the first is in the way.
        assert_eq!(end.await, Ok((1, Unsent::Stalled)));
        drop(stream);
    }
}
