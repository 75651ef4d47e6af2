//! Where a server lives: its data directory, and the addresses that it listens at.

use std::io;

use esker_env::{Env, Listener};
use esker_proto::tls::{Secured, Serving, TlsError};
use esker_walnode::{Directory, NodeError};

use super::ServeError;
use crate::config::tls::PeerTls;
use crate::config::{Config, Role};
use crate::observe::Doors;

/// Everything that another process might have taken.
pub(super) struct Place {
    /// None for an agent that keeps nothing on disk.
    pub(super) directory: Option<Directory>,
    /// The public API, of an agent.
    pub(super) public: Option<Box<dyn Listener>>,
    /// What one of several WAL nodes is reached at.
    pub(super) peers: Option<Box<dyn Listener>>,
    /// Metrics and health.
    pub(super) metrics: Option<Box<dyn Listener>>,
    /// Who was let in by the listeners that ask, and who was not.
    pub(super) doors: Doors,
}

impl Place {
    /// Takes it. Of two servers in one directory the second hears of that, not of the port that they
    /// would share. A directory that is not there is nobody's, and is not made for a port that is taken.
    pub(super) async fn take(env: &Env, config: &Config) -> Result<Self, ServeError> {
        let directory = match env.files.list(&config.data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => directory(env, config).await?,
        };
        let public = config.is(Role::Agent).then_some(config.listen.public.0);
        let public = listen(env, public, ServeError::Listen).await?;
        let is_peer = config.is(Role::Wal) && !config.is_alone();
        let peers = is_peer.then_some(config.listen.peers.0);
        let peers = listen(env, peers, ServeError::ListenPeers).await?;
        let metrics = env.network.listen(&config.metrics().to_string()).await;
        let metrics = metrics.map_err(|error| match (config.listen.metrics, &public, &peers) {
            (None, Some(below), _) | (None, None, Some(below)) => ServeError::ListenDerived {
                error,
                below: match &public {
                    Some(_) => format!("the public API at {}", below.address()),
                    None => format!("`listen.peers`, {}", below.address()),
                },
            },
            _ => ServeError::ListenMetrics(error),
        })?;
        let mut doors = Doors::default();
        let serving = config.tls.public();
        let public = secured(env, public, serving, |secured| {
            doors.public = Some(secured.handshakes());
            doors.shown_to_clients = Some(secured.showing());
        })?;
        let serving = config.tls.peers().map(PeerTls::serving);
        let peers = secured(env, peers, serving, |secured| {
            doors.peers = Some(secured.handshakes());
            doors.shown_to_peers.push(secured.showing());
        })?;
        let directory = match directory {
            Some(directory) => Some(directory),
            None => self::directory(env, config).await?,
        };
        Ok(Self {
            directory,
            public,
            peers,
            metrics: Some(metrics),
            doors,
        })
    }
}

async fn directory(env: &Env, config: &Config) -> Result<Option<Directory>, NodeError> {
    if !config.is(Role::Wal) && config.cache.disk.0 == 0 {
        return Ok(None);
    }
    Directory::take(env, &config.data_dir).await.map(Some)
}

/// `listener`, whose connections are secured as `serving` says, if it says so.
fn secured(
    env: &Env,
    listener: Option<Box<dyn Listener>>,
    serving: Option<Serving>,
    tell: impl FnOnce(&Secured),
) -> Result<Option<Box<dyn Listener>>, TlsError> {
    let Some(serving) = serving else {
        return Ok(listener);
    };
    let Some(listener) = listener else {
        return Ok(None);
    };
    let secured = Secured::new(listener, serving, env)?;
    tell(&secured);
    Ok(Some(Box::new(secured)))
}

async fn listen(
    env: &Env,
    address: Option<std::net::SocketAddr>,
    error: fn(io::Error) -> ServeError,
) -> Result<Option<Box<dyn Listener>>, ServeError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = env.network.listen(&address.to_string()).await;
    listener.map(Some).map_err(error)
}
