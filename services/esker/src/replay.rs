//! History at full speed: to stdout, or several partitions at a time into files.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use esker_env::{Env, File, OpenMode, WorkersExt};
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use indicatif::ProgressBar;

use crate::consume::{Printing, give_up_on_stdout, nothing};
use crate::direct;
use crate::failure::{Failure, unless};
use crate::headway::Headway;
use crate::reading::{Bounds, Form, Printer, Reading, Source, Stretch, plan};
use crate::run::interrupted;
use crate::screen;
use crate::shell::Shell;
use crate::tally::{Share, Tally};
use crate::when::{Place, check, in_order};

/// Partitions that are read at the same time: each has a connection and a read-ahead of its own.
const AT_ONCE_MAX: usize = 4;

/// Read history at full speed, to stdout or into files
///
/// It leaves the cache of those who read the tail alone.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
PLACE is earliest, end, a time, or with --partition an offset. A time is RFC 3339
(2026-11-21T15:00:00Z), a date (2026-11-21: its first moment, in UTC), milliseconds since 1970
(@1795273200000) or before now (-2h), and stands for the first record, in the order of offsets, of
this time or later.

With --json the last line (on stdout if records go into files, else on stderr) tells records, bytes
of values, next offset and the SHA-256 of the values, each followed by a newline, per partition.")]
pub(crate) struct Args {
    /// What to read
    topic: String,
    /// Of one partition only
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Where to begin
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    #[arg(allow_hyphen_values = true)]
    from: Place,
    /// Where to end: before this record
    #[arg(long, value_name = "PLACE", default_value = "end")]
    #[arg(allow_hyphen_values = true)]
    to: Place,
    /// Write a file per partition into DIR, TOPIC-PARTITION.log, which must not be there yet;
    /// several partitions are read at the same time
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write JSON objects, as `consume` does
    #[arg(long)]
    json_records: bool,
    #[command(flatten)]
    direct: direct::Bucket,
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    for (option, place) in [("--from", args.from), ("--to", args.to)] {
        check(option, place, args.partition).map_err(Failure::usage)?;
    }
    let now = shell.env.clock.wall();
    in_order(args.from, ("--to", args.to), now).map_err(Failure::usage)?;
    let bounds = Bounds {
        from: args.from,
        until: args.to,
        follow: false,
        backfill: true,
        prefer_followers: false,
        past_gone: false,
    };
    let form = match args.json_records {
        true => Form::Objects,
        false => Form::Values,
    };
    let mut interrupt = std::pin::pin!(interrupted());
    let opening = Source::open(shell, &args.direct);
    let Some(directory) = &args.out else {
        tokio::spawn(give_up_on_stdout(interrupted()));
        let source = unless(interrupt.as_mut(), opening).await?;
        let printer = Printer::new(form, None);
        let printing = Printing::new(shell, &source, &args.topic, printer, None);
        let (of, nowhere) = (args.partition.as_slice(), BTreeMap::new());
        return printing.print(of, &bounds, &nowhere, interrupt).await;
    };
    let source = unless(interrupt.as_mut(), opening).await?;
    into_files(shell, &source, &args, directory, form, &bounds, interrupt).await
}

async fn into_files(
    shell: &Shell,
    source: &Source,
    args: &Args,
    directory: &Path,
    form: Form,
    bounds: &Bounds,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let began = shell.env.clock.monotonic();
    let topic = args.topic.as_str();
    let (nowhere, now) = (BTreeMap::new(), shell.env.clock.wall());
    let of = args.partition.as_slice();
    let planning = plan(source, topic, of, bounds, &nowhere, now);
    let planning = planning.map_err(|error| source.failed(shell, topic, &error));
    let stretches = unless(interrupt.as_mut(), planning).await?;
    let made = shell.env.files.create_dir_all(directory);
    made.map_err(|error| Failure::io(&directory.display().to_string(), &error))?;
    let bar = screen::progress(None, "{binary_bytes}, {binary_bytes_per_sec}, {msg}");
    let replay = Replay {
        shell,
        source,
        topic,
        directory,
        form,
        headway: source.headway(shell, &bar),
        bar,
    };
    let copied = futures::stream::iter(&stretches).map(|stretch| replay.one(stretch));
    let mut copied = std::pin::pin!(copied.buffer_unordered(AT_ONCE_MAX));
    let mut tally = Tally::default();
    let mut done = 0;
    loop {
        let next = tokio::select! {
            biased;
            () = &mut interrupt => {
                let text = format!("interrupted; {} holds a part of it", directory.display());
                return Err(Failure::new(text));
            }
            next = copied.try_next() => next,
        };
        let Some((partition, share)) = next? else {
            break;
        };
        tally.set(partition, share);
        done += 1;
        let partitions = screen::count(stretches.len() as u64, "partition");
        let text = format!("{done} of {partitions}");
        replay.bar.set_message(text);
    }
    replay.bar.finish_and_clear();
    let seconds = shell.env.clock.monotonic().since(began).as_secs_f64();
    let mut answer = tally.object(topic);
    answer["seconds"] = seconds.into();
    if tally.records() == 0 && !shell.json {
        screen::note(&nothing(shell, topic, of, bounds, false));
    }
    shell.answer(&answer, || {
        let rate = screen::rate(tally.bytes(), seconds);
        let (text, directory) = (tally.text(), directory.display());
        format!("replayed {text} into {directory} in {seconds:.1} s, {rate}\n")
    })
}

