//! Files and stdin, read by a thread of their own.

#![expect(
    clippy::disallowed_methods,
    reason = "the binary reads the files it is given"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use bytes::Bytes;
use esker_client::{Producer, Record};
use tokio::sync::mpsc;

use super::lines::Lines;
use super::pages::{Page, Pages, Place};
use crate::failure::Failure;
use crate::object;

/// Bytes of a file that are read at once.
const FILE_READ_BYTES: usize = 1 << 20;
/// Bytes of a pipe or a terminal that are read at once, if there are as many.
const PIPE_READ_BYTES: usize = 64 << 10;

/// What is read, in order.
#[derive(Debug)]
pub(super) struct Sources(Vec<Source>);

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Stdin,
}

/// How a line becomes a record.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// It is the value; what stands before the separator, if there is one, is the key.
    Line { separator: Option<String> },
    /// It is a JSON object that describes the record.
    Json,
}

impl Sources {
    /// `-`, and nothing at all, is stdin.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let source = |file: &PathBuf| match file.as_os_str() == "-" {
            true => Source::Stdin,
            false => Source::File(file.clone()),
        };
        let mut sources: Vec<_> = files.iter().map(source).collect();
        if sources.is_empty() {
            sources.push(Source::Stdin);
        }
        Self(sources)
    }

    /// Bytes of them all, if all tell; fails if one cannot be read: better now than half-way.
    pub(super) fn bytes(&self) -> Result<Option<u64>, Failure> {
        let mut total = Some(0);
        for source in &self.0 {
            let bytes = source.bytes().map_err(|error| source.failed(&error))?;
            total = total.zip(bytes).map(|(total, bytes)| total + bytes);
        }
        Ok(total)
    }

    /// How a person calls the one at `at`.
    pub(super) fn name(&self, at: usize) -> String {
        self.0[at].name()
    }
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "stdin".to_owned(),
        }
    }

    fn bytes(&self) -> io::Result<Option<u64>> {
        // Who opens a named pipe and closes it again takes its writer away.
        if let Self::File(path) = self {
            let about = std::fs::metadata(path)?;
            if !about.is_file() && !about.is_dir() {
                return Ok(None);
            }
        }
        Ok(Opened::new(self)?.bytes)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(&self.name(), error)
    }
}

struct Opened {
    file: File,
    /// Of a file proper: who reads it waits for nobody.
    bytes: Option<u64>,
}

impl Opened {
    fn new(source: &Source) -> io::Result<Self> {
        let file = match source {
            Source::File(path) => File::open(path)?,
            Source::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        };
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let bytes = about.is_file().then_some(about.len());
        Ok(Self { file, bytes })
    }
}

/// The thread that reads.
pub(super) struct Input {
    pub(super) sources: std::sync::Arc<Sources>,
    pub(super) form: Form,
    /// Where everything goes, if it is said.
    pub(super) partition: Option<u32>,
    pub(super) producer: Producer,
    pub(super) topic: String,
    pub(super) pages: Pages,
    pub(super) out: mpsc::Sender<Result<Page, Failure>>,
}

/// Nobody takes pages any more.
struct Alone;

enum Stop {
    Alone,
    Failed(Failure),
}

impl From<Alone> for Stop {
    fn from(_: Alone) -> Self {
        Self::Alone
    }
}

impl Input {
    /// Reads to the end, to the first line that is no record, or until nobody takes pages.
    pub(super) fn run(mut self) {
        let read = self.read();
        if let Err(Stop::Failed(failure)) = read {
            // What stood before it goes first.
            self.pages.close_all();
            if self.hand_over().is_ok() {
                let _ = self.out.blocking_send(Err(failure));
            }
        }
    }

