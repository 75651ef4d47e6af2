//! Reads Kafka's varints and length-prefixed fields from a slice, and says at which byte it fails.

use crate::error::{Fault, FieldName};

/// Where in the slice, and what.
pub(crate) type Located = (usize, Fault);

/// A place in `bytes`, moving forward. Every read checks what is left first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        debug_assert!(at <= bytes.len(), "a cursor starts inside its bytes");
        Self { bytes, at }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Located> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err((self.at, Fault::Short { needed: 1, left: 0 }));
        };
        self.at += 1;
        Ok(byte)
    }

    /// A zig-zag varint of 32 bits: at most 5 bytes.
    pub(crate) fn varint(&mut self) -> Result<i32, Located> {
        let raw = self.unsigned(32)?;
        let raw = u32::try_from(raw).expect("unsigned(32) yields 32 bits");
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A zig-zag varint of 64 bits: at most 10 bytes.
    pub(crate) fn varlong(&mut self) -> Result<i64, Located> {
        let raw = self.unsigned(64)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// Little-endian groups of 7 bits, refused where a group carries bits past `bits`.
    fn unsigned(&mut self, bits: u32) -> Result<u64, Located> {
        let start = self.at;
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        while shift < bits {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            let room = bits - shift;
            if room < 7 && group >> room != 0 {
                return Err((start, Fault::Varint { bits }));
            }
            value |= group << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
        Err((start, Fault::Varint { bits }))
    }

    /// A varint length and that many bytes; −1 is null.
    pub(crate) fn nullable(&mut self, of: FieldName) -> Result<Option<&'a [u8]>, Located> {
        let start = self.at;
        match self.varint()? {
            -1 => Ok(None),
            declared => self.take(start, declared, of).map(Some),
        }
    }

    /// A varint length and that many bytes; null is refused.
    pub(crate) fn required(&mut self, of: FieldName) -> Result<&'a [u8], Located> {
        let start = self.at;
        let declared = self.varint()?;
        self.take(start, declared, of)
    }

    fn take(&mut self, start: usize, declared: i32, of: FieldName) -> Result<&'a [u8], Located> {
        let left = self.left();
        let fits = usize::try_from(declared).ok().filter(|&len| len <= left);
        let Some(len) = fits else {
            let declared = i64::from(declared);
            return Err((start, Fault::Length { of, declared, left }));
        };
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    /// The slice from here to `end`, as a cursor of its own; this one moves past it.
    pub(crate) fn split(&mut self, len: usize) -> Self {
        let inner = Self {
            bytes: &self.bytes[..self.at + len],
            at: self.at,
        };
        self.at += len;
        inner
    }

    /// Everything from `start` up to here.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }
}

/// Appends `value` as a zig-zag varint. 32-bit values come out as Kafka's 32-bit varints do.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push(0x80 | u8::try_from(raw & 0x7f).expect("7 bits"));
        raw >>= 7;
    }
    out.push(u8::try_from(raw).expect("below 0x80"));
}

/// Bytes that [`put_varlong`] writes for `value`.
pub(crate) fn varlong_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let bits = (u64::BITS - (raw | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_take_the_bytes_foretold() {
        for value in [0, -1, 1, 63, -64, 64, 8191, -8193, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_bytes(value), "{value}");
            let mut cursor = Cursor::new(&out, 0);
            assert_eq!(cursor.varlong(), Ok(value));
            assert_eq!(cursor.left(), 0);
            if let Ok(small) = i32::try_from(value) {
                assert_eq!(Cursor::new(&out, 0).varint(), Ok(small));
            }
        }
    }

    #[test]
    fn a_varint_past_its_type_is_refused_where_it_starts() {
        let five = [0xff, 0xff, 0xff, 0xff, 0x1f];
        assert_eq!(
            Cursor::new(&five, 0).varint(),
            Err((0, Fault::Varint { bits: 32 }))
        );
        assert_eq!(Cursor::new(&five, 0).varlong().map(|v| v < 0), Ok(true));
        let eleven = [0x80; 11];
        assert_eq!(
            Cursor::new(&eleven, 0).varlong(),
            Err((0, Fault::Varint { bits: 64 }))
        );
        let ten = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(
            Cursor::new(&ten, 0).varlong(),
            Err((0, Fault::Varint { bits: 64 }))
        );
        assert_eq!(
            Cursor::new(&[0x80], 0).varint(),
            Err((1, Fault::Short { needed: 1, left: 0 }))
        );
    }

    #[test]
    fn a_length_past_the_end_is_refused_with_both_numbers() {
        let mut bytes = Vec::new();
        put_varlong(&mut bytes, 5);
        bytes.extend_from_slice(b"abc");
        let expected = Fault::Length {
            of: FieldName::Key,
            declared: 5,
            left: 3,
        };
        assert_eq!(
            Cursor::new(&bytes, 0).nullable(FieldName::Key),
            Err((0, expected))
        );
    }
}
