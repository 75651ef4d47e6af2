//! What a start would do, told without one: nothing is opened, made, locked or asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use esker_env::Env;
use esker_object::{Options, Store};
use esker_proto::tls::Showing;

use super::{Reaching, ServeError, settings};
use crate::config::{Config, Role};
use crate::screen::{bytes, count};

/// What a start leaves for itself to find out.
const NOT_LOOKED_AT: &str = "not looked at: whether the addresses are free, the bucket and the other \
     nodes answer, and what the data directory holds";
/// Seconds of a day.
const DAY: u64 = 86_400;

/// Looks at `config`, which fits by itself, and at the files that it names. What a start would do by it, for
/// a person to read; or everything that it would fail of, and what would fail soon after.
pub(crate) async fn check(
    env: &Env,
    config: &Config,
    environment: BTreeMap<String, String>,
) -> Result<String, Vec<String>> {
    let mut plan = Plan::default();
    plan.line("roles", roles(config));
    plan.data(env, config);
    plan.addresses(config);
    plan.certificates(env, config).await;
    if config.is(Role::Agent) {
        plan.note("bucket", bucket(env, config, environment));
    }
    if config.is(Role::Wal) {
        plan.note("log", log(config).map_err(|error| error.to_string()));
    }
    if config.is(Role::Agent) && config.cache.disk.0 > 0 {
        plan.line("cache", format!("up to {} of disk", config.cache.disk));
    }
    let memory = settings::Memory::of(config).sum();
    plan.line("memory", format!("up to {}, by its budgets", bytes(memory)));
    match plan.faults.is_empty() {
        true => Ok(format!("{}{NOT_LOOKED_AT}\n", plan.text)),
        false => Err(plan.faults),
    }
}

#[derive(Default)]
struct Plan {
    text: String,
    faults: Vec<String>,
}

impl Plan {
    fn line(&mut self, what: &str, is: impl AsRef<str>) {
        let is = is.as_ref();
        writeln!(self.text, "{what:<14} {is}").expect("a string takes every text");
    }

    fn note(&mut self, what: &str, is: Result<String, String>) {
        match is {
            Ok(is) => self.line(what, is),
            Err(fault) => self.faults.push(fault),
        }
    }

    fn data(&mut self, env: &Env, config: &Config) {
        let keeps = config.is(Role::Wal) || config.cache.disk.0 > 0;
        let folder = match keeps {
            true => folder(env, &config.data_dir),
            false => Ok("none: an agent without a cache on disk keeps nothing".to_owned()),
        };
        self.note("data", folder);
    }

    fn addresses(&mut self, config: &Config) {
        let listen = &config.listen;
        let is_peer = config.is(Role::Wal) && !config.is_alone();
        let agent = config.is(Role::Agent);
        let public = agent.then(|| {
            (
                "listen.public",
                listen.public.0,
                config.tls.public().is_some(),
            )
        });
        let peers = is_peer.then(|| ("listen.peers", listen.peers.0, config.tls.peers().is_some()));
        let metrics = Some(("listen.metrics", config.metrics(), false));
        let all: Vec<_> = [public, peers, metrics].into_iter().flatten().collect();
        for (at, (key, address, tls)) in all.iter().enumerate() {
            let tls = if *tls { "TLS" } else { "no TLS" };
            self.line(key, format!("{address}, {tls}"));
            let mut others = all[..at].iter();
            if let Some((other, taken, _)) = others.find(|(_, taken, _)| overlap(*taken, *address))
            {
                self.faults.push(format!(
                    "`{key}` is {address}, which `{other}`, {taken}, has taken by then: choose another port"
                ));
            }
        }
        if !config.cluster.nodes.is_empty() {
            let nodes = config.cluster.nodes.iter().map(ToString::to_string);
            self.line("cluster.nodes", nodes.collect::<Vec<_>>().join(", "));
        }
    }

    /// Files are read as they are at a start, by those who would use them.
    async fn certificates(&mut self, env: &Env, config: &Config) {
        let serving = config.tls.public().filter(|_| config.is(Role::Agent));
        if let Some(serving) = serving {
            let showing = Showing::at(env, serving).map_err(ServeError::Tls);
            self.shown(env, "tls.public", showing).await;
        }
        if config.is_alone() {
            return;
        }
        let reaching = Reaching::of_a_part(env, config).map_err(ServeError::NoReach);
        if let Some(showing) = reaching.map(|reaching| reaching.showing()).transpose() {
            self.shown(env, "tls.peers", showing).await;
        }
    }

    async fn shown(&mut self, env: &Env, key: &str, showing: Result<Showing, ServeError>) {
        let showing = match showing {
            Ok(showing) => showing,
            Err(error) => return self.faults.push(error.to_string()),
        };
        let now = Duration::from_millis(env.clock.wall().0).as_secs();
        let Some(end) = showing.not_after().await else {
            return self.line(key, "its certificate does not say until when it holds");
        };
        // One that ended before 1970 has ended.
        match u64::try_from(end).unwrap_or(0).checked_sub(now) {
            Some(left) => self.line(key, format!("holds for {} more", count(left / DAY, "day"))),
            None => self.faults.push(format!(
                "the certificate of {key}, or one between it and its CA's, has expired: whoever connects \
                 refuses it; put another in its place"
            )),
        }
    }
}

fn roles(config: &Config) -> String {
    let text = match (config.is(Role::Wal), config.is(Role::Agent)) {
        (true, true) if config.is_alone() => "a cluster of one: WAL node and agent",
        (true, true) => "a WAL node, and an agent beside it",
        (true, false) => "a WAL node",
        _ => "an agent",
    };
    text.to_owned()
}

/// Whether it is there, or would be made.
fn folder(env: &Env, path: &Path) -> Result<String, String> {
    let shown = path.display();
    match env.files.list(path) {
        Ok(_) => Ok(shown.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(format!("{shown}, which would be made"))
        }
        Err(error) => Err(format!("{shown} cannot be used as a folder: {error}")),
    }
}

/// One who takes all addresses of a machine takes each of them.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wide = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (wide || one.ip() == other.ip())
}

fn bucket(
    env: &Env,
    config: &Config,
    environment: BTreeMap<String, String>,
) -> Result<String, String> {
    let url = config.bucket();
    if let Some(path) = url.strip_prefix("file://") {
        return folder(env, Path::new(path)).map(|folder| format!("file://{folder}"));
    }
    let options = Options {
        environment,
        settings: config.object_store.settings.clone(),
        ..Options::default()
    };
    let opened = Store::open(&url, &options, env);
    opened.map(|_| url).map_err(|error| error.to_string())
}

/// How many shards there are the founding says; until then, the configuration.
fn log(config: &Config) -> Result<String, ServeError> {
    let (shards, options) = (config.cluster.data_shards, settings::node(config));
    options.check(shards)?;
    let (disk, head) = (config.wal.disk, bytes(options.head_bytes));
    let shards = count(shards.into(), "data shard");
    Ok(format!(
        "up to {disk} of disk, {head} of it for heads; {shards} fit it"
    ))
}
