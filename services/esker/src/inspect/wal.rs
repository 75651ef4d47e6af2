//! A node's log: its files, their frames, what of them is still needed, and what is damaged.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use esker_env::{Env, OpenMode};
use esker_shard::checkpoint;
use esker_types::{RaftIndex, ShardId};
use esker_wal::disk::{Checkpoint, FileReport, FrameReport};
use serde::Serialize;

use super::Found;
use super::source::expect;
use crate::failure::Failure;
use crate::screen;
use crate::shell::Shell;

/// What it means that a process uses what is looked at.
const IN_USE: &str = "what it writes meanwhile may look torn, and what is held is told by its newest \
     checkpoints; stop it for a look that is whole";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A data directory, its folder `wal`, or one file of that
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
}

/// What a log, or one file of it, holds.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// A process runs on it: what it writes meanwhile may look torn.
    in_use: bool,
    files: Vec<FileLine>,
    frames: Vec<FrameLine>,
    /// Known of a data directory, which has checkpoints.
    checkpoints: Option<Vec<CheckpointLine>>,
    /// Frames with record batches that no segment holds, as far as the checkpoints know.
    payload_frames_held: Option<u64>,
    payload_bytes_held: Option<u64>,
    /// A group at the end of the log that was never acknowledged; the next start drops it.
    torn_tail: Option<String>,
    #[serde(flatten)]
    found: Found,
}

#[derive(Debug, Serialize)]
struct FileLine {
    name: String,
    sequence: u64,
    uuid: String,
    groups: usize,
    frames: usize,
    /// Where its valid bytes end.
    end: u64,
    /// The highest mark: all before it was synced.
    mark_file: u64,
    mark_offset: u64,
    payload_frames_held: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FrameLine {
    shard: u32,
    kind: &'static str,
    frames: u64,
    bytes: u64,
    first: u64,
    last: u64,
}

#[derive(Debug, Serialize)]
struct CheckpointLine {
    shard: u32,
    applied: u64,
    flushed: u64,
}

/// How far a shard's checkpoint goes.
#[derive(Clone, Copy, Debug)]
struct Covered {
    applied: RaftIndex,
    flushed: RaftIndex,
}

pub(super) fn run(args: &Args, shell: &Shell) -> Result<(), Failure> {
    let report = report(shell, &args.path)?;
    if report.in_use {
        screen::note(&format!(
            "esker: a process uses {}: {IN_USE}",
            args.path.display()
        ));
    }
    shell.answer(&report, || report.text())?;
    report.found.outcome(&args.path.display().to_string())
}

fn report(shell: &Shell, path: &Path) -> Result<Report, Failure> {
    let env = &shell.env;
    let failed = |error: io::Error| Failure::io(&path.display().to_string(), &error);
    match env.files.list(path) {
        Ok(paths) => {
            let wal = path.join("wal");
            if paths.contains(&wal) {
                return of_data(env, path, &wal);
            }
            let files = wal_files(paths);
            if files.is_empty() {
                let text = format!("{} holds no WAL file and no folder `wal`", path.display());
                return Err(Failure::new(text));
            }
            let mut survey = Survey::new(None);
            survey.report.in_use = path.parent().is_some_and(|above| in_use(env, above));
            Ok(survey.all(env, &files))
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            expect(
                "wal",
                &path.display().to_string(),
                &first(env, path).map_err(failed)?,
                shell,
            )?;
            let file = FileReport::read(env, path);
            let file = file.map_err(|error| Failure::new(error.to_string()))?;
            let mut survey = Survey::new(None);
            let above = path.parent().and_then(Path::parent);
            survey.report.in_use = above.is_some_and(|above| in_use(env, above));
            survey.file(path, &file);
            survey.tail(path, &file);
            Ok(survey.finish())
        }
        Err(error) => Err(failed(error)),
    }
}

/// The first bytes of the file at `path`: enough to tell what it is.
fn first(env: &Env, path: &Path) -> io::Result<Vec<u8>> {
    let mut first = vec![0; 8];
    let read = env
        .files
        .open(path, OpenMode::Read)?
        .read_at(&mut first, 0)?;
    first.truncate(read);
    Ok(first)
}

/// A data directory: checkpoints first, for they must not know more than the files do.
fn of_data(env: &Env, directory: &Path, wal: &Path) -> Result<Report, Failure> {
    let in_use = in_use(env, directory);
    let mut found = Found::default();
    let covered = checkpoints(env, &directory.join("checkpoints"), &mut found)?;
    let listed = env.files.list(wal);
    let listed = listed.map_err(|error| Failure::io(&wal.display().to_string(), &error))?;
    let mut survey = Survey::new(Some(covered));
    survey.report.found = found;
    survey.report.in_use = in_use;
    Ok(survey.all(env, &wal_files(listed)))
}

/// Whether a process holds the directory. The lock is taken for a moment, if it is free.
fn in_use(env: &Env, directory: &Path) -> bool {
    let lock = directory.join("lock");
    let exists = env.files.list(directory);
    let exists = exists.is_ok_and(|paths| paths.contains(&lock));
    exists
        && env
            .files
            .lock(&lock)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Files of the sequence, in order; spares and others are not part of it.
fn wal_files(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "wal");
    paths.into_iter().filter(ours).collect()
}

fn checkpoints(
    env: &Env,
    directory: &Path,
    found: &mut Found,
) -> Result<BTreeMap<ShardId, Covered>, Failure> {
    let paths = match env.files.list(directory) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::io(&directory.display().to_string(), &error)),
    };
    let mut covered = BTreeMap::new();
    for path in paths {
        if path.extension().is_none_or(|suffix| suffix != "ckp") {
            continue;
        }
        let local = match Checkpoint::read(env, &path) {
            Ok(local) => local,
            Err(error) => {
                found.add(error.to_string());
                continue;
            }
        };
        let mut bytes = BytesMut::new();
        local
            .state
            .iter()
            .for_each(|part| bytes.extend_from_slice(part));
        match checkpoint::decode(&bytes) {
            Ok(decoded) => {
                let of = Covered {
                    applied: local.last.index,
                    flushed: decoded.state.flushed(),
                };
                covered.insert(local.shard, of);
            }
            Err(error) => found.add(format!("{}: {error}", path.display())),
        }
    }
    Ok(covered)
}

