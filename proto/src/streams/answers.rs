//! Answers of one message each, which may be large: written in pieces by who serves, read where they came by
//! who asked.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, Iter};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderName, HeaderValue};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use tower::Service;

use super::came::Came;
use super::sent::{InPieces, Sent};
use super::{Aside, take};

/// Bytes of an answer from which on it goes in pieces.
const LARGE_BYTES: usize = 32 << 10;

/// An answer as a handler returns it. If it is large, it is set aside as pieces and tonic writes an empty one,
/// in whose place [`put_back`] puts it.
pub fn in_pieces<T: InPieces + Default + 'static>(answer: T) -> Response<T> {
    if answer.encoded_len() < LARGE_BYTES {
        return Response::new(answer);
    }
    let body = Whole(Some(Sent::new(stream::iter([answer]))));
    let mut response = Response::new(T::default());
    response.extensions_mut().insert(Aside::of(Body::new(body)));
    response
}

/// The body that was set aside, if one was.
pub(crate) fn put_back(mut response: http::Response<Body>) -> http::Response<Body> {
    match take(response.extensions_mut()) {
        Some(body) => response.map(|_| body),
        None => response,
    }
}

/// One answer, and behind it that all went well.
struct Whole<T>(Option<Sent<Iter<std::array::IntoIter<T, 1>>>>);

impl<T: InPieces> http_body::Body for Whole<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(sent) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = ready!(http_body::Body::poll_frame(Pin::new(sent), context));
        Poll::Ready(frame.or_else(|| {
            self.0 = None;
            let status = HeaderName::from_static("grpc-status");
            let trailers = [(status, HeaderValue::from_static("0"))];
            Some(Ok(Frame::trailers(
                trailers.into_iter().collect::<HeaderMap>(),
            )))
        }))
    }
}

/// A way to `channel` for one call, whose answer is read by [`answered`].
#[must_use]
pub const fn asking(channel: Channel) -> Asking {
    Asking { channel }
}

/// What [`asking`] gives.
pub struct Asking {
    channel: Channel,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}

impl Service<http::Request<Body>> for Asking {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answering = Service::call(&mut self.channel, request);
        Box::pin(async move {
            let (mut parts, body) = answering.await?.into_parts();
            parts.extensions.insert(Aside::of(body));
            Ok(http::Response::from_parts(parts, Body::empty()))
        })
    }
}

