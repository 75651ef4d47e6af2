//! What an agent checks of a producer's batch, once, before it travels on.

use bytes::Bytes;
use esker_types::{ContentHash, Timestamp};

use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::error::{Error, Fault, Refusal};
use crate::hash::content_hash;
use crate::header::{Attributes, Header, TimestampKind, layout, malformed};
use crate::records::{located, read_record};
use crate::scratch::Scratch;

/// What a topic asks of its batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Bytes of a batch as it travels (`max_batch_bytes`).
    pub batch_bytes_max: usize,
    /// Whether the records are opened (`deep_check`).
    pub depth: Depth,
}

/// How far the check goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Every record is decoded and compared with the header.
    Deep,
    /// Frame, header and checksum only; a bad record is found by its readers.
    Shallow,
}

/// A batch that may be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Checked {
    /// The batch, verbatim.
    pub batch: Batch,
    /// Hash of its content after a deep check, else its CRC
    /// (told apart by [`ContentHash::as_checksum`]).
    pub hash: ContentHash,
    /// Bytes of its records once decoded; `None` if nobody looked.
    pub decoded_bytes: Option<usize>,
}

/// Takes `bytes` as one batch of a producer and checks it by `rules`.
///
/// # Errors
/// Any of [`Error`]; nothing of the batch may be stored then.
pub fn admit(bytes: Bytes, rules: &Rules, scratch: &mut Scratch) -> Result<Checked, Error> {
    if bytes.len() > rules.batch_bytes_max {
        return Err(Error::TooLarge {
            bytes: bytes.len(),
            limit: rules.batch_bytes_max,
        });
    }
    let batch = Batch::open(bytes)?;
    refuse(batch.header().attributes)?;
    let (hash, decoded_bytes) = match rules.depth {
        Depth::Shallow => (ContentHash::from_checksum(batch.header().crc), None),
        Depth::Deep => {
            let plain = scratch.decode(&batch)?;
            walk(batch.header(), &plain)?;
            (content_hash(batch.header(), &plain), Some(plain.len()))
        }
    };
    Ok(Checked {
        batch,
        hash,
        decoded_bytes,
    })
}

fn refuse(attributes: Attributes) -> Result<(), Error> {
    let refusal = if attributes.is_control() {
        Refusal::Control
    } else if attributes.is_transactional() {
        Refusal::Transactional
    } else if attributes.timestamp_kind() == TimestampKind::LogAppend {
        Refusal::LogAppendTime
    } else if attributes.has_delete_horizon() {
        Refusal::DeleteHorizon
    } else {
        return Ok(());
    };
    Err(Error::Refused(refusal))
}

/// Compares every record with the header. The header's count is bounded, and each step consumes
/// bytes, so the walk ends.
fn walk(header: &Header, plain: &[u8]) -> Result<(), Error> {
    let mut cursor = Cursor::new(plain, 0);
    let mut found = i64::MIN;
    for expected in 0..header.records {
        let start = cursor.at();
        let raw = read_record(&mut cursor, expected).map_err(located)?;
        let timestamp = raw
            .timestamp(header)
            .map_err(|fault| located((start, fault)))?;
        found = found.max(timestamp);
    }
    if cursor.left() > 0 {
        let bytes = cursor.left();
        return Err(located((cursor.at(), Fault::Trailing { bytes })));
    }
    let Timestamp(declared) = header.max_timestamp;
    if declared != found {
        let fault = Fault::MaxTimestamp { declared, found };
        return Err(malformed(layout::MAX_TIMESTAMP, fault));
    }
    Ok(())
}
