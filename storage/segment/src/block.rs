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

    /// Compresses it, unless its batches came compressed, it would not save a sixteenth, or looks like one before
    /// it that did not; sums it up. Pure CPU: made to be called on any thread.
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

/// What compressing must save for it to pay, as a part of the block: who reads it has to undo it each time.
const SAVED_PART: usize = 16;
/// After a block for which it did not pay, this much of each [`PROBE_STRIDE_BYTES`] of the next is tried first.
const PROBE_BYTES: usize = 16 << 10;
const PROBE_STRIDE_BYTES: usize = 256 << 10;
/// Of so many blocks in a row one is tried whole, whatever its probes say.
const BARREN_MAX: usize = 16;

/// A compressor of blocks and its buffers; one per thread.
#[derive(Debug)]
pub struct Sealer {
    encoder: Encoder,
    level: ZstdLevel,
    /// Of a block in pieces, which it compresses as one.
    joined: Vec<u8>,
    packed: Vec<u8>,
    /// Blocks for which it did not pay since it last did: the next is probed, and mostly left as it is.
    barren: usize,
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
            barren: 0,
        }
    }

    /// `pieces`, `bytes` in all, compressed, if that pays.
    fn pack(&mut self, pieces: &[Bytes], bytes: usize) -> Result<Option<Bytes>, codec::Fault> {
        // What repeats from one probe to the next shows in the whole block alone.
        let whole = self.barren.is_multiple_of(BARREN_MAX);
        if !whole && !self.promises(pieces)? {
            self.barren += 1;
            return Ok(None);
        }
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
            let pays = pays(self.packed.len(), bytes);
            self.barren = if pays { 0 } else { self.barren + 1 };
            pays.then(|| Bytes::copy_from_slice(&self.packed))
        });
        for buffer in [&mut self.joined, &mut self.packed] {
            buffer.clear();
            buffer.shrink_to(RETAINED_BYTES_MAX);
        }
        packed
    }

    /// Whether a part of `pieces` here and there becomes smaller.
    fn promises(&mut self, pieces: &[Bytes]) -> Result<bool, codec::Fault> {
        let mut probe = std::mem::take(&mut self.joined);
        let promises = self.probe(pieces, &mut probe);
        probe.clear();
        self.joined = probe;
        promises
    }

    /// Probes go over pieces: a header by itself says nothing of what follows it.
    fn probe(&mut self, pieces: &[Bytes], probe: &mut Vec<u8>) -> Result<bool, codec::Fault> {
        // Bytes before what is left of the piece, and where the next probe begins.
        let (mut before, mut next) = (0, 0);
        for mut piece in pieces.iter().map(|piece| &piece[..]) {
            while !piece.is_empty() {
                let skipped = piece.len().min(next.max(before) - before);
                let taken = (piece.len() - skipped).min(PROBE_BYTES - probe.len());
                probe.extend_from_slice(&piece[skipped..skipped + taken]);
                (before, piece) = (before + skipped + taken, &piece[skipped + taken..]);
                if probe.len() == PROBE_BYTES {
                    if self.shrinks(probe)? {
                        return Ok(true);
                    }
                    probe.clear();
                    next = before - PROBE_BYTES + PROBE_STRIDE_BYTES;
                }
            }
        }
        Ok(!probe.is_empty() && self.shrinks(probe)?)
    }

    fn shrinks(&mut self, probe: &[u8]) -> Result<bool, codec::Fault> {
        let compression = Compression::Zstd(self.level);
        self.encoder.encode(compression, probe, &mut self.packed)?;
        Ok(pays(self.packed.len(), probe.len()))
    }
}

/// Whether `bytes` are better stored as `packed` of them.
const fn pays(packed: usize, bytes: usize) -> bool {
    packed <= bytes - bytes / SAVED_PART
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `bytes` as batches of `each`, of which a header lies by itself.
    fn block(bytes: &[u8], each: usize) -> RawBlock {
        let both = |batch: &[u8]| {
            let (header, rest) = batch.split_at(batch.len().min(61));
            [header, rest].map(Bytes::copy_from_slice)
        };
        RawBlock {
            segment: SegmentId::from_parts(1, 2),
            number: BlockNumber(0),
            bytes: bytes.len(),
            pieces: bytes.chunks(each).flat_map(both).collect(),
            plain: true,
        }
    }

    /// What no codec makes smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let next = |seed: &mut u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Some((*seed >> 33).to_le_bytes()[0])
        };
        let mut seed = 7;
        std::iter::from_fn(|| next(&mut seed)).take(bytes).collect()
    }

    #[test]
    fn after_a_block_that_became_no_smaller_the_next_is_tried_first() {
        const BYTES: usize = 1 << 20;
        let (noise, lines) = (noise(BYTES), vec![b'x'; BYTES]);
        let mut half = noise.clone();
        half[BYTES / 2..].fill(b'x');
        // Its end alone, of which no probe is taken.
        let mut little = noise.clone();
        little[BYTES - BYTES / 8..].fill(b'x');
        for each in [BYTES, 256 << 10, 200_000, 3_500] {
            let mut sealer = Sealer::new(ZstdLevel::DEFAULT);
            let mut codec = |bytes: &[u8]| {
                let sealed = block(bytes, each).seal(&mut sealer).expect("sealed");
                let stored = sealed.stored.concat();
                if sealed.codec == Codec::None {
                    assert_eq!(stored, bytes);
                } else {
                    assert!(stored.len() <= BYTES - BYTES / SAVED_PART);
                }
                sealed.codec
            };
            assert_eq!(codec(&little), Codec::Zstd, "nothing was tried before");
            assert_eq!(codec(&noise), Codec::None);
            assert_eq!(codec(&little), Codec::None, "no probe was of that");
            assert_eq!(codec(&noise), Codec::None);
            assert_eq!(codec(&half), Codec::Zstd);
            assert_eq!(codec(&little), Codec::Zstd, "that was not barren");
            assert_eq!(codec(&noise), Codec::None);
            assert_eq!(codec(&lines), Codec::Zstd);
        }
    }

    #[test]
    fn what_repeats_beyond_a_probe_is_found_once_a_block_is_tried_whole() {
        const BYTES: usize = 1 << 20;
        let mut sealer = Sealer::new(ZstdLevel::DEFAULT);
        let mut codec = |bytes: &[u8]| {
            let sealed = block(bytes, BYTES).seal(&mut sealer).expect("sealed");
            sealed.codec
        };
        let repeated = noise(32 << 10).repeat(BYTES / (32 << 10));
        assert_eq!(codec(&noise(BYTES)), Codec::None);
        for _ in 1..BARREN_MAX {
            assert_eq!(codec(&repeated), Codec::None, "each probe is noise");
        }
        for _ in 0..BARREN_MAX {
            assert_eq!(codec(&repeated), Codec::Zstd);
        }
    }
}
