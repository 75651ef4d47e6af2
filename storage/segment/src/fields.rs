//! Little-endian fields out of a slice, each checked against what is left; counts are checked
//! before anything is allocated for them.

use esker_types::{ContentHash, Offset, SegmentId};

use crate::error::Fault;

/// What is left of a part.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(Fault::Short {
                needed: bytes as u64,
                left: self.rest.len() as u64,
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let taken = self.take(N)?;
        Ok(*taken.first_chunk().expect("N bytes were taken"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_le_bytes)
    }

    /// A ULID in its binary form, big-endian.
    pub(crate) fn segment_id(&mut self) -> Result<SegmentId, Fault> {
        self.array().map(u128::from_be_bytes).map(SegmentId)
    }

    /// XXH3-128 in its canonical order, big-endian, as every tool prints it.
    pub(crate) fn hash(&mut self) -> Result<ContentHash, Fault> {
        self.array().map(u128::from_be_bytes).map(ContentHash)
    }

    pub(crate) fn offset(&mut self, of: &'static str) -> Result<Offset, Fault> {
        let found = self.u64()?;
        Offset::new(found).ok_or(Fault::Value { of, found })
    }

    /// A `u32` count of items of at least `item_bytes` each, at most `limit`.
    pub(crate) fn count(
        &mut self,
        of: &'static str,
        limit: usize,
        item_bytes: usize,
    ) -> Result<usize, Fault> {
        let declared = self.u32()? as usize;
        let limit = limit.min(self.rest.len() / item_bytes);
        if declared > limit {
            return Err(Fault::TooMany {
                of,
                declared: declared as u64,
                limit: limit as u64,
            });
        }
        Ok(declared)
    }

    pub(crate) fn end(&self) -> Result<(), Fault> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(Fault::Trailing {
                bytes: bytes as u64,
            }),
        }
    }
}

/// `found` must be `expected`.
pub(crate) fn agree(of: &'static str, found: u64, expected: u64) -> Result<(), Fault> {
    if found == expected {
        Ok(())
    } else {
        Err(Fault::Mismatch {
            of,
            found,
            expected,
        })
    }
}

/// CRC-32C of `bytes` must be `declared`.
pub(crate) fn check_crc(bytes: &[u8], declared: u32) -> Result<(), Fault> {
    let computed = crc_fast::crc32_iscsi(bytes);
    if computed == declared {
        Ok(())
    } else {
        Err(Fault::Checksum {
            declared: declared.into(),
            computed: computed.into(),
        })
    }
}

/// A length or count as its field of 32 bits. What reaches it is bounded by a limit.
pub(crate) fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("every length and count of a part is bounded below 2^32")
}
