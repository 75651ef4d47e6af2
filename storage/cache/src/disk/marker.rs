//! The marker: which format and which sizes the files in the folder were written with. Under
//! another one they are removed, never read.

use std::io::{self, IoSlice};
use std::path::Path;

use esker_env::{Files, OpenMode, replace_file};

/// Name of the marker within the folder.
const NAME: &str = "esker-cache.format";
/// Changes when the value's layout or foyer's version does.
const FORMAT: &str = "esker-cache 1, foyer 0.22.6";
/// How foyer names its files. Nothing else in the folder is touched.
const REGION_PREFIX: &str = "foyer-storage-direct-fs-";
/// Bytes of a marker: far above what any version writes.
const MARKER_BYTES_MAX: usize = 256;

/// Makes the folder and leaves in it only what this version may read.
pub(super) fn prepare(
    files: &dyn Files,
    directory: &Path,
    bytes: u64,
    region: u64,
) -> io::Result<()> {
    files.create_dir_all(directory)?;
    let wanted = format!("{FORMAT}, {bytes} bytes in regions of {region}\n");
    let path = directory.join(NAME);
    if read(files, &path).is_ok_and(|found| found == wanted.as_bytes()) {
        return Ok(());
    }
    for path in files.list(directory)? {
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(REGION_PREFIX)) {
            files.remove(&path)?;
        }
    }
    // Last: a crash in between leaves the old marker, and the folder is emptied again.
    replace_file(files, &path, &[IoSlice::new(wanted.as_bytes())])
}

fn read(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path, OpenMode::Read)?;
    let mut found = vec![0; MARKER_BYTES_MAX];
    let length = file.read_at(&mut found, 0)?;
    found.truncate(length);
    Ok(found)
}
