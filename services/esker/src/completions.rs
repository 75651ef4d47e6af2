//! Completions for shells.

use clap::CommandFactory as _;
use clap_complete::Shell as Kind;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::screen;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: source <(esker completions bash)")]
pub(crate) struct Args {
    /// Which shell
    shell: Kind,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "esker", &mut script);
    screen::print(&String::from_utf8_lossy(&script))
}
