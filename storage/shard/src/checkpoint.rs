//! The state as bytes, and back: deterministic, so that equal states are equal bytes.
//!
//! ```text
//!   "ESKERCKP" 8 │ format u16 = 1 │ section ... section │ end section
//!
//!   section   tag u8 │ number u32, from 0 │ payload length u32 │ payload │ CRC-32C u32
//!             the CRC covers the section before it, and the magic and format before section 0
//!
//!   payload   little-endian, in this order of tags; tags 3 to 11 repeat as often as needed, each
//!             with whole records in ascending order of their keys, and are absent if empty
//!    1 shard     level u16, scope u8, shard u32, incarnation u32, epoch base u32, time u64,
//!                applied term u64, applied index u64
//!    2 marks     data: flush position u64, GC boundary u64, sweep: option of partition
//!                catalog: data shards u32, next topic, producer and node u64 each
//!    3 topics    id, version, name, config, ranges in mixed segments u64
//!    4 parts     partition, log start, tiered end, end, option of fence, epoch starts
//!    5 producers partition, producer id, epoch, last append, window of marks
//!    6 head      raft index, term, epoch, time, batches: ordinal, at, bytes u32 each, partition,
//!                range, max timestamp
//!    7 segments  incarnation, raft range, id u128, length u64, checksum u64, count u32, hash
//!                u128, newest u64, bytes u64
//!    8 tombs     topic id, version, ranges in mixed segments u64, changed u64
//!    9 unflushed raft index, partition, range: what an ended topic had in the head
//!   10 gone      first and last topic id of a run
//!   11 catalog   topic id, version, name, config, request u128, asked u128, placement, option of
//!                the shards awaited
//!   12 end       number of records in all the sections before, u64
//! ```
//!
//! *Local* names unflushed batches by raft index: a snapshot is this and those frames. *Bucket*
//! has no head: a partition ends where its segments end (or its log start, if that lies above),
//! and a producer is known only by what lies below; the applied index stays.

mod decode; // bytes into a state, every one of them checked
mod encode; // a state into chunks of bytes

use bytes::Bytes;
use esker_types::limits::CHECKPOINT_CHUNK_BYTES;
use xxhash_rust::xxh3::Xxh3;

pub use decode::decode;
pub use encode::encode;

/// For whom a checkpoint is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// For this shard's replicas: names the unflushed head by raft index.
    Local,
    /// For the bucket: without any head.
    Bucket,
}

/// A state read from a checkpoint, and for whom the checkpoint was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// The state.
    pub state: crate::State,
    /// For whom it was written.
    pub scope: Scope,
}

/// Hash of what a checkpoint says beside shard time and applied entry: XXH3-128. Two checkpoints
/// with the same one differ in how far their shard was, not in what it had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BodyHash(pub u128);

/// The body hash of a checkpoint that [`encode`] made, whole or in its chunks.
///
/// # Errors
/// [`crate::Error`] if it does not begin as a checkpoint does.
pub fn body_hash(chunks: &[Bytes]) -> Result<BodyHash, crate::Error> {
    let first = chunks.first().map_or(&[][..], |chunk| chunk);
    let moving = decode::moving_part(first)?;
    let mut hash = Xxh3::new();
    hash.update(&first[..moving.start]);
    hash.update(&first[moving.end..]);
    for chunk in &chunks[1..] {
        hash.update(chunk);
    }
    Ok(BodyHash(hash.digest128()))
}

const MAGIC: &[u8; 8] = b"ESKERCKP";
const FORMAT: u16 = 1;
/// Bytes before the first section.
const HEADER_BYTES: usize = MAGIC.len() + 2;
/// Bytes of a section before its payload.
const SECTION_HEADER_BYTES: usize = 1 + 4 + 4;
/// Bytes of a section after its payload.
const SECTION_CRC_BYTES: usize = 4;
/// Bytes of a payload: with what is around it, a section and the file's header fill one chunk.
const PAYLOAD_BYTES_MAX: usize =
    CHECKPOINT_CHUNK_BYTES - HEADER_BYTES - SECTION_HEADER_BYTES - SECTION_CRC_BYTES;

/// What a section holds. The numbers are the format: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Tag {
    Shard = 1,
    Marks = 2,
    Topics = 3,
    Partitions = 4,
    Producers = 5,
    Head = 6,
    Segments = 7,
    Tombstones = 8,
    Unflushed = 9,
    Gone = 10,
    Catalog = 11,
    End = 12,
}

impl Tag {
    const ALL: [Self; 12] = [
        Self::Shard,
        Self::Marks,
        Self::Topics,
        Self::Partitions,
        Self::Producers,
        Self::Head,
        Self::Segments,
        Self::Tombstones,
        Self::Unflushed,
        Self::Gone,
        Self::Catalog,
        Self::End,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u8 == number)
    }
}

impl Scope {
    const fn number(self) -> u8 {
        match self {
            Self::Local => 0,
            Self::Bucket => 1,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Local),
            1 => Some(Self::Bucket),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use esker_types::{
        EntryId, Incarnation, LeaderEpoch, PartitionIndex, RaftIndex, ShardId, ShardTime, Term,
        TopicId, TopicName, TopicVersion,
    };

    use super::*;
    use crate::{Command, Genesis, PutTopic, State, TopicConfig};

    fn chunks(state: &State) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        let Ok(()) = encode(state, Scope::Bucket, |chunk| {
            chunks.push(chunk);
            Ok::<_, std::convert::Infallible>(())
        });
        chunks
    }

    #[test]
    fn the_body_hash_moves_with_what_the_shard_has_and_not_with_time() {
        let mut state = State::new(Genesis {
            shard: ShardId(1),
            incarnation: Incarnation::FIRST,
            epoch_base: LeaderEpoch(0),
            data_shards: 1,
        });
        let mut index = RaftIndex::ZERO;
        let mut hash_after = |command: Command| {
            index = index.next();
            let entry = EntryId {
                term: Term(1),
                index,
            };
            let _ = state.apply(entry, &command);
            let chunks = chunks(&state);
            let whole = body_hash(&[chunks.concat().into()]);
            assert_eq!(body_hash(&chunks), whole);
            whole.unwrap()
        };
        let tick = |time| Command::Tick {
            time: ShardTime(time),
        };
        let first = hash_after(tick(1));
        assert_eq!(hash_after(tick(2)), first);
        let raised = hash_after(Command::RaiseGcBoundary { to: RaftIndex(1) });
        assert_ne!(raised, first);
        assert_eq!(hash_after(tick(3)), raised);
        // More partitions than one tick sweeps: where the sweep stands is no news.
        let topic = TopicId::new(Incarnation::FIRST, 1).unwrap();
        let partitions = 3000;
        let put = hash_after(Command::PutTopic(PutTopic {
            topic,
            name: TopicName::new("t").unwrap(),
            version: TopicVersion(1),
            config: TopicConfig::default(),
            partitions: (0..partitions).map(PartitionIndex).collect(),
        }));
        assert_ne!(put, raised);
        for time in 4..8 {
            assert_eq!(hash_after(tick(time)), put);
        }
        assert!(body_hash(&[Bytes::from_static(b"ESKERCKP")]).is_err());
        assert!(body_hash(&[]).is_err());
    }
}
