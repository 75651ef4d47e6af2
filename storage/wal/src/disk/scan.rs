//! Reading it all back at start.
//!
//! A bad group in the last file is a torn tail only if nothing proves that it was once synced:
//! then it is dropped, and said. Everywhere else damage stops the node. Nothing is ever found by
//! searching; the search below only refuses.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use esker_env::{Env, OpenMode};
use esker_types::limits::{MIB, WAL_ALIGN};
use esker_types::{EntryId, RaftIndex, ShardId};

use super::book::{Books, Vote};
use super::file::{Place, WalFile};
use super::frame::{FrameHeader, FrameKind};
use super::group::{self, Bad, GROUP_HEADER_BYTES, GroupHeader, Position, padded_bytes};
use super::preamble::{Preamble, Refused};
use crate::Error;

/// Bytes fetched at a time: enough that a scan is bound by the disk's throughput.
const WINDOW_BYTES: usize = 4 * MIB;

/// What a start found, for a person to read.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Files of the sequence.
    pub files: usize,
    /// Bytes read.
    pub bytes_read: u64,
    /// Frames that count.
    pub frames: u64,
    /// Entries that were copied in by a snapshot that never became current, and were dropped.
    pub installed_dropped: u64,
    /// A group at the very end that was never synced, and was dropped.
    pub torn: Option<Torn>,
}

/// A dropped tail.
#[derive(Clone, Debug)]
pub struct Torn {
    /// Its file.
    pub path: std::path::PathBuf,
    /// Where it began.
    pub offset: u64,
    /// Frames in it that were whole.
    pub frames_readable: usize,
}

/// The whole sequence, read.
pub(crate) struct Scanned {
    pub(crate) files: Vec<Arc<WalFile>>,
    pub(crate) books: Books,
    /// Where the next group goes, if the last file can go on.
    pub(crate) end: u64,
    pub(crate) recovery: Recovery,
}

/// Reads the files at `paths` (sorted by name, hence by sequence). `checkpointed` says, per shard,
/// what the durable checkpoint covers.
pub(crate) fn scan(
    env: &Env,
    paths: &[std::path::PathBuf],
    memory_bytes: usize,
    checkpointed: &BTreeMap<ShardId, RaftIndex>,
) -> Result<Scanned, Error> {
    let mut scan = Scan {
        books: Books::new(memory_bytes),
        recovery: Recovery {
            files: paths.len(),
            ..Recovery::default()
        },
        checkpointed,
        installed: BTreeMap::new(),
    };
    let opened = paths
        .iter()
        .map(|path| open(env, path))
        .collect::<Result<Vec<_>, _>>()?;
    check_sequence(&opened)?;

    let mut end = 0;
    for (number, (file, preamble, start)) in opened.iter().enumerate() {
        let next = opened.get(number + 1);
        if number == 0 {
            scan.begin_with(preamble);
        } else {
            scan.check_bounds(file, preamble)?;
        }
        end = match next {
            Some((_, next, _)) => {
                let mut window = Window::new(file, false);
                scan.read_file(&mut window, *start, next.previous_end)?;
                scan.recovery.bytes_read += window.bytes_read;
                next.previous_end
            }
            None => {
                // What a kill or a failed sync left in the page cache alone must not count.
                let synced = file.file.sync_data();
                synced.map_err(|source| io("syncing", file, source))?;
                let mut window = Window::new(file, true);
                let end = scan.read_tail(&mut window, *start)?;
                scan.recovery.bytes_read += window.bytes_read;
                end
            }
        };
    }
    scan.adopt_installed();
    scan.check_whole(paths)?;
    let files = opened.into_iter().map(|(file, ..)| file).collect();
    Ok(Scanned {
        files,
        books: scan.books,
        end,
        recovery: scan.recovery,
    })
}

type Opened = (Arc<WalFile>, Preamble, u64);

