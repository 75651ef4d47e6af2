//! Bytes in, bytes out: little-endian, every count checked against what is left before anything
//! is allocated for it. Shared by commands and checkpoints.

mod read; // the vocabulary, from bytes
mod write; // the vocabulary, to bytes

use bytes::{Buf, BufMut};

use crate::error::Error;

/// Reads from a slice. Errors name `what` is being read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

/// Writes to a buffer.
#[derive(Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

macro_rules! numbers {
    ($($name:ident: $type:ty = $get:ident / $put:ident),+ $(,)?) => {
        impl Reader<'_> {$(
            pub(crate) fn $name(&mut self) -> Result<$type, Error> {
                let what = self.what;
                self.rest.$get().map_err(|short| Error::Truncated {
                    what,
                    need: short.requested,
                    have: short.available,
                })
            }
        )+}
        impl Writer {$(
            pub(crate) fn $name(&mut self, value: $type) {
                self.out.$put(value);
            }
        )+}
    };
}

numbers! {
    u8: u8 = try_get_u8 / put_u8,
    u16: u16 = try_get_u16_le / put_u16_le,
    u32: u32 = try_get_u32_le / put_u32_le,
    u64: u64 = try_get_u64_le / put_u64_le,
    u128: u128 = try_get_u128_le / put_u128_le,
    i64: i64 = try_get_i64_le / put_i64_le,
}
