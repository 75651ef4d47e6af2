//! The five codecs of Kafka, both ways. Decoding is bounded while it runs: a bomb costs the limit
//! and not a byte more, and a frame must be whole, alone and free of dictionaries.

mod gzip; // one member
mod lz4; // one frame
mod snappy; // a raw block, or xerial's chunks
mod zstd; // one frame

use std::fmt;
use std::io;

use ::zstd::zstd_safe::{CCtx, DCtx};

/// How the records of a batch are compressed. The numbers are Kafka's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Codec {
    /// Plain.
    None,
    /// RFC 1952, one member.
    Gzip,
    /// Snappy: xerial's chunks as the Java client writes them, or a raw block as others do.
    Snappy,
    /// LZ4's frame format.
    Lz4,
    /// RFC 8878, one frame.
    Zstd,
}

impl Codec {
    /// Every codec, by number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of Kafka's number; `None` above 4.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Kafka's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// How to compress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip at its default level.
    Gzip,
    /// Snappy in xerial's chunks.
    Snappy,
    /// One LZ4 frame of independent blocks of 64 KiB.
    Lz4,
    /// One zstd frame.
    Zstd(ZstdLevel),
}

impl Compression {
    /// The codec that comes out.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }
}

/// A zstd level, `1..=19`. Higher ones need windows above the 8 MiB that we admit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    /// zstd's own default, 3.
    pub const DEFAULT: Self = Self(3);
    /// The least work, 1: log lines in batches of 256 KiB come out no larger than with 3, in 0.6 of
    /// the time.
    pub const FAST: Self = Self(1);
    /// The highest level whose window stays within 2^23 bytes.
    pub const MAX: Self = Self(19);

    /// A level; `None` outside `1..=19`.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level == 0 || level > Self::MAX.0 {
            None
        } else {
            Some(Self(level))
        }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Why compressed bytes cannot be decoded (or, for [`Fault::Encoder`], plain ones encoded).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// More than the caller wants to hold.
    #[error("they decode to {at_least} bytes or more, the limit is {limit}")]
    TooLarge {
        /// Bytes it has at least.
        at_least: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// The input does not begin as a frame does.
    #[error("no frame begins at byte 0")]
    Magic,
    /// A version, flag or reserved bit we do not know.
    #[error("the frame's header has an unknown version or flag at byte {at}")]
    Header {
        /// Byte of the compressed input.
        at: usize,
    },
    /// It asks for a dictionary nobody has.
    #[error("the frame asks for a dictionary")]
    Dictionary,
    /// It asks its reader to keep more than we admit.
    #[error("the frame asks for a window of {bytes} bytes, the limit is {limit}")]
    Window {
        /// Bytes it asks for.
        bytes: u64,
        /// Bytes we admit.
        limit: u64,
    },
    /// It ends inside the frame.
    #[error("the frame is cut at byte {at}")]
    Truncated {
        /// Bytes there are.
        at: usize,
    },
    /// Something follows the frame: another one, or junk.
    #[error("{bytes} bytes follow the frame's end at byte {at}")]
    Trailing {
        /// Where the frame ends.
        at: usize,
        /// How many follow.
        bytes: usize,
    },
    /// The frame's own checksum is wrong.
    #[error("the frame's checksum does not match")]
    Checksum,
    /// The frame says another size than it has.
    #[error("the frame declares {declared} bytes of content")]
    Size {
        /// What it says.
        declared: u64,
    },
    /// The compressed stream contradicts itself.
    #[error("the compressed stream is corrupt")]
    Corrupt,
    /// The compressor failed (out of memory).
    #[error("the compressor failed")]
    Encoder,
}

/// Decodes; keeps zstd's context (about 160 KiB) between calls.
pub struct Decoder {
    zstd: DCtx<'static>,
}

impl Decoder {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            zstd: DCtx::create(),
        }
    }

    /// Replaces what is in `out` by what `input` decodes to, at most `limit` bytes. `out` never
    /// grows past the limit by more than its allocator's rounding. After an error `out` holds
    /// nothing of use.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn decode(
        &mut self,
        codec: Codec,
        input: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        out.clear();
        match codec {
            Codec::None => plain(input, limit, out),
            Codec::Gzip => gzip::decode(input, limit, out),
            Codec::Snappy => snappy::decode(input, limit, out),
            Codec::Lz4 => lz4::decode(input, limit, out),
            Codec::Zstd => zstd::decode(&mut self.zstd, input, limit, out),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Bytes that a decoder with this `limit` comes to hold at most for `input`, as its headers alone
/// tell. 0 for what is refused before anything is held.
#[must_use]
pub fn decoded_bytes_max(codec: Codec, input: &[u8], limit: usize) -> usize {
    // A buffer that grows has up to twice what is in it.
    let grown = |expansion: usize| input.len().saturating_mul(2 * expansion);
    let most = match codec {
        Codec::None => input.len(),
        Codec::Gzip => grown(gzip::EXPANSION_MAX).saturating_add(2 * gzip::STEP_BYTES),
        Codec::Snappy => grown(snappy::EXPANSION_MAX),
        Codec::Lz4 => grown(lz4::EXPANSION_MAX),
        Codec::Zstd => zstd::content_bytes_max(input),
    };
    most.min(limit)
}

/// Encodes; makes zstd's context on first use and keeps it.
#[derive(Default)]
pub struct Encoder {
    zstd: Option<CCtx<'static>>,
}

impl Encoder {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what is in `out` by `plain` compressed.
    ///
    /// # Errors
    /// [`Fault::Encoder`].
    pub fn encode(
        &mut self,
        compression: Compression,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        out.clear();
        match compression {
            Compression::None => out.extend_from_slice(plain),
            Compression::Gzip => gzip::encode(plain, out)?,
            Compression::Snappy => snappy::encode(plain, out)?,
            Compression::Lz4 => lz4::encode(plain, out)?,
            Compression::Zstd(level) => {
                let context = self.zstd.get_or_insert_with(CCtx::create);
                zstd::encode(context, level, plain, out)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

fn plain(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if input.len() > limit {
        return Err(Fault::TooLarge {
            at_least: input.len(),
            limit,
        });
    }
    out.extend_from_slice(input);
    Ok(())
}

/// Makes `out` at least `len` bytes long, zeroing only what is new. Grows by doubling, but never
/// past `limit`: `len` is within it.
fn lengthen(out: &mut Vec<u8>, len: usize, limit: usize) {
    debug_assert!(len <= limit, "the caller checks the limit first");
    if len > out.capacity() {
        let target = out.capacity().saturating_mul(2).clamp(len, limit);
        out.reserve_exact(target - out.len());
    }
    if len > out.len() {
        out.resize(len, 0);
    }
}

/// A writer into memory fails only where the allocator does.
fn encoder_failed(_: io::Error) -> Fault {
    Fault::Encoder
}

#[cfg(test)]
mod tests;
