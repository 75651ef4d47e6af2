//! The one writer of a node: takes all that queued up, writes it with one call, syncs once, and
//! only then tells the owners.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use esker_env::{Aligned, DIRECT_ALIGN, Env, Worker, is_out_of_room};
use esker_types::ShardId;
use esker_types::limits::WAL_ALIGN;

use super::book::{LogBounds, Vote};
use super::file::{Place, WalFile};
use super::frame::{FRAME_HEADER_BYTES, FileUuid, FrameHeader, FrameKind, seeded_crc};
use super::group::{GROUP_HEADER_BYTES, GroupHeader, Position, padded_bytes};
use super::options::Fatal;
use super::preamble::Preamble;
use super::queue::Item;
use super::shared::Shared;
use super::spare::{self, Spare};

const _: () = assert!(WAL_ALIGN.is_multiple_of(DIRECT_ALIGN));

/// The file being written, and how far.
pub(crate) struct Active {
    pub(crate) file: Arc<WalFile>,
    /// Where the next group goes; all before it is synced.
    pub(crate) end: u64,
}

/// Runs on a thread of its own.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) env: Env,
    pub(crate) directory: PathBuf,
    pub(crate) file_bytes: u64,
    pub(crate) active: Active,
    /// Each shard's bounds as the frames written so far left them: what the next preamble says.
    pub(crate) written: BTreeMap<ShardId, LogBounds>,
    /// Taken from the queue, and still to be written once there is room.
    pub(crate) stalled: Vec<Item>,
    /// What a group is written through, as large as the largest so far.
    pub(crate) through: Aligned,
}

impl Worker for Writer {
    fn run(&mut self) {
        loop {
            let items = self.take();
            let Some(items) = items else { break };
            if !self.has_room(&items) {
                self.shared.sync_began(self.env.clock.monotonic());
                let rolled = self.roll();
                self.shared.sync_gave_up();
                match rolled {
                    Ok(()) => {}
                    // A seal that finds no file holds up nobody: the sealer asks again once one comes.
                    Err(Roll::Full) if items.is_empty() => break,
                    // Nobody writes what was not promised room (`room`), so this is not reached but
                    // by a fault in that reckoning, or by entries that a follower was sent past its
                    // door. Then the last file is gone, to whatever frame came first: nothing may
                    // overtake, since each shard's frames keep their order and one stream tells a
                    // start the order of all. Nothing is lost: the items wait for a release that may
                    // still come, or for a spare under way, and `watch` says so aloud, and ends the
                    // process if none does.
                    Err(Roll::Full) => {
                        self.shared.set_stalled(Some(self.env.clock.monotonic()));
                        self.stalled = items;
                        break;
                    }
                    Err(Roll::Failed(error)) => {
                        self.fail(items, "starting a file", &error);
                        break;
                    }
                }
            }
            self.shared.set_stalled(None);
            if !self.write_group(items) {
                break;
            }
        }
        self.recycle();
    }
}

impl Writer {
    /// The items of the next group; empty for a seal; `None` if there is nothing to do.
    fn take(&mut self) -> Option<Vec<Item>> {
        let mut queue = self.shared.queue();
        if queue.refusing {
            drop(queue);
            for done in self.stalled.drain(..).filter_map(|item| item.done) {
                done(Err(io::Error::other("the WAL has failed or is closed")));
            }
            return None;
        }
        if !self.stalled.is_empty() {
            return Some(std::mem::take(&mut self.stalled));
        }
        let mut items = queue.take_group();
        let seal = std::mem::take(&mut queue.seal);
        if items.is_empty() && !seal {
            return None;
        }
        if !items.is_empty() {
            let committed = std::mem::take(&mut queue.committed);
            drop(queue);
            items.extend(self.shared.committed_frames(committed));
        }
        Some(items)
    }

    fn has_room(&self, items: &[Item]) -> bool {
        let bytes = padded_bytes(items.iter().map(Item::framed_bytes).sum());
        self.active.end + bytes as u64 <= self.file_bytes
    }

