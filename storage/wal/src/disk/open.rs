//! Opening the log: read it back, settle the tail, start the writer.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use esker_env::{Aligned, Env, OpenMode, WorkersExt, replace_file};
use esker_types::{RaftIndex, ShardId};

use super::book::Books;
use super::file::WalFile;
use super::options::{Fatal, OnFatal, WalOptions};
use super::preamble::Preamble;
use super::room::Measures;
use super::scan::{self, Recovery, Scanned};
use super::shared::{Shared, Start};
use super::spare::{self, Spare, spare_maker};
use super::wal::Wal;
use super::watch::{keep_sealed, watch_syncs};
use super::writer::{Active, Writer, begin_file};
use crate::Error;

/// The note a failed log leaves: how often it has failed on this disk, as decimal text.
const FAILURE_NOTE: &str = "failed";
/// Failures after which a start is refused until an operator removes the note.
const FAILURES_MAX: u32 = 2;

/// What the blocking part of opening found.
struct Settled {
    active: Active,
    scanned: Scanned,
    spares: Vec<Spare>,
}

pub(crate) async fn open(
    env: &Env,
    directory: &Path,
    options: WalOptions,
    checkpointed: BTreeMap<ShardId, RaftIndex>,
    on_fatal: OnFatal,
) -> Result<(Arc<Wal>, Recovery), Error> {
    let settle = {
        let (env, directory, options) = (env.clone(), directory.to_owned(), options.clone());
        move || settle(&env, &directory, &options, &checkpointed)
    };
    let Settled {
        active,
        scanned,
        spares,
    } = env.workers.run(settle).await?;

    let (file_bytes, on_hang) = (options.file_bytes, Arc::clone(&on_fatal));
    let written = scanned
        .books
        .iter()
        .map(|(shard, book)| (shard, book.bounds))
        .collect();
    // The maker needs what it serves, which needs the maker's waker: tied once both are there.
    let tie: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let maker = {
        let (env, directory, tie) = (env.clone(), directory.to_owned(), Arc::clone(&tie));
        let mut maker = None;
        move || {
            if let Some(shared) = tie.get() {
                let start = || {
                    spare_maker(
                        env.clone(),
                        directory.clone(),
                        file_bytes,
                        Weak::clone(shared),
                    )
                };
                maker.get_or_insert_with(start)();
            }
        }
    };
    let make_spare = env.workers.start("wal-spare", Box::new(maker));
    let start = Start {
        books: scanned.books,
        sequence: scanned.files,
        active_end: active.end,
        spares,
        on_fatal: noting(env, directory, on_fatal),
        make_spare: make_spare.clone(),
        now: env.clock.monotonic(),
    };
    let shared = Arc::new(Shared::new(options, start));
    tie.set(Arc::downgrade(&shared)).expect("set once");
    make_spare.wake();

    let writer = Writer {
        shared: Arc::clone(&shared),
        env: env.clone(),
        directory: directory.to_owned(),
        file_bytes,
        active,
        written,
        stalled: Vec::new(),
        through: Aligned::new(),
    };
    let writer = env.workers.start("wal-writer", Box::new(writer));
    tokio::spawn(watch_syncs(
        Arc::downgrade(&shared),
        shared.options.clone(),
        Arc::clone(&env.clock),
        on_hang,
    ));
    tokio::spawn(keep_sealed(
        Arc::clone(&shared),
        env.clone(),
        writer.clone(),
    ));
    Ok((
        Wal::from_parts(shared, env.clone(), writer),
        scanned.recovery,
    ))
}

