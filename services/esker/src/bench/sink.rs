//! What three processes do that write what they are sent, and nothing else: the limit of a cluster on this
//! machine.
//!
//! ```text
//!   this process ─ gRPC ─► each of three: what waits is joined ─► write, fdatasync ─► answered
//! ```

use std::io::{self, BufRead as _, BufReader, IoSlice};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Aligned, Env, File, WorkersExt};
use tokio::sync::{mpsc, oneshot};

use super::disk::{self, ALIGNMENT, FILE_BYTES};
use super::process::Process;
use super::wire::{self, MESSAGES_MAX, Mirror};
use crate::failure::Failure;
use crate::screen;

/// Bytes of one write, as the WAL joins appends at full speed.
const GROUP_BYTES: usize = 1 << 20;
/// What a sink says once it listens.
const READY: &str = "a sink listens at ";

/// Write what is sent to this process, and nothing else
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write to: made, and written again from its start once it is full
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

/// Until it is killed.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let (files, path) = (Arc::clone(&env.files), args.file.clone());
    let made = env.workers.run(move || {
        let mut through = Aligned::new();
        let file = disk::written_before(&*files, &path, &mut through)?;
        Ok(Pen {
            file,
            through,
            at: 0,
        })
    });
    let pen = made.await.map_err(|error| Failure::io(&name, &error))?;
    let (queue, waiting) = mpsc::channel(MESSAGES_MAX);
    let mirror = Mirror {
        message: Bytes::new(),
        sink: Some(Sink(queue)),
    };
    let served = wire::serve(env, mirror).await;
    let (_server, address) = served.map_err(|error| Failure::new(format!("a sink: {error}")))?;
    screen::print(&format!("{READY}{address}\n"))?;
    write(env, pen, waiting)
        .await
        .map_err(|error| Failure::io(&name, &error))
}

/// The way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Sink(mpsc::Sender<Waiting>);

type Waiting = (Bytes, oneshot::Sender<()>);

impl Sink {
    /// Waits until `batch` is on the disk.
    pub(super) async fn write(&self, batch: Bytes) -> io::Result<()> {
        let ended = || io::Error::other("the sink has ended");
        let (done, written) = oneshot::channel();
        self.0.send((batch, done)).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())
    }
}

struct Pen {
    file: Arc<dyn File>,
    through: Aligned,
    at: u64,
}

impl Pen {
    fn write(&mut self, group: &[Waiting]) -> io::Result<()> {
        let bytes: u64 = group.iter().map(|(batch, _)| batch.len() as u64).sum();
        if self.at + bytes > FILE_BYTES {
            self.at = 0;
        }
        let parts: Vec<_> = group.iter().map(|(batch, _)| IoSlice::new(batch)).collect();
        self.file
            .write_past_cache_at(&parts, self.at, &mut self.through)?;
        self.at += bytes.next_multiple_of(ALIGNMENT);
        self.file.sync_data()
    }
}

/// Writes what waits, joined, until nobody sends any more.
async fn write(env: &Env, mut pen: Pen, mut waiting: mpsc::Receiver<Waiting>) -> io::Result<()> {
    while let Some(first) = waiting.recv().await {
        let (mut bytes, mut group) = (first.0.len(), vec![first]);
        while bytes < GROUP_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.0.len();
            group.push(next);
        }
        let job = move || {
            let written = pen.write(&group);
            (pen, group, written)
        };
        let (back, group, written) = env.workers.run(job).await;
        pen = back;
        written?;
        for (_, done) in group {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }
    Ok(())
}

/// Bytes a second that each of `sinks` processes takes when all are sent messages of `bytes` at the same
/// time, at most `in_flight` of each unanswered; their files are made and removed in `directory`.
pub(crate) async fn measure(
    env: &Env,
    directory: &Path,
    sinks: usize,
    bytes: u64,
    in_flight: u64,
    lasting: Duration,
) -> Result<f64, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("a sink: {error}"));
    let message = wire::message(env, bytes.next_multiple_of(ALIGNMENT));
    let message = message.map_err(|error| failed(&error))?;
    let files: Vec<_> = (0..sinks)
        .map(|number| directory.join(format!("sink-{number}")))
        .collect();
    let mut running = Vec::new();
    let mut rates = Vec::new();
    for file in &files {
        let path = file.clone();
        let started = env.workers.run(move || spawn(&path)).await;
        let (process, address) = started.map_err(|error| failed(&error))?;
        running.push(process);
        let client = wire::connect(env, &address).await;
        let client = client.map_err(|error| failed(&error))?;
        let (clock, message) = (Arc::clone(&env.clock), message.clone());
        rates.push(async move { wire::there(&*clock, client, message, in_flight, lasting).await });
    }
    let rates = futures::future::try_join_all(rates).await;
    drop(running);
    for file in &files {
        env.files
            .remove(file)
            .map_err(|error| Failure::io(&file.display().to_string(), &error))?;
    }
    let rates = rates.map_err(|status| failed(&status.message()))?;
    let slowest = rates.iter().map(|(rate, _)| *rate).fold(f64::MAX, f64::min);
    Ok(slowest)
}

fn spawn(file: &Path) -> io::Result<(Process, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "sink", "--file"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().expect("it was asked for");
    let process = Process::new(child, String::new());
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix(READY);
    let address = address.ok_or_else(|| io::Error::other("it does not listen"))?;
    Ok((process, address.to_owned()))
}