/// A payload frame that is still needed, in the newest of its copies.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    file: usize,
}

/// Goes through the files, one at a time.
struct Survey {
    report: Report,
    frames: BTreeMap<(ShardId, &'static str), FrameLine>,
    covered: Option<BTreeMap<ShardId, Covered>>,
    held: BTreeMap<(ShardId, RaftIndex), Held>,
}

impl Survey {
    fn new(covered: Option<BTreeMap<ShardId, Covered>>) -> Self {
        Self {
            report: Report::default(),
            frames: BTreeMap::new(),
            covered,
            held: BTreeMap::new(),
        }
    }

    fn all(mut self, env: &Env, paths: &[PathBuf]) -> Report {
        let mut before: Option<(&PathBuf, FileReport)> = None;
        for path in paths {
            let file = match FileReport::read(env, path) {
                Ok(file) => file,
                // The log was released below it while we looked.
                Err(_) if self.report.in_use && before.is_none() => continue,
                Err(error) => {
                    self.report.found.add(error.to_string());
                    before = None;
                    continue;
                }
            };
            if let Some((before, report)) = &before {
                self.joint(before, report, &file);
            }
            self.file(path, &file);
            before = Some((path, file));
        }
        if let Some((path, file)) = &before {
            self.tail(path, file);
        }
        self.finish()
    }

    /// A file that has a successor must be whole up to where that says it ends.
    fn joint(&mut self, path: &Path, file: &FileReport, next: &FileReport) {
        let path = path.display();
        if next.sequence != file.sequence + 1 {
            let (last, next) = (file.sequence, next.sequence);
            let what = format!("{path}: file {last} of the log is followed by file {next}");
            self.report.found.add(what);
        } else if next.previous_end != file.end {
            let (end, due, why) = (file.end, next.previous_end, file.after);
            let what = format!(
                "{path}: at byte {end} stands {why}, and the next file says that it ends at byte {due}"
            );
            self.report.found.add(what);
        }
    }

    /// The end of the log, or of what we were shown of it.
    fn tail(&mut self, path: &Path, file: &FileReport) {
        let (path, end, why) = (path.display(), file.end, file.after);
        if let Some(proof) = file.proof {
            let what = format!(
                "{path}: at byte {end} stands {why}, and the group at byte {proof} proves that it \
                 was synced"
            );
            self.report.found.add(what);
        } else if file.torn {
            self.report.torn_tail = Some(format!("{path}: at byte {end} stands {why}"));
        }
    }

