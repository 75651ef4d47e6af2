//! One WAL file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use esker_env::File;

use super::frame::{FileUuid, seeded_crc};
use crate::Error;

/// An open file of the sequence. Whoever must be able to read from it holds an `Arc`; the file is
/// recycled only once the list of files is the last holder.
pub(crate) struct WalFile {
    pub(crate) sequence: u64,
    pub(crate) uuid: FileUuid,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

impl WalFile {
    /// The name of a file of the sequence.
    pub(crate) fn name(sequence: u64, uuid: FileUuid) -> String {
        format!("{sequence:020}-{uuid:032x}.wal")
    }

    /// Sequence and uuid from a path, if it names a file of the sequence.
    pub(crate) fn parse_name(path: &Path) -> Option<(u64, FileUuid)> {
        let name = path.file_name()?.to_str()?;
        let (sequence, uuid) = name.strip_suffix(".wal")?.split_once('-')?;
        if sequence.len() != 20 || uuid.len() != 32 {
            return None;
        }
        Some((
            sequence.parse().ok()?,
            FileUuid::from_str_radix(uuid, 16).ok()?,
        ))
    }
}

impl fmt::Debug for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// Where the payload of an entry's frame lies. Holding it keeps the file from being recycled.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<WalFile>,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) crc: u32,
}

impl Place {
    /// Reads the payload and checks it. Blocks.
    pub(crate) fn read(&self) -> Result<Bytes, Error> {
        let path = || self.file.path.clone();
        let mut payload = vec![0; self.bytes as usize];
        let read = self
            .file
            .file
            .read_at(&mut payload, self.offset)
            .map_err(|source| Error::Io {
                doing: "reading",
                path: path(),
                source,
            })?;
        if read < payload.len() || seeded_crc(self.file.uuid, [&payload[..]]) != self.crc {
            return Err(Error::Corrupt {
                path: path(),
                offset: self.offset,
                what: "the payload of a frame fails its checksum".into(),
            });
        }
        Ok(payload.into())
    }
}
