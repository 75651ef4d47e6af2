//! tonic over env's network, which is TCP without delay or a simulation.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use esker_env::{Connection, Listener, Network};
use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

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

/// The connections of `listener`, for `serve_with_incoming`. Each request's extensions then hold
/// a [`Peer`].
pub fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<Served>> + Send {
    futures::stream::unfold(Some(listener), async |listener| {
        let mut listener = listener?;
        let accepted = listener.accept().await;
        // A listener that is broken for good ends the server, which says so.
        let rest = accepted.is_ok().then_some(listener);
        Some((accepted.map(Served), rest))
    })
}

/// Who is at the other end of a request's connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer(pub Arc<str>);

/// A connection as a server of tonic's takes it.
#[derive(Debug)]
pub struct Served(Connection);

impl Connected for Served {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.0.peer().into())
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
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