    fn file(&mut self, path: &Path, file: &FileReport) {
        let number = self.report.files.len();
        let mut frames = 0;
        let mut mark = (0, 0);
        for group in &file.groups {
            mark = mark.max(group.mark);
            frames += group.frames.len();
            for frame in &group.frames {
                self.frame(number, frame);
            }
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        self.report.files.push(FileLine {
            name: name.to_string_lossy().into_owned(),
            sequence: file.sequence,
            uuid: format!("{:032x}", file.uuid),
            groups: file.groups.len(),
            frames,
            end: file.end,
            mark_file: mark.0,
            mark_offset: mark.1,
            payload_frames_held: None,
        });
    }

    fn frame(&mut self, file: usize, frame: &FrameReport) {
        let (shard, index) = (frame.shard, frame.id.index);
        let line = self.frames.entry((shard, frame.kind));
        let line = line.or_insert_with(|| FrameLine {
            shard: shard.0,
            kind: frame.kind,
            frames: 0,
            bytes: 0,
            first: index.0,
            last: index.0,
        });
        line.frames += 1;
        line.bytes += u64::from(frame.bytes);
        line.first = line.first.min(index.0);
        line.last = line.last.max(index.0);

        let Some(covered) = &self.covered else {
            return;
        };
        let covered = covered.get(&shard);
        let flushed = covered.map_or(RaftIndex::ZERO, |covered| covered.flushed);
        let applied = covered.map_or(RaftIndex::ZERO, |covered| covered.applied);
        match frame.kind {
            "truncate" => self.held.retain(|(of, at), _| *of != shard || *at <= index),
            // Dropped at the next start, unless the snapshot it came with became current.
            "installed" if index > applied => {}
            "entry" | "moved" | "installed" => {
                self.held.remove(&(shard, index));
                if frame.batch_bytes > 0 && index > flushed {
                    let bytes = frame.batch_bytes.into();
                    self.held.insert((shard, index), Held { bytes, file });
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Report {
        let mut report = self.report;
        report.frames = self.frames.into_values().collect();
        if let Some(covered) = self.covered {
            let line = |(shard, covered): (ShardId, Covered)| CheckpointLine {
                shard: shard.0,
                applied: covered.applied.0,
                flushed: covered.flushed.0,
            };
            report.checkpoints = Some(covered.into_iter().map(line).collect());
            for (number, file) in report.files.iter_mut().enumerate() {
                let held = self.held.values().filter(|held| held.file == number);
                file.payload_frames_held = Some(held.count() as u64);
            }
            report.payload_frames_held = Some(self.held.len() as u64);
            report.payload_bytes_held = Some(self.held.values().map(|held| held.bytes).sum());
        }
        report
    }
}

impl Report {
    fn text(&self) -> String {
        let rows = self.files.iter().map(|file| {
            let held = file.payload_frames_held.map(|held| held.to_string());
            vec![
                file.name.clone(),
                file.groups.to_string(),
                file.frames.to_string(),
                file.end.to_string(),
                format!("{}:{}", file.mark_file, file.mark_offset),
                held.unwrap_or_else(|| "?".to_owned()),
            ]
        });
        let heads = [
            "FILE",
            "GROUPS",
            "FRAMES",
            "END",
            "MARK",
            "PAYLOAD FRAMES HELD",
        ];
        let mut text = screen::table(&heads, &rows.collect::<Vec<_>>());
        let rows = self.frames.iter().map(|line| {
            vec![
                line.shard.to_string(),
                line.kind.to_owned(),
                line.frames.to_string(),
                line.bytes.to_string(),
                line.first.to_string(),
                line.last.to_string(),
            ]
        });
        let heads = ["SHARD", "KIND", "FRAMES", "BYTES", "FIRST", "LAST"];
        text.push('\n');
        text.push_str(&screen::table(&heads, &rows.collect::<Vec<_>>()));
        if let Some(checkpoints) = &self.checkpoints {
            let rows = checkpoints.iter().map(|one| {
                [one.shard.into(), one.applied, one.flushed].map(|n: u64| n.to_string())
            });
            let rows: Vec<_> = rows.map(|row| row.to_vec()).collect();
            text.push('\n');
            text.push_str(&match rows.is_empty() {
                true => "no checkpoint yet\n".to_owned(),
                false => screen::table(&["SHARD", "CHECKPOINT AT", "FLUSHED"], &rows),
            });
        }
        text.push('\n');
        text.push_str(&self.found.text());
        if let Some(torn) = &self.torn_tail {
            text.push_str(&format!("torn tail, dropped at the next start: {torn}\n"));
        }
        match (self.payload_frames_held, self.payload_bytes_held) {
            (Some(frames), Some(bytes)) => {
                let bytes = screen::bytes(bytes);
                text.push_str(&format!("payload frames held: {frames} ({bytes})\n"));
            }
            _ => text.push_str(
                "payload frames held: unknown without checkpoints; name the data directory\n",
            ),
        }
        text
    }
}
