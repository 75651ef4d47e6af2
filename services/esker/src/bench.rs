//! Load, made to measure.

use std::io::Write as _;

use clap::Subcommand;

use crate::config::Size;
use crate::failure::{Failure, of_stdout};
use crate::sample::Lines;
use crate::screen;

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
}

fn size(text: &str) -> Result<u64, String> {
    let size = Size::parse(text).map(|Size(bytes)| bytes);
    size.ok_or_else(|| "write a size such as 64MiB".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match args.action {
        Action::Lines { bytes, seed } => lines(bytes, seed),
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
