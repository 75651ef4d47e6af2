//! Bodies of requests, cut where the messages in them begin.
//!
//! ```text
//!   frames   │ 5 │ message ……│…… message │ 5 │ mess…│
//!   pieces   │ 5 │ message ……│…… message │ 5 │ mess…│     nothing is copied
//! ```
//! tonic makes room for a message once it has read its five bytes of prefix: for all of it, beside what came
//! along with the prefix and is there already. A message that came in one frame so took twice its size, for as
//! long as any of its bytes were kept, and was copied twice. Where the prefix comes alone, the message gets as
//! much as it needs.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::layer::util::Stack;
use tower::util::{MapRequestLayer, MapResponseLayer};

use crate::streams;

/// Bytes before a message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// What cuts the bodies of a server's requests, but for those that [`streams`] takes aside, and puts back those of
/// answers that it has taken aside.
pub type Layer = Stack<
    MapRequestLayer<fn(Request<Body>) -> Request<Body>>,
    MapResponseLayer<fn(Response<Body>) -> Response<Body>>,
>;

/// The same, for [`tonic::transport::Server::layer`].
pub(crate) fn layer() -> Layer {
    let requests = MapRequestLayer::new(cut as fn(_) -> _);
    let answers = MapResponseLayer::new(streams::put_back as fn(_) -> _);
    Stack::new(requests, answers)
}

fn cut(request: Request<Body>) -> Request<Body> {
    streams::set_aside(request).map(|body| Body::new(Cut::of(body)))
}

/// A body and how far it is read.
struct Cut {
    body: Body,
    /// Of the frame that came last, what is still to be handed on.
    rest: Bytes,
    at: At,
}

/// What comes next.
enum At {
    /// A prefix, of which some may have come.
    Prefix([u8; PREFIX_BYTES], usize),
    /// Bytes of a message, at least one.
    Message(usize),
}

impl Cut {
    fn of(body: Body) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            at: At::Prefix([0; PREFIX_BYTES], 0),
        }
    }

    /// The next piece of `rest`, which is not empty; `None` if that was a part of a prefix.
    fn piece(&mut self) -> Option<Bytes> {
        match &mut self.at {
            At::Message(left) => {
                let piece = self.rest.split_to(self.rest.len().min(*left));
                *left -= piece.len();
                if *left == 0 {
                    self.at = At::Prefix([0; PREFIX_BYTES], 0);
                }
                Some(piece)
            }
            At::Prefix(prefix, came) => {
                let more = self.rest.len().min(PREFIX_BYTES - *came);
                self.rest.copy_to_slice(&mut prefix[*came..*came + more]);
                *came += more;
                if *came < PREFIX_BYTES {
                    return None;
                }
                // Memory of its own, which tonic takes over instead of keeping the last message's.
                let piece = Bytes::copy_from_slice(prefix);
                let [_, a, b, c, d] = *prefix;
                self.at = match u32::from_be_bytes([a, b, c, d]) {
                    0 => At::Prefix([0; PREFIX_BYTES], 0),
                    length => At::Message(length as usize),
                };
                Some(piece)
            }
        }
    }

    /// What has come of a prefix that will not become whole: tonic says so.
    fn torn(&mut self) -> Option<Bytes> {
        match &mut self.at {
            At::Prefix(prefix, came) if *came > 0 => {
                let came = std::mem::take(came);
                Some(Bytes::copy_from_slice(&prefix[..came]))
            }
            _ => None,
        }
    }
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            while !this.rest.is_empty() {
                if let Some(piece) = this.piece() {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(this.torn().map(|torn| Ok(Frame::data(torn)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let between = matches!(self.at, At::Prefix(_, 0));
        self.rest.is_empty() && between && self.body.is_end_stream()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    /// A body of `frames`.
    pub(crate) struct Frames(pub(crate) VecDeque<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    /// `text` with its prefix.
    pub(crate) fn message(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[0], &length[..], text].concat()
    }

    /// `frames`, cut.
    pub(crate) fn body(frames: Vec<Bytes>) -> Body {
        Body::new(Cut::of(Body::new(Frames(frames.into()))))
    }

    async fn pieces(frames: Vec<Bytes>) -> Vec<Bytes> {
        let mut cut = Cut::of(Body::new(Frames(frames.into())));
        let mut pieces = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut cut).poll_frame(context)).await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        assert!(cut.rest.is_empty());
        pieces
    }

    #[tokio::test]
    async fn prefixes_come_alone_wherever_frames_end_and_nothing_is_lost() {
        let whole = [
            message(b"one"),
            message(b""),
            message(b"three and more"),
            vec![0, 0, 0],
        ];
        let whole = Bytes::from(whole.concat());
        for size in 1..=whole.len() {
            let frames = whole.chunks(size).map(Bytes::copy_from_slice).collect();
            let pieces = pieces(frames).await;
            assert_eq!(pieces.concat(), whole, "frames of {size}");
            let starts: Vec<_> = pieces
                .iter()
                .scan(0, |at, piece| {
                    Some((std::mem::replace(at, *at + piece.len()), piece.len()))
                })
                .collect();
            for prefix in [0, 8, 13] {
                assert!(
                    starts.contains(&(prefix, PREFIX_BYTES)),
                    "frames of {size}: {starts:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_comes_in_one_frame_is_handed_on_where_it_lies() {
        let frame = Bytes::from([message(b"one"), message(b"two")].concat());
        let pieces = pieces(vec![frame.clone()]).await;
        let lengths: Vec<_> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [5, 3, 5, 3]);
        assert_eq!(pieces[1].as_ptr(), frame[5..].as_ptr());
        assert_eq!(pieces[3].as_ptr(), frame[13..].as_ptr());
    }
}
