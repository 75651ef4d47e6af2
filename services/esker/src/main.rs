//! The one binary: server, client, and everything in one process for a try.

mod run; // what every command shares with the process it runs in
mod config; // what a server is told
mod serve; // a server, composed
mod dev; // everything in one process
mod demo; // the main job once through, on a scratch folder
mod sample; // made-up log lines

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Kafka-class log whose long-term home is an object store.
#[derive(Parser, Debug)]
#[command(name = "esker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything in one process, for a try.
    Dev(dev::DevArgs),
    /// Write logs, flush them, drop the cache, read them from the bucket, compare.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build();
    let runtime = runtime.expect("a process may start threads");
    let done = runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => args.run().await,
            Command::Demo(args) => args.run().await,
        }
    });
    // Detached work, such as a listing that nobody waits for, must not hold the process up.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            tracing::error!("{failed}");
            ExitCode::FAILURE
        }
    }
}
