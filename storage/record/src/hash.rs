//! The content hash: what stays the same when a batch changes its codec.
//!
//! XXH3-128 with seed 0 over the canonical form
//!
//! ```text
//!   base timestamp   8 bytes, i64 big-endian, as in the header (byte 27)
//!   timestamp kind   1 byte: 0 create time, 1 log append time (attribute bit 3)
//!   records          the decompressed records, byte for byte as they stand
//! ```
//!
//! Not in it, because a copy may differ there: codec, CRC, base offset, leader epoch, producer,
//! control and transactional bits. Maximum timestamp and record count follow from the records.

use esker_types::ContentHash;
use xxhash_rust::xxh3::Xxh3Default;

use crate::header::{Header, TimestampKind};

/// Hash of the canonical form: `header`'s base timestamp and kind, and the decoded `records`.
#[must_use]
pub fn content_hash(header: &Header, records: &[u8]) -> ContentHash {
    let kind = match header.attributes.timestamp_kind() {
        TimestampKind::Create => 0,
        TimestampKind::LogAppend => 1,
    };
    let mut hasher = Xxh3Default::new();
    hasher.update(&header.base_timestamp.0.to_be_bytes());
    hasher.update(&[kind]);
    hasher.update(records);
    ContentHash(hasher.digest128())
}
