//! Every command and option. What they do is in the module of the same name.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use esker_client::Own;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::{
    bench, cluster, completions, consume, demo, dev, inspect, produce, replay, topic, verify,
};

/// Where an agent is looked for.
pub(crate) const ENDPOINT: &str = "http://127.0.0.1:7070";

/// A log service whose long-term home is an object store.
#[derive(Debug, Parser)]
#[command(name = "esker", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command knows.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Address of an agent: http://HOST:PORT, https://HOST:PORT, HOST:PORT, or a port of this machine
    #[arg(long, global = true, env = "ESKER_ENDPOINT", value_name = "URL")]
    #[arg(default_value = ENDPOINT)]
    pub(crate) endpoint: String,

    /// For programs: results as JSON on stdout (on stderr where stdout holds records), errors as
    /// JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) tls: Tls,

    #[command(flatten)]
    pub(crate) log: Logging,
}

/// What commands show and believe, over https:// and between nodes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Tls {
    /// The CA that is believed, a PEM file [default: those that browsers believe]
    #[arg(id = "tls-ca", long, global = true, env = "ESKER_TLS_CA")]
    #[arg(value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// The certificate that is shown to who asks for one, a PEM file. With --config, it stands for that
    /// of `tls.peers`: an operator's
    #[arg(
        id = "tls-certificate",
        long,
        global = true,
        env = "ESKER_TLS_CERTIFICATE"
    )]
    #[arg(value_name = "FILE", requires = "tls-key")]
    pub(crate) certificate: Option<PathBuf>,

    /// Its private key
    #[arg(id = "tls-key", long, global = true, env = "ESKER_TLS_KEY")]
    #[arg(value_name = "FILE", requires = "tls-certificate")]
    pub(crate) key: Option<PathBuf>,
}

impl Tls {
    /// Whether anything is named: nothing goes in the clear then.
    pub(crate) const fn is_said(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some()
    }

    /// Who one is, if that is said.
    pub(crate) fn own(&self) -> Option<Own> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(Own { certificate, key })
    }
}

/// How the process logs. Always on stderr.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// Form of log lines
    #[arg(long = "log", global = true, value_enum, value_name = "FORM")]
    #[arg(default_value_t = LogForm::Text)]
    form: LogForm,

    /// What to log: a level, or levels by module, such as `info,esker_log=debug` [default: warn;
    /// for servers: info]
    #[arg(long = "log-level", global = true, env = "ESKER_LOG")]
    #[arg(value_name = "LEVELS")]
    levels: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

impl Logging {
    /// Begins to log. Once per process.
    pub(crate) fn start(&self, default: &str) -> Result<(), Failure> {
        let levels = self.levels.as_deref().unwrap_or(default);
        let filter = EnvFilter::try_new(levels).map_err(|error| {
            let text = format!("ESKER_LOG, --log-level: `{levels}` is no filter: {error}");
            Failure::usage(format!("{text}; write a level, such as info"))
        })?;
        // https://no-color.org
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal() && !plain)
            .with_writer(std::io::stderr);
        match self.form {
            LogForm::Text => lines.init(),
            LogForm::Json => lines.json().init(),
        }
        Ok(())
    }
}

/// Says why the arguments are refused, or the help that they ask for, and gives the exit code.
pub(crate) fn misused(error: &clap::Error) -> ExitCode {
    let mut given = std::env::args_os().take_while(|word| word != "--");
    if error.use_stderr() && given.any(|word| word == "--json") {
        return Failure::usage(in_one_line(error)).tell_a_program();
    }
    error.exit()
}

/// What is wrong, without how the command is used.
fn in_one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; `--help` lists them".to_owned();
    }
    let text = error.to_string();
    let what = text.split("\n\nUsage:").next().unwrap_or_default();
    let what = what.split("\n\nFor more").next().unwrap_or_default();
    let words: Vec<_> = what.split_whitespace().collect();
    let words = words.join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process, data under ./esker-data
    Dev(dev::DevArgs),
    /// Run a WAL node, an agent or both, as a configuration file says
    Serve(dev::ServeArgs),
    /// Write logs, flush them, drop the cache, read them from the bucket, compare
    Demo(demo::DemoArgs),
    /// Create, list, describe, alter, truncate and delete topics
    Topic(topic::Args),
    /// Append lines, or JSON objects, to a topic
    Produce(produce::Args),
    /// Print a topic's values, one a line
    Consume(consume::Args),
    /// Read history at full speed, to stdout or into files
    Replay(replay::Args),
    /// Look after the cluster
    Cluster(cluster::Args),
    /// Short for `cluster status`
    Status,
    /// Prove that bucket, manifest and head agree; exit 1 if anything was found
    Verify(verify::Args),
    /// Look inside a file or object: exit 1 if it is damaged
    Inspect(inspect::Args),
    /// Load, made to measure
    Bench(bench::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

impl Command {
    /// Whether it hears by itself that the process is asked to end, and ends its work in order.
    pub(crate) const fn hears_signals(&self) -> bool {
        match self {
            Self::Dev(_)
            | Self::Serve(_)
            | Self::Demo(_)
            | Self::Produce(_)
            | Self::Consume(_)
            | Self::Replay(_) => true,
            Self::Bench(args) => args.hears_signals(),
            _ => false,
        }
    }

    /// What is logged unless somebody says otherwise.
    pub(crate) const fn log_levels(&self) -> &'static str {
        match self {
            // What raft and the cache tell of every start is for whoever asks.
            Self::Dev(_) | Self::Serve(_) => {
                "info,openraft=error,openraft::raft=off,openraft::core::heartbeat=off,foyer=warn"
            }
            Self::Demo(_) => "warn,openraft=error",
            _ => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_behind_the_command() {
        for line in [
            ["esker", "--endpoint", "http://b:1", "status", "--json"],
            ["esker", "--json", "status", "--endpoint", "http://b:1"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.common.endpoint, "http://b:1");
            assert!(cli.common.json);
        }
    }

    #[test]
    fn what_is_unknown_is_usage() {
        for line in [
            &["esker"][..],
            &["esker", "fly"],
            &["esker", "status", "-x"],
        ] {
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }
}
