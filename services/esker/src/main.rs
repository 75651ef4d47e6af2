//! The one binary.
//!
//! ```text
//!   argv ─► cli ─┬─► demo, dev ─► serve                     a server, composed here
//!                └─► topic, cluster, verify, … ─► SDK ─► any agent
//!                          │
//!             stdout: what was asked for    stderr: logs, progress, the one line of an error
//! ```
//!
//! Exit codes: 0 done, 1 failed with nothing changed or a clear report, 2 usage.

mod cli; // every command and option

mod config; // what a server is told
mod serve; // a server, composed
mod observe; // metrics and health over HTTP
mod dev; // everything in one process
mod demo; // the main job once through, on a scratch folder
mod sample; // made-up log lines

mod topic; // create, list, describe, alter, truncate, delete
mod produce; // lines in
mod consume; // lines out
mod replay; // history out, at full speed
mod cluster; // status, flush
mod verify; // bucket, manifest and head agree
mod inspect; // a look inside files and objects
mod direct; // a bucket, read without any agent
mod bench; // load, made to measure
mod completions; // for shells

mod object; // a record as a JSON object
mod when; // times and offsets as people write them
mod reading; // stretches of partitions, records as text
mod positions; // how far was read, in a file
mod tally; // what went through, counted and hashed
mod headway; // whether records get on, said if they do not

mod run; // what every command shares with the process it runs in
mod shell; // what every client command has at hand
mod failure; // how a command fails, and what it says then
mod screen; // stdout, tables, progress

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::Failure;
use shell::Shell;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::misused(&error),
    };
    let shell = Shell::new(&cli.common);
    let outcome = cli
        .common
        .log
        .start(cli.command.log_levels())
        .and_then(|()| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(format!("no runtime: {error}")))?;
            let outcome = runtime.block_on(run(cli.command, &shell));
            // A thread that waits for a terminal or a pipe is not waited for.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(&shell),
    }
}

async fn run(command: Command, shell: &Shell) -> Result<(), Failure> {
    if !command.hears_signals() {
        tokio::spawn(run::end_when_asked());
    }
    match command {
        Command::Dev(args) => Ok(args.run().await?),
        Command::Serve(args) => Ok(args.run().await?),
        Command::Demo(args) => Ok(args.run(shell.json).await?),
        Command::Topic(args) => topic::run(args, shell).await,
        Command::Produce(args) => produce::run(args, shell).await,
        Command::Consume(args) => consume::run(args, shell).await,
        Command::Replay(args) => replay::run(args, shell).await,
        Command::Cluster(args) => cluster::run(args, shell).await,
        Command::Status => cluster::status(shell).await,
        Command::Verify(args) => verify::run(&args, shell).await,
        Command::Inspect(args) => inspect::run(args, shell).await,
        Command::Bench(args) => bench::run(args, shell).await,
        Command::Completions(args) => completions::run(&args),
    }
}
