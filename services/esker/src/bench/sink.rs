//! What three processes do that write what they are sent, and nothing else: the limits of a cluster on this
//! machine.
//!
//! ```text
//!   apart      this process ─ gRPC ─► each of three ─► write, fdatasync ─► answered
//!
//!   in a row   this process ─► a relay ─► the first ─► write, fdatasync ─────────┐
//!                                 ▲           ├─────► second, write, fdatasync ──┤
//!                                 │           └─────► third, write, fdatasync ───┴─► answered
//!                                 └─ again ── the first;  the relay writes it to new files, synced
//! ```
//! What waits is written together. In a row, bytes go the ways that an agent, a leader and its followers send
//! them, and once more as a flush has them.

use std::io::{self, BufRead as _, BufReader, IoSlice};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Aligned, Env, File, OpenMode, WorkersExt};
use esker_proto::v1;
use esker_types::limits::{FLUSH_BYTES, FLUSHES_IN_FLIGHT};
use futures::StreamExt as _;
use futures::future::try_join_all;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use super::disk::{self, ALIGNMENT, FILE_BYTES};
use super::process::Process;
use super::wire::{self, MESSAGES_MAX, Mirror};
use crate::failure::Failure;
use crate::screen;

/// Bytes of one write, as the WAL joins appends at full speed.
const GROUP_BYTES: usize = 1 << 20;
/// Written messages that wait to be sent again.
const AGAIN_MAX: usize = 4 * MESSAGES_MAX;
/// What a sink says once it listens.
const READY: &str = "a sink listens at ";

/// Write or pass on what is sent to this process, and nothing else
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write to, synced: made, and written again from its start once it is full
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Another sink that gets the same, and has it before it is answered here; may be said again
    #[arg(long, value_name = "HOST:PORT")]
    next: Vec<String>,
    /// Send what is written again, to one that reads
    #[arg(long)]
    again: bool,
    /// Read what the next sink sends again, and write it to new files in this folder, each synced once it is whole
    #[arg(long, value_name = "DIR", requires = "next")]
    bucket: Option<PathBuf>,
}

/// Until it is killed.
pub(crate) async fn run(args: &Args, env: &Env) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("a sink: {error}"));
    let mut sink = Sink::default();
    if let Some(path) = &args.file {
        let pen = Pen::new(env, path).await.map_err(|error| failed(&error))?;
        let (queue, waiting) = mpsc::channel(MESSAGES_MAX);
        sink.pen = Some(queue);
        tokio::spawn(ended(write(env.clone(), pen, waiting)));
    }
    for address in &args.next {
        let client = wire::connect(env, address).await;
        let mut client = client.map_err(|error| failed(&error))?;
        if let Some(path) = &args.bucket {
            let bucket = Bucket::new(env, path).map_err(|error| failed(&error))?;
            let came = client.read(v1::ReadRequest::default()).await;
            let came = came.map_err(|status| failed(&status.message()))?;
            tokio::spawn(ended(flush(bucket, came.into_inner())));
        }
        let (queue, waiting) = mpsc::channel(MESSAGES_MAX);
        sink.next.push(queue);
        tokio::spawn(ended(wire::pass_on(client, waiting)));
    }
    let mut again = None;
    if args.again {
        let (written, waiting) = mpsc::channel(AGAIN_MAX);
        sink.again = Some(written);
        again = Some(Arc::new(Mutex::new(waiting)));
    }
    let mirror = Mirror {
        message: Bytes::new(),
        sink: Some(sink),
        again,
    };
    let served = wire::serve(env, mirror).await;
    let (_server, address) = served.map_err(|error| failed(&error))?;
    screen::print(&format!("{READY}{address}\n"))?;
    std::future::pending().await
}

/// Half a sink measures nothing: the process ends, and who measures sees it.
async fn ended<E: std::fmt::Display>(work: impl Future<Output = Result<(), E>>) {
    if let Err(error) = work.await {
        tracing::error!(%error, "a sink has ended");
    }
    std::process::exit(1);
}

/// Where messages go.
#[derive(Clone, Debug, Default)]
pub(super) struct Sink {
    pen: Option<mpsc::Sender<Waiting>>,
    next: Vec<mpsc::Sender<Waiting>>,
    again: Option<mpsc::Sender<Bytes>>,
}

/// A message, and who is told that it is where it is to be.
pub(super) type Waiting = (Bytes, oneshot::Sender<()>);

