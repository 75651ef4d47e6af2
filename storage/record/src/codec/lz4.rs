//! LZ4's frame format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>). The frame
//! is read here, so that blocks decode straight into the caller's buffer and a cut frame is not
//! taken for a whole one; the blocks are the library's.

use std::io::Write;

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use xxhash_rust::xxh32::xxh32;

use super::{Fault, encoder_failed, lengthen};

const MAGIC: u32 = 0x184D_2204;
/// How far back a block may refer.
const WINDOW_BYTES: usize = 64 << 10;
/// A byte of a block adds at most 255 to a match: no block expands further.
pub(super) const EXPANSION_MAX: usize = 255;
const STORED_BIT: u32 = 1 << 31;

/// What a frame's descriptor says.
struct Descriptor {
    independent: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

pub(super) fn decode(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut frame = Frame { input, at: 0 };
    let descriptor = frame.descriptor()?;
    if let Some(declared) = descriptor.content_bytes
        && declared > limit as u64
    {
        let at_least = usize::try_from(declared).unwrap_or(usize::MAX);
        return Err(Fault::TooLarge { at_least, limit });
    }
    let mut filled = 0;
    loop {
        let word = frame.u32()?;
        if word == 0 {
            break;
        }
        let bytes = (word & !STORED_BIT) as usize;
        if bytes > descriptor.block_bytes_max {
            return Err(Fault::Corrupt);
        }
        let block = frame.take(bytes)?;
        if descriptor.block_checksums && frame.u32()? != xxh32(block, 0) {
            return Err(Fault::Checksum);
        }
        let stored = word & STORED_BIT != 0;
        filled = decode_block(&descriptor, block, stored, filled, limit, out)?;
    }
    out.truncate(filled);
    if descriptor.content_checksum && frame.u32()? != xxh32(out, 0) {
        return Err(Fault::Checksum);
    }
    if let Some(declared) = descriptor.content_bytes
        && declared != filled as u64
    {
        return Err(Fault::Size { declared });
    }
    frame.end()
}

/// Decodes one block to `out[filled..]` and says how far that is filled now. `out` may be longer:
/// it is only ever lengthened, so that many small blocks do not zero the same bytes again.
fn decode_block(
    descriptor: &Descriptor,
    block: &[u8],
    stored: bool,
    filled: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<usize, Fault> {
    let most = if stored {
        block.len()
    } else {
        descriptor
            .block_bytes_max
            .min(block.len().saturating_mul(EXPANSION_MAX))
    };
    let room = most.min(limit - filled);
    let too_large = Fault::TooLarge {
        at_least: limit.saturating_add(1),
        limit,
    };
    if stored {
        if room < block.len() {
            return Err(too_large);
        }
        lengthen(out, filled + room, limit);
        out[filled..filled + room].copy_from_slice(block);
        return Ok(filled + room);
    }
    lengthen(out, filled + room, limit);
    let (before, after) = out.split_at_mut(filled);
    let target = &mut after[..room];
    let written = if descriptor.independent || filled == 0 {
        decompress_into(block, target)
    } else {
        let window = &before[filled.saturating_sub(WINDOW_BYTES)..];
        decompress_into_with_dict(block, target, window)
    };
    match written {
        Ok(written) => Ok(filled + written),
        Err(_) if room < most => Err(too_large),
        Err(_) => Err(Fault::Corrupt),
    }
}

pub(super) fn encode(plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut frame = FrameEncoder::with_frame_info(info, out);
    frame.write_all(plain).map_err(encoder_failed)?;
    frame.finish().map_err(|_| Fault::Encoder)?;
    Ok(())
}

/// A place in the input.
struct Frame<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Frame<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.input[self.at..];
        let Some(taken) = rest.get(..bytes) else {
            return Err(Fault::Truncated {
                at: self.input.len(),
            });
        };
        self.at += bytes;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let raw = self.take(4)?;
        Ok(u32::from_le_bytes(
            *raw.first_chunk().expect("four bytes were taken"),
        ))
    }

    fn descriptor(&mut self) -> Result<Descriptor, Fault> {
        if self.u32()? != MAGIC {
            return Err(Fault::Magic);
        }
        let start = self.at;
        let raw = self.take(2)?;
        let (flags, block) = (raw[0], raw[1]);
        // Version 01, the reserved bit clear.
        if flags >> 6 != 1 || flags & 0b10 != 0 {
            return Err(Fault::Header { at: start });
        }
        if flags & 1 != 0 {
            return Err(Fault::Dictionary);
        }
        let block_bytes_max = match block {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(Fault::Header { at: start + 1 }),
        };
        let content_bytes = if flags & 0b1000 == 0 {
            None
        } else {
            let raw = self.take(8)?;
            Some(u64::from_le_bytes(
                *raw.first_chunk().expect("eight bytes were taken"),
            ))
        };
        let described = &self.input[start..self.at];
        let check = self.take(1)?[0];
        if check != xxh32(described, 0).to_le_bytes()[1] {
            return Err(Fault::Checksum);
        }
        Ok(Descriptor {
            independent: flags & 0b10_0000 != 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_bytes,
            block_bytes_max,
        })
    }

    fn end(&self) -> Result<(), Fault> {
        match self.input.len() - self.at {
            0 => Ok(()),
            bytes => Err(Fault::Trailing { at: self.at, bytes }),
        }
    }
}
