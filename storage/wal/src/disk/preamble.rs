//! How a file begins: with all that the files before it could still be needed for, entries aside.
//!
//! ```text
//!   magic 8 │ version u32 │ bytes u32 │ uuid u128 │ sequence u64 │ previous end u64 │ shards u32 │
//!   then per shard: shard u32 │ flags u8 │ vote term u64 │ voted for u64 │
//!                   purged term, index u64 │ last term, index u64 │ committed term, index u64 │
//!   crc u32, zeroes to 4 KiB
//! ```
//! Little-endian. `previous end` is where the valid bytes of the file before end: below it
//! everything must be whole, above it nothing counts. The CRC-32C is seeded with the uuid.

use bytes::{Buf, BufMut};
use esker_types::limits::WAL_ALIGN;
use esker_types::{EntryId, RaftIndex, ShardId, Term};

use super::book::{LogBounds, Vote};
use super::frame::{FileUuid, seeded_crc};

const MAGIC: &[u8; 8] = b"ESKERWAL";
/// The version this binary writes; it reads no other.
pub(crate) const VERSION: u32 = 1;
/// Bytes before the shards.
const FIXED_BYTES: usize = 8 + 4 + 4 + 16 + 8 + 8 + 4;
/// Bytes of one shard.
const SHARD_BYTES: usize = 4 + 1 + 16 + 48;
/// Shards one node may hold replicas of: what a preamble lists.
const SHARDS_MAX: usize = 4096;

const HAS_VOTE: u8 = 1;
const VOTE_COMMITTED: u8 = 2;

/// The beginning of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Preamble {
    pub(crate) uuid: FileUuid,
    pub(crate) sequence: u64,
    /// Where the file before ends; 0 if there is none.
    pub(crate) previous_end: u64,
    pub(crate) shards: Vec<(ShardId, LogBounds)>,
}

/// Why a preamble is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Too short, another magic, or a wrong checksum.
    Damaged,
    /// Written by another version.
    Version(u32),
}

impl Preamble {
    /// Bytes of a preamble of `shards`, padded.
    pub(crate) const fn bytes_for(shards: usize) -> usize {
        (FIXED_BYTES + shards * SHARD_BYTES + 4).next_multiple_of(WAL_ALIGN)
    }

    /// The whole preamble, padded to [`WAL_ALIGN`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = FIXED_BYTES + self.shards.len() * SHARD_BYTES + 4;
        let mut out = Vec::with_capacity(length.next_multiple_of(WAL_ALIGN));
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(u32::try_from(length).expect("at most SHARDS_MAX shards"));
        out.put_u128_le(self.uuid);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.previous_end);
        out.put_u32_le(u32::try_from(self.shards.len()).expect("at most SHARDS_MAX shards"));
        for (shard, bounds) in &self.shards {
            encode_bounds(*shard, bounds, &mut out);
        }
        let crc = seeded_crc(self.uuid, [&out[..]]);
        out.put_u32_le(crc);
        out.resize(length.next_multiple_of(WAL_ALIGN), 0);
        out
    }

    /// Bytes the preamble takes, told by its first [`WAL_ALIGN`] bytes.
    pub(crate) fn padded_bytes(first_page: &[u8]) -> Result<usize, Refused> {
        let mut from = first_page;
        let mut magic = [0; 8];
        from.try_copy_to_slice(&mut magic)
            .map_err(|_| Refused::Damaged)?;
        let version = from.try_get_u32_le().map_err(|_| Refused::Damaged)?;
        let length = from.try_get_u32_le().map_err(|_| Refused::Damaged)? as usize;
        if &magic != MAGIC {
            return Err(Refused::Damaged);
        }
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        let most = FIXED_BYTES + SHARDS_MAX * SHARD_BYTES + 4;
        if !(FIXED_BYTES + 4..=most).contains(&length) {
            return Err(Refused::Damaged);
        }
        Ok(length.next_multiple_of(WAL_ALIGN))
    }

    /// Reads a preamble back from at least [`Preamble::padded_bytes`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        Self::padded_bytes(bytes)?;
        Self::decode_checked(bytes).ok_or(Refused::Damaged)
    }

    fn decode_checked(bytes: &[u8]) -> Option<Self> {
        let length = usize::try_from((&bytes[12..]).try_get_u32_le().ok()?).ok()?;
        let (checked, mut crc) = bytes.get(..length)?.split_at(length - 4);
        let mut from = &checked[16..];
        let uuid = from.try_get_u128_le().ok()?;
        if crc.get_u32_le() != seeded_crc(uuid, [checked]) {
            return None;
        }
        let sequence = from.try_get_u64_le().ok()?;
        let previous_end = from.try_get_u64_le().ok()?;
        let count = from.try_get_u32_le().ok()? as usize;
        if from.len() != count.checked_mul(SHARD_BYTES)? {
            return None;
        }
        let shards = (0..count)
            .map(|_| decode_bounds(&mut from))
            .collect::<Option<_>>()?;
        Some(Self {
            uuid,
            sequence,
            previous_end,
            shards,
        })
    }
}

