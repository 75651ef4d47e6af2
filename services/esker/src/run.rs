//! What every command shares with the process it runs in: arguments, environment, signals, output,
//! and how it fails.

#![expect(
    clippy::disallowed_methods,
    reason = "the binary speaks to its terminal, its environment and its files"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{ConfigError, File};
use crate::serve::ServeError;

/// Bytes of a file that are read at once.
const FILE_BUFFER_BYTES: usize = 1 << 20;

/// Why a command failed: one text for a person, which says what to do.
#[derive(Debug)]
pub(crate) struct Failed {
    text: String,
    usage: bool,
}

impl Failed {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, usage: false }
    }

    /// It was asked for wrongly, by a flag, a variable or a file.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, usage: true }
    }

    pub(crate) const fn is_usage(&self) -> bool {
        self.usage
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ServeError> for Failed {
    fn from(error: ServeError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<esker_client::Error> for Failed {
    fn from(error: esker_client::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// The environment of the process; what is not UTF-8 is nobody's setting.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os();
    let texts =
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.collect()
}

/// The path that the binary was started by, for commands that a person may copy.
pub(crate) fn program() -> String {
    let path = std::env::args_os().next();
    path.map_or_else(
        || "esker".into(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// Says so if others on this machine may read `key`, a private key.
pub(crate) fn tell_of_readers(key: &Path) {
    // One that cannot be looked at cannot be read either, which is said by who reads it.
    let mode = std::fs::metadata(key).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let key = key.display();
        tracing::warn!("others on this machine may read the private key {key}: chmod 600 {key}");
    }
}

/// Makes a file that is not there yet; one that only its owner may read if it is `secret`.
pub(crate) fn write_new(path: &Path, text: &str, secret: bool) -> io::Result<()> {
    let mode = if secret { 0o600 } else { 0o644 };
    let options = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    options?.write_all(text.as_bytes())
}

/// Makes a folder and those above it, as far as they are not there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// A file's text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// A configuration file.
pub(crate) fn read_config(path: &Path) -> Result<File, ConfigError> {
    let path = path.to_owned();
    match read_text(&path) {
        Ok(text) => Ok(File { path, text }),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

/// Says something to whoever started the process. A terminal that has gone needs none.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Ready when the process is asked to end: Ctrl-C, or SIGTERM. Heard from this call on, not only
/// once it is waited for. Before the first call it is the system that ends a process, but not the
/// first one of a container: that one would not hear.
pub(crate) fn interrupted() -> impl Future<Output = ()> + Send + use<> {
    let asked = asked();
    async move {
        asked.await;
    }
}

/// The same, with the exit code that shells know a signal by.
pub(crate) fn asked() -> impl Future<Output = i32> + Send + use<> {
    let mut terminate = signal(SignalKind::terminate()).expect("a process may ask for SIGTERM");
    // A process that cannot ask for Ctrl-C still hears SIGTERM.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    async move {
        let interrupt = OptionFuture::from(interrupt.as_mut().map(Signal::recv));
        let signal = tokio::select! {
            biased;
            _ = terminate.recv() => SignalKind::terminate(),
            Some(_) = interrupt => SignalKind::interrupt(),
        };
        128 + signal.as_raw_value()
    }
}

/// Ends the process as the system would when it is asked to end, which it does not for the first
/// process of a container: that one hears only what it listens for.
pub(crate) fn end_when_asked() -> impl Future<Output = ()> + Send + use<> {
    let asked = asked();
    async move {
        std::process::exit(asked.await);
    }
}

/// A folder for this process alone, below the system's temporary one, which must be there. Made when
/// it is used.
pub(crate) fn scratch(name: &str) -> Result<PathBuf, Failed> {
    let temporary = std::env::temp_dir();
    match std::fs::metadata(&temporary) {
        Ok(found) if found.is_dir() => Ok(temporary.join(name)),
        Ok(_) => Err(no_temporary(&temporary, "it is no folder")),
        Err(error) => Err(no_temporary(&temporary, &error.to_string())),
    }
}

fn no_temporary(path: &Path, why: &str) -> Failed {
    Failed::new(format!(
        "there is no temporary folder {}: {why}; make it, or name another by TMPDIR",
        path.display()
    ))
}

/// How often a folder is removed in which something is still being made.
const REMOVALS_MAX: u32 = 50;
/// Between two of them.
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Removes a folder and all that is in it, as far as that goes. A thread of what has just ended may be at its last
/// file there, a spare of the log for one: then it is removed again. Blocks for a second at most.
pub(crate) fn remove(directory: &Path) {
    for left in (0..REMOVALS_MAX).rev() {
        let Err(error) = std::fs::remove_dir_all(directory) else {
            return;
        };
        match error.kind() {
            io::ErrorKind::NotFound => return,
            io::ErrorKind::DirectoryNotEmpty if left > 0 => std::thread::sleep(REMOVAL_PAUSE),
            _ => {
                tracing::warn!(directory = %directory.display(), %error, "it could not be removed");
                return;
            }
        }
    }
}

/// The files directly in a folder, by name.
pub(crate) fn text_files(directory: &Path) -> Result<Vec<PathBuf>, Failed> {
    let failed = |error: io::Error| Failed::new(format!("{}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// A file, line by line: what stands between newlines, carriage returns included.
pub(crate) struct LineFile {
    path: PathBuf,
    file: io::BufReader<std::fs::File>,
}

impl LineFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Failed> {
        let file = std::fs::File::open(path);
        let file = file.map_err(|error| Failed::new(format!("{}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            file: io::BufReader::with_capacity(FILE_BUFFER_BYTES, file),
        })
    }

    /// The next line; `false` at the end. A last line without a newline counts.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, Failed> {
        line.clear();
        let read = self.file.read_until(b'\n', line);
        let read =
            read.map_err(|error| Failed::new(format!("{}: {error}", self.path.display())))?;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(read > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_which_something_is_still_made_is_removed_all_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("in-use");
        std::fs::create_dir_all(&folder).unwrap();
        let making = folder.clone();
        let maker = std::thread::spawn(move || {
            // As many as it can until the folder is gone, 200 ms at most.
            for number in 0..200 {
                for each in 0..20 {
                    let _ = std::fs::write(making.join(format!("{number}-{each}")), "");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while std::fs::read_dir(&folder).unwrap().next().is_none() {
            std::thread::yield_now();
        }
        remove(&folder);
        assert!(!folder.exists());
        maker.join().unwrap();
    }
}