impl Sink {
    /// Waits until `batch` is on the disk here and wherever it is passed on to.
    pub(super) async fn write(&self, batch: Bytes) -> io::Result<()> {
        let ended = || io::Error::other("the sink has ended");
        let ways = self.pen.iter().chain(&self.next);
        let ways = ways.map(|way| async {
            let (done, written) = oneshot::channel();
            let sent = way.send((batch.clone(), done)).await;
            sent.map_err(|_| ended())?;
            written.await.map_err(|_| ended())
        });
        try_join_all(ways).await?;
        if let Some(again) = &self.again {
            again.send(batch).await.map_err(|_| ended())?;
        }
        Ok(())
    }
}

struct Pen {
    file: Arc<dyn File>,
    through: Aligned,
    at: u64,
}

impl Pen {
    async fn new(env: &Env, path: &Path) -> io::Result<Self> {
        let (files, path) = (Arc::clone(&env.files), path.to_owned());
        let made = env.workers.run(move || {
            let mut through = Aligned::new();
            let file = disk::written_before(&*files, &path, &mut through)?;
            Ok(Self {
                file,
                through,
                at: 0,
            })
        });
        made.await
    }

    /// Where the next `bytes` go.
    fn place(&mut self, bytes: u64) -> u64 {
        if self.at + bytes > FILE_BYTES {
            self.at = 0;
        }
        let at = self.at;
        self.at += bytes.next_multiple_of(ALIGNMENT);
        at
    }

    fn write(&mut self, group: &[Waiting]) -> io::Result<()> {
        let bytes: u64 = group.iter().map(|(batch, _)| batch.len() as u64).sum();
        let at = self.place(bytes);
        let parts: Vec<_> = group.iter().map(|(batch, _)| IoSlice::new(batch)).collect();
        self.file
            .write_past_cache_at(&parts, at, &mut self.through)?;
        self.file.sync_data()
    }
}

/// A folder of objects, none of which was there before: fresh pages of memory and fresh blocks, as flushes take
/// them, and durable before anything is released for them.
struct Bucket {
    env: Env,
    folder: PathBuf,
    file: Option<Arc<dyn File>>,
    objects: u64,
    at: u64,
    /// Objects that are being synced.
    syncing: JoinSet<io::Result<()>>,
}

impl Bucket {
    fn new(env: &Env, folder: &Path) -> io::Result<Self> {
        env.files.create_dir_all(folder)?;
        Ok(Self {
            env: env.clone(),
            folder: folder.to_owned(),
            file: None,
            objects: 0,
            at: 0,
            syncing: JoinSet::new(),
        })
    }

    async fn write(&mut self, batches: Vec<Bytes>) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) if self.at < FLUSH_BYTES => file,
            whole => self.next(whole).await?,
        };
        let (mut at, to) = (self.at, Arc::clone(&file));
        let job = move || {
            for batch in batches {
                to.write_all_at(&[IoSlice::new(&batch)], at)?;
                at += batch.len() as u64;
            }
            Ok::<_, io::Error>(at)
        };
        self.at = self.env.workers.run(job).await?;
        self.file = Some(file);
        Ok(())
    }

    /// A new object. The one that is `whole` is synced beside it, as many at once as there are flushes.
    async fn next(&mut self, whole: Option<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        if let Some(whole) = whole {
            if self.syncing.len() >= FLUSHES_IN_FLIGHT
                && let Some(synced) = self.syncing.join_next().await
            {
                synced.map_err(io::Error::other)??;
            }
            let workers = Arc::clone(&self.env.workers);
            let sync = async move { workers.run(move || whole.sync_data()).await };
            self.syncing.spawn(sync);
        }
        let path = self.folder.join(format!("object-{}", self.objects));
        (self.objects, self.at) = (self.objects + 1, 0);
        let files = Arc::clone(&self.env.files);
        let open = move || files.open(&path, OpenMode::CreateNew);
        self.env.workers.run(open).await
    }
}

/// Writes what waits, joined, until nobody sends any more.
async fn write(env: Env, mut pen: Pen, mut waiting: mpsc::Receiver<Waiting>) -> io::Result<()> {
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

/// Writes what comes again.
async fn flush(
    mut bucket: Bucket,
    mut came: tonic::Streaming<v1::ReadReply>,
) -> Result<(), tonic::Status> {
    while let Some(reply) = came.next().await {
        let batches = reply?.batches.into_iter();
        bucket
            .write(batches.map(|batch| batch.data).collect())
            .await?;
    }
    Ok(())
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) bytes: u64,
    /// Of each process that is sent to, unanswered.
    pub(crate) in_flight: u64,
    /// What is not counted yet.
    pub(crate) warmup: Duration,
    pub(crate) lasting: Duration,
}

