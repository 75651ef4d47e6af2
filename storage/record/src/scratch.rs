//! Memory for decoding, reused: a fresh MiB per batch would cost more in page faults than the
//! decoding itself.

use std::fmt;

use bytes::Bytes;
use esker_types::limits::BATCH_DECODED_BYTES_MAX;

use crate::batch::Batch;
use crate::codec::{Codec, Decoder, decoded_bytes_max};
use crate::error::Error;
use crate::header::{HEADER_BYTES, Header};
use crate::records::Records;

/// A decoder and its buffer. Between two batches it keeps at most `retained_bytes_max`; while
/// one is being decoded the buffer may grow to [`BATCH_DECODED_BYTES_MAX`].
pub struct Scratch {
    decoder: Decoder,
    buffer: Vec<u8>,
    retained_bytes_max: usize,
}

impl Scratch {
    /// An empty one. `retained_bytes_max` of a few MiB fits nearly every batch.
    #[must_use]
    pub fn new(retained_bytes_max: usize) -> Self {
        Self {
            decoder: Decoder::new(),
            buffer: Vec::new(),
            retained_bytes_max,
        }
    }

    /// The records of `batch`, decompressed. Plain ones are borrowed from the batch.
    ///
    /// # Errors
    /// [`Error::DecodedTooLarge`], [`Error::Codec`].
    pub fn decode<'a>(&'a mut self, batch: &'a Batch) -> Result<Plain<'a>, Error> {
        let codec = batch.header().attributes.codec();
        if codec == Codec::None {
            return Ok(Plain {
                batch,
                decoded: None,
            });
        }
        let decoded = Decoded {
            buffer: &mut self.buffer,
            retained_bytes_max: self.retained_bytes_max,
        };
        self.decoder
            .decode(
                codec,
                batch.payload(),
                BATCH_DECODED_BYTES_MAX,
                decoded.buffer,
            )
            .map_err(|fault| Error::of_codec(codec, fault))?;
        Ok(Plain {
            batch,
            decoded: Some(decoded),
        })
    }

    /// The same, as bytes that outlive the scratch: shared with the batch if that is plain, else
    /// of their own. `Bytes::slice_ref` makes owned keys and values of what [`Records`] yields.
    ///
    /// # Errors
    /// As [`Scratch::decode`].
    pub fn decode_owned(&mut self, batch: &Batch) -> Result<Bytes, Error> {
        match batch.header().attributes.codec() {
            Codec::None => Ok(batch.payload_bytes()),
            _ => Ok(Bytes::copy_from_slice(&self.decode(batch)?)),
        }
    }

    /// Bytes it holds on to now.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("retained_bytes", &self.retained_bytes())
            .field("retained_bytes_max", &self.retained_bytes_max)
            .finish_non_exhaustive()
    }
}

/// The decoded records of one batch. Derefs to their bytes.
#[derive(Debug)]
pub struct Plain<'a> {
    batch: &'a Batch,
    decoded: Option<Decoded<'a>>,
}

impl Plain<'_> {
    /// The records, in order.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(self.batch.header(), self)
    }
}

impl std::ops::Deref for Plain<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.decoded {
            None => self.batch.payload(),
            Some(decoded) => decoded.buffer,
        }
    }
}

/// The scratch's buffer while it is lent. Gives back what is too much to keep, also on error.
#[derive(Debug)]
struct Decoded<'a> {
    buffer: &'a mut Vec<u8>,
    retained_bytes_max: usize,
}

impl Drop for Decoded<'_> {
    fn drop(&mut self) {
        if self.buffer.capacity() > self.retained_bytes_max {
            *self.buffer = Vec::new();
        }
    }
}

/// Bytes that a decoder of `batch` comes to hold beside it at most, as the batch's headers tell: 0 if
/// nothing of it is decoded.
#[must_use]
pub fn decoded_bytes_most(batch: &[u8]) -> usize {
    let Ok(header) = Header::parse(batch) else {
        return 0;
    };
    match header.attributes.codec() {
        Codec::None => 0,
        codec => {
            let end = header.bytes.clamp(HEADER_BYTES, batch.len());
            decoded_bytes_max(codec, &batch[HEADER_BYTES..end], BATCH_DECODED_BYTES_MAX)
        }
    }
}
