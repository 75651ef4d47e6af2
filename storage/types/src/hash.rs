//! The content hash: what survives a change of codec.

use std::fmt;

/// XXH3-128 over the plain (decompressed) records of a batch, as `record` defines it. It tells
/// two batches apart and proves a re-compression; it is no defence against an adversary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Upper 96 bits of a hash that stands for a checksum ("crc-32c only"). A true XXH3 begins
    /// so once in 2^96 batches.
    const CHECKSUM_MARK: u128 = u128::from_be_bytes(*b"crc-32c only\0\0\0\0");
    const CHECKSUM_BITS: u128 = u32::MAX as u128;

    /// Stands in for the hash of a batch whose records nobody opened (its topic switched the deep
    /// check off): the batch's CRC-32C under a mark of its own, so that it equals no content hash.
    #[must_use]
    pub const fn from_checksum(crc: u32) -> Self {
        Self(Self::CHECKSUM_MARK | crc as u128)
    }

    /// The CRC-32C that this stands for; `None` if it is a hash of content.
    #[must_use]
    pub fn as_checksum(self) -> Option<u32> {
        let marked = self.0 & !Self::CHECKSUM_BITS == Self::CHECKSUM_MARK;
        marked.then(|| u32::try_from(self.0 & Self::CHECKSUM_BITS).expect("masked to 32 bits"))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_in_place_of_a_hash_is_told_apart() {
        for crc in [0, 1, u32::MAX] {
            assert_eq!(ContentHash::from_checksum(crc).as_checksum(), Some(crc));
        }
        assert_eq!(ContentHash(0).as_checksum(), None);
        assert_eq!(ContentHash(u128::MAX).as_checksum(), None);
    }
}
