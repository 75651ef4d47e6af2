//! Messages as pieces, which are frames of a body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::{Body, Frame};
use prost::Message;

use crate::internal::append_call::Of;
use crate::internal::{AcceptedRun, Answer, AppendCall, AppendRequest, HeadRead, answer};
use crate::whole::PREFIX_BYTES;

/// Bytes of a batch from which on it is a piece of its own: what is less is copied, as that is cheaper than
/// another frame.
const PIECE_BYTES_MIN: usize = 4 << 10;
/// Bytes of small messages that go together, although more of them wait.
const TOGETHER_BYTES: usize = 32 << 10;

/// A message that can be written in pieces: as prost writes it, but for the order of its fields.
pub trait InPieces: Message {
    /// Writes it.
    fn write(self, pieces: &mut Pieces);
}

/// What was written, in order.
#[derive(Debug, Default)]
pub struct Pieces {
    whole: VecDeque<Bytes>,
    /// Behind them.
    small: BytesMut,
}

impl Pieces {
    /// `message`, behind its length.
    fn push(&mut self, message: impl InPieces) {
        let length = message.encoded_len();
        if length < PIECE_BYTES_MIN {
            self.small.reserve(PREFIX_BYTES + length);
        }
        self.small.put_u8(0);
        let before = self.bytes();
        // A message has its bound, which is far below.
        self.small
            .put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.write(self);
        debug_assert_eq!(self.bytes() - before, length + PREFIX_BYTES - 1);
    }

    fn bytes(&self) -> usize {
        self.whole.iter().map(Bytes::len).sum::<usize>() + self.small.len()
    }

    /// The fields of `message`.
    pub fn fields(&mut self, message: &impl Message) {
        let encoded = message.encode(&mut self.small);
        encoded.expect("the buffer grows");
    }

    /// That field `number` is a message, or bytes, of `length` bytes, which follow.
    pub fn begin(&mut self, number: u8, length: usize) {
        // Wire type 2, a length and as many bytes; numbers below 16 take one byte.
        self.small.put_u8(number << 3 | 2);
        let encoded = prost::encode_length_delimiter(length, &mut self.small);
        encoded.expect("the buffer grows");
    }

    /// Field `number`: `bytes`.
    pub fn bytes_of(&mut self, number: u8, bytes: Bytes) {
        self.begin(number, bytes.len());
        if bytes.len() < PIECE_BYTES_MIN {
            self.small.put(bytes);
            return;
        }
        self.whole.push_back(self.small.split().freeze());
        self.whole.push_back(bytes);
    }

    /// The next piece that is whole.
    fn next(&mut self) -> Option<Bytes> {
        self.whole.pop_front()
    }

    /// What is small.
    fn rest(&mut self) -> Option<Bytes> {
        (!self.small.is_empty()).then(|| self.small.split().freeze())
    }
}

/// Bytes that [`Pieces::bytes_of`] writes of `length` bytes.
fn field_bytes(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

impl InPieces for AppendCall {
    fn write(self, pieces: &mut Pieces) {
        let mut append = match self.of {
            Some(Of::Append(append)) if !append.batch.is_empty() => append,
            _ => return pieces.fields(&self),
        };
        let batch = std::mem::take(&mut append.batch);
        pieces.begin(2, append.encoded_len() + field_bytes(batch.len()));
        pieces.fields(&append);
        pieces.bytes_of(10, batch);
    }
}

impl InPieces for AppendRequest {
    fn write(mut self, pieces: &mut Pieces) {
        let entries = std::mem::take(&mut self.entries);
        pieces.fields(&self);
        for mut entry in entries {
            pieces.begin(3, entry.encoded_len());
            let payload = std::mem::take(&mut entry.payload);
            pieces.fields(&entry);
            for batch in payload {
                pieces.bytes_of(3, batch);
            }
        }
    }
}

impl InPieces for Answer {
    fn write(mut self, pieces: &mut Pieces) {
        match self.of.take() {
            Some(answer::Of::Accepted(run)) => {
                pieces.fields(&self);
                pieces.begin(13, run.encoded_len());
                run.write(pieces);
            }
            Some(answer::Of::Read(read)) => {
                pieces.fields(&self);
                pieces.begin(9, read.encoded_len());
                read.write(pieces);
            }
            small => {
                self.of = small;
                pieces.fields(&self);
            }
        }
    }
}

impl InPieces for AcceptedRun {
    fn write(mut self, pieces: &mut Pieces) {
        let batches = std::mem::take(&mut self.batches);
        pieces.fields(&self);
        for mut batch in batches {
            pieces.begin(1, batch.encoded_len());
            let bytes = std::mem::take(&mut batch.batch);
            pieces.fields(&batch);
            if !bytes.is_empty() {
                pieces.bytes_of(6, bytes);
            }
        }
    }
}

impl InPieces for HeadRead {
    fn write(mut self, pieces: &mut Pieces) {
        let batches = std::mem::take(&mut self.batches);
        pieces.fields(&self);
        for mut batch in batches {
            pieces.begin(2, batch.encoded_len());
            let bytes = std::mem::take(&mut batch.batch);
            pieces.fields(&batch);
            if !bytes.is_empty() {
                pieces.bytes_of(3, bytes);
            }
        }
    }
}

/// A body of messages.
pub(super) struct Sent<S> {
    messages: S,
    pieces: Pieces,
    ended: bool,
}

impl<S> Sent<S> {
    pub(super) fn new(messages: S) -> Self {
        Self {
            messages,
            pieces: Pieces::default(),
            ended: false,
        }
    }
}

impl<S: Stream<Item: InPieces> + Unpin> Body for Sent<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let frame = |piece| Poll::Ready(Some(Ok(Frame::data(piece))));
        loop {
            if let Some(piece) = this.pieces.next() {
                return frame(piece);
            }
            let next = match this.pieces.small.len() < TOGETHER_BYTES && !this.ended {
                true => this.messages.poll_next_unpin(context),
                false => Poll::Pending,
            };
            match next {
                Poll::Ready(Some(message)) => this.pieces.push(message),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => {
                    return match this.pieces.rest() {
                        Some(piece) => frame(piece),
                        None if this.ended => Poll::Ready(None),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}
