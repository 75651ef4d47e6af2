//! RFC 1952. Exactly one member: a batch is one frame in every codec.

use std::io::{ErrorKind, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::{Fault, encoder_failed, lengthen};

/// Bytes asked of the decoder at a time.
pub(super) const STEP_BYTES: usize = 64 << 10;
/// The densest a deflate stream gets: a match of 258 bytes in two bits.
pub(super) const EXPANSION_MAX: usize = 1032;

pub(super) fn decode(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut member = GzDecoder::new(input);
    // One byte past the limit tells "exactly full" from "too much".
    let hard = limit.saturating_add(1);
    let mut filled = 0;
    loop {
        if filled == hard {
            return Err(Fault::TooLarge {
                at_least: hard,
                limit,
            });
        }
        lengthen(out, hard.min(filled + STEP_BYTES), hard);
        let read = member
            .read(&mut out[filled..])
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => Fault::Truncated { at: input.len() },
                _ if filled == 0 && !input.starts_with(&[0x1f, 0x8b]) => Fault::Magic,
                _ => Fault::Corrupt,
            })?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    out.truncate(filled);
    match member.into_inner().len() {
        0 => Ok(()),
        bytes => Err(Fault::Trailing {
            at: input.len() - bytes,
            bytes,
        }),
    }
}

pub(super) fn encode(plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut member = GzEncoder::new(out, Compression::default());
    member.write_all(plain).map_err(encoder_failed)?;
    member.finish().map_err(encoder_failed)?;
    Ok(())
}
