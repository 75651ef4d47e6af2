//! Frames of a body as messages.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::{Body as _, Frame};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status, Streaming};

use crate::whole::PREFIX_BYTES;

/// Bytes from which on a part of a message is a slice of the frame that it came in. It is at least half of that,
/// so that whoever keeps it does not keep much else.
const SLICE_BYTES_MIN: usize = 64 << 10;

/// Messages of a request, or of an answer. What they carry is a slice of what came, where it came in one piece
/// and is most of it; else it is in memory of its own.
pub struct Came<T>(From<T>);

enum From<T> {
    Body(Box<Frames<T>>),
    Stream(Box<Streaming<T>>),
}

struct Frames<T> {
    body: Body,
    rope: Rope,
    /// Of the message that is coming.
    length: Option<usize>,
    bytes_max: usize,
    ending: Ending,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

/// How a body may end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Behind its messages.
    Anyhow,
    /// Only behind the word that the call went well.
    Told,
    /// Which has come.
    Well,
}

impl<T: Message + Default + Send + 'static> Came<T> {
    /// Messages of a request.
    pub(super) fn of(body: Body, bytes_max: usize) -> Self {
        Self::new(body, bytes_max, Ending::Anyhow)
    }

    /// Messages of an answer, behind which it says how the call went.
    pub(super) fn answer(body: Body, bytes_max: usize) -> Self {
        Self::new(body, bytes_max, Ending::Told)
    }

    fn new(body: Body, bytes_max: usize, ending: Ending) -> Self {
        Self(From::Body(Box::new(Frames {
            body,
            rope: Rope::default(),
            length: None,
            bytes_max,
            ending,
            ended: false,
            of: PhantomData,
        })))
    }

    pub(super) fn copied(messages: Streaming<T>) -> Self {
        Self(From::Stream(Box::new(messages)))
    }

    /// The next message; none, once all have come. May be dropped and called again.
    ///
    /// # Errors
    /// If what came is no message, or one that is too large, or the stream broke. Nothing comes after that.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        self.next().await.transpose()
    }
}

impl<T: Message + Default + Send + 'static> Stream for Came<T> {
    type Item = Result<T, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        match &mut self.0 {
            From::Stream(messages) => messages.poll_next_unpin(context),
            From::Body(frames) => {
                let next = ready!(frames.poll(context));
                frames.ended |= !matches!(next, Ok(Some(_)));
                Poll::Ready(next.transpose())
            }
        }
    }
}

impl<T> fmt::Debug for Came<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Came")
    }
}

impl<T: Message + Default> Frames<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<T>, Status>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            if let Some(message) = self.whole()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)?) {
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.rope.push(data),
                    Err(frame) => self.heed(&frame)?,
                },
                None if self.rope.bytes == 0 && self.length.is_none() => {
                    return Poll::Ready(match self.ending {
                        Ending::Anyhow | Ending::Well => Ok(None),
                        Ending::Told => {
                            let text = "the call ended without a word of how it went";
                            Err(Status::internal(text))
                        }
                    });
                }
                None => {
                    let text = "the stream ended in the middle of a message";
                    return Poll::Ready(Err(Status::internal(text)));
                }
            }
        }
    }

    /// What stands behind the messages of an answer.
    fn heed(&mut self, frame: &Frame<Bytes>) -> Result<(), Status> {
        if self.ending == Ending::Anyhow {
            return Ok(());
        }
        match frame.trailers_ref().and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => return Err(status),
            Some(_) => self.ending = Ending::Well,
            None => {}
        }
        Ok(())
    }

    /// The message that is coming, if all of it has come.
    fn whole(&mut self) -> Result<Option<T>, Status> {
        let length = match self.length {
            Some(length) => length,
            None if self.rope.bytes < PREFIX_BYTES => return Ok(None),
            None => {
                self.rope.end_small();
                if self.rope.get_u8() != 0 {
                    let text = "a message is compressed, which nobody asked for";
                    return Err(Status::internal(text));
                }
                let length = self.rope.get_u32() as usize;
                if length > self.bytes_max {
                    let most = self.bytes_max;
                    let text = format!("a message of {length} bytes; at most {most} are read");
                    return Err(Status::out_of_range(text));
                }
                *self.length.insert(length)
            }
        };
        if self.rope.bytes < length {
            return Ok(None);
        }
        self.length = None;
        self.rope.end_small();
        let message = T::decode((&mut self.rope).take(length));
        let message = message.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}

/// Bytes of a frame below which it is copied to others: what is noted of each frame is not much less.
const FRAME_BYTES_MIN: usize = 1 << 10;

/// What has come and was not read yet.
#[derive(Debug, Default)]
struct Rope {
    /// What is left of each frame, and how many bytes it had.
    frames: VecDeque<(Bytes, usize)>,
    /// Behind them: small frames.
    small: BytesMut,
    /// Of all.
    bytes: usize,
}

impl Rope {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        if frame.len() < FRAME_BYTES_MIN {
            self.small.extend_from_slice(&frame);
            return;
        }
        self.end_small();
        let had = frame.len();
        self.frames.push_back((frame, had));
    }

    /// To be called before anything is read.
    fn end_small(&mut self) {
        if !self.small.is_empty() {
            let had = self.small.len();
            let frame = self.small.split().freeze();
            self.frames.push_back((frame, had));
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |(frame, _)| frame)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "nobody reads more than there is");
        self.bytes -= count;
        while let Some((frame, _)) = self.frames.front_mut() {
            let of_it = count.min(frame.len());
            frame.advance(of_it);
            count -= of_it;
            if !frame.is_empty() {
                return;
            }
            self.frames.pop_front();
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        assert!(length <= self.bytes, "nobody reads more than there is");
        if let Some((frame, had)) = self.frames.front()
            && length >= SLICE_BYTES_MIN.max(had / 2)
            && length <= frame.len()
        {
            let slice = frame.slice(..length);
            self.advance(length);
            return slice;
        }
        let mut copy = BytesMut::with_capacity(length);
        copy.put(self.take(length));
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_byte_by_byte_takes_about_as_much_memory_as_it_has_bytes() {
        let mut rope = Rope::default();
        for at in 0..100_000_u32 {
            rope.push(Bytes::copy_from_slice(&at.to_le_bytes()[..1]));
        }
        rope.push(Bytes::from(vec![7; FRAME_BYTES_MIN]));
        rope.push(Bytes::from_static(b"8"));
        assert_eq!(rope.frames.len(), 2);
        assert!(rope.small.capacity() < 100_000);
        rope.end_small();
        assert_eq!(rope.bytes, 100_000 + FRAME_BYTES_MIN + 1);
        let all = rope.copy_to_bytes(rope.bytes);
        assert_eq!(all[99_999], 99_999_u32.to_le_bytes()[0]);
        assert_eq!(
            all[100_000..],
            [vec![7; FRAME_BYTES_MIN], vec![b'8']].concat()
        );
    }
}