/// What sinks did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Of each.
    pub(crate) bytes_per_second: f64,
    /// Seconds of a core, of all of them and none of this process, for each MiB.
    pub(crate) cpu_per_mib: f64,
}

/// Sinks that run; their files are in `directory`, and removed with it.
struct Sinks<'a> {
    env: &'a Env,
    directory: &'a Path,
    running: Vec<Process>,
}

impl Sinks<'_> {
    /// Starts one that has a file, and what `more` says.
    async fn start(&mut self, more: &[&str]) -> Result<String, Failure> {
        let file = self.directory.join(format!("sink-{}", self.running.len()));
        let mut arguments: Vec<_> = more.iter().map(|&word| word.to_owned()).collect();
        let of_file = arguments.iter().any(|word| word == "--bucket");
        if !of_file {
            arguments.push("--file".to_owned());
        }
        arguments.push(file.display().to_string());
        let started = self.env.workers.run(move || spawn(&arguments)).await;
        let started = started.map_err(|error| Failure::new(format!("a sink: {error}")));
        let (process, address) = started?;
        self.running.push(process);
        Ok(address)
    }

    fn cpu_seconds(&self) -> f64 {
        self.running.iter().map(Process::cpu_seconds).sum()
    }

    /// Sends the same to all at `addresses` at a time, and says what the slowest took.
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    async fn measure(&self, plan: Plan, addresses: &[String]) -> Result<Taken, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("a sink: {error}"));
        let message = wire::message(self.env, plan.bytes.next_multiple_of(ALIGNMENT));
        let message = message.map_err(|error| failed(&error))?;
        let mut clients = Vec::new();
        for address in addresses {
            let client = wire::connect(self.env, address).await;
            clients.push(client.map_err(|error| failed(&error))?);
        }
        let send = async |lasting| {
            let rates = clients.iter().map(|client| {
                let (clock, message) = (&*self.env.clock, message.clone());
                let request = move |_| wire::request(message.clone());
                wire::there(clock, client.clone(), request, plan.in_flight, lasting)
            });
            let rates = try_join_all(rates).await;
            rates.map_err(|status| failed(&status.message()))
        };
        send(plan.warmup).await?;
        let before = self.cpu_seconds();
        let rates = send(plan.lasting).await?;
        let cpu = self.cpu_seconds() - before;
        let rates = rates.iter().map(|(rate, _)| *rate);
        let mean = rates.clone().sum::<f64>() / addresses.len() as f64;
        let mib = mean * plan.lasting.as_secs_f64() / f64::from(1 << 20);
        Ok(Taken {
            bytes_per_second: rates.fold(f64::MAX, f64::min),
            cpu_per_mib: cpu / mib.max(1.0),
        })
    }
}

/// What each of three processes takes when all are sent the same.
pub(crate) async fn apart(env: &Env, directory: &Path, plan: Plan) -> Result<Taken, Failure> {
    let mut sinks = Sinks::new(env, directory);
    let mut addresses = Vec::new();
    for _ in 0..3 {
        addresses.push(sinks.start(&[]).await?);
    }
    sinks.measure(plan, &addresses).await
}

/// What three processes take in a row, behind a relay that gets it again.
pub(crate) async fn in_a_row(env: &Env, directory: &Path, plan: Plan) -> Result<Taken, Failure> {
    let mut sinks = Sinks::new(env, directory);
    let followers = [sinks.start(&[]).await?, sinks.start(&[]).await?];
    let [second, third] = &followers;
    let of_first = ["--next", second, "--next", third, "--again"];
    let first = sinks.start(&of_first).await?;
    let relay = sinks.start(&["--next", &first, "--bucket"]).await?;
    sinks.measure(plan, &[relay]).await
}

impl<'a> Sinks<'a> {
    const fn new(env: &'a Env, directory: &'a Path) -> Self {
        Self {
            env,
            directory,
            running: Vec::new(),
        }
    }
}

impl Drop for Sinks<'_> {
    fn drop(&mut self) {
        let running = std::mem::take(&mut self.running);
        let all = running.len();
        // They end here, and write nothing any more.
        drop(running);
        for at in 0..all {
            let path = self.directory.join(format!("sink-{at}"));
            if self.env.files.remove(&path).is_err() {
                // The relay's: it has a folder.
                crate::run::remove(&path);
            }
        }
    }
}

fn spawn(arguments: &[String]) -> io::Result<(Process, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "sink"])
        .args(arguments)
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
