//! A network whose connections are secured.

use std::io;
use std::sync::Arc;

use esker_env::{Connection, Env, Listener, Network, Pending};
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::expiry::Showing;
use super::handshakes::Outcome;
use super::material::Client;
use super::renewed::Renewed;
use super::{CONNECT_MAX, Connecting, TlsError};

/// A network whose connections are secured: each goes to who proves that he is meant. Clones share
/// what they go by.
#[derive(Clone, Debug)]
pub struct Secure {
    network: Arc<dyn Network>,
    config: Arc<Renewed<Client>>,
    meant: Meant,
}

/// What an error says of who answers in the clear.
pub const NO_TLS: &str = "what answers there speaks no TLS";

/// Who is meant by an address.
#[derive(Clone, Debug)]
enum Meant {
    /// Its host, a name or an address of IP.
    Host,
    /// Whoever goes by this name, wherever he is.
    Name(ServerName<'static>),
}

impl Secure {
    /// Over the network of `env`, as `connecting` says. Reads its files.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub fn new(env: &Env, connecting: Connecting) -> Result<Self, TlsError> {
        Ok(Self {
            network: Arc::clone(&env.network),
            config: Arc::new(Renewed::make(env, connecting)?),
            meant: Meant::Host,
        })
    }

    /// The same, where whoever is reached must go by `name`; `None` if that is no name.
    #[must_use]
    pub fn to(&self, name: &str) -> Option<Self> {
        let name = ServerName::try_from(name.to_owned()).ok()?;
        let meant = Meant::Name(name);
        Some(Self {
            meant,
            ..self.clone()
        })
    }

    /// What it shows.
    #[must_use]
    pub fn showing(&self) -> Showing {
        Showing::client(Arc::clone(&self.config))
    }

    /// The names of its own certificate; none if it has none.
    #[must_use]
    pub fn names(&self) -> Arc<[String]> {
        self.config.names()
    }

    async fn secured(&self, address: &str) -> io::Result<Connection> {
        let name = match &self.meant {
            Meant::Name(name) => name.clone(),
            Meant::Host => host(address)?,
        };
        let config = Arc::clone(&self.config.now().await.config);
        let connection = self.network.connect(address).await?;
        let peer = connection.peer().to_owned();
        let connecting = TlsConnector::from(config).connect(name, connection);
        match timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(stream)) => Ok(Connection::new(stream, peer)),
            Ok(Err(error)) => Err(failed(error.kind(), address, &what(&error))),
            Err(_) => {
                let what = format!("no handshake within {CONNECT_MAX:?}");
                Err(failed(io::ErrorKind::TimedOut, address, &what))
            }
        }
    }
}

fn failed(kind: io::ErrorKind, address: &str, what: &str) -> io::Error {
    io::Error::new(kind, format!("no TLS with {address}: {what}"))
}

fn what(error: &io::Error) -> String {
    match Outcome::of(error) {
        Outcome::Plaintext => NO_TLS.to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it hung up in the handshake, as what speaks no TLS does".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The host of `host:port`.
fn host(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| {
        let what = format!("`{host}` is no name that a certificate can have");
        failed(io::ErrorKind::InvalidInput, address, &what)
    })
}

impl Network for Secure {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Listener>> {
        let text = format!("cannot listen on {address}: this network only connects");
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, text)) })
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Connection> {
        Box::pin(self.secured(address))
    }
}