fn encode_bounds(shard: ShardId, bounds: &LogBounds, out: &mut Vec<u8>) {
    out.put_u32_le(shard.0);
    let flags = bounds.vote.map_or(0, |vote| {
        HAS_VOTE | if vote.committed { VOTE_COMMITTED } else { 0 }
    });
    out.put_u8(flags);
    let vote = bounds.vote.unwrap_or_default();
    out.put_u64_le(vote.term.0);
    out.put_u64_le(vote.node);
    for id in [bounds.purged, bounds.last, bounds.committed] {
        out.put_u64_le(id.term.0);
        out.put_u64_le(id.index.0);
    }
}

fn decode_bounds(from: &mut &[u8]) -> Option<(ShardId, LogBounds)> {
    let shard = ShardId(from.try_get_u32_le().ok()?);
    let flags = from.try_get_u8().ok()?;
    let vote = Vote {
        term: Term(from.try_get_u64_le().ok()?),
        node: from.try_get_u64_le().ok()?,
        committed: flags & VOTE_COMMITTED != 0,
    };
    let mut id = || {
        let term = Term(from.try_get_u64_le().ok()?);
        let index = RaftIndex(from.try_get_u64_le().ok()?);
        Some(EntryId { term, index })
    };
    let (purged, last, committed) = (id()?, id()?, id()?);
    let vote = (flags & HAS_VOTE != 0).then_some(vote);
    Some((
        shard,
        LogBounds {
            vote,
            purged,
            last,
            committed,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(shards: u32) -> Preamble {
        let id = |n: u64| EntryId {
            term: Term(n),
            index: RaftIndex(n * 10),
        };
        let bounds = |n: u32| LogBounds {
            vote: n.is_multiple_of(2).then_some(Vote {
                term: Term(7),
                node: 9,
                committed: n.is_multiple_of(4),
            }),
            purged: id(1),
            last: id(3),
            committed: id(2),
        };
        Preamble {
            uuid: 0x1234_5678_9abc,
            sequence: 42,
            previous_end: 8192,
            shards: (0..shards).map(|n| (ShardId(n), bounds(n))).collect(),
        }
    }

    #[test]
    fn it_survives_its_encoding_with_no_shard_and_with_many() {
        for shards in [0, 1, 64, 1000] {
            let preamble = preamble(shards);
            let bytes = preamble.encode();
            assert_eq!(bytes.len() % WAL_ALIGN, 0);
            assert_eq!(Preamble::padded_bytes(&bytes[..WAL_ALIGN]), Ok(bytes.len()));
            assert_eq!(Preamble::decode(&bytes), Ok(preamble));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = preamble(3).encode();
        let length = FIXED_BYTES + 3 * SHARD_BYTES + 4;
        for at in 0..length {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Preamble::decode(&bad).is_err(), "byte {at}");
        }
        assert!(Preamble::decode(&[]).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = preamble(1).encode();
        bytes[8] = 2;
        assert_eq!(Preamble::decode(&bytes), Err(Refused::Version(2)));
    }
}
