//! Looks inside files and objects: no server, no lock, nothing is changed.

mod checkpoint; // a shard's state, of a node or of the bucket
mod segment; // batches of many partitions
mod source; // the bytes that are looked into
mod wal; // a node's log

use clap::Subcommand;
use serde::Serialize;

use crate::failure::Failure;
use crate::shell::Shell;

/// Damaged places that are shown; the rest are counted.
const DAMAGE_SHOWN_MAX: usize = 1000;

/// Look inside a file or object
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A node's log: its data directory, or one file
    Wal(wal::Args),
    /// A segment: every part of it is checked
    Segment(segment::Args),
    /// A checkpoint, of a node or of the bucket
    Checkpoint(checkpoint::Args),
}

pub(crate) async fn run(args: Args, shell: &Shell) -> Result<(), Failure> {
    match args.what {
        What::Wal(args) => wal::run(&args, shell),
        What::Segment(args) => segment::run(&args, shell).await,
        What::Checkpoint(args) => checkpoint::run(&args, shell).await,
    }
}

/// What was found damaged, in the order in which it was met.
#[derive(Debug, Default, Serialize)]
struct Found {
    #[serde(rename = "damage")]
    shown: Vec<String>,
    #[serde(rename = "damage_total")]
    count: usize,
}

impl Found {
    fn add(&mut self, what: impl Into<String>) {
        self.count += 1;
        if self.shown.len() < DAMAGE_SHOWN_MAX {
            self.shown.push(what.into());
        }
    }

    /// One line each.
    fn text(&self) -> String {
        let mut text = String::new();
        for what in &self.shown {
            text.push_str(&format!("damage: {what}\n"));
        }
        if self.count > self.shown.len() {
            let more = self.count - self.shown.len();
            text.push_str(&format!("and {more} more\n"));
        }
        text
    }

    fn outcome(&self, of: &str) -> Result<(), Failure> {
        match self.count {
            0 => Ok(()),
            1 => Err(Failure::new(format!("{of} is damaged in 1 place"))),
            count => Err(Failure::new(format!("{of} is damaged in {count} places"))),
        }
    }
}
