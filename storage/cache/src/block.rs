//! Key and value, and how the disk tier stores them.
//!
//! ```text
//!   key    segment id u128 · block number u32                     big-endian, 20 bytes
//!   value  key · crc-32c u32 · length u32 · the block's raw bytes
//! ```
//!
//! The checksum covers the raw bytes, the key is compared. An entry that belongs to another key,
//! or that rotted where foyer's own checksum does not look, is a miss.

use std::io::{Read, Write};

use bytes::Bytes;
use esker_types::SegmentId;
use esker_types::limits::CACHE_BLOCK_BYTES_MAX;
use foyer::{Code, Error, ErrorKind};

/// Bytes of a key as stored.
const KEY_BYTES: usize = 20;
/// Bytes of a value before the block.
const HEADER_BYTES: usize = KEY_BYTES + 8;
/// What an entry costs in memory beyond its bytes: keys, queues, hash tables, reference counts.
pub(crate) const OVERHEAD_BYTES: usize = 256;

/// One block of one segment. Both are immutable and never given twice, so an entry is never stale.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockKey {
    /// The segment.
    pub segment: SegmentId,
    /// The block's number in it, from 0.
    pub block: u32,
}

/// A block with what proves that it is the one asked for.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    key: BlockKey,
    crc: u32,
    bytes: Bytes,
}

impl Block {
    pub(crate) fn new(key: BlockKey, bytes: Bytes) -> Self {
        let crc = crc_fast::crc32_iscsi(&bytes);
        Self { key, crc, bytes }
    }

    /// The bytes, without a check: for an entry that never left memory.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, if this is the block of `key` as it was put in.
    pub(crate) fn verified(&self, key: BlockKey) -> Option<Bytes> {
        let right = self.key == key && self.crc == crc_fast::crc32_iscsi(&self.bytes);
        right.then(|| self.bytes.clone())
    }

    /// What it counts against a memory budget.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + OVERHEAD_BYTES
    }
}

impl BlockKey {
    fn to_bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        let (segment, block) = bytes.split_at_mut(16);
        segment.copy_from_slice(&self.segment.0.to_be_bytes());
        block.copy_from_slice(&self.block.to_be_bytes());
        bytes
    }

    fn read(reader: &mut impl Read) -> foyer::Result<Self> {
        let segment = u128::from_be_bytes(read_array(reader)?);
        let block = u32::from_be_bytes(read_array(reader)?);
        Ok(Self {
            segment: SegmentId(segment),
            block,
        })
    }
}

fn read_array<const N: usize>(reader: &mut impl Read) -> foyer::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(Error::io_error)?;
    Ok(bytes)
}

impl Code for BlockKey {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        writer.write_all(&self.to_bytes()).map_err(Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        Self::read(reader)
    }

    fn estimated_size(&self) -> usize {
        KEY_BYTES
    }
}

impl Code for Block {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let length = u32::try_from(self.bytes.len())
            .map_err(|_| Error::new(ErrorKind::Parse, "a block of more than 4 GiB"))?;
        self.key.encode(writer)?;
        for part in [
            &self.crc.to_be_bytes()[..],
            &length.to_be_bytes()[..],
            &self.bytes[..],
        ] {
            writer.write_all(part).map_err(Error::io_error)?;
        }
        Ok(())
    }

    /// Refuses a length above the limit before it allocates: the bytes may be rotten.
    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let key = BlockKey::read(reader)?;
        let crc = u32::from_be_bytes(read_array(reader)?);
        let length = u32::from_be_bytes(read_array(reader)?) as usize;
        if length > CACHE_BLOCK_BYTES_MAX {
            let text = format!(
                "a cached block claims {length} bytes, the limit is {CACHE_BLOCK_BYTES_MAX}"
            );
            return Err(Error::new(ErrorKind::Parse, text));
        }
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).map_err(Error::io_error)?;
        Ok(Self {
            key,
            crc,
            bytes: bytes.into(),
        })
    }

    fn estimated_size(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: BlockKey = BlockKey {
        segment: SegmentId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        block: 9,
    };

    fn encoded(block: &Block) -> Vec<u8> {
        let mut bytes = Vec::new();
        block.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), block.estimated_size());
        bytes
    }

    #[test]
    fn the_bytes_on_disk_are_these() {
        let block = Block::new(KEY, Bytes::from_static(b"abc"));
        let golden = include_str!("../tests/golden/block.hex");
        let hex: String = encoded(&block).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.trim());
    }

    #[test]
    fn another_blocks_entry_is_a_miss() {
        let block = Block::new(KEY, Bytes::from_static(b"abc"));
        assert!(block.verified(KEY).is_some());
        assert_eq!(block.verified(BlockKey { block: 8, ..KEY }), None);
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_it_is_allocated() {
        let mut bytes = encoded(&Block::new(KEY, Bytes::from_static(b"abc")));
        bytes[KEY_BYTES + 4..HEADER_BYTES].copy_from_slice(&u32::MAX.to_be_bytes());
        let error = Block::decode(&mut &bytes[..]).unwrap_err().to_string();
        assert!(error.contains("4294967295"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_block_survives_the_disk(content: Vec<u8>, segment: u128, number: u32) {
            let key = BlockKey { segment: SegmentId(segment), block: number };
            let bytes = encoded(&Block::new(key, Bytes::from(content.clone())));
            let back = Block::decode(&mut &bytes[..]).unwrap();
            prop_assert_eq!(back.verified(key), Some(Bytes::from(content)));
        }

        #[test]
        fn no_flipped_bit_goes_unseen(content in prop::collection::vec(any::<u8>(), 1..200), bit: prop::sample::Index) {
            let mut bytes = encoded(&Block::new(KEY, Bytes::from(content)));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let back = Block::decode(&mut &bytes[..]);
            prop_assert!(back.map_or(true, |block| block.verified(KEY).is_none()));
        }
    }
}
