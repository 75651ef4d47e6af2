//! The id of the disk that a data directory lies on: one small file, drawn with the first taking by a
//! WAL node, and never written again.
//!
//! ```text
//!   disk.json   { "version": 1, "disk": "<32 hex>" }
//! ```
//! A file of its own, since `identity.json` says whose a directory is and may be put back from a copy;
//! this one says which directory it is. An identity remembers the disk that it was given to, so one that
//! was copied is known for a copy; two nodes that show the same disk are one directory and its copy.

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};

use esker_env::{Env, Files, replace_file};
use esker_types::ClusterId;
use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, read_small};

/// Version of the file.
const VERSION: u32 = 1;

/// Which disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u128);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    disk: String,
}

impl DiskId {
    /// Reads 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Written as a cluster's id is.
        ClusterId::parse(text).map(|ClusterId(bits)| Self(bits))
    }

    /// What stands in `directory`; `None` if nothing does.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn load(files: &dyn Files, directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = path(directory);
        let Some(bytes) = read_small(files, &path)? else {
            return Ok(None);
        };
        parse(&bytes)
            .map(Some)
            .map_err(|what| IdentityError::Damaged { path, what })
    }

    /// What stands in `directory`, drawn and written durably if nothing does.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn load_or_draw(env: &Env, directory: &Path) -> Result<Self, IdentityError> {
        if let Some(disk) = Self::load(&*env.files, directory)? {
            return Ok(disk);
        }
        let disk = Self(env.entropy.next_u128());
        let stored = Stored {
            version: VERSION,
            disk: disk.to_string(),
        };
        let text = serde_json::to_vec_pretty(&stored).expect("plain fields become JSON");
        let path = path(directory);
        let written = replace_file(&*env.files, &path, &[IoSlice::new(&text)]);
        written.map_err(|source| IdentityError::Io { path, source })?;
        Ok(disk)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("disk.json")
}

fn parse(bytes: &[u8]) -> Result<DiskId, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.version != VERSION {
        let version = stored.version;
        return Err(format!(
            "it has version {version}, this binary reads {VERSION}"
        ));
    }
    DiskId::parse(&stored.disk).ok_or_else(|| "its disk is not 32 hex digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_once_and_never_again() {
        let (env, _, _) = Env::simulated(1);
        let directory = Path::new("/data");
        env.files.create_dir_all(directory).expect("made");
        assert_eq!(DiskId::load(&*env.files, directory).expect("none"), None);
        let first = DiskId::load_or_draw(&env, directory).expect("drawn");
        let again = DiskId::load_or_draw(&env, directory).expect("there");
        assert_eq!(first, again);
        let text = first.to_string();
        assert_eq!((text.len(), DiskId::parse(&text)), (32, Some(first)));
        for text in ["", "{}", r#"{"version":1,"disk":"x"}"#] {
            let parts = [IoSlice::new(text.as_bytes())];
            replace_file(&*env.files, &path(directory), &parts).expect("written");
            let error = DiskId::load_or_draw(&env, directory).expect_err("no id");
            assert!(error.to_string().contains("disk.json"), "{error}");
        }
    }
}
