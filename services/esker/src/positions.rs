//! How far a topic was read, kept in a file.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use esker_client::Offset;
use esker_env::{Files, OpenMode, replace_file};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A file of more bytes is none of ours: those of 100,000 partitions have 4 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What to do about a file of another topic.
const AGAIN: &str = "name another file, or remove this one";

/// A file of positions.
#[derive(Debug)]
pub(crate) struct Positions {
    files: Arc<dyn Files>,
    path: PathBuf,
    kept: Kept,
}

/// Where a partition goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) next: Offset,
    /// The life of the cluster that had the records before it: another one may have others. Files
    /// of earlier builds do not say.
    pub(crate) incarnation: Option<u32>,
}

/// What it holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    topic: String,
    /// A topic made anew under the same name has another.
    topic_id: u64,
    /// Where partitions go on.
    partitions: BTreeMap<u32, u64>,
    /// Of which life of the cluster that is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    incarnations: BTreeMap<u32, u32>,
}

impl Positions {
    /// Opens the file at `path`, or begins one: what it holds is written at once, so that one that
    /// cannot be is refused before anything is read.
    ///
    /// # Errors
    /// It cannot be read or written, it is none of ours, or of another topic.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        path: &Path,
        topic: &str,
        topic_id: u64,
    ) -> Result<Self, Failure> {
        let absolute = std::path::absolute(path);
        let absolute = absolute.map_err(|error| failed(path, &error))?;
        let new = Kept {
            topic: topic.to_owned(),
            topic_id,
            partitions: BTreeMap::new(),
            incarnations: BTreeMap::new(),
        };
        let kept = match read(&*files, &absolute) {
            Ok(text) => parse(&text, path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => new,
            Err(error) => return Err(failed(path, &error)),
        };
        let name = path.display();
        if kept.topic != topic {
            let text = format!(
                "{name} holds positions of topic {}, not {topic}",
                kept.topic
            );
            return Err(Failure::new(text).and_next(AGAIN));
        }
        let positions = Self {
            files,
            path: absolute,
            kept,
        };
        positions.check(topic_id)?;
        positions.write(&positions.kept).map_err(|error| {
            let text = format!("{name} cannot be written: {error}");
            Failure::new(text).and_next("name a file that can be with --offsets-file")
        })?;
        Ok(positions)
    }

    /// Whether they are of the topic with this id.
    ///
    /// # Errors
    /// They are of another one of this name.
    pub(crate) fn check(&self, topic_id: u64) -> Result<(), Failure> {
        if self.kept.topic_id == topic_id {
            return Ok(());
        }
        let (name, topic) = (self.path.display(), &self.kept.topic);
        let text = format!("{name} holds positions of an earlier topic {topic}, since deleted");
        Err(Failure::new(text).and_next(AGAIN))
    }

    /// Where partitions go on.
    pub(crate) fn resumed(&self) -> BTreeMap<u32, Position> {
        let kept = self.kept.partitions.iter();
        let position = |(partition, next): (&u32, &u64)| {
            let position = Position {
                next: Offset::new(*next)?,
                incarnation: self.kept.incarnations.get(partition).copied(),
            };
            Some((*partition, position))
        };
        kept.filter_map(position).collect()
    }

    /// The file, as it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps where partitions go on, and of which incarnation that is, if it is known: durable when
    /// this returns.
    pub(crate) fn keep(
        &mut self,
        next: impl Iterator<Item = (u32, u64, Option<u32>)>,
    ) -> Result<(), Failure> {
        let mut kept = self.kept.clone();
        for (partition, next, incarnation) in next {
            kept.partitions.insert(partition, next);
            if let Some(incarnation) = incarnation {
                kept.incarnations.insert(partition, incarnation);
            }
        }
        if kept == self.kept {
            return Ok(());
        }
        let written = self.write(&kept);
        written.map_err(|error| failed(&self.path, &error))?;
        self.kept = kept;
        Ok(())
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let mut text = crate::shell::json(kept).into_bytes();
        text.push(b'\n');
        replace_file(&*self.files, &self.path, &[IoSlice::new(&text)])
    }
}

fn read(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path, OpenMode::Read)?;
    let bytes = file.size()?;
    if bytes > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut text = vec![0; usize::try_from(bytes).expect("it is below the limit")];
    let count = file.read_at(&mut text, 0)?;
    text.truncate(count);
    Ok(text)
}

fn parse(text: &[u8], path: &Path) -> Result<Kept, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        let text = format!("{} holds no positions: {error}", path.display());
        Failure::new(text).and_next("name another file with --offsets-file")
    })
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::io(&path.display().to_string(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_env::sim::SimDisk;

    fn files() -> Arc<dyn Files> {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/p")).unwrap();
        Arc::new(disk)
    }

    fn open(files: &Arc<dyn Files>, topic: &str, id: u64) -> Result<Positions, Failure> {
        Positions::open(Arc::clone(files), Path::new("/p/positions"), topic, id)
    }

    #[test]
    fn what_is_kept_is_resumed() {
        let files = files();
        let mut positions = open(&files, "t", 7).unwrap();
        assert!(positions.resumed().is_empty());
        let first = [(0, 5, Some(1)), (2, 9, None)];
        positions.keep(first.into_iter()).unwrap();
        positions.keep([(0, 6, Some(2))].into_iter()).unwrap();
        let resumed = open(&files, "t", 7).unwrap().resumed();
        let at = |next, incarnation| Position {
            next: Offset::new(next).unwrap(),
            incarnation,
        };
        assert_eq!(resumed, [(0, at(6, Some(2))), (2, at(9, None))].into());
    }

    /// As builds before incarnations were kept wrote them.
    #[test]
    fn a_file_without_incarnations_is_taken() {
        let text = br#"{"topic":"t","topic_id":7,"partitions":{"0":5}}"#;
        let kept = parse(text, Path::new("/p/positions")).unwrap();
        assert_eq!((kept.partitions[&0], kept.incarnations.len()), (5, 0));
        assert_eq!(crate::shell::json(&kept).as_bytes(), text);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_at_once() {
        let path = Path::new("/nowhere/positions");
        let failure = Positions::open(files(), path, "t", 7).unwrap_err();
        let failure = format!("{failure:?}");
        assert!(
            failure.contains("/nowhere/positions cannot be written"),
            "{failure}"
        );
        assert!(open(&files(), "t", 7).unwrap().resumed().is_empty());
    }

    #[test]
    fn positions_of_another_topic_are_refused() {
        let files = files();
        let mut positions = open(&files, "t", 7).unwrap();
        positions.keep([(0, 5, None)].into_iter()).unwrap();
        for (topic, id, word) in [("u", 7, "of topic t, not u"), ("t", 8, "earlier topic")] {
            let failure = format!("{:?}", open(&files, topic, id).unwrap_err());
            assert!(failure.contains(word), "{failure}");
        }
        let file = files.open(Path::new("/p/positions"), OpenMode::ReadWrite);
        file.unwrap().set_len(3).unwrap();
        let failure = format!("{:?}", open(&files, "t", 7).unwrap_err());
        assert!(failure.contains("holds no positions"), "{failure}");
    }
}
