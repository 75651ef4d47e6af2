//! A segment's object, read whole and in large pieces.

use std::ops::Range;

use bytes::Bytes;
use esker_object::{Key, Kind, Store};
use esker_segment::{Depth, Opened, Opening, Segment, Verified, Verifier};
use esker_shard::MixedSegment;
use esker_types::Lane;
use esker_types::limits::MIB;

use crate::error::ReadError;

/// Bytes of one request while blocks are read one after the other.
const WINDOW_BYTES: u64 = 8 * MIB as u64;

/// One object, read in large pieces.
pub(super) struct Object<'a> {
    pub(super) store: &'a Store,
    pub(super) key: Key,
    pub(super) segment: &'a MixedSegment,
}

/// Bytes of an object at hand.
#[derive(Default)]
struct Window {
    from: u64,
    bytes: Bytes,
}

impl Object<'_> {
    pub(super) async fn verify(&self, depth: Depth) -> Result<Verified, ReadError> {
        let segment = self.open().await?;
        let blocks_end = segment.blocks().last().map_or(0, |block| block.end());
        let (mut blocks, mut rest) = (Window::default(), Window::default());
        let mut verifier = Verifier::new(segment, depth);
        while let Some(range) = verifier.wants() {
            let window = if range.start < blocks_end {
                &mut blocks
            } else {
                &mut rest
            };
            verifier.take(self.get(range, window).await?)?;
        }
        Ok(verifier.finish())
    }

    async fn open(&self) -> Result<Segment, ReadError> {
        let mut opening = Opening::new(self.segment.segment, self.segment.length)?;
        loop {
            let mut window = Window::default();
            let wanted = opening.wants();
            let bytes = self.get(wanted, &mut window).await?;
            match opening.take(bytes)? {
                Opened::Done(segment, _) => return Ok(segment),
                Opened::More(more) => opening = more,
            }
        }
    }

    /// The bytes of `range`, out of the window if they are there.
    async fn get(&self, range: Range<u64>, window: &mut Window) -> Result<Bytes, ReadError> {
        if let Some(bytes) = window.get(&range) {
            return Ok(bytes);
        }
        let end = (range.start + WINDOW_BYTES)
            .min(self.segment.length)
            .max(range.end);
        let got = self
            .store
            .get_range(&self.key, range.start..end, Lane::Backfill)
            .await;
        let segment = self.segment.segment;
        let bytes = got.map_err(|source| match source.kind() {
            Kind::NotFound => ReadError::Gone { segment },
            _ => ReadError::Bucket { segment, source },
        })?;
        *window = Window {
            from: range.start,
            bytes,
        };
        Ok(window.get(&range).expect("it was just read"))
    }
}

impl Window {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.from)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.from)?).ok()?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}
