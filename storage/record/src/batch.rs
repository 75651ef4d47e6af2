//! Bytes whose frame and checksum hold.

use bytes::Bytes;

use crate::error::{Error, Fault};
use crate::header::{HEADER_BYTES, Header, layout, malformed};

/// A record batch: its bytes, verbatim, and what its header says. Its frame is exact, its header
/// consistent, its CRC right. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    bytes: Bytes,
    header: Header,
}

impl Batch {
    /// Takes `bytes` as exactly one batch.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the byte, [`Error::Checksum`], [`Error::TooLarge`],
    /// [`Error::Empty`].
    pub fn open(bytes: Bytes) -> Result<Self, Error> {
        let header = Header::parse(&bytes)?;
        let trailing = bytes.len().saturating_sub(header.bytes);
        if trailing > 0 {
            let fault = Fault::Trailing { bytes: trailing };
            return Err(malformed(header.bytes, fault));
        }
        Self::whole(bytes, header)
    }

    /// Cuts the first batch off a run of batches (a slice of a block); `None` once `run` is empty.
    /// An error leaves `run` as it was.
    ///
    /// # Errors
    /// As [`Batch::open`], trailing bytes aside.
    pub fn split_first(run: &mut Bytes) -> Result<Option<Self>, Error> {
        if run.is_empty() {
            return Ok(None);
        }
        let header = Header::parse(run)?;
        let batch = Self::whole(run.slice(..header.bytes.min(run.len())), header)?;
        *run = run.slice(header.bytes..);
        Ok(Some(batch))
    }

    fn whole(bytes: Bytes, header: Header) -> Result<Self, Error> {
        if bytes.len() < header.bytes {
            let fault = Fault::Short {
                needed: header.bytes,
                left: bytes.len(),
            };
            return Err(malformed(bytes.len(), fault));
        }
        let computed = crc_fast::crc32_iscsi(&bytes[layout::CRC_FROM..]);
        if computed != header.crc {
            return Err(Error::Checksum {
                declared: header.crc,
                computed,
            });
        }
        Ok(Self { bytes, header })
    }

    /// A batch that this crate has just written.
    pub(crate) fn built(bytes: Bytes, header: Header) -> Self {
        debug_assert_eq!(Self::open(bytes.clone()).map(|b| b.header), Ok(header));
        Self { bytes, header }
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives the bytes back.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records as they travel: plain, or one compressed frame.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The same, sharing the batch's bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }
}
