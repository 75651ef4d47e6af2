//! The first 16 bytes and the last 48: what never changes its place, whatever the version.
//!
//! ```text
//!   header    magic 8 │ version u32 │ 0 u32
//!   trailer   footer position u64 │ footer bytes u32 │ footer CRC-32C u32 │ body CRC-64/NVME u64
//!             │ object length u64 │ version u32 │ CRC-32C of the 36 bytes before u32 │ magic 8
//! ```
//!
//! The body is everything before the trailer.

use bytes::BufMut;
use esker_types::SegmentId;
use esker_types::limits::SEGMENT_FOOTER_BYTES_MAX;

use crate::error::{Error, Fault, Part};
use crate::fields::{Fields, agree, check_crc};

pub(crate) const MAGIC: [u8; 8] = *b"ESKERSEG";
/// The newest version, and the only one so far.
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const TRAILER_BYTES: usize = 48;
/// Bytes of the trailer that its own CRC covers.
const CHECKED_BYTES: usize = 36;

pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// What the last bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) footer_position: u64,
    pub(crate) footer_bytes: u32,
    pub(crate) footer_crc: u32,
    pub(crate) body_checksum: u64,
    pub(crate) object_length: u64,
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.put_u64_le(self.footer_position);
        out.put_u32_le(self.footer_bytes);
        out.put_u32_le(self.footer_crc);
        out.put_u64_le(self.body_checksum);
        out.put_u64_le(self.object_length);
        out.put_u32_le(VERSION);
        out.put_u32_le(crc_fast::crc32_iscsi(&out));
        out.put_slice(&MAGIC);
        debug_assert_eq!(out.len(), TRAILER_BYTES);
        out
    }

    /// Reads the trailer of the object `segment` of `length` bytes.
    pub(crate) fn decode(bytes: &[u8], segment: SegmentId, length: u64) -> Result<Self, Error> {
        let damaged = |fault| Error::damaged(segment, Part::Trailer, fault);
        let (trailer, found) = Self::parse(bytes).map_err(damaged)?;
        if found != VERSION {
            return Err(Error::Version {
                segment,
                found,
                known: VERSION,
            });
        }
        trailer.fits(length).map_err(damaged)?;
        Ok(trailer)
    }

    fn parse(bytes: &[u8]) -> Result<(Self, u32), Fault> {
        let mut fields = Fields::new(bytes);
        let trailer = Self {
            footer_position: fields.u64()?,
            footer_bytes: fields.u32()?,
            footer_crc: fields.u32()?,
            body_checksum: fields.u64()?,
            object_length: fields.u64()?,
        };
        let version = fields.u32()?;
        let crc = fields.u32()?;
        if fields.take(MAGIC.len())? != MAGIC {
            return Err(Fault::Magic);
        }
        fields.end()?;
        check_crc(&bytes[..CHECKED_BYTES], crc)?;
        Ok((trailer, version))
    }

    fn fits(&self, length: u64) -> Result<(), Fault> {
        agree("object length", self.object_length, length)?;
        if self.footer_bytes as usize > SEGMENT_FOOTER_BYTES_MAX {
            return Err(Fault::TooMany {
                of: "footer bytes",
                declared: self.footer_bytes.into(),
                limit: SEGMENT_FOOTER_BYTES_MAX as u64,
            });
        }
        let end = self
            .footer_position
            .checked_add(u64::from(self.footer_bytes));
        if self.footer_position < HEADER_BYTES as u64 || end != Some(length - TRAILER_BYTES as u64)
        {
            return Err(Fault::Value {
                of: "footer position",
                found: self.footer_position,
            });
        }
        Ok(())
    }
}