/// Reads everything back and makes sure there is a file to go on in. Blocks.
fn settle(
    env: &Env,
    directory: &Path,
    options: &WalOptions,
    checkpointed: &BTreeMap<ShardId, RaftIndex>,
) -> Result<Settled, Error> {
    let io = |doing, path: &Path, source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    };
    let made = env.files.create_dir_all(directory);
    made.map_err(|source| io("making", directory, source))?;
    // A kill may have come between a rename and the sync of its directory: what is listed now must
    // not be taken back by a power cut later.
    let named = env.files.sync_dir(directory);
    named.map_err(|source| io("syncing", directory, source))?;
    let failures = failures(env, directory)?;
    if failures >= FAILURES_MAX {
        return Err(Error::FailedBefore {
            path: directory.join(FAILURE_NOTE),
            failures,
        });
    }
    let listed = env
        .files
        .list(directory)
        .map_err(|source| io("listing", directory, source))?;
    let (sequence, others): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|path| WalFile::parse_name(path).is_some());
    let mut spares = Vec::new();
    let existing =
        sequence.len() as u64 + others.iter().filter(|path| spare::is_spare(path)).count() as u64;
    if sequence.is_empty() && (options.begun || !checkpointed.is_empty()) {
        // Before anything is written: whoever puts the files back must find the place free.
        let directory = directory.to_owned();
        return Err(Error::NoFile { directory });
    }
    has_disk(env, directory, options, existing)?;
    for path in others.into_iter().filter(|path| spare::is_spare(path)) {
        let adopted = spare::adopt(env, path.clone(), options.file_bytes);
        spares.extend(adopted.map_err(|source| io("adopting", &path, source))?);
    }

    let mut scanned = if sequence.is_empty() {
        let books = Books::new(options.memory_bytes);
        Scanned {
            files: Vec::new(),
            books,
            end: 0,
            recovery: Recovery::default(),
        }
    } else {
        scan::scan(env, &sequence, options.memory_bytes, checkpointed)?
    };
    if let Some(torn) = &scanned.recovery.torn {
        tracing::warn!(
            path = %torn.path.display(),
            offset = torn.offset,
            frames_readable = torn.frames_readable,
            "dropped the last group of the WAL: it was never synced"
        );
    }
    // After a tear or a failed sync nothing is written behind what the disk may still hold.
    let go_on = scanned.recovery.torn.is_none() && failures == 0;
    let active = match scanned.files.last() {
        Some(file) if go_on => Active {
            file: Arc::clone(file),
            end: scanned.end,
        },
        last => {
            let preamble = Preamble {
                uuid: env.entropy.next_u128(),
                sequence: last.map_or(1, |file| file.sequence + 1),
                previous_end: scanned.end,
                shards: scanned
                    .books
                    .iter()
                    .map(|(shard, book)| (shard, book.bounds))
                    .collect(),
            };
            let spare = match spares.pop() {
                Some(spare) => Ok(spare),
                None => spare::prewrite(env, directory, options.file_bytes),
            };
            let active = spare.and_then(|spare| begin_file(env, directory, spare, &preamble));
            let active = active.map_err(|source| io("starting a file in", directory, source))?;
            scanned.files.push(Arc::clone(&active.file));
            active
        }
    };
    Ok(Settled {
        active,
        scanned,
        spares,
    })
}

/// Refuses a disk that cannot hold the files which must exist, and a checkpoint beside them.
fn has_disk(env: &Env, directory: &Path, options: &WalOptions, files: u64) -> Result<(), Error> {
    let measures = Measures::of(options);
    let files_min = measures.files_for(measures.at_least());
    let missing = files_min.saturating_sub(files);
    // Where the system does not tell, the first write that fails will.
    let Ok(space) = env.files.space(directory) else {
        return Ok(());
    };
    if missing > 0 && space.free < (missing + 1) * options.file_bytes {
        return Err(Error::DiskTooSmall {
            path: directory.to_owned(),
            free_bytes: space.free,
            files,
            files_min,
            file_bytes: options.file_bytes,
        });
    }
    Ok(())
}

/// How often the log has failed on this disk.
fn failures(env: &Env, directory: &Path) -> Result<u32, Error> {
    let path = directory.join(FAILURE_NOTE);
    let io = |source| Error::Io {
        doing: "reading",
        path: path.clone(),
        source,
    };
    let file = match env.files.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(io(source)),
    };
    let mut text = [0; 10];
    let read = file.read_at(&mut text, 0).map_err(io)?;
    let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
    // A note that cannot be read is a note all the same.
    Ok(text.trim().parse().unwrap_or(FAILURES_MAX))
}

/// `on_fatal`, with a note for the next start left first. The disk has just failed: that the note
/// cannot be written either changes nothing for this process, which ends.
fn noting(env: &Env, directory: &Path, on_fatal: OnFatal) -> OnFatal {
    let (env, directory): (Env, PathBuf) = (env.clone(), directory.to_owned());
    Arc::new(move |fatal: &Fatal| {
        let count = failures(&env, &directory).map_or(1, |failures| failures.saturating_add(1));
        let text = count.to_string();
        let path = directory.join(FAILURE_NOTE);
        let noted = replace_file(&*env.files, &path, &[IoSlice::new(text.as_bytes())]);
        if let Err(error) = noted {
            tracing::error!(%error, path = %path.display(), "the failure could not be noted");
        }
        on_fatal(fatal);
    })
}
