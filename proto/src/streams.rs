//! Streams of messages that carry batches, of which large ones are not copied on their way: tonic would copy
//! them once to send and once to receive.
//!
//! ```text
//!   message ─► fields, batch ─► frames of HTTP/2 ═══► frames ─► message, whose batch is a slice of a frame
//!     Sent                      as gRPC has them                 Came
//! ```
//! Stubs stay as they are generated, and so does the protocol, but for the order of fields: on either side the
//! body is put in the place of the one that tonic reads or writes. Who calls hands [`carrying`] to its stub;
//! who serves asks [`came`] for the messages of a request whose body was [`set_aside`]. Likewise an answer: who
//! serves returns it [`in_pieces`], who calls hands [`asking`] to its stub and gets it by [`answered`].

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::Stream;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tower::Service;

pub use answers::{Asking, answered, asking, in_pieces};
pub use came::Came;
pub use sent::{InPieces, Pieces};

pub(crate) use answers::put_back;
use sent::Sent;

mod sent; // messages as pieces, which are frames of a body

mod came; // frames of a body as messages

mod answers; // an answer of one message, written and read likewise

/// Whose requests are set aside.
const PATHS: [&str; 2] = [
    "/esker.internal.v1.Raft/Append",
    "/esker.internal.v1.Head/Append",
];

/// A way to `channel` for one call, whose messages are `messages`. The call itself is made with none.
pub fn carrying<T, S>(channel: Channel, messages: S) -> Carrying
where
    T: InPieces,
    S: Stream<Item = T> + Send + Unpin + 'static,
{
    let body = Some(Body::new(Sent::new(messages)));
    Carrying { channel, body }
}

/// What [`carrying`] gives.
pub struct Carrying {
    channel: Channel,
    body: Option<Body>,
}

impl fmt::Debug for Carrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrying")
    }
}

impl Service<http::Request<Body>> for Carrying {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let body = self.body.take();
        Service::call(&mut self.channel, request.map(|none| body.unwrap_or(none)))
    }
}

/// A body, until it is asked for.
#[derive(Clone)]
struct Aside(Arc<Mutex<Option<Body>>>);

/// Takes the body of `request`, if its messages carry batches, out of tonic's way.
pub(crate) fn set_aside(request: http::Request<Body>) -> http::Request<Body> {
    if !PATHS.contains(&request.uri().path()) {
        return request;
    }
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Aside::of(body));
    http::Request::from_parts(parts, Body::empty())
}

/// The messages of `request`, of at most `bytes_max` bytes each.
pub fn came<T>(mut request: Request<Streaming<T>>, bytes_max: usize) -> Came<T>
where
    T: Message + Default + Send + 'static,
{
    match take(request.extensions_mut()) {
        Some(body) => Came::of(body, bytes_max),
        None => Came::copied(request.into_inner()),
    }
}

impl Aside {
    fn of(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }
}

