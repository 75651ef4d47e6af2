//! prost's messages for tonic, each in as much memory as it takes.
//!
//! tonic's own codec lets its buffer double while it writes, so that an entry of several batches is copied
//! twice and leaves memory behind that nobody uses. What is read shares the memory that it came in, so whoever
//! keeps a part of a message keeps all of that: it must not be much more than the message says.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Bytes of a message that may mean nothing, such as fields of a later version, and are kept all the same.
const VOID_BYTES_MAX: usize = 4 << 10;
/// tonic's own: where it hands on what is encoded, although more waits.
const YIELD_BYTES: usize = 32 << 10;

/// What the stubs encode and decode with.
pub struct Exact<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Exact<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> fmt::Debug for Exact<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exact")
    }
}

impl<T, U> Codec for Exact<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = ExactDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        // No memory before it is known how much: `whole` says why.
        ExactDecoder(ProstDecoder::new(BufferSettings::new(0, YIELD_BYTES)))
    }
}

/// Encodes `T`.
pub struct ExactEncoder<T>(PhantomData<T>);

impl<T> fmt::Debug for ExactEncoder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExactEncoder")
    }
}

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        let encoded = item.encode(buffer);
        encoded.map_err(|error| Status::internal(format!("a message was not encoded: {error}")))
    }
}

/// Decodes `U`.
pub struct ExactDecoder<U>(ProstDecoder<U>);

impl<U> fmt::Debug for ExactDecoder<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExactDecoder")
    }
}

impl<U: Message + Default> Decoder for ExactDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let came = buffer.remaining();
        let Some(item) = self.0.decode(buffer)? else {
            return Ok(None);
        };
        if came.saturating_sub(item.encoded_len()) <= VOID_BYTES_MAX {
            return Ok(Some(item));
        }
        let compact = U::decode(Bytes::from(item.encode_to_vec()));
        let compact = compact.map_err(|error| Status::internal(error.to_string()));
        compact.map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tonic::codec::Streaming;

    use super::*;
    use crate::v1::{AppendRequest, append_request::Payload};
    use crate::whole::tests::{body, message};

    fn request(batch: Bytes) -> AppendRequest {
        AppendRequest {
            topic: "a".to_owned(),
            payload: Some(Payload::Batch(batch)),
            ..AppendRequest::default()
        }
    }

    async fn read(encoded: &[u8]) -> Bytes {
        let frames = vec![message(encoded).into(), message(encoded).into()];
        let decoder = Exact::<AppendRequest, AppendRequest>::default().decoder();
        let mut stream = Streaming::new_request(decoder, body(frames), None, Some(1 << 20));
        let first = stream.message().await.unwrap().unwrap();
        drop(stream);
        match first.payload {
            Some(Payload::Batch(batch)) => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Bytes of memory that `bytes`, of which nobody else knows, keeps.
    fn kept(bytes: Bytes) -> usize {
        let bytes: BytesMut = bytes.try_into_mut().unwrap();
        Vec::from(bytes).capacity()
    }

    #[tokio::test]
    async fn a_batch_keeps_about_its_own_size_of_memory_whatever_came_with_it() {
        let batch = Bytes::from(vec![7; 300_000]);
        let whole = request(batch.clone()).encode_to_vec();
        let came = read(&whole).await;
        assert_eq!(came, batch);
        let most = whole.len() + VOID_BYTES_MAX;
        assert!(kept(came) <= most);
        // Of a field that comes twice the last one counts.
        let large = request(Bytes::from(vec![9; 500_000])).encode_to_vec();
        let small = request(Bytes::from_static(b"small")).encode_to_vec();
        let came = read(&[large, small].concat()).await;
        assert_eq!(came, "small");
        assert!(kept(came) <= VOID_BYTES_MAX);
    }
}
