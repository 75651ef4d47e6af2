//! Decoded records.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use esker_proto::v1;
use esker_record::{Header, Record, Records, Scratch};
use esker_types::{Offset, OffsetRange};

use super::damaged;
use crate::error::Error;

/// Records of one batch, those that were asked for.
#[derive(Clone, Debug)]
pub struct Batch {
    /// With the base offset that the log gave it. `None` where a damaged range was stepped over.
    header: Option<Header>,
    plain: Bytes,
    range: OffsetRange,
    skipped: Option<Error>,
    mark: v1::Mark,
    partition_end: Offset,
}

/// What is known of a batch before it is opened.
#[derive(Clone, Debug)]
pub(crate) struct Wrapped {
    pub(crate) data: Bytes,
    pub(crate) base: Offset,
    /// What of it was asked for.
    pub(crate) range: OffsetRange,
    pub(crate) mark: v1::Mark,
    pub(crate) partition_end: Offset,
}

impl Batch {
    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let records = self.header.as_ref().map(|header| {
            let before = self.range.start().since(header.base_offset);
            let skip = usize::try_from(before).expect("a batch has far less than 2^32 records");
            Records::new(header, &self.plain).skip(skip)
        });
        let count = usize::try_from(self.range.len()).unwrap_or(usize::MAX);
        records
            .into_iter()
            .flatten()
            .take(count)
            .map(|record| record.expect("all were looked at when the batch was opened"))
    }

    /// `[first offset, last offset + 1)` of the records, or of what was stepped over.
    #[must_use]
    pub const fn range(&self) -> OffsetRange {
        self.range
    }

    /// The decoded records' bytes, which keys and values are slices of: `slice_ref` of this makes
    /// owned ones without a copy.
    #[must_use]
    pub const fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Here a damaged range was stepped over: there are no records, and this is what the service
    /// said of it.
    #[must_use]
    pub const fn skipped(&self) -> Option<&Error> {
        self.skipped.as_ref()
    }

    /// How far the service had seen the log.
    #[must_use]
    pub const fn mark(&self) -> v1::Mark {
        self.mark
    }

    /// Where the partition ended when this was sent.
    #[must_use]
    pub const fn partition_end(&self) -> Offset {
        self.partition_end
    }

    /// A range that was stepped over.
    pub(super) fn stepped_over(
        range: OffsetRange,
        why: Error,
        mark: v1::Mark,
        partition_end: Offset,
    ) -> Self {
        Self {
            header: None,
            plain: Bytes::new(),
            range,
            skipped: Some(why),
            mark,
            partition_end,
        }
    }
}

/// Decoders that wait for their next batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratches(Arc<Mutex<Vec<Scratch>>>);

/// Decoders kept.
const SCRATCHES_MAX: usize = 4;
/// Bytes that each keeps.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

impl Scratches {
    /// Opens a batch: its checksum, its records, each of them.
    pub(crate) fn open(&self, wrapped: Wrapped) -> Result<Batch, Error> {
        let kept = self.0.lock().expect("no holder panics").pop();
        let mut scratch = kept.unwrap_or_else(|| Scratch::new(SCRATCH_BYTES_MAX));
        let base = wrapped.base;
        let opened = open(wrapped, &mut scratch);
        let mut kept = self.0.lock().expect("no holder panics");
        if kept.len() < SCRATCHES_MAX {
            kept.push(scratch);
        }
        opened.map_err(|error| damaged(format!("the batch at offset {base} is damaged: {error}")))
    }
}

fn open(wrapped: Wrapped, scratch: &mut Scratch) -> Result<Batch, esker_record::Error> {
    let batch = esker_record::Batch::open(wrapped.data)?;
    let plain = scratch.decode_owned(&batch)?;
    let header = Header {
        base_offset: wrapped.base,
        ..*batch.header()
    };
    for record in Records::new(&header, &plain) {
        record?;
    }
    Ok(Batch {
        header: Some(header),
        plain,
        range: wrapped.range,
        skipped: None,
        mark: wrapped.mark,
        partition_end: wrapped.partition_end,
    })
}