struct Replay<'a> {
    shell: &'a Shell,
    source: &'a Source,
    topic: &'a str,
    directory: &'a Path,
    form: Form,
    headway: Headway,
    bar: ProgressBar,
}

impl Replay<'_> {
    /// One partition into its file.
    async fn one(&self, stretch: &Stretch) -> Result<(u32, Share), Failure> {
        let extension = match self.form {
            Form::Values => "log",
            Form::Objects => "jsonl",
        };
        let name = format!("{}-{}.{extension}", self.topic, stretch.partition);
        let out = Out::new(&self.shell.env, self.directory.join(name)).await?;
        let opened = stretch.open(self.source, self.topic).await;
        let reading = opened.map_err(|error| self.source.failed(self.shell, self.topic, &error))?;
        let copying = Copying {
            out,
            printer: Printer::new(self.form, None),
            share: Share::new(self.shell.json),
            headway: self.headway.clone(),
            bar: self.bar.clone(),
        };
        // On any thread, so that several work at the same time.
        let copied = tokio::spawn(copying.copy(reading)).await;
        match copied.map_err(|error| Failure::new(format!("copying ended: {error}")))? {
            Ok(copied) => Ok(copied),
            Err(Stop::Read(error)) => Err(self.source.failed(self.shell, self.topic, &error)),
            Err(Stop::Write(failure)) => Err(failure),
        }
    }
}

/// A file being written.
struct Out {
    env: Env,
    name: String,
    file: Arc<dyn File>,
    written: u64,
}

impl Out {
    async fn new(env: &Env, path: PathBuf) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let files = Arc::clone(&env.files);
        let file = env
            .workers
            .run(move || files.open(&path, OpenMode::CreateNew));
        let file = file.await.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::new(format!("{name} is there already")).and_next("name another --out")
            }
            _ => Failure::io(&name, &error),
        })?;
        Ok(Self {
            env: env.clone(),
            name,
            file,
            written: 0,
        })
    }

    async fn write(&mut self, text: Vec<u8>) -> Result<(), Failure> {
        let (file, at) = (Arc::clone(&self.file), self.written);
        self.written += text.len() as u64;
        let write = move || file.write_all_at(&[IoSlice::new(&text)], at);
        let written = self.env.workers.run(write).await;
        written.map_err(|error| Failure::io(&self.name, &error))
    }
}

/// Why copying ends before its time.
enum Stop {
    Read(esker_client::Error),
    Write(Failure),
}

/// A partition on its way into a file.
struct Copying {
    out: Out,
    printer: Printer,
    share: Share,
    headway: Headway,
    bar: ProgressBar,
}

impl Copying {
    async fn copy(mut self, mut reading: Reading) -> Result<(u32, Share), Stop> {
        while let Some(piece) = self.headway.of(reading.next()).await.map_err(Stop::Read)? {
            self.printer
                .print(reading.partition, &piece, &mut self.share);
            if self.printer.is_full() {
                self.write().await.map_err(Stop::Write)?;
            }
        }
        self.write().await.map_err(Stop::Write)?;
        self.share.next_offset = reading.end_offset().get();
        Ok((reading.partition, self.share))
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let text = self.printer.take();
        self.bar.inc(text.len() as u64);
        self.out.write(text).await
    }
}