    fn read(&mut self) -> Result<(), Stop> {
        let sources = std::sync::Arc::clone(&self.sources);
        for (at, source) in sources.0.iter().enumerate() {
            let failed = |error: io::Error| Stop::Failed(source.failed(&error));
            let mut opened = Opened::new(source).map_err(failed)?;
            let waits = opened.bytes.is_none();
            let room = if waits {
                PIPE_READ_BYTES
            } else {
                FILE_READ_BYTES
            };
            let mut lines = Lines::default();
            let mut place = Place {
                source: at,
                line: 0,
            };
            loop {
                let count = match opened.file.read(lines.room(room)) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        lines.filled(room);
                        continue;
                    }
                    read => read.map_err(failed)?,
                };
                lines.filled(room - count);
                if count == 0 {
                    break;
                }
                for line in lines.whole() {
                    place.line += 1;
                    self.take(line, place)?;
                }
                if lines.rest_bytes() > self.producer.max_batch_bytes() {
                    place.line += 1;
                    return Err(Stop::Failed(self.too_long(place, None)));
                }
                if waits {
                    self.pages.close_all();
                }
                self.hand_over()?;
            }
            let rest = lines.rest();
            if !rest.is_empty() {
                place.line += 1;
                self.take(rest, place)?;
            }
        }
        self.pages.close_all();
        Ok(self.hand_over()?)
    }

    fn take(&mut self, line: Bytes, place: Place) -> Result<(), Stop> {
        let bytes = line.len();
        // As many tools write them behind each object, and at the end.
        if matches!(self.form, Form::Json) && line.trim_ascii().is_empty() {
            return Ok(());
        }
        let failed = |input: &Self, what: &str| Stop::Failed(input.no_record(place, what));
        let record = match &self.form {
            Form::Line { separator: None } => Record::value(line),
            Form::Line {
                separator: Some(separator),
            } => split(&line, separator).ok_or_else(|| {
                let separator = separator.escape_debug();
                failed(self, &format!("there is no separator `{separator}` in it"))
            })?,
            Form::Json => object::parse(&line).map_err(|what| match failed(self, &what) {
                Stop::Failed(failure) => {
                    let next = "to append the lines as they are, leave out --format json";
                    Stop::Failed(failure.and_next(next))
                }
                Stop::Alone => Stop::Alone,
            })?,
        };
        let plain = record.plain_bytes();
        if plain > self.record_bytes_max() {
            return Err(Stop::Failed(self.too_long(place, Some(bytes))));
        }
        let by_key = |key: &Bytes| self.producer.partition_of(key);
        let partition = self.partition.or_else(|| record.key.as_ref().map(by_key));
        self.pages.add(partition, record, plain, place);
        Ok(())
    }

    /// What a record may come to: a batch of it alone must fit without being compressed.
    fn record_bytes_max(&self) -> usize {
        let batch = self.producer.max_batch_bytes();
        batch.saturating_sub(esker_record::HEADER_BYTES)
    }

    fn hand_over(&mut self) -> Result<(), Alone> {
        for page in self.pages.closed() {
            self.out.blocking_send(Ok(page)).map_err(|_| Alone)?;
        }
        Ok(())
    }

    fn no_record(&self, place: Place, what: &str) -> Failure {
        let (name, line) = (self.sources.name(place.source), place.line);
        Failure::new(format!("line {line} of {name} is no record: {what}"))
            .with_field("source", name)
            .with_field("line", line)
    }

    /// `bytes`: of the line, if it was read to its end.
    fn too_long(&self, place: Place, bytes: Option<usize>) -> Failure {
        let (name, line) = (self.sources.name(place.source), place.line);
        let (topic, limit) = (&self.topic, self.producer.max_batch_bytes());
        let long = match bytes {
            Some(bytes) => format!("has {bytes} bytes"),
            None => "is too long".to_owned(),
        };
        Failure::new(format!(
            "line {line} of {name} {long}: the max_batch_bytes of topic {topic}, {limit}, holds {} of \
             a record, and what a batch needs beside it",
            self.record_bytes_max()
        ))
        .and_next("shorten the line, or alter the topic with --set max_batch_bytes=…")
        .with_field("source", name)
        .with_field("line", line)
        .with_field("limit", limit)
        .with_field("value", bytes)
    }
}

/// Key and value: what stands before and behind the first separator.
fn split(line: &Bytes, separator: &str) -> Option<Record> {
    let at = memchr::memmem::find(line, separator.as_bytes())?;
    Some(Record::keyed(
        line.slice(..at),
        line.slice(at + separator.len()..),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_its_first_separator() {
        let split = |line: &'static str, separator| split(&line.into(), separator);
        assert_eq!(split("k=v=w", "="), Some(Record::keyed("k", "v=w")));
        assert_eq!(split("=v", "="), Some(Record::keyed("", "v")));
        assert_eq!(split("k: v", ": "), Some(Record::keyed("k", "v")));
        assert_eq!(split("kv", "="), None);
    }
}