/// The one answer in `response`, of at most `bytes_max` bytes, once the call has ended well: a call that is
/// dropped before its end is one that was broken off, which a connection bears only so often.
///
/// # Errors
/// What the service said, or the connection; or if there is no answer, or another one behind it.
pub async fn answered<T>(
    mut response: Response<Streaming<T>>,
    bytes_max: usize,
) -> Result<T, Status>
where
    T: Message + Default + Send + 'static,
{
    let body = take(response.extensions_mut());
    let mut came = match body {
        Some(body) => Came::answer(body, bytes_max),
        None => Came::copied(response.into_inner()),
    };
    let none = || Status::internal("the call ended without an answer");
    let answer = came.message().await?.ok_or_else(none)?;
    match came.message().await? {
        None => Ok(answer),
        Some(_) => Err(Status::internal("there is more than one answer")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;
    use tonic::Code;

    use super::*;
    use crate::internal::accepted_run::Batch;
    use crate::internal::answer::Of;
    use crate::internal::{AcceptedRun, Answer, HeadRead, Mark, head_read};

    const MOST: usize = 1 << 20;

    fn bytes(length: usize) -> Bytes {
        (0..length).map(|at| at.to_le_bytes()[0]).collect()
    }

    fn of(of: Of) -> Answer {
        let mark = Some(Mark {
            incarnation: 3,
            index: 70_000,
        });
        Answer { mark, of: Some(of) }
    }

    fn accepted(sizes: &[usize]) -> Answer {
        let batches = sizes.iter().map(|size| Batch {
            leader_epoch: 7,
            hash: bytes(16),
            batch: bytes(*size),
            ..Batch::default()
        });
        of(Of::Accepted(AcceptedRun {
            batches: batches.collect(),
            upto: 9,
        }))
    }

    fn read(sizes: &[usize]) -> Answer {
        let batches = sizes.iter().map(|size| head_read::Records {
            leader_epoch: 2,
            batch: bytes(*size),
            ..head_read::Records::default()
        });
        of(Of::Read(HeadRead {
            batches: batches.collect(),
            by_follower: true,
            ..HeadRead::default()
        }))
    }

    /// The body that was set aside, as frames, and whether its end says that all went well.
    async fn frames(answer: Answer) -> (Vec<Bytes>, bool) {
        let mut body = take(in_pieces(answer).extensions_mut()).expect("it is large");
        let (mut frames, mut well) = (Vec::new(), false);
        while let Some(frame) = std::future::poll_fn(|context| {
            http_body::Body::poll_frame(Pin::new(&mut body), context)
        })
        .await
        {
            match frame.unwrap().into_data() {
                Ok(data) => frames.push(data),
                Err(trailers) => well = trailers.trailers_ref().unwrap()["grpc-status"] == "0",
            }
        }
        (frames, well)
    }

    /// Frames of data, and the status behind them.
    struct Told(VecDeque<Bytes>, Option<Status>);

    impl http_body::Body for Told {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let data = self.0.pop_front().map(Frame::data);
            let frame = data.or_else(|| {
                let mut trailers = HeaderMap::new();
                self.1.take()?.add_header(&mut trailers).unwrap();
                Some(Frame::trailers(trailers))
            });
            Poll::Ready(frame.map(Ok))
        }
    }

    async fn answer(frames: Vec<Bytes>, told: Option<Status>) -> Result<Answer, Status> {
        let body = Body::new(Told(frames.into(), told));
        let mut came = Came::<Answer>::answer(body, MOST);
        let answer = came.message().await?.expect("an answer");
        match came.message().await? {
            None => Ok(answer),
            Some(more) => panic!("{more:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_large_goes_in_pieces_which_are_what_prost_writes() {
        let sizes = [0, 1, 4095, 4096, 4097, 70_000, 0, 200_000];
        for large in [accepted(&sizes), read(&sizes), read(&[100_000])] {
            let (frames, well) = frames(large.clone()).await;
            assert!(well);
            let whole = frames.concat();
            assert_eq!(whole.len(), 5 + large.encoded_len());
            assert_eq!(Answer::decode(&whole[5..]).unwrap(), large);
            let told = Some(Status::ok(""));
            assert_eq!(answer(frames, told).await.unwrap(), large);
        }
    }

    #[tokio::test]
    async fn a_batch_is_not_copied_on_either_side() {
        let batch = bytes(100_000);
        let run = AcceptedRun {
            batches: vec![Batch {
                batch: batch.clone(),
                ..Batch::default()
            }],
            upto: 1,
        };
        let (frames, _) = frames(of(Of::Accepted(run))).await;
        let came = answer(frames, Some(Status::ok(""))).await.unwrap();
        let Some(Of::Accepted(run)) = came.of else {
            panic!("{came:?}");
        };
        assert_eq!(run.batches[0].batch.as_ptr(), batch.as_ptr());
    }

    #[test]
    fn what_is_small_is_left_to_tonic() {
        for small in [accepted(&[100]), of(Of::Offset(7)), Answer::default()] {
            let mut response = in_pieces(small.clone());
            assert!(take(response.extensions_mut()).is_none());
            assert_eq!(response.into_inner(), small);
        }
    }

    #[tokio::test]
    async fn an_answer_counts_once_the_call_has_ended_well() {
        let (frames, _) = frames(accepted(&[50_000])).await;
        let silent = answer(frames.clone(), None).await.unwrap_err();
        assert_eq!(silent.code(), Code::Internal);
        let failed = answer(frames, Some(Status::aborted("no"))).await;
        let failed = failed.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Aborted, "no"));
    }
}
