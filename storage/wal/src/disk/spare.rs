//! Files prewritten ahead of need: writing into a file that grows costs several times as much as
//! writing into one whose blocks are there and were written once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use esker_env::{Env, FailedSync, File, OpenMode, is_out_of_room};

use super::options::Fatal;
use super::shared::Shared;

/// A file of the right length, all of it written, that is not part of the sequence.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

const SUFFIX: &str = ".spare";

/// Whether `path` names a spare.
pub(crate) fn is_spare(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(SUFFIX))
}

/// A name for a spare that nothing else has.
pub(crate) fn fresh_path(env: &Env, directory: &Path) -> PathBuf {
    directory.join(format!("{:032x}{SUFFIX}", env.entropy.next_u128()))
}

/// Writes a new spare of `bytes`, durably. Blocks for as long as the disk takes to write them.
pub(crate) fn prewrite(env: &Env, directory: &Path, bytes: u64) -> io::Result<Spare> {
    let path = fresh_path(env, directory);
    let file = env.files.open(&path, OpenMode::CreateNew)?;
    let filled = file.write_zeroes(bytes);
    let synced = filled.and_then(|()| {
        let synced = file
            .sync_data()
            .and_then(|()| env.files.sync_dir(directory));
        synced.map_err(FailedSync::of)
    });
    match synced {
        Ok(()) => Ok(Spare { path, file }),
        Err(error) => {
            // Half a spare is worth nothing. The next start would remove it as well.
            let _ = env.files.remove(&path);
            Err(error)
        }
    }
}

/// Whether the disk has room for one more file, and as much beside it: a checkpoint, without which
/// nothing is released, is a file on the same disk.
fn has_space(env: &Env, directory: &Path, file_bytes: u64) -> bool {
    // Where the system does not tell, the write will.
    env.files
        .space(directory)
        .map_or(true, |space| space.free >= 2 * file_bytes)
}

/// A spare left by an earlier life, if it has the right length; else it is removed.
pub(crate) fn adopt(env: &Env, path: PathBuf, bytes: u64) -> io::Result<Option<Spare>> {
    let file = env.files.open(&path, OpenMode::ReadWrite)?;
    if file.size()? == bytes {
        return Ok(Some(Spare { path, file }));
    }
    env.files.remove(&path)?;
    Ok(None)
}

/// Prewrites a spare whenever one is wanted. Runs on a thread of its own.
pub(crate) fn spare_maker(
    env: Env,
    directory: PathBuf,
    file_bytes: u64,
    shared: Weak<Shared>,
) -> impl FnMut() + Send {
    move || {
        while let Some(shared) = shared.upgrade().filter(|shared| shared.wants_spare()) {
            let spare = match has_space(&env, &directory, file_bytes) {
                true => prewrite(&env, &directory, file_bytes),
                false => Err(io::ErrorKind::StorageFull.into()),
            };
            let failed = spare.is_err();
            if let Err(error) = &spare
                && !is_out_of_room(error)
            {
                let (path, error) = (directory.clone(), error.to_string());
                shared.fail(&Fatal {
                    doing: "prewriting a file in",
                    path,
                    error,
                });
            }
            if shared.spare_came(spare.ok()) {
                let path = directory.display();
                tracing::warn!(
                    %path,
                    file_bytes,
                    "the disk has no room for one more WAL file, which the budget allows: appends \
                     are refused once the files that are there are full; make room on the disk"
                );
            }
            if failed {
                break;
            }
        }
    }
}
