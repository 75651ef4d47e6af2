//! What stands in a bucket that is a folder, against what the log names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{esker, text};

/// Segments, by key.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// Named by the newest checkpoint of a shard.
    pub(crate) named: BTreeSet<String>,
    /// Named by two, or twice by one.
    pub(crate) twice: Vec<String>,
    /// There.
    pub(crate) there: BTreeSet<String>,
    /// Other objects.
    pub(crate) others: usize,
}

/// Looks through the bucket in `folder`. `None` if something in it changed meanwhile.
pub(crate) fn segments(folder: &Path) -> Option<Segments> {
    let mut segments = Segments::default();
    let mut newest = BTreeMap::new();
    for path in files(folder)? {
        let key = path.strip_prefix(folder).expect("it is in there");
        let key = text(key).to_owned();
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("seg") => _ = segments.there.insert(key),
            Some("ckp") => {
                // Sorted by raft index.
                let shard = path.parent().map(Path::to_owned);
                let kept: &mut PathBuf = newest.entry(shard).or_default();
                *kept = kept.clone().max(path);
            }
            _ => segments.others += 1,
        }
    }
    for path in newest.values() {
        let inspect = ["inspect", "checkpoint", text(path), "--segments", "--json"];
        let told = esker(&inspect).ok()?;
        for segment in told["segments"].as_array().into_iter().flatten() {
            let key = segment["key"].as_str().expect("a key").to_owned();
            if !segments.named.insert(key.clone()) {
                segments.twice.push(key);
            }
        }
    }
    Some(segments)
}

fn files(folder: &Path) -> Option<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).ok()? {
            let entry = entry.ok()?;
            match entry.file_type().ok()?.is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    Some(files)
}
