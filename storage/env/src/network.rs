//! The network: connections that are listened for and made. What travels over them is not its
//! matter.

use std::fmt;
use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a call of [`Network`] will come to.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Listens and connects. Addresses are `host:port`.
pub trait Network: Send + Sync + fmt::Debug {
    /// Takes `address`; port 0 stands for any free one. Who connects from then on waits in a
    /// bounded queue until [`Listener::accept`].
    ///
    /// # Errors
    /// `AddrInUse` and the like. The text names the address.
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Listener>>;

    /// Connects to `address`. Its only bound in time is the system's own: set one around it.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens. The text names the address.
    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Connection>;
}

/// A taken address. Dropping it gives the address back; accepted connections live on.
pub trait Listener: Send + fmt::Debug {
    /// The address that was taken, its port told.
    fn address(&self) -> &str;

    /// The next connection. May be dropped and called again: none is lost.
    ///
    /// # Errors
    /// What [`passes`], such as a want of descriptors: rest a little, and call again; or the
    /// listener is broken for good. What ails a single connection is no error.
    fn accept(&mut self) -> Pending<'_, Connection>;
}

/// Bytes that go both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection: bytes both ways, each written without delay.
pub struct Connection {
    bytes: Box<dyn Duplex>,
    peer: String,
    names: Option<Arc<[String]>>,
}

impl Connection {
    /// The connection that `bytes` are, with whom `peer` says.
    #[must_use]
    pub fn new(bytes: impl Duplex + 'static, peer: impl Into<String>) -> Self {
        Self {
            bytes: Box::new(bytes),
            peer: peer.into(),
            names: None,
        }
    }

    /// The same, whose other side has proved that it goes by `names`.
    #[must_use]
    pub fn certified(self, names: impl Into<Arc<[String]>>) -> Self {
        let names = Some(names.into());
        Self { names, ..self }
    }

    /// What the other side has proved to go by; `None` where no proof was asked for.
    #[must_use]
    pub const fn names(&self) -> Option<&Arc<[String]>> {
        self.names.as_ref()
    }

    /// Address of the other side, for people to read.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }
}

/// Whether an error of [`Listener::accept`] may be over the next time: no descriptor left (`EMFILE`,
/// `ENFILE`), no memory, a network that is down. Only a socket that is none is broken for good.
#[must_use]
pub fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const BROKEN: [Errno; 4] = [Errno::BADF, Errno::NOTSOCK, Errno::INVAL, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| !BROKEN.contains(&errno))
}

/// `error`, with what was tried in its text.
pub(crate) fn told(error: &io::Error, verb: &str, address: &str) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {address}: {error}"))
}
