//! Snappy (<https://github.com/google/snappy/blob/main/format_description.txt>), bare or in the
//! chunks of xerial's snappy-java, which the Java client writes:
//!
//! ```text
//!   82 'S' 'N' 'A' 'P' 'P' 'Y' 00 │ version i32 = 1 │ compatible i32 = 1 │ { length i32 │ block }*
//! ```

use snap::raw;

use super::{Fault, lengthen};

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_VERSION: i32 = 1;
/// Plain bytes per chunk, snappy-java's default.
const XERIAL_CHUNK_BYTES: usize = 32 << 10;
/// The densest element is a copy of 64 bytes written in 3, so a block that declares more than
/// this many times its own bytes lies, and is refused before anything is allocated for it.
pub(super) const EXPANSION_MAX: usize = 22;

pub(super) fn decode(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if input.starts_with(&XERIAL_MAGIC) {
        return chunks(input, limit, out);
    }
    block(input, limit, out)
}

fn chunks(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let truncated = Fault::Truncated { at: input.len() };
    let (header, mut rest) = input
        .split_at_checked(XERIAL_HEADER_BYTES)
        .ok_or(truncated)?;
    let compatible = header.last_chunk().map(|raw| i32::from_be_bytes(*raw));
    if compatible != Some(XERIAL_VERSION) {
        return Err(Fault::Header { at: 12 });
    }
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(truncated)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Fault::Corrupt)?;
        let (chunk, after) = after.split_at_checked(length).ok_or(truncated)?;
        block(chunk, limit, out)?;
        rest = after;
    }
    Ok(())
}

/// Appends what one block decodes to. The whole of `out` stays within `limit`.
fn block(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if input.is_empty() {
        return Err(Fault::Truncated { at: 0 });
    }
    let declared = raw::decompress_len(input).map_err(|_| Fault::Corrupt)?;
    if declared > input.len().saturating_mul(EXPANSION_MAX) {
        return Err(Fault::Size {
            declared: declared as u64,
        });
    }
    let start = out.len();
    let end = start.saturating_add(declared);
    if end > limit {
        return Err(Fault::TooLarge {
            at_least: end,
            limit,
        });
    }
    lengthen(out, end, limit);
    let written = raw::Decoder::new()
        .decompress(input, &mut out[start..end])
        .map_err(|_| Fault::Corrupt)?;
    debug_assert_eq!(
        written, declared,
        "the decoder fills what the block declares"
    );
    Ok(())
}

pub(super) fn encode(plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    let mut encoder = raw::Encoder::new();
    for chunk in plain.chunks(XERIAL_CHUNK_BYTES) {
        let start = out.len();
        let room = raw::max_compress_len(chunk.len());
        out.resize(start + 4 + room, 0);
        let written = encoder
            .compress(chunk, &mut out[start + 4..])
            .map_err(|_| Fault::Encoder)?;
        let length = u32::try_from(written).map_err(|_| Fault::Encoder)?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out.truncate(start + 4 + written);
    }
    Ok(())
}
