//! Load, made to measure.
//!
//! ```text
//!   Schedule ─due─► writing ─► agent ─► tail: due to read      then replay, from the first record
//!                      └─ settled ─► Histogram: due to durable
//! ```

mod load; // load against an agent, and what it came to
mod plan; // what a load is made of
mod schedule; // when batches are due, whether or not those before are done
mod payload; // the batches, made beforehand
mod writing; // batches in, each timed from when it was due
mod tail; // batches out as they arrive, timed from the same moment
mod history; // everything out again, from the start
mod histogram; // latencies, counted

mod ratios; // a server under load, and the limits of the machine, in one run
mod cluster; // clusters under load, and the limit of the machine, in one run
mod fed; // the same, fed as the limits are
mod site; // a cluster of one's own
mod process; // a process that was started here
mod server; // a server of one's own
mod disk; // what the disk does
mod wire; // what gRPC over loopback does
mod sink; // what processes do that only write what they are sent, or pass it on
mod codec; // what zstd does

use std::io::Write as _;
use std::path::Path;

use clap::Subcommand;

use crate::config::Size;
use crate::failure::{Failure, of_stdout};
use crate::run::interrupted;
use crate::sample::Lines;
use crate::screen;
use crate::shell::Shell;

/// Text that is gathered before it is written.
const TEXT_BYTES: usize = 256 << 10;

/// Load, made to measure
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write made-up log lines to stdout: the same for the same seed
    Lines {
        /// How much: whole lines, this many bytes or a few more
        #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
        bytes: u64,
        /// Of which lines
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
    },
    /// Append at a rate, read along, read it all again; tell latencies and rates
    Load(plan::Args),
    /// Load a server of its own; tell figures as ratios to disk, gRPC and zstd
    Ratios(ratios::Args),
    /// Load clusters of its own; tell figures as ratios to what three processes do that only write
    Cluster(cluster::Args),
    #[command(hide = true)]
    Sink(sink::Args),
}

impl Args {
    /// Whether it hears by itself that the process is asked to end: it has a topic to delete then, or a
    /// server to stop.
    pub(crate) const fn hears_signals(&self) -> bool {
        !matches!(self.action, Action::Lines { .. } | Action::Sink(_))
    }
}

/// What `measure` finds in a folder of its own, made in `directory` or with the system's temporary files, and
/// removed again.
async fn in_scratch<T>(
    shell: &Shell,
    kind: &str,
    directory: Option<&Path>,
    measure: impl AsyncFnOnce(&Path) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let name = format!("esker-{kind}-{:016x}", shell.env.entropy.next_u64());
    let scratch = match directory {
        Some(directory) => directory.join(name),
        None => crate::run::scratch(&name).map_err(|error| Failure::new(error.to_string()))?,
    };
    let made = shell.env.files.create_dir_all(&scratch);
    made.map_err(|error| Failure::io(&scratch.display().to_string(), &error))?;
    let measured = tokio::select! {
        biased;
        () = interrupted() => Err(Failure::new("interrupted; nothing was measured")),
        measured = measure(&scratch) => measured,
    };
    crate::run::remove(&scratch);
    measured
}

/// On a terminal, what is being done: it takes a while.
fn say(what: &str) {
    if screen::is_apart() {
        screen::note(&format!("measuring {what}"));
    }
}

fn size(text: &str) -> Result<u64, String> {
    let size = Size::parse(text).map(|Size(bytes)| bytes);
    size.ok_or_else(|| "write a size such as 64MiB".to_owned())
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    match args.action {
        Action::Lines { bytes, seed } => lines(bytes, seed),
        Action::Load(args) => load::run(&args, shell).await,
        Action::Ratios(args) => ratios::run(&args, shell).await,
        Action::Cluster(args) => cluster::run(&args, shell).await,
        Action::Sink(args) => sink::run(&args, &shell.env).await,
    }
}

fn lines(bytes: u64, seed: u64) -> Result<(), Failure> {
    let mut out = screen::out().lock();
    let mut made = Lines::new(seed);
    let (mut line, mut text) = (Vec::new(), Vec::with_capacity(2 * TEXT_BYTES));
    let mut left = bytes;
    while left > 0 {
        made.write(&mut line);
        text.extend_from_slice(&line);
        text.push(b'\n');
        left = left.saturating_sub(line.len() as u64 + 1);
        if text.len() >= TEXT_BYTES || left == 0 {
            out.write_all(&text).map_err(|error| of_stdout(&error))?;
            text.clear();
        }
    }
    out.flush().map_err(|error| of_stdout(&error))
}