fn open(env: &Env, path: &Path) -> Result<Opened, Error> {
    let (sequence, uuid) = WalFile::parse_name(path).expect("the caller filters by name");
    let file = env
        .files
        .open(path, OpenMode::ReadWrite)
        .map_err(|source| Error::Io {
            doing: "opening",
            path: path.to_owned(),
            source,
        })?;
    let file = Arc::new(WalFile {
        sequence,
        uuid,
        path: path.to_owned(),
        file,
    });

    let mut window = Window::new(&file, false);
    let refused = |refused| match refused {
        Refused::Version(version) => Error::Version {
            path: path.to_owned(),
            version,
        },
        Refused::Damaged => corrupt(&file, 0, "the preamble is damaged"),
    };
    let length = Preamble::padded_bytes(window.get(0, WAL_ALIGN)?).map_err(refused)?;
    let preamble = Preamble::decode(window.get(0, length)?).map_err(refused)?;
    if preamble.sequence != sequence || preamble.uuid != uuid {
        return Err(corrupt(&file, 0, "the preamble belongs to another file"));
    }
    Ok((file, preamble, length as u64))
}

/// The sequence has no hole, and each file but the last ends where the next one says.
fn check_sequence(opened: &[Opened]) -> Result<(), Error> {
    for pair in opened.windows(2) {
        let [(before, ..), (file, preamble, _)] = pair else {
            unreachable!("windows of two")
        };
        if file.sequence != before.sequence + 1 {
            return Err(corrupt(
                file,
                0,
                "the file before it in the sequence is missing",
            ));
        }
        if preamble.previous_end % WAL_ALIGN as u64 != 0 {
            return Err(corrupt(
                file,
                0,
                "it says that the file before it ends within a page",
            ));
        }
    }
    Ok(())
}

struct Scan<'a> {
    books: Books,
    recovery: Recovery,
    checkpointed: &'a BTreeMap<ShardId, RaftIndex>,
    /// What came with snapshots. It was written before raft cut off what it contradicts, and counts all
    /// the same.
    installed: BTreeMap<(ShardId, RaftIndex), (EntryId, Place)>,
}

