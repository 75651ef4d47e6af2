//! Opening a segment: says which bytes it wants, takes them, and is done after one GET of the
//! object's tail, or after one more if the footer is larger than that.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use esker_types::SegmentId;
use esker_types::limits::SEGMENT_TAIL_BYTES;

use crate::error::{Error, Fault, Part};
use crate::fields::{agree, check_crc};
use crate::footer::Footer;
use crate::segment::Segment;
use crate::trailer::{HEADER_BYTES, TRAILER_BYTES, Trailer};

/// A segment being opened.
#[derive(Debug)]
#[must_use]
pub struct Opening {
    segment: SegmentId,
    length: u64,
    wants: Range<u64>,
    /// What came with the first GET, if that was not enough.
    tail: Option<Bytes>,
}

/// How far it has come.
#[derive(Debug)]
#[must_use]
pub enum Opened {
    /// Open. The bytes read on the way often hold the directory too.
    Done(Segment, Tail),
    /// The footer is larger than the first GET: one more.
    More(Opening),
}

impl Opening {
    /// Opens the object `segment`, whose length the manifest knows.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is too short to be one.
    pub fn new(segment: SegmentId, length: u64) -> Result<Self, Error> {
        let needed = (HEADER_BYTES + TRAILER_BYTES) as u64;
        if length < needed {
            let fault = Fault::Short {
                needed,
                left: length,
            };
            return Err(Error::damaged(segment, Part::Object, fault));
        }
        Ok(Self {
            segment,
            length,
            wants: length.saturating_sub(SEGMENT_TAIL_BYTES as u64)..length,
            tail: None,
        })
    }

    /// The bytes of the object to GET next.
    #[must_use]
    pub fn wants(&self) -> Range<u64> {
        self.wants.clone()
    }

    /// Takes exactly the bytes that [`Opening::wants`] named.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Version`].
    pub fn take(mut self, bytes: Bytes) -> Result<Opened, Error> {
        let expected = self.wants.end - self.wants.start;
        agree("bytes of the answer", bytes.len() as u64, expected)
            .map_err(|fault| Error::damaged(self.segment, Part::Object, fault))?;
        let bytes = match self.tail.take() {
            None => bytes,
            Some(tail) => {
                let mut whole = BytesMut::with_capacity(bytes.len() + tail.len());
                whole.extend_from_slice(&bytes);
                whole.extend_from_slice(&tail);
                whole.freeze()
            }
        };
        let from = self.wants.start;
        let body_end = bytes.len() - TRAILER_BYTES;
        let trailer = Trailer::decode(&bytes[body_end..], self.segment, self.length)?;
        let Some(start) = trailer.footer_position.checked_sub(from) else {
            self.wants = trailer.footer_position..from;
            self.tail = Some(bytes);
            return Ok(Opened::More(self));
        };
        let start = usize::try_from(start).expect("inside the bytes at hand");
        let stored = &bytes[start..body_end];
        let footer = check_crc(stored, trailer.footer_crc)
            .and_then(|()| Footer::decode(stored, self.segment, trailer.footer_position))
            .map_err(|fault| Error::damaged(self.segment, Part::Footer, fault))?;
        Ok(Opened::Done(
            Segment { trailer, footer },
            Tail { from, bytes },
        ))
    }
}

/// Bytes at the end of the object that were read while opening it.
#[derive(Clone, Debug)]
pub struct Tail {
    from: u64,
    bytes: Bytes,
}

impl Tail {
    /// The bytes of `range` of the object, if they are all here.
    #[must_use]
    pub fn get(&self, range: Range<u64>) -> Option<Bytes> {
        let start = usize::try_from(range.start.checked_sub(self.from)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.from)?).ok()?;
        (start <= end && end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}
