//! RFC 8878. The frame's header and block headers are read here first: they say how much may come
//! out and where the frame ends before the library allocates or decodes anything.

use esker_types::limits::ZSTD_WINDOW_LOG_MAX;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective, compress_bound};

use super::{Fault, ZstdLevel};

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const WINDOW_BYTES_MAX: u64 = 1 << ZSTD_WINDOW_LOG_MAX;
/// Plain bytes of a block at most.
const BLOCK_BYTES_MAX: u64 = 128 << 10;

pub(super) fn decode(
    context: &mut DCtx<'static>,
    input: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let frame = Frame::survey(input)?;
    let declared = frame.content_bytes;
    let most = declared.unwrap_or(frame.content_bytes_bound);
    let too_large = |at_least: u64| Fault::TooLarge {
        at_least: usize::try_from(at_least).unwrap_or(usize::MAX),
        limit,
    };
    if declared.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large(most));
    }
    // The survey's bound is what the blocks can hold, so that a lie costs no memory.
    let room = most.min(frame.content_bytes_bound).min(limit as u64);
    let room = usize::try_from(room).expect("within the limit, a usize");
    out.reserve_exact(room);
    if context.decompress(out, input).is_err() {
        // No room, or a corrupt stream: which one only matters where the limit cut the room.
        let cut = declared.is_none() && frame.content_bytes_bound > limit as u64;
        return Err(if cut {
            too_large(limit as u64 + 1)
        } else {
            Fault::Corrupt
        });
    }
    // The allocator may have given more than was asked for.
    if out.len() > limit {
        return Err(too_large(out.len() as u64));
    }
    if let Some(declared) = declared
        && declared != out.len() as u64
    {
        return Err(Fault::Size { declared });
    }
    Ok(())
}

pub(super) fn encode(
    context: &mut CCtx<'static>,
    level: ZstdLevel,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    context
        .reset(ResetDirective::SessionAndParameters)
        .and_then(|_| context.set_parameter(CParameter::CompressionLevel(level.get().into())))
        .map_err(|_| Fault::Encoder)?;
    out.reserve(compress_bound(plain.len()));
    context.compress2(out, plain).map_err(|_| Fault::Encoder)?;
    Ok(())
}

/// What `input` decodes to at most, before anything of it is decoded; 0 if it is no frame of ours.
pub(super) fn content_bytes_max(input: &[u8]) -> usize {
    Frame::survey(input).map_or(0, |frame| {
        let most = frame.content_bytes.unwrap_or(u64::MAX);
        usize::try_from(most.min(frame.content_bytes_bound)).unwrap_or(usize::MAX)
    })
}

/// What a frame says of itself, and what its blocks can hold at most.
struct Frame {
    content_bytes: Option<u64>,
    content_bytes_bound: u64,
}

impl Frame {
    /// Walks the headers of the one frame that `input` must be.
    fn survey(input: &[u8]) -> Result<Self, Fault> {
        let truncated = Fault::Truncated { at: input.len() };
        if !input.starts_with(&MAGIC) {
            return Err(Fault::Magic);
        }
        let &descriptor = input.get(4).ok_or(truncated)?;
        if descriptor & 0b1000 != 0 {
            return Err(Fault::Header { at: 4 });
        }
        if descriptor & 0b11 != 0 {
            return Err(Fault::Dictionary);
        }
        let single_segment = descriptor & 0b10_0000 != 0;
        let mut at = 5;
        let mut window = None;
        if !single_segment {
            window = Some(window_bytes(*input.get(at).ok_or(truncated)?));
            at += 1;
        }
        let content_bytes = content_size(descriptor, single_segment, input, &mut at)?;
        let window = window.or(content_bytes).unwrap_or(0);
        if window > WINDOW_BYTES_MAX {
            return Err(Fault::Window {
                bytes: window,
                limit: WINDOW_BYTES_MAX,
            });
        }
        let content_bytes_bound = blocks(input, &mut at)?;
        if descriptor & 0b100 != 0 {
            at += 4;
        }
        match input.len().checked_sub(at) {
            None => Err(truncated),
            Some(0) => Ok(Self {
                content_bytes,
                content_bytes_bound,
            }),
            Some(bytes) => Err(Fault::Trailing { at, bytes }),
        }
    }
}

/// 3.1.1.1.2: exponent in the upper five bits, eighths of it in the lower three.
fn window_bytes(descriptor: u8) -> u64 {
    let base = 1u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}

/// 3.1.1.1.4: 0, 1, 2, 4 or 8 bytes; two of them count from 256.
fn content_size(
    descriptor: u8,
    single_segment: bool,
    input: &[u8],
    at: &mut usize,
) -> Result<Option<u64>, Fault> {
    let width = match (descriptor >> 6, single_segment) {
        (0, false) => return Ok(None),
        (0, true) => 1,
        (flag, _) => 1 << flag,
    };
    let Some(raw) = input.get(*at..*at + width) else {
        return Err(Fault::Truncated { at: input.len() });
    };
    *at += width;
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(raw);
    let base = if width == 2 { 256 } else { 0 };
    u64::from_le_bytes(wide)
        .checked_add(base)
        .map(Some)
        .ok_or(Fault::Corrupt)
}

/// 3.1.1.2: steps over the blocks by their headers and sums up what each can hold.
fn blocks(input: &[u8], at: &mut usize) -> Result<u64, Fault> {
    let mut bound = 0;
    loop {
        let Some(&[a, b, c]) = input.get(*at..).and_then(|rest| rest.first_chunk::<3>()) else {
            return Err(Fault::Truncated { at: input.len() });
        };
        let word = u32::from_le_bytes([a, b, c, 0]);
        let size = word >> 3;
        let (stored, plain) = match (word >> 1) & 0b11 {
            0 => (size, u64::from(size)),
            1 => (1, u64::from(size)),
            2 => (size, BLOCK_BYTES_MAX),
            _ => return Err(Fault::Corrupt),
        };
        if plain > BLOCK_BYTES_MAX {
            return Err(Fault::Corrupt);
        }
        bound += plain;
        *at += 3 + stored as usize;
        if *at > input.len() {
            return Err(Fault::Truncated { at: input.len() });
        }
        if word & 1 != 0 {
            return Ok(bound);
        }
    }
}
