//! What one write and one sync carry: a header, then frames, then zeroes to the next 4 KiB.
//!
//! ```text
//!   0       4        8       12     16          24            32      40           44
//!   │ magic │ frames │ bytes │ zero │ mark file │ mark offset │ place │ frames crc │ header crc │ frame …
//! ```
//! Little-endian. `bytes` counts the frames; `place` is the header's own offset, so that a write
//! that landed elsewhere is not believed. `frames crc` covers the headers of all frames, whose own
//! checksums cover the payloads; `header crc` covers the header before it, so that a header proves
//! its mark even when its frames were torn. A group without frames is a *seal*.

use bytes::{Buf, BufMut};
use esker_types::limits::{WAL_ALIGN, WAL_GROUP_BYTES_MAX};

use super::frame::{FRAME_HEADER_BYTES, FileUuid, FrameHeader, seeded_crc};

/// Bytes of a group before its first frame.
pub(crate) const GROUP_HEADER_BYTES: usize = 48;
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"EGRP");
/// Bytes of the header that its own checksum covers.
const CHECKED_BYTES: usize = 44;
/// Frames of one group: what its bytes allow.
const FRAMES_MAX: usize = WAL_GROUP_BYTES_MAX / FRAME_HEADER_BYTES;

/// A place in the stream of all files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Position {
    /// Sequence of the file.
    pub(crate) file: u64,
    /// Bytes from its start.
    pub(crate) offset: u64,
}

/// The fixed part of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupHeader {
    pub(crate) frames: u32,
    pub(crate) bytes: u32,
    /// All before this was synced when the group was written.
    pub(crate) mark: Position,
    /// The header's own offset.
    pub(crate) place: u64,
    /// Over the headers of the frames.
    pub(crate) frames_crc: u32,
}

/// Bytes a group of `frame_bytes` takes on disk.
pub(crate) fn padded_bytes(frame_bytes: usize) -> usize {
    (GROUP_HEADER_BYTES + frame_bytes).next_multiple_of(WAL_ALIGN)
}

impl GroupHeader {
    /// Encodes the header for the file `uuid`.
    pub(crate) fn encode(&self, uuid: FileUuid) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_u32_le(GROUP_MAGIC);
        out.put_u32_le(self.frames);
        out.put_u32_le(self.bytes);
        out.put_u32_le(0);
        out.put_u64_le(self.mark.file);
        out.put_u64_le(self.mark.offset);
        out.put_u64_le(self.place);
        out.put_u32_le(self.frames_crc);
        let crc = seeded_crc(uuid, [&bytes[..CHECKED_BYTES]]);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of the file `uuid` that stands at `place`, if one does.
    pub(crate) fn decode(bytes: &[u8], uuid: FileUuid, place: u64) -> Option<Self> {
        let (checked, mut crc) = bytes.get(..GROUP_HEADER_BYTES)?.split_at(CHECKED_BYTES);
        let mut from = checked;
        // The cheap test first: this runs over every page of a file when damage is judged.
        if from.try_get_u32_le().ok()? != GROUP_MAGIC
            || crc.get_u32_le() != seeded_crc(uuid, [checked])
        {
            return None;
        }
        let frames = from.try_get_u32_le().ok()?;
        let bytes = from.try_get_u32_le().ok()?;
        from.try_get_u32_le().ok()?;
        let mark = Position {
            file: from.try_get_u64_le().ok()?,
            offset: from.try_get_u64_le().ok()?,
        };
        let own = from.try_get_u64_le().ok()?;
        let frames_crc = from.try_get_u32_le().ok()?;
        let bounded = frames as usize <= FRAMES_MAX && bytes as usize <= WAL_GROUP_BYTES_MAX;
        (own == place && bounded).then_some(Self {
            frames,
            bytes,
            mark,
            place,
            frames_crc,
        })
    }
}

/// Why the bytes at a place are no group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    /// No header of this file.
    Header,
    /// A header, but the headers of its frames are off.
    Frames,
    /// The payload of the frame with this number is off; the frames before it are whole.
    Payload(usize),
}

/// Checks the group that `header` describes against the whole of its `bytes` (header included) and
/// returns the frames with the offset of each payload within `bytes`.
pub(crate) fn check(
    uuid: FileUuid,
    header: &GroupHeader,
    bytes: &[u8],
) -> Result<Vec<(FrameHeader, usize)>, Bad> {
    let end = GROUP_HEADER_BYTES + header.bytes as usize;
    if bytes.len() < end {
        return Err(Bad::Frames);
    }
    let mut frames = Vec::with_capacity(header.frames as usize);
    let mut checked = Vec::with_capacity(header.frames as usize);
    let mut at = GROUP_HEADER_BYTES;
    for _ in 0..header.frames {
        let raw = bytes.get(at..at + FRAME_HEADER_BYTES).ok_or(Bad::Frames)?;
        let frame = FrameHeader::decode(raw).ok_or(Bad::Frames)?;
        checked.push(raw);
        at += FRAME_HEADER_BYTES;
        frames.push((frame, at));
        at = at
            .checked_add(frame.bytes as usize)
            .filter(|&at| at <= end)
            .ok_or(Bad::Frames)?;
    }
    if at != end || seeded_crc(uuid, checked) != header.frames_crc {
        return Err(Bad::Frames);
    }
    for (number, (frame, at)) in frames.iter().enumerate() {
        let payload = &bytes[*at..*at + frame.bytes as usize];
        if seeded_crc(uuid, [payload]) != frame.payload_crc {
            return Err(Bad::Payload(number));
        }
    }
    Ok(frames)
}
