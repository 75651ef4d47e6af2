//! A snapshot that goes to another node, and the end of waiting for who takes it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use esker_proto::internal::install_part::{Beginning, Part};
use esker_proto::internal::raft_client::RaftClient;
use esker_proto::internal::{self as wire};
use esker_types::limits::{CHECKPOINT_CHUNK_BYTES, INSTALL_ANSWER_MAX};
use esker_types::{EntryId, NodeId};
use esker_wal::disk::{Body, Vote};
use esker_wal::peers::PeerError;
use esker_wal::raft::Outgoing;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, Stream};
use tokio::time::{Instant, sleep_until};
use tonic::Request;
use tonic::transport::Channel;

use super::calling::{answer, unread};
use super::reach::Reach;
use super::words;

/// Sends `outgoing`, and waits until it is installed, or nothing more of it is taken.
pub(super) async fn installed(
    (node, reach): (NodeId, Reach),
    client: Result<RaftClient<Channel>, PeerError>,
    request: Request<()>,
    leader: Vote,
    outgoing: Outgoing,
) -> Result<Vote, PeerError> {
    // What follows on it is kept until it is installed.
    let taken = Taken::default();
    let seen = taken.clone();
    let parts = parts(leader, &outgoing).inspect(move |_| seen.note());
    let mut client = client?;
    let installed = client.install(request.map(|()| Sent(parts.boxed())));
    let reply = tokio::select! {
        biased;
        reply = installed => reply,
        () = taken.no_more() => {
            let text = format!("it took nothing of a snapshot for {INSTALL_ANSWER_MAX:?}, nor said what became of it");
            return Err(PeerError(text));
        }
    };
    drop(outgoing);
    let reply = answer(&reach, node, reply)?;
    words::read_vote(reply.vote).map_err(|fault| unread(node, fault))
}

/// Messages of a stream. A type of its own, since the compiler cannot see that a boxed stream may
/// be sent by a future that holds it.
struct Sent<T>(BoxStream<'static, T>);

impl<T> Stream for Sent<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(context)
    }
}

/// When a part was last taken. Clones share it.
#[derive(Clone)]
struct Taken(Arc<Mutex<Instant>>);

impl Default for Taken {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Taken {
    fn note(&self) {
        *self.0.lock().expect("nothing panics under this lock") = Instant::now();
    }

    /// Waits until nothing has been taken for [`INSTALL_ANSWER_MAX`].
    async fn no_more(&self) {
        loop {
            let last = *self.0.lock().expect("nothing panics under this lock");
            let due = last + INSTALL_ANSWER_MAX;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A snapshot, as it travels. Its head is read as it goes, no faster than it is taken. Where an entry cannot
/// be read it ends before it is whole, so that who takes it lets go of it.
fn parts(leader: Vote, outgoing: &Outgoing) -> BoxStream<'static, wire::InstallPart> {
    let sent = outgoing.checkpoint().clone();
    let (shard, last) = (sent.shard, sent.last);
    let beginning = Part::Beginning(Beginning {
        leader: words::vote(leader),
        last: words::id(sent.last),
        state_bytes: sent.state_bytes(),
        membership: sent.membership,
        entries: outgoing.entries(),
        head_bytes: outgoing.head_bytes(),
    });
    let state = stream::iter(sent.state.into_iter().flat_map(pieces)).map(Part::State);
    let entries = outgoing.head().scan((), move |(), read| {
        let read = read.inspect_err(|error| {
            tracing::warn!(%shard, %last, %error, "a snapshot was not sent to its end");
        });
        std::future::ready(read.ok())
    });
    let entries = entries.map(entry);
    let parts = stream::iter([beginning]).chain(state).chain(entries);
    parts.map(part).boxed()
}

/// What fits a message, whatever `state` is: one that was read from a file is in one piece.
fn pieces(mut state: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let piece = state.split_to(state.len().min(CHECKPOINT_CHUNK_BYTES));
        (!piece.is_empty()).then_some(piece)
    })
}

fn entry(entry: (EntryId, Body)) -> Part {
    Part::Entry(words::entry(entry))
}

fn part(part: Part) -> wire::InstallPart {
    wire::InstallPart { part: Some(part) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use esker_proto::tuning;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_more_is_given_up() {
        let (taken, began) = (Taken::default(), Instant::now());
        let seen = taken.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(INSTALL_ANSWER_MAX / 2).await;
                seen.note();
            }
        });
        taken.no_more().await;
        let waited = began.elapsed();
        let expected = INSTALL_ANSWER_MAX / 2 * 3 + INSTALL_ANSWER_MAX;
        assert!(
            (expected..expected + Duration::from_secs(1)).contains(&waited),
            "{waited:?}"
        );
    }

    #[test]
    fn a_state_of_any_size_goes_in_pieces_that_fit_a_message() {
        let state = Bytes::from(vec![7; 2 * tuning::PEER_MESSAGE_BYTES_MAX + 5]);
        let sent: Vec<_> = pieces(state.clone()).collect();
        assert!(
            sent.iter()
                .all(|piece| piece.len() <= CHECKPOINT_CHUNK_BYTES)
        );
        assert_eq!(sent.concat(), state);
        assert_eq!(sent[0].as_ptr(), state.as_ptr());
        assert_eq!(pieces(Bytes::new()).count(), 0);
    }
}