impl Scan<'_> {
    /// The oldest file's preamble stands for all that came before it.
    fn begin_with(&mut self, preamble: &Preamble) {
        for (shard, bounds) in &preamble.shards {
            self.books.book_mut(*shard).bounds = *bounds;
        }
    }

    /// A later file's preamble must say what reading the files before it gave.
    fn check_bounds(&self, file: &WalFile, preamble: &Preamble) -> Result<(), Error> {
        for (shard, bounds) in &preamble.shards {
            let read = self
                .books
                .book(*shard)
                .map(|book| book.bounds)
                .unwrap_or_default();
            if read != *bounds {
                let what =
                    format!("{shard} stood at {bounds:?} when it began, the log reads {read:?}");
                return Err(Error::Corrupt {
                    path: file.path.clone(),
                    offset: 0,
                    what,
                });
            }
        }
        Ok(())
    }

    /// Reads the groups of `[at, end)`; all of them must be whole.
    fn read_file(&mut self, window: &mut Window, mut at: u64, end: u64) -> Result<(), Error> {
        while at < end {
            match window.group(at)? {
                Ok(group) => at = self.take(window.file, &group, at)?,
                Err(bad) => return Err(self.rot(window.file, at, bad)),
            }
        }
        if at == end {
            Ok(())
        } else {
            Err(corrupt(window.file, at, "a group runs past the end"))
        }
    }

    /// Reads the groups of the last file and returns where they end.
    fn read_tail(&mut self, window: &mut Window, mut at: u64) -> Result<u64, Error> {
        let size = window.size()?;
        loop {
            if at + WAL_ALIGN as u64 > size {
                return Ok(at);
            }
            match window.group(at)? {
                Ok(group) => at = self.take(window.file, &group, at)?,
                Err(bad) => {
                    if let Some(proof) = proof_of_sync(window, at, size)? {
                        tracing::error!(
                            proof,
                            "a group header that lies above the damage says it was synced"
                        );
                        return Err(self.rot(window.file, at, bad));
                    }
                    if bad != Bad::Header {
                        let frames_readable = if let Bad::Payload(frame) = bad {
                            frame
                        } else {
                            0
                        };
                        let path = window.file.path.clone();
                        self.recovery.torn = Some(Torn {
                            path,
                            offset: at,
                            frames_readable,
                        });
                    }
                    return Ok(at);
                }
            }
        }
    }

    /// Takes over the frames of a whole group; returns where the next one begins.
    fn take(&mut self, file: &Arc<WalFile>, group: &Group, at: u64) -> Result<u64, Error> {
        for (frame, payload_at) in &group.frames {
            self.recovery.frames += 1;
            let place = Place {
                file: Arc::clone(file),
                offset: at + *payload_at as u64,
                bytes: frame.bytes,
                crc: frame.payload_crc,
            };
            let payload = &group.bytes[*payload_at..*payload_at + frame.bytes as usize];
            self.take_frame(frame, payload, place).ok_or_else(|| {
                let last = self.books.book(frame.shard).map(|book| book.bounds.last);
                let what = format!(
                    "a frame {:?} of {} for entry {} cannot follow {:?}",
                    frame.kind,
                    frame.shard,
                    frame.id,
                    last.unwrap_or_default()
                );
                Error::Corrupt {
                    path: file.path.clone(),
                    offset: at,
                    what,
                }
            })?;
        }
        Ok(at + padded_bytes(group.frames_bytes) as u64)
    }

    fn take_frame(&mut self, frame: &FrameHeader, payload: &[u8], place: Place) -> Option<()> {
        let (shard, id) = (frame.shard, frame.id);
        match frame.kind {
            FrameKind::Entry => {
                self.books.book_mut(shard).bounds.append(id)?;
                self.books.restore(shard, id, place);
            }
            FrameKind::Moved => match self.installed.get_mut(&(shard, id.index)) {
                Some(installed) if installed.0 == id => installed.1 = place,
                _ => self.books.restore(shard, id, place),
            },
            FrameKind::Installed => {
                let covered = self
                    .checkpointed
                    .get(&shard)
                    .is_some_and(|index| id.index <= *index);
                if covered {
                    self.installed.insert((shard, id.index), (id, place));
                } else {
                    self.recovery.installed_dropped += 1;
                }
            }
            FrameKind::Vote => {
                self.books.book_mut(shard).bounds.vote = Some(Vote::decode(id, payload)?);
            }
            FrameKind::Truncate => drop(self.books.truncate(shard, id)?),
            FrameKind::Purge => self.books.book_mut(shard).bounds.purge(id),
            FrameKind::Committed => self.books.book_mut(shard).bounds.committed = id,
        }
        Some(())
    }

    /// Adds what came with snapshots that a checkpoint covers: it is committed, so that what the log has
    /// in its place is the same, or was to be cut off.
    fn adopt_installed(&mut self) {
        for ((shard, index), (id, place)) in std::mem::take(&mut self.installed) {
            let has = self.books.find(shard, index);
            if has.is_none_or(|(has, _)| has != id) {
                self.books.restore(shard, id, place);
            }
        }
    }

    /// Every entry that raft may still ask for is there.
    fn check_whole(&self, paths: &[std::path::PathBuf]) -> Result<(), Error> {
        for (shard, book) in self.books.iter() {
            let wanted = book.bounds.last.index.0 - book.bounds.purged.index.0;
            let held = book.held_in(book.bounds.purged.index, book.bounds.last.index);
            if held != wanted {
                let (purged, last) = (book.bounds.purged, book.bounds.last);
                let what =
                    format!("{shard} has {held} of the {wanted} entries in ({purged}, {last}]");
                let path = paths.first().cloned().unwrap_or_default();
                return Err(Error::Corrupt {
                    path,
                    offset: 0,
                    what,
                });
            }
        }
        Ok(())
    }

    fn rot(&self, file: &WalFile, at: u64, bad: Bad) -> Error {
        let part = match bad {
            Bad::Header => "the header of a group",
            Bad::Frames => "the frames of a group",
            Bad::Payload(_) => "the payload of a frame",
        };
        let last = self
            .books
            .iter()
            .map(|(shard, book)| (shard, book.bounds.last));
        let last = last
            .map(|(shard, id)| format!("{shard} {id}"))
            .collect::<Vec<_>>()
            .join(", ");
        let what = format!("{part} that was synced is damaged; whole up to: {last}");
        Error::Corrupt {
            path: file.path.clone(),
            offset: at,
            what,
        }
    }
}