/// The body that was set aside in `extensions`.
fn take(extensions: &mut http::Extensions) -> Option<Body> {
    let Aside(body) = extensions.remove::<Aside>()?;
    let mut body = body.lock().expect("nothing panics under this lock");
    body.take()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;

    use bytes::Bytes;
    use futures::stream;
    use http_body::Body as _;

    use super::*;
    use crate::internal::append_call::{Append, Of};
    use crate::internal::{AppendCall, AppendRequest, Entry, EntryId, PartitionRef, Vote};
    use crate::whole::tests::Frames;

    const MOST: u32 = 1 << 20;

    fn call(number: u64, batch: Bytes) -> AppendCall {
        let append = Append {
            number,
            partition: Some(PartitionRef { topic: 7, index: 3 }),
            records: 9,
            base_timestamp_ms: -5,
            hash: Bytes::from(vec![1; 16]),
            expected_end: Some(0),
            batch,
            ..Append::default()
        };
        let of = Some(Of::Append(append));
        AppendCall { of }
    }

    fn request(batches: &[Bytes]) -> AppendRequest {
        let entry = |(at, batch): (usize, &Bytes)| Entry {
            id: Some(EntryId {
                term: 2,
                index: at as u64,
            }),
            head: Bytes::from_static(b"head"),
            payload: vec![batch.clone(), Bytes::new(), batch.slice(..batch.len() / 2)],
        };
        AppendRequest {
            vote: Some(Vote {
                term: 2,
                node: 1,
                committed: true,
            }),
            previous: None,
            entries: batches.iter().enumerate().map(entry).collect(),
            committed: Some(EntryId { term: 1, index: 9 }),
        }
    }

    fn bytes(length: usize) -> Bytes {
        (0..length).map(|at| at.to_le_bytes()[0]).collect()
    }

    /// Sizes around every bound.
    fn sizes() -> Vec<usize> {
        let bounds = [0, 1, 127, 128, 4096, 32 << 10, 64 << 10, 300_000];
        let around = |bound: usize| [bound.saturating_sub(1), bound, bound + 1];
        bounds.into_iter().flat_map(around).collect()
    }

    async fn frames<T: InPieces + 'static>(messages: Vec<T>) -> Vec<Bytes> {
        let mut sent = Sent::new(stream::iter(messages));
        let mut frames = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut sent).poll_frame(context)).await {
            frames.push(frame.unwrap().into_data().unwrap());
        }
        frames
    }

    fn read<T: Message + Default + Send + 'static>(frames: Vec<Bytes>) -> Came<T> {
        Came::of(Body::new(Frames(frames.into())), MOST as usize)
    }

    async fn all<T: Message + Default + Send + 'static>(frames: Vec<Bytes>) -> Vec<T> {
        let mut came = read(frames);
        let mut messages = Vec::new();
        while let Some(message) = came.message().await.unwrap() {
            messages.push(message);
        }
        messages
    }

    /// As tonic would frame it.
    fn framed(message: &impl Message) -> Vec<u8> {
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &encoded].concat()
    }

    #[tokio::test]
    async fn what_is_sent_is_what_prost_writes_but_for_the_order_of_fields() {
        let calls: Vec<_> = sizes()
            .into_iter()
            .map(|size| call(1, bytes(size)))
            .collect();
        let requests: Vec<_> = sizes()
            .iter()
            .map(|size| request(&[bytes(*size), bytes(7)]))
            .collect();
        for call in &calls {
            let frames = frames(vec![call.clone()]).await.concat();
            assert_eq!(frames.len(), framed(call).len());
            assert_eq!(AppendCall::decode(&frames[5..]).unwrap(), *call);
            assert_eq!(frames[..5], framed(call)[..5]);
        }
        for request in &requests {
            let frames = frames(vec![request.clone()]).await.concat();
            assert_eq!(frames[..5], framed(request)[..5]);
            assert_eq!(AppendRequest::decode(&frames[5..]).unwrap(), *request);
        }
        assert_eq!(all::<AppendCall>(frames(calls.clone()).await).await, calls);
        assert_eq!(
            all::<AppendRequest>(frames(requests.clone()).await).await,
            requests
        );
        let nothing = vec![AppendCall::default(), call(2, Bytes::new())];
        assert_eq!(
            all::<AppendCall>(frames(nothing.clone()).await).await,
            nothing
        );
    }

    #[tokio::test]
    async fn frames_may_be_cut_anywhere_and_may_be_tonics() {
        let messages = vec![
            call(1, bytes(10)),
            call(2, bytes(70_000)),
            call(3, Bytes::new()),
        ];
        let whole = messages.iter().flat_map(framed).collect::<Vec<_>>();
        for piece in [1, 3, 5, 7, 64, 4096, 69_999, 70_000, whole.len()] {
            let cut = whole.chunks(piece).map(Bytes::copy_from_slice).collect();
            assert_eq!(all::<AppendCall>(cut).await, messages, "{piece}");
        }
    }

    #[tokio::test]
    async fn a_batch_is_not_copied_on_either_side() {
        let batch = bytes(200_000);
        let frames = frames(vec![call(1, batch.clone())]).await;
        let large: Vec<_> = frames.iter().filter(|frame| frame.len() > 1000).collect();
        assert_eq!(large.len(), 1);
        assert_eq!(large[0].as_ptr(), batch.as_ptr());
        let came = all::<AppendCall>(frames).await;
        let Some(Of::Append(append)) = &came[0].of else {
            panic!("{came:?}");
        };
        assert_eq!(append.batch.as_ptr(), batch.as_ptr());
    }

    #[tokio::test]
    async fn who_keeps_a_small_batch_does_not_keep_the_frame_that_it_came_in() {
        for (size, beside) in [(60_000, 0), (100_000, 150_000)] {
            let messages = [call(1, bytes(size)), call(2, bytes(beside))];
            let frame = Bytes::from(messages.iter().flat_map(framed).collect::<Vec<_>>());
            let came = all::<AppendCall>(vec![frame.clone()]).await;
            let Some(Of::Append(append)) = &came[0].of else {
                panic!("{came:?}");
            };
            assert_eq!(append.batch, bytes(size));
            let place = append.batch.as_ptr();
            assert!(!frame.as_ptr_range().contains(&place), "{size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_an_error_and_the_end() {
        let whole = framed(&call(1, bytes(100)));
        let torn = Bytes::copy_from_slice(&whole[..whole.len() - 1]);
        let prefix = Bytes::copy_from_slice(&whole[..3]);
        let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
        let mut large = vec![0];
        large.extend((MOST + 1).to_be_bytes());
        let wild = Bytes::from_static(&[0, 0, 0, 0, 2, 0x12, 0xff]);
        let more = |frame| vec![frame, whole.clone().into()];
        for (frames, code) in [
            (vec![torn], tonic::Code::Internal),
            (vec![prefix], tonic::Code::Internal),
            (more(compressed), tonic::Code::Internal),
            (more(large.into()), tonic::Code::OutOfRange),
            (more(wild), tonic::Code::Internal),
        ] {
            let mut came = read::<AppendCall>(frames);
            let error = came.message().await.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert_eq!(came.message().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn small_messages_go_together() {
        let messages: Vec<_> = (0..1000).map(|number| call(number, bytes(20))).collect();
        let frames = frames(messages.clone()).await;
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        assert!(frames.len() <= bytes / (32 << 10) + 1, "{}", frames.len());
        assert_eq!(all::<AppendCall>(frames).await, messages);
    }

    #[test]
    fn the_body_of_other_calls_is_left_where_it_is() {
        for (path, aside) in [
            (PATHS[0], true),
            (PATHS[1], true),
            ("/esker.v1.Log/Append", false),
        ] {
            let mut request = http::Request::new(Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            let request = set_aside(request);
            assert_eq!(
                request.extensions().get::<Aside>().is_some(),
                aside,
                "{path}"
            );
        }
    }
}
