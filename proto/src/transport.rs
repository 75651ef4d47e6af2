//! tonic over env's network, which is TCP without delay or a simulation.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use esker_env::{Connection, Listener, Network};
use esker_types::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, REPLY_STALL_MAX};
use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::accepting::Accepting;

/// A channel to `endpoint` over `network`. It connects when first used, and again after a broken
/// connection; a call meanwhile fails with `UNAVAILABLE`.
#[must_use]
pub fn channel(network: Arc<dyn Network>, endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
        connection(Arc::clone(&network), uri)
    }))
}

/// The same, connected now.
///
/// # Errors
/// If nobody answers; the causes say where.
pub async fn connect(
    network: Arc<dyn Network>,
    endpoint: &Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    let connector = service_fn(move |uri: Uri| connection(Arc::clone(&network), uri));
    endpoint.connect_with_connector(connector).await
}

async fn connection(network: Arc<dyn Network>, uri: Uri) -> io::Result<TokioIo<Connection>> {
    let address = address(&uri)?;
    network.connect(&address).await.map(TokioIo::new)
}

/// `host:port` of `uri`.
fn address(uri: &Uri) -> io::Result<String> {
    let Some(host) = uri.host() else {
        let text = format!("`{uri}` names no host; write http://host:port");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

/// Where the public API is served unless said otherwise.
pub const DEFAULT_PORT: u16 = 7070;

/// The connections of `listener`, for `serve_with_incoming`: at most [`CONNECTIONS_MAX`] at a time,
/// each of which opens HTTP/2 within [`HANDSHAKE_TIMEOUT`] and takes something of what is sent to it
/// within [`REPLY_STALL_MAX`]. Each request's extensions then hold a
/// [`Peer`].
pub fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<Served>> + Send {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let crowd = Crowd::default();
    let listener = Accepting::new(listener);
    futures::stream::unfold(Some((listener, places, crowd)), async |listening| {
        let (mut listener, places, mut crowd) = listening?;
        loop {
            let connection = match listener.next().await {
                Ok(connection) => connection,
                // A listener that is broken for good ends the server, which says so.
                Err(error) => return Some((Err(error), None)),
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                crowd.turned_away(connection.peer());
                continue;
            };
            let served = Served::new(connection, place);
            return Some((Ok(served), Some((listener, places, crowd))));
        }
    })
}

/// Connections that found no place. One line tells of many: whoever makes them must not fill the
/// log.
#[derive(Debug, Default)]
struct Crowd {
    turned_away: u64,
}

impl Crowd {
    fn turned_away(&mut self, peer: &str) {
        self.turned_away += 1;
        if self.turned_away.is_power_of_two() {
            tracing::warn!(
                peer,
                limit = CONNECTIONS_MAX,
                turned_away = self.turned_away,
                "a connection was closed: there are as many as there may be"
            );
        }
    }
}

/// Who is at the other end of a request's connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its address, for people to read.
    pub address: Arc<str>,
    /// What it has proved to go by; `None` where no proof was asked for.
    pub names: Option<Arc<[String]>>,
}

/// A connection as a server of tonic's takes it.
#[derive(Debug)]
pub struct Served {
    connection: Connection,
    /// Until HTTP/2 is opened: h2 itself would wait for ever.
    opening: Option<Opening>,
    /// While the peer takes nothing: h2 would wait for ever to say even that it closes.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// A connection that has not opened HTTP/2 yet.
#[derive(Debug)]
struct Opening {
    read: usize,
    until: Pin<Box<Sleep>>,
}

/// The preface, and the header of the SETTINGS that must follow (RFC 9113, 3.4). What comes later
/// is under the keepalive's watch.
const OPENING_BYTES: usize = 24 + 9;

impl Served {
    fn new(connection: Connection, place: OwnedSemaphorePermit) -> Self {
        let opening = Opening {
            read: 0,
            until: Box::pin(tokio::time::sleep(HANDSHAKE_TIMEOUT)),
        };
        Self {
            connection,
            opening: Some(opening),
            stalled: None,
            _place: place,
        }
    }

    /// What a write came to, unless the peer has taken nothing for [`REPLY_STALL_MAX`].
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(REPLY_STALL_MAX)));
        match stalled.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let text = format!("the peer took nothing for {REPLY_STALL_MAX:?}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }
}

impl Connected for Served {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer {
            address: self.connection.peer().into(),
            names: self.connection.names().cloned(),
        }
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(opening) = &mut this.opening
            && opening.until.as_mut().poll(context).is_ready()
        {
            let text = format!("no HTTP/2 within {HANDSHAKE_TIMEOUT:?}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.connection).poll_read(context, buffer);
        if let Some(opening) = &mut this.opening {
            opening.read += buffer.filled().len() - before;
            if opening.read >= OPENING_BYTES {
                this.opening = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.connection).poll_flush(context);
        self.watched(context, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.connection).poll_shutdown(context);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_off_a_uri() {
        let read = |uri: &'static str| address(&Uri::from_static(uri)).ok();
        assert_eq!(read("http://127.0.0.1:9").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(read("http://node").as_deref(), Some("node:7070"));
        assert_eq!(read("http://[::1]:9").as_deref(), Some("[::1]:9"));
        assert_eq!(read("/path"), None);
    }
}
