//! One item of the stream.
//!
//! ```text
//!   0        4       8       16      24     25      28            32
//!   │ length │ shard │ index │ term  │ kind │ zero  │ payload crc │ payload … │
//! ```
//! Little-endian. `length` counts the payload alone; its CRC-32C is seeded with the file's uuid.

use bytes::{Buf, BufMut};
use crc_fast::{CrcAlgorithm, Digest};
use esker_types::{EntryId, RaftIndex, ShardId, Term};

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// Identifies a WAL file and seeds its checksums.
pub(crate) type FileUuid = u128;

/// What a frame means. The numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// A raft entry at the end of its shard's log.
    Entry = 1,
    /// A shard's vote.
    Vote = 2,
    /// The shard's log ends at this id from here on.
    Truncate = 3,
    /// The shard's log begins after this id from here on.
    Purge = 4,
    /// The shard has committed up to this id. Written along, never synced for its own sake.
    Committed = 5,
    /// A copy of an entry whose old file is to be released. Implies nothing about the log's end.
    Moved = 6,
    /// An unflushed entry that came with a snapshot; counts once a checkpoint that names it does.
    Installed = 7,
}

impl FrameKind {
    fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::Moved,
            7 => Self::Installed,
            _ => return None,
        })
    }

    /// Whether the frame carries the body of an entry.
    pub(crate) fn carries_entry(self) -> bool {
        matches!(self, Self::Entry | Self::Moved | Self::Installed)
    }
}

/// A frame without its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) bytes: u32,
    pub(crate) shard: ShardId,
    pub(crate) id: EntryId,
    pub(crate) kind: FrameKind,
    pub(crate) payload_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        out.put_u32_le(self.bytes);
        out.put_u32_le(self.shard.0);
        out.put_u64_le(self.id.index.0);
        out.put_u64_le(self.id.term.0);
        out.put_u8(self.kind as u8);
        out.put_slice(&[0; 3]);
        out.put_u32_le(self.payload_crc);
    }

    /// `None` for an unknown kind or too few bytes.
    pub(crate) fn decode(mut from: &[u8]) -> Option<Self> {
        let bytes = from.try_get_u32_le().ok()?;
        let shard = ShardId(from.try_get_u32_le().ok()?);
        let index = RaftIndex(from.try_get_u64_le().ok()?);
        let term = Term(from.try_get_u64_le().ok()?);
        let kind = FrameKind::from_u8(from.try_get_u8().ok()?)?;
        from.try_copy_to_slice(&mut [0; 3]).ok()?;
        let payload_crc = from.try_get_u32_le().ok()?;
        Some(Self {
            bytes,
            shard,
            id: EntryId { term, index },
            kind,
            payload_crc,
        })
    }
}

/// CRC-32C of `parts`, one after the other, in the file `uuid`.
pub(crate) fn seeded_crc<'a>(uuid: FileUuid, parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&uuid.to_le_bytes());
    for part in parts {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_encoding_and_an_unknown_kind_does_not() {
        let header = FrameHeader {
            bytes: 77,
            shard: ShardId(3),
            id: EntryId {
                term: Term(9),
                index: RaftIndex(1 << 40),
            },
            kind: FrameKind::Moved,
            payload_crc: 0xdead_beef,
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), FRAME_HEADER_BYTES);
        assert_eq!(FrameHeader::decode(&bytes), Some(header));
        assert_eq!(FrameHeader::decode(&bytes[1..]), None);
        bytes[24] = 99;
        assert_eq!(FrameHeader::decode(&bytes), None);
    }

    #[test]
    fn the_same_bytes_have_another_checksum_in_another_file() {
        let payload: &[u8] = b"payload";
        assert_ne!(seeded_crc(1, [payload]), seeded_crc(2, [payload]));
        assert_eq!(
            seeded_crc(1, [payload]),
            seeded_crc(1, [&payload[..3], &payload[3..]])
        );
    }
}
