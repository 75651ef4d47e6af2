//! Blocks: runs of batches, the unit of read, cache and compression.

use std::fmt;

use bytes::{BufMut, Bytes};
use crc_fast::{CrcAlgorithm, Digest};
use esker_record::codec::{self, Decoder, Encoder};
use esker_record::{Codec, Compression, ZstdLevel};
use esker_types::SegmentId;
use esker_types::limits::BATCH_DECODED_BYTES_MAX;

use crate::error::{Error, Fault};
use crate::fields::{Fields, agree, check_crc, narrow};

/// Raw bytes of a block at most: it may consist of one batch of any size.
pub(crate) const RAW_BYTES_MAX: usize = esker_record::HEADER_BYTES + BATCH_DECODED_BYTES_MAX;
/// Bytes of a block in the footer's table.
pub(crate) const REF_BYTES: usize = 24;

/// Number of a block in its segment, from 0. Blocks are cached by segment id and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u32);

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// A block as its writer cut it: whole batches, patched, nothing compressed here. Of large ones only the
/// header is copied.
#[derive(Debug)]
#[must_use]
pub struct RawBlock {
    pub(crate) segment: SegmentId,
    pub(crate) number: BlockNumber,
    /// Of all pieces.
    pub(crate) bytes: usize,
    pub(crate) pieces: Vec<Bytes>,
    /// Whether most of it came plain, so that compressing it may pay.
    pub(crate) plain: bool,
}

impl RawBlock {
    /// Its place among the blocks.
    #[must_use]
    pub const fn number(&self) -> BlockNumber {
        self.number
    }

    /// Its bytes before compression.
    #[must_use]
    pub const fn raw_bytes(&self) -> usize {
        self.bytes
    }

    /// Compresses it, unless its batches came compressed or it does not pay, and sums it up. Pure
    /// CPU: made to be called on any thread, in any order.
    ///
    /// # Errors
    /// [`Error::Compress`].
    pub fn seal(self, sealer: &mut Sealer) -> Result<SealedBlock, Error> {
        let raw_bytes = narrow(self.bytes);
        let (mut codec, mut stored) = (Codec::None, self.pieces);
        if self.plain {
            let packed = sealer.pack(&stored, self.bytes);
            let packed = packed.map_err(|fault| Error::Compress {
                segment: self.segment,
                block: self.number,
                fault,
            })?;
            if let Some(packed) = packed {
                (codec, stored) = (Codec::Zstd, vec![packed]);
            }
        }
        let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for piece in &stored {
            crc.update(piece);
        }
        Ok(SealedBlock {
            number: self.number,
            crc: u32::try_from(crc.finalize()).expect("32 bits"),
            stored_bytes: narrow(stored.iter().map(Bytes::len).sum()),
            stored,
            raw_bytes,
            codec,
        })
    }
}

/// What each of a sealer's buffers keeps between blocks.
const RETAINED_BYTES_MAX: usize = 2 * esker_types::limits::BLOCK_BYTES;

/// A compressor of blocks and its buffers; one per thread.
#[derive(Debug)]
pub struct Sealer {
    encoder: Encoder,
    level: ZstdLevel,
    /// Of a block in pieces, which it compresses as one.
    joined: Vec<u8>,
    packed: Vec<u8>,
}

impl Sealer {
    /// A sealer at `level`, which is the segment's [`crate::Origin::zstd_level`].
    #[must_use]
    pub fn new(level: ZstdLevel) -> Self {
        Self {
            encoder: Encoder::new(),
            level,
            joined: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// `pieces`, `bytes` in all, compressed, if that pays.
    fn pack(&mut self, pieces: &[Bytes], bytes: usize) -> Result<Option<Bytes>, codec::Fault> {
        let plain = match pieces {
            [one] => &one[..],
            _ => {
                self.joined.reserve(bytes);
                for piece in pieces {
                    self.joined.extend_from_slice(piece);
                }
                &self.joined[..]
            }
        };
        let compression = Compression::Zstd(self.level);
        let packed = self.encoder.encode(compression, plain, &mut self.packed);
        let packed = packed.map(|()| {
            let pays = self.packed.len() < bytes;
            pays.then(|| Bytes::copy_from_slice(&self.packed))
        });
        for buffer in [&mut self.joined, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(RETAINED_BYTES_MAX);
        }
        packed
    }
}

/// A block as it will be stored.
#[derive(Debug)]
#[must_use]
pub struct SealedBlock {
    pub(crate) number: BlockNumber,
    pub(crate) stored: Vec<Bytes>,
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) codec: Codec,
    pub(crate) crc: u32,
}

/// Where a block is stored, and how: an entry of the block table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRef {
    /// Byte of the object.
    pub position: u64,
    /// Bytes it takes there.
    pub stored_bytes: u32,
    /// Bytes of its batches.
    pub raw_bytes: u32,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
    /// `None` or `Zstd`.
    pub codec: Codec,
}

impl BlockRef {
    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.position + self.stored_bytes as u64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.position);
        out.put_u32_le(self.stored_bytes);
        out.put_u32_le(self.raw_bytes);
        out.put_u32_le(self.crc);
        out.put_u32_le(self.codec.number().into());
    }

    /// Reads the entry of the block that begins at `position`.
    pub(crate) fn decode(fields: &mut Fields<'_>, position: u64) -> Result<Self, Fault> {
        let found = fields.u64()?;
        agree("block position", found, position)?;
        let stored_bytes = fields.u32()?;
        let raw_bytes = fields.u32()?;
        let crc = fields.u32()?;
        let number = fields.u32()?;
        let codec = match number {
            0 => Codec::None,
            4 => Codec::Zstd,
            _ => {
                let found = number.into();
                return Err(Fault::Value {
                    of: "block codec",
                    found,
                });
            }
        };
        let fits = match codec {
            Codec::None => stored_bytes == raw_bytes,
            _ => stored_bytes < raw_bytes,
        };
        if !fits || stored_bytes == 0 || raw_bytes as usize > RAW_BYTES_MAX {
            return Err(Fault::Value {
                of: "raw length of a block",
                found: raw_bytes.into(),
            });
        }
        Ok(Self {
            position,
            stored_bytes,
            raw_bytes,
            crc,
            codec,
        })
    }

    /// Checks `stored` against this entry and decompresses it. Allocates what the verified block
    /// table says, at most 64 MiB and a header.
    pub(crate) fn open(&self, stored: Bytes, decoder: &mut Decoder) -> Result<Bytes, Fault> {
        agree(
            "stored bytes",
            stored.len() as u64,
            self.stored_bytes.into(),
        )?;
        check_crc(&stored, self.crc)?;
        if self.codec == Codec::None {
            return Ok(stored);
        }
        let mut raw = Vec::new();
        decoder.decode(self.codec, &stored, self.raw_bytes as usize, &mut raw)?;
        agree("raw bytes", raw.len() as u64, self.raw_bytes.into())?;
        Ok(raw.into())
    }
}
