//! A look inside one WAL file, without opening the log: for operators and for fuzzing.

use std::io;
use std::path::Path;

use bytes::Buf;
use esker_env::{Env, OpenMode};
use esker_types::limits::WAL_ALIGN;
use esker_types::{EntryId, ShardId};

use super::book::LogBounds;
use super::frame::FrameKind;
use super::group::{self, Bad, GROUP_HEADER_BYTES, GroupHeader, Position, padded_bytes};
use super::preamble::{Preamble, Refused};
use crate::Error;

/// Bytes of a file that is looked into; the largest ever written is far smaller.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What a WAL file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileReport {
    /// Its place in the sequence.
    pub sequence: u64,
    /// Its uuid, which seeds its checksums.
    pub uuid: u128,
    /// Where the valid bytes of the file before end.
    pub previous_end: u64,
    /// Each shard's bounds when it began.
    pub shards: Vec<(ShardId, LogBounds)>,
    /// Its groups, in order.
    pub groups: Vec<GroupReport>,
    /// Where they end. What follows is old, torn, or damaged: one file alone cannot always tell.
    pub end: u64,
    /// Why the bytes there are no group.
    pub after: &'static str,
    /// Whether something was written at `end` that is not whole now.
    pub torn: bool,
    /// A later group of this file whose mark says that what stood at `end` was synced: the file is
    /// damaged there.
    pub proof: Option<u64>,
}

/// One group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReport {
    /// Where it begins.
    pub offset: u64,
    /// All before this file sequence and offset was synced when the group was written.
    pub mark: (u64, u64),
    /// Its frames; none in a seal.
    pub frames: Vec<FrameReport>,
}

/// One frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameReport {
    /// What it means.
    pub kind: &'static str,
    /// Of which shard.
    pub shard: ShardId,
    /// The entry it is or names.
    pub id: EntryId,
    /// Bytes of its payload.
    pub bytes: u32,
    /// Of these, bytes of record batches.
    pub batch_bytes: u32,
}

impl FileReport {
    /// Reads the file at `path`. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Version`], [`Error::Corrupt`] if there is no preamble.
    pub fn read(env: &Env, path: &Path) -> Result<Self, Error> {
        let io = |doing, source| Error::Io {
            doing,
            path: path.to_owned(),
            source,
        };
        let file = env
            .files
            .open(path, OpenMode::Read)
            .map_err(|error| io("opening", error))?;
        let size = file.size().map_err(|error| io("measuring", error))?;
        if size > FILE_BYTES_MAX {
            let what = format!("{size} bytes, a WAL file has {FILE_BYTES_MAX} at most");
            return Err(io(
                "reading",
                io::Error::new(io::ErrorKind::InvalidData, what),
            ));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("at most a GiB")];
        let read = file
            .read_at(&mut bytes, 0)
            .map_err(|error| io("reading", error))?;
        bytes.truncate(read);
        Self::of(&bytes).map_err(|refused| match refused {
            Refused::Version(version) => Error::Version {
                path: path.to_owned(),
                version,
            },
            Refused::Damaged => Error::Corrupt {
                path: path.to_owned(),
                offset: 0,
                what: "the preamble is damaged, or this is no WAL file".into(),
            },
        })
    }

    /// Reads the bytes of a whole file; `None` if they do not begin with a preamble.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::of(bytes).ok()
    }

    fn of(bytes: &[u8]) -> Result<Self, Refused> {
        let preamble = Preamble::decode(bytes)?;
        let mut at = Preamble::padded_bytes(bytes)?;
        let mut groups = Vec::new();
        let after = loop {
            match read_group(preamble.uuid, bytes, at) {
                Ok((group, length)) => {
                    groups.push(group);
                    at += length;
                }
                Err(bad) => break bad,
            }
        };
        let proof = proof(&preamble, bytes, at);
        Ok(Self {
            sequence: preamble.sequence,
            uuid: preamble.uuid,
            previous_end: preamble.previous_end,
            shards: preamble.shards,
            groups,
            end: at as u64,
            torn: !matches!(after, Bad::Header),
            proof,
            after: match after {
                Bad::Header => "no group of this file",
                Bad::Frames => "a group whose frames are damaged or torn",
                Bad::Payload(_) => "a group with a payload that is damaged or torn",
            },
        })
    }
}

/// The group at `at`, and the bytes it takes.
fn read_group(uuid: u128, bytes: &[u8], at: usize) -> Result<(GroupReport, usize), Bad> {
    let from = bytes
        .get(at..)
        .filter(|from| from.len() >= WAL_ALIGN)
        .ok_or(Bad::Header)?;
    let header = GroupHeader::decode(from, uuid, at as u64).ok_or(Bad::Header)?;
    let length = GROUP_HEADER_BYTES + header.bytes as usize;
    let frames = group::check(uuid, &header, &from[..length.min(from.len())])?;
    let frames = frames.into_iter().map(|(frame, at)| FrameReport {
        kind: frame.kind.name(),
        shard: frame.shard,
        id: frame.id,
        bytes: frame.bytes,
        batch_bytes: match frame.kind {
            FrameKind::Entry | FrameKind::Moved | FrameKind::Installed => {
                batch_bytes(&from[at..at + frame.bytes as usize])
            }
            _ => 0,
        },
    });
    let group = GroupReport {
        offset: at as u64,
        mark: (header.mark.file, header.mark.offset),
        frames: frames.collect(),
    };
    Ok((group, padded_bytes(header.bytes as usize)))
}

/// Bytes of a body behind its head: record batches, if any.
fn batch_bytes(mut body: &[u8]) -> u32 {
    let head = body.try_get_u32_le().unwrap_or(0) as usize;
    u32::try_from(body.len().saturating_sub(head)).unwrap_or(u32::MAX)
}

/// Where a group stands whose mark lies above `bad`, if one does.
fn proof(preamble: &Preamble, bytes: &[u8], bad: usize) -> Option<u64> {
    let bad_at = Position {
        file: preamble.sequence,
        offset: bad as u64,
    };
    let mut places = (bad..bytes.len()).step_by(WAL_ALIGN).skip(1);
    let proves = |at: &usize| {
        let header = GroupHeader::decode(&bytes[*at..], preamble.uuid, *at as u64);
        header.is_some_and(|header| header.mark > bad_at)
    };
    places.find(proves).map(|at| at as u64)
}

impl FrameKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Vote => "vote",
            Self::Truncate => "truncate",
            Self::Purge => "purge",
            Self::Committed => "committed",
            Self::Moved => "moved",
            Self::Installed => "installed",
        }
    }
}
