//! `esker dev` and `esker serve`: everything in one process for a try, or what a configuration says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use esker_env::Env;
use esker_types::ClusterId;

use crate::cli::ENDPOINT;
use crate::config::{Config, Kind};
use crate::run::{Failed, environment, interrupted, program};
use crate::serve::{Peer, Server};

/// What `esker dev` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct DevArgs {
    /// Where to keep everything, the bucket included.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the public API; a port alone, or localhost, is of this machine only.
    #[arg(long, value_name = "[HOST:]PORT")]
    listen: Option<String>,
    /// Address of metrics and health. Default: that of --listen, one port higher.
    #[arg(long, value_name = "[HOST:]PORT")]
    metrics: Option<String>,
    /// Another bucket than `bucket` in the data directory: file:///…, s3://bucket/prefix, gs://…,
    /// az://….
    #[arg(long, value_name = "URL")]
    object_store: Option<String>,
    /// A configuration file; every key of `esker serve` is taken.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve an address that others can reach, where it has no TLS.
    #[arg(long)]
    insecure: bool,
}

impl DevArgs {
    /// Flags by the keys of the configuration that they set.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        if let Some(directory) = &self.data_dir {
            flags.push(("data_dir", directory.display().to_string()));
        }
        if let Some(listen) = &self.listen {
            flags.push(("listen.public", listen.clone()));
        }
        if let Some(metrics) = &self.metrics {
            flags.push(("listen.metrics", metrics.clone()));
        }
        if let Some(url) = &self.object_store {
            flags.push(("object_store.url", url.clone()));
        }
        if self.insecure {
            flags.push(("insecure", "true".to_owned()));
        }
        flags
    }

    pub(crate) async fn run(self) -> Result<(), Failed> {
        serve(Kind::Dev, self.config.as_deref(), &self.flags()).await
    }
}

/// What `esker serve` takes: what `esker dev` does, with the defaults of a server for good.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    common: DevArgs,
    /// Look at the configuration and at the files that it names, say what a start would do, and end;
    /// nothing is opened.
    #[arg(long)]
    check: bool,
}

impl ServeArgs {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        if self.common.config.is_none() {
            return Err(Failed::usage(
                "--config is missing: a server for good is told what it is by a file; for a try, \
                 `esker dev` needs none",
            ));
        }
        let (file, flags) = (self.common.config.as_deref(), self.common.flags());
        match self.check {
            true => check(file, &flags).await,
            false => serve(Kind::Serve, file, &flags).await,
        }
    }
}

/// Says what a start would do; fails if it would.
async fn check(
    file: Option<&std::path::Path>,
    flags: &[(&'static str, String)],
) -> Result<(), Failed> {
    let environment = environment();
    let config = configured(Kind::Serve, file, &environment, flags)?;
    match crate::serve::check(&Env::real(), &config, environment).await {
        Ok(plan) => {
            let version = env!("CARGO_PKG_VERSION");
            crate::run::say(&format!("esker {version} would start as\n{plan}"));
            Ok(())
        }
        Err(faults) => Err(Failed::new(match faults.as_slice() {
            [fault] => fault.clone(),
            faults => format!(
                "{} things are wrong:\n  {}",
                faults.len(),
                faults.join("\n  ")
            ),
        })),
    }
}

/// What a server is told; warns of what is dangerous about it.
fn configured(
    kind: Kind,
    file: Option<&std::path::Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(&'static str, String)],
) -> Result<Config, Failed> {
    let file = file.map(crate::run::read_config).transpose()?;
    let config = Config::build(kind, file.as_ref(), environment, flags)?;
    if config.insecure && config.is_open() {
        tracing::warn!("--insecure: whoever reaches this server may read and write everything");
    }
    for key in config.tls.keys() {
        crate::run::tell_of_readers(key);
    }
    Ok(config)
}

/// Serves until the process is asked to stop; says what is ready and what to type next.
pub(crate) async fn serve(
    kind: Kind,
    file: Option<&std::path::Path>,
    flags: &[(&'static str, String)],
) -> Result<(), Failed> {
    // A signal that comes while everything starts must be heard, too.
    let mut asked = std::pin::pin!(interrupted());
    let env = Env::real();
    let environment = environment();
    let config = configured(kind, file, &environment, flags)?;
    let server = tokio::select! {
        biased;
        () = &mut asked => {
            // As if it had been killed: what is half-way the next start sees to.
            tracing::info!("asked to stop before everything had started");
            return Ok(());
        }
        server = Server::start(&env, &config, environment) => server?,
    };
    match (server.address(), server.cluster(), server.peer()) {
        (Some(address), Some(cluster), _) => {
            let known = server.a_topic().await;
            let scheme = config.tls.public().map_or("http", |_| "https");
            let endpoint = format!("{scheme}://{address}");
            say_ready(&server, &endpoint, cluster, &config, known.as_deref());
        }
        (_, _, Some(peer)) => say_reached(&server, peer, &config),
        _ => {}
    }
    Ok(server.run(asked).await?)
}

/// What a WAL node says that serves no clients.
fn say_reached(server: &Server, peer: &Peer, config: &Config) {
    let (address, disk) = (&peer.address, peer.standing.disk());
    let what = match peer.standing.identity() {
        None => format!("waits to be adopted, at {address}"),
        Some(of) => format!(
            "is node {} of cluster {}, at {address}",
            of.node, of.cluster
        ),
    };
    let next = match peer.standing.identity() {
        None => format!(
            "\nnext, once all WAL nodes run, and only once; the file is that of an agent, which names \
             them in cluster.nodes:\n\x20 {} cluster init --config agent.toml\n",
            program()
        ),
        Some(_) => String::new(),
    };
    crate::run::say(&format!(
        "esker {version} {what}\n\
         disk {disk}, data in {data}\n\
         metrics and health at http://{metrics}\n\
         {next}",
        version = env!("CARGO_PKG_VERSION"),
        data = config.data_dir.display(),
        metrics = server.metrics(),
    ));
}

/// `known`: a topic that is there already.
fn say_ready(
    server: &Server,
    endpoint: &str,
    cluster: ClusterId,
    config: &Config,
    known: Option<&str>,
) {
    let esker = program();
    let option = if endpoint == ENDPOINT {
        String::new()
    } else {
        format!(" --endpoint {endpoint}")
    };
    let first = match known {
        Some(_) => format!("  {esker} topic list{option}\n"),
        None => format!("  {esker} topic create hello --partitions 4{option}\n"),
    };
    crate::run::say(&format!(
        "esker {version} is ready at {endpoint}\n\
         cluster {cluster}, data in {data}, bucket {bucket}\n\
         metrics and health at http://{metrics}\n\
         \n\
         next, from another terminal:\n\
         {first}\
         \x20 echo 'hello, gravel' | {esker} produce {topic}{option}\n\
         \x20 {esker} consume {topic}{option}\n",
        topic = known.unwrap_or("hello"),
        metrics = server.metrics(),
        version = env!("CARGO_PKG_VERSION"),
        data = config.data_dir.display(),
        bucket = config.bucket(),
    ));
}
