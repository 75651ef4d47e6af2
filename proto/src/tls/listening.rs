//! A listener that secures its connections.

use std::io;
use std::sync::{Arc, Mutex};

use esker_env::{Connection, Env, Listener, Pending};
use esker_types::limits::ACCEPT_TOLD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::expiry::Showing;
use super::handshakes::{Handshakes, Outcome};
use super::material::{Server, names};
use super::renewed::Renewed;
use super::{HANDSHAKE_MAX, HANDSHAKES_MAX, Serving, TlsError};
use crate::newest::{Newest, Spared};

/// Bytes that are taken of who was refused, unread.
const LAST_WORDS_BYTES_MAX: u64 = 64 << 10;

/// A listener whose connections are secured before they are handed out. Handshakes go on beside each
/// other, at most [`HANDSHAKES_MAX`], each at most [`HANDSHAKE_MAX`]; one that fails is counted, and
/// told once in a while, and that is all. Where clients show certificates, each connection has the
/// names that were proved.
#[derive(Debug)]
pub struct Secured {
    listener: Box<dyn Listener>,
    shared: Arc<Shared>,
    handshakes: Newest<Option<Connection>>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    config: Arc<Renewed<Server>>,
    asks: bool,
    handshakes: Arc<Handshakes>,
    told: Mutex<Told>,
}

/// What was said of handshakes that failed.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    failed: u64,
}

impl Secured {
    /// Over `listener`, as `serving` says. Reads its files.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub fn new(listener: Box<dyn Listener>, serving: Serving, env: &Env) -> Result<Self, TlsError> {
        let shared = Shared {
            address: listener.address().to_owned(),
            asks: serving.client_ca.is_some(),
            config: Arc::new(Renewed::make(env, serving)?),
            handshakes: Arc::default(),
            told: Mutex::default(),
        };
        Ok(Self {
            listener,
            shared: Arc::new(shared),
            handshakes: Newest::new(HANDSHAKES_MAX),
        })
    }

    /// What its handshakes came to.
    #[must_use]
    pub fn handshakes(&self) -> Arc<Handshakes> {
        Arc::clone(&self.shared.handshakes)
    }

    /// What it shows.
    #[must_use]
    pub fn showing(&self) -> Showing {
        Showing::server(Arc::clone(&self.shared.config))
    }

    /// The names of its own certificate.
    #[must_use]
    pub fn names(&self) -> Arc<[String]> {
        self.shared.config.names()
    }

    fn begin(&mut self, connection: Connection) {
        let shared = Arc::clone(&self.shared);
        let handshake = shared.handshake(connection);
        if self.handshakes.begin(Spared::default(), handshake) {
            self.shared
                .failed(Outcome::Crowded, "somebody", "too many at a time");
        }
    }
}

impl Listener for Secured {
    fn address(&self) -> &str {
        self.listener.address()
    }

    fn accept(&mut self) -> Pending<'_, Connection> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    biased;
                    Some(done) = self.handshakes.next() => {
                        if let Some(Some(connection)) = done {
                            return Ok(connection);
                        }
                    }
                    accepted = self.listener.accept() => {
                        let accepted = accepted?;
                        self.begin(accepted);
                    }
                }
            }
        })
    }
}

impl Shared {
    async fn handshake(self: Arc<Self>, connection: Connection) -> Option<Connection> {
        let peer = connection.peer().to_owned();
        let config = Arc::clone(&self.config.now().await.config);
        let accepting = TlsAcceptor::from(config).accept(connection).into_fallible();
        let stream = match timeout(HANDSHAKE_MAX, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, connection))) => {
                let outcome = Outcome::of(&error);
                self.failed(outcome, &peer, &what(&error));
                if outcome != Outcome::Plaintext {
                    let _ = timeout(HANDSHAKE_MAX, hear_out(connection)).await;
                }
                return None;
            }
            Err(_) => {
                let what = format!("it took longer than {HANDSHAKE_MAX:?}");
                self.failed(Outcome::Late, &peer, &what);
                return None;
            }
        };
        self.handshakes.add(Outcome::Done);
        let shown = stream.get_ref().1.peer_certificates();
        let proved = shown.and_then(<[_]>::first).map(names);
        let connection = Connection::new(stream, peer);
        // Where all are asked, who has no name has proved just that.
        Some(match self.asks {
            true => connection.certified(proved.unwrap_or_default()),
            false => connection,
        })
    }

    fn failed(&self, outcome: Outcome, peer: &str, what: &str) {
        self.handshakes.add(outcome);
        let mut told = self.told.lock().expect("nothing panics under this lock");
        told.failed += 1;
        if told.at.is_some_and(|at| at.elapsed() < ACCEPT_TOLD) {
            return;
        }
        told.at = Some(Instant::now());
        let (address, failed) = (&self.address, told.failed);
        tracing::warn!(%address, %peer, %what, failed, "a TLS handshake has failed");
    }
}

/// Lets a peer that was refused read why: closed at once, with bytes of his unread, the system would
/// take that from him.
async fn hear_out(mut connection: Connection) {
    if connection.shutdown().await.is_ok() {
        let mut rest = connection.take(LAST_WORDS_BYTES_MAX);
        // Whatever it is, it comes too late.
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

fn what(error: &io::Error) -> String {
    match Outcome::of(error) {
        Outcome::Plaintext => "what came was no TLS".to_owned(),
        _ => error.to_string(),
    }
}
