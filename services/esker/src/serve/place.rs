//! Where a server lives: its data directory, and the addresses that it listens at.

use std::io;

use esker_env::{Env, Listener};
use esker_walnode::{Directory, NodeError};

use super::ServeError;
use crate::config::{Config, Role};

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
        let directory = match directory {
            Some(directory) => Some(directory),
            None => self::directory(env, config).await?,
        };
        Ok(Self {
            directory,
            public,
            peers,
            metrics: Some(metrics),
        })
    }
}

async fn directory(env: &Env, config: &Config) -> Result<Option<Directory>, NodeError> {
    if !config.is(Role::Wal) && config.cache.disk.0 == 0 {
        return Ok(None);
    }
    Directory::take(env, &config.data_dir).await.map(Some)
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