    /// Writes and syncs one group, then tells its owners. False if the log has failed.
    fn write_group(&mut self, items: Vec<Item>) -> bool {
        let uuid = self.active.file.uuid;
        let layout = Layout::new(uuid, &items);
        let position = Position {
            file: self.active.file.sequence,
            offset: self.active.end,
        };
        let header = layout.header(uuid, position);
        let padded = padded_bytes(layout.bytes);

        self.shared.sync_began(self.env.clock.monotonic());
        let slices = layout.slices(&header, &items, padded);
        let file = &self.active.file.file;
        let written = file.write_past_cache_at(&slices, self.active.end, &mut self.through);
        if let Err(error) = written {
            self.fail(items, "writing", &error);
            return false;
        }
        let began = self.env.clock.monotonic();
        let synced = self.active.file.file.sync_data();
        self.shared
            .sync_ended(self.env.clock.monotonic().since(began), padded);
        if let Err(error) = synced {
            self.fail(items, "syncing", &error);
            return false;
        }
        // A sync that took too long has ended the log meanwhile: its success comes too late.
        if self.shared.has_failed() {
            self.fail(items, "syncing", &io::ErrorKind::TimedOut.into());
            return false;
        }
        let payload_base = self.active.end;
        self.active.end += padded as u64;
        self.shared.group_written();
        self.complete(items, &layout, payload_base);
        true
    }

    /// Notes where entries lie, moves the written bounds, and calls the owners in order.
    fn complete(&mut self, items: Vec<Item>, layout: &Layout, group_start: u64) {
        let sealed = items.is_empty();
        {
            let mut books = self.shared.books();
            for (item, frame) in items.iter().zip(&layout.frames) {
                if item.kind.carries_entry() {
                    let place = Place {
                        file: Arc::clone(&self.active.file),
                        offset: group_start + frame.payload_at,
                        bytes: frame.header.bytes,
                        crc: frame.header.payload_crc,
                    };
                    match &item.staged {
                        Some(staged) => staged.placed(item.id, place),
                        None => books.placed(item.shard, item.id, place),
                    }
                }
            }
            books.evict();
        }
        for item in &items {
            let bounds = self.written.entry(item.shard).or_default();
            note(bounds, item);
        }
        self.shared
            .wrote(&self.written, &items, self.env.clock.monotonic(), sealed);
        for item in items {
            // A truncation is on disk: what it cut off may go.
            drop(item.keeps);
            if let Some(done) = item.done {
                done(Ok(()));
            }
        }
    }

    /// Nothing more is written, acked or tried again: what the disk holds now, only the next start
    /// can tell, by reading it back.
    fn fail(&mut self, items: Vec<Item>, doing: &'static str, error: &io::Error) {
        let (path, error) = (self.active.file.path.clone(), error.to_string());
        let fatal = Fatal { doing, path, error };
        for done in items.into_iter().filter_map(|item| item.done) {
            done(Err(io::Error::other(fatal.to_string())));
        }
        self.shared.fail(&fatal);
    }

    /// Begins the next file: its preamble is synced and its name durable before anything follows.
    fn roll(&mut self) -> Result<(), Roll> {
        let spare = match self.shared.take_spare() {
            Some(spare) => spare,
            None if self.shared.may_grow() => {
                let made = spare::prewrite(&self.env, &self.directory, self.file_bytes);
                made.map_err(|error| {
                    self.shared.not_grown();
                    match is_out_of_room(&error) {
                        true => Roll::Full,
                        false => Roll::Failed(error),
                    }
                })?
            }
            None => return Err(Roll::Full),
        };
        let preamble = Preamble {
            uuid: self.env.entropy.next_u128(),
            sequence: self.active.file.sequence + 1,
            previous_end: self.active.end,
            shards: self
                .written
                .iter()
                .map(|(shard, bounds)| (*shard, *bounds))
                .collect(),
        };
        // From here on no error is "full": part of the step may be durable, and is not tried again.
        let begun = begin_file(&self.env, &self.directory, spare, &preamble);
        self.active = begun.map_err(Roll::Failed)?;
        self.shared.began_file(&self.active.file, self.active.end);
        Ok(())
    }

    /// Takes back files that nothing refers to, oldest first, so that the sequence has no hole.
    fn recycle(&mut self) {
        if self.shared.queue().refusing {
            return;
        }
        while let Some(file) = self.shared.take_unreferenced() {
            let path = spare::fresh_path(&self.env, &self.directory);
            // It may hang as any sync may, and is watched as one.
            self.shared.sync_began(self.env.clock.monotonic());
            let renamed = self.env.files.rename(&file.path, &path);
            let renamed = renamed.and_then(|()| self.env.files.sync_dir(&self.directory));
            self.shared.sync_gave_up();
            if let Err(error) = renamed {
                self.fail(Vec::new(), "recycling a file", &error);
                return;
            }
            self.shared.add_spare(Spare {
                path,
                file: Arc::clone(&file.file),
            });
        }
    }
}

/// Why there is no next file.
enum Roll {
    /// No room: it is tried again once there is some.
    Full,
    /// The disk failed.
    Failed(io::Error),
}