/// Searches behind a bad group, at every place where a group may begin, for a header of this file
/// that says: what lies before me was synced. Returns its offset.
fn proof_of_sync(window: &mut Window, bad: u64, size: u64) -> Result<Option<u64>, Error> {
    let (uuid, bad_place) = (
        window.file.uuid,
        Position {
            file: window.file.sequence,
            offset: bad,
        },
    );
    for at in (bad + WAL_ALIGN as u64..size).step_by(WAL_ALIGN) {
        let header = GroupHeader::decode(window.get(at, WAL_ALIGN)?, uuid, at);
        if header.is_some_and(|header| header.mark > bad_place) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// A group read whole.
struct Group {
    frames: Vec<(FrameHeader, usize)>,
    frames_bytes: usize,
    bytes: Bytes,
}

/// A file, read forward through a buffer.
struct Window<'a> {
    file: &'a Arc<WalFile>,
    past_cache: bool,
    start: u64,
    bytes: Vec<u8>,
    bytes_read: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a Arc<WalFile>, past_cache: bool) -> Self {
        Self {
            file,
            past_cache,
            start: 0,
            bytes: Vec::new(),
            bytes_read: 0,
        }
    }

    fn size(&self) -> Result<u64, Error> {
        self.file
            .file
            .size()
            .map_err(|source| io("measuring", self.file, source))
    }

    /// `length` bytes from `at`, fewer at the end of the file.
    fn get(&mut self, at: u64, length: usize) -> Result<&[u8], Error> {
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + length as u64 > end {
            let rest = self.size()?.saturating_sub(at);
            let rest = usize::try_from(rest).unwrap_or(usize::MAX);
            self.bytes.resize(length.max(WINDOW_BYTES).min(rest), 0);
            let file = &self.file.file;
            let read = if self.past_cache {
                file.read_past_cache_at(&mut self.bytes, at)
            } else {
                file.read_at(&mut self.bytes, at)
            };
            let read = read.map_err(|source| io("reading", self.file, source))?;
            self.bytes.truncate(read);
            self.bytes_read += read as u64;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).expect("within the window");
        let bytes = &self.bytes[from.min(self.bytes.len())..];
        Ok(&bytes[..length.min(bytes.len())])
    }

    /// The group at `at`, or why there is none.
    fn group(&mut self, at: u64) -> Result<Result<Group, Bad>, Error> {
        let uuid = self.file.uuid;
        let Some(header) = GroupHeader::decode(self.get(at, WAL_ALIGN)?, uuid, at) else {
            return Ok(Err(Bad::Header));
        };
        let bytes = self.get(at, GROUP_HEADER_BYTES + header.bytes as usize)?;
        Ok(group::check(uuid, &header, bytes).map(|frames| Group {
            frames,
            frames_bytes: header.bytes as usize,
            bytes: Bytes::copy_from_slice(bytes),
        }))
    }
}

fn io(doing: &'static str, file: &WalFile, source: std::io::Error) -> Error {
    Error::Io {
        doing,
        path: file.path.clone(),
        source,
    }
}

fn corrupt(file: &WalFile, offset: u64, what: &str) -> Error {
    Error::Corrupt {
        path: file.path.clone(),
        offset,
        what: what.into(),
    }
}

impl Vote {
    /// The frame of a vote: the term stands in its header, the rest is payload.
    pub(crate) fn encode(self) -> (EntryId, Bytes) {
        let mut payload = self.node.to_le_bytes().to_vec();
        payload.push(u8::from(self.committed));
        (
            EntryId {
                term: self.term,
                index: RaftIndex::ZERO,
            },
            payload.into(),
        )
    }

    /// `None` if `payload` is not what [`Vote::encode`] makes.
    pub(crate) fn decode(id: EntryId, payload: &[u8]) -> Option<Self> {
        let (node, committed) = payload.split_last_chunk::<1>()?;
        let node = u64::from_le_bytes(node.try_into().ok()?);
        let committed = match committed {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        Some(Self {
            term: id.term,
            node,
            committed,
        })
    }
}