/// Makes `spare` the next file of the sequence, durably.
pub(crate) fn begin_file(
    env: &Env,
    directory: &std::path::Path,
    spare: Spare,
    preamble: &Preamble,
) -> io::Result<Active> {
    let bytes = preamble.encode();
    let preamble_in_full = [IoSlice::new(&bytes)];
    // Also because from here on the file has another name.
    spare
        .file
        .write_past_cache_at(&preamble_in_full, 0, &mut Aligned::new())?;
    spare.file.sync_data()?;
    let path = directory.join(WalFile::name(preamble.sequence, preamble.uuid));
    env.files.rename(&spare.path, &path)?;
    env.files.sync_dir(directory)?;
    let (sequence, uuid) = (preamble.sequence, preamble.uuid);
    let file = Arc::new(WalFile {
        sequence,
        uuid,
        path,
        file: spare.file,
    });
    Ok(Active {
        file,
        end: bytes.len() as u64,
    })
}

/// Moves a shard's bounds as `item`, written, moved the log.
fn note(bounds: &mut LogBounds, item: &Item) {
    let done = match item.kind {
        FrameKind::Entry => bounds.append(item.id),
        FrameKind::Truncate => bounds.truncate(item.id),
        FrameKind::Purge => {
            bounds.purge(item.id);
            Some(())
        }
        FrameKind::Committed => {
            bounds.committed = item.id;
            Some(())
        }
        FrameKind::Vote => {
            bounds.vote = Vote::decode(item.id, &item.payload.concat());
            bounds.vote.map(|_| ())
        }
        FrameKind::Moved | FrameKind::Installed => Some(()),
    };
    // The same checks passed when the item was queued, in the same order.
    assert!(
        done.is_some(),
        "a frame was queued that cannot follow: {:?} {}",
        item.kind,
        item.id
    );
}

/// How the items of a group lie on disk.
struct Layout {
    frames: Vec<Frame>,
    /// The frames' headers as they are written, one after the other.
    headers: Vec<u8>,
    /// Bytes of all frames.
    bytes: usize,
}

struct Frame {
    header: FrameHeader,
    /// Where its payload begins, from the start of the group.
    payload_at: u64,
}

impl Layout {
    fn new(uuid: FileUuid, items: &[Item]) -> Self {
        let mut frames = Vec::with_capacity(items.len());
        let mut headers = Vec::with_capacity(items.len() * FRAME_HEADER_BYTES);
        let mut bytes = 0;
        for item in items {
            let header = FrameHeader {
                bytes: u32::try_from(item.payload_bytes()).expect("an entry is far below 4 GiB"),
                shard: item.shard,
                id: item.id,
                kind: item.kind,
                payload_crc: seeded_crc(uuid, item.payload.iter().map(|part| &part[..])),
            };
            header.encode(&mut headers);
            let payload_at = (GROUP_HEADER_BYTES + bytes + FRAME_HEADER_BYTES) as u64;
            frames.push(Frame { header, payload_at });
            bytes += item.framed_bytes();
        }
        Self {
            frames,
            headers,
            bytes,
        }
    }

    fn header(&self, uuid: FileUuid, position: Position) -> [u8; GROUP_HEADER_BYTES] {
        let header = GroupHeader {
            frames: u32::try_from(self.frames.len()).expect("a group is bounded in bytes"),
            bytes: u32::try_from(self.bytes).expect("a group is bounded in bytes"),
            // One write at a time, each synced before the next: all before this group is synced.
            mark: position,
            place: position.offset,
            frames_crc: seeded_crc(uuid, [&self.headers[..]]),
        };
        header.encode(uuid)
    }

    /// The group as one list of slices, in order, padded with zeroes to `padded` bytes.
    fn slices<'a>(
        &'a self,
        header: &'a [u8],
        items: &'a [Item],
        padded: usize,
    ) -> Vec<IoSlice<'a>> {
        static ZEROES: [u8; WAL_ALIGN] = [0; WAL_ALIGN];
        let parts: usize = items.iter().map(|item| 1 + item.payload.len()).sum();
        let mut slices = Vec::with_capacity(parts + 2);
        slices.push(IoSlice::new(header));
        for (item, header) in items.iter().zip(self.headers.chunks(FRAME_HEADER_BYTES)) {
            slices.push(IoSlice::new(header));
            slices.extend(item.payload.iter().map(|part| IoSlice::new(part)));
        }
        let used = GROUP_HEADER_BYTES + self.bytes;
        slices.push(IoSlice::new(&ZEROES[..padded - used]));
        slices
    }
}
