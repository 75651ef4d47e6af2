//! One end of a connection, shared with the network, which may cut it or sever its way.

use std::future::Future as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::Sleep;

use super::ways::{Ailment, Way};
use super::{PIPE_BYTES, SimNetwork, lock};

/// One end of a connection.
pub(super) struct End(pub(super) Arc<Mutex<Side>>);

pub(super) struct Side {
    network: SimNetwork,
    /// The way that its bytes come.
    way: Way,
    /// `None` once it was cut.
    bytes: Option<DuplexStream>,
    /// What has come, and arrives later.
    late: Option<Late>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Late {
    due: Pin<Box<Sleep>>,
    bytes: Vec<u8>,
    given: usize,
}

impl End {
    /// An end of `network` to which bytes come by `way`.
    pub(super) fn new(network: SimNetwork, way: Way, bytes: DuplexStream) -> Self {
        Self(Arc::new(Mutex::new(Side {
            network,
            way,
            bytes: Some(bytes),
            late: None,
            reader: None,
            writer: None,
        })))
    }
}

impl Side {
    /// Whether there was something to cut.
    pub(super) fn cut(&mut self) -> bool {
        self.wake();
        self.bytes.take().is_some()
    }

    /// Has whoever waits look again.
    pub(super) fn wake(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn bytes(&mut self) -> io::Result<Pin<&mut DuplexStream>> {
        let bytes = self.bytes.as_mut().map(Pin::new);
        bytes.ok_or_else(|| ErrorKind::ConnectionReset.into())
    }

    fn read(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Ailment { severed, delay } = self.network.way(&self.way);
        if self.bytes.is_none() {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if severed {
            return Poll::Pending;
        }
        if self.late.is_none() {
            if delay.is_zero() {
                return self.bytes()?.poll_read(context, out);
            }
            ready!(self.hold(context, delay))?;
        }
        let Some(late) = &mut self.late else {
            return Poll::Ready(Ok(()));
        };
        ready!(late.due.as_mut().poll(context));
        let rest = &late.bytes[late.given..];
        let given = rest.len().min(out.remaining());
        out.put_slice(&rest[..given]);
        late.given += given;
        if late.given == late.bytes.len() {
            self.late = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has come, to give it `delay` later; nothing at the end of all bytes.
    fn hold(&mut self, context: &mut Context<'_>, delay: Duration) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; PIPE_BYTES];
        let mut into = ReadBuf::new(&mut bytes);
        ready!(self.bytes()?.poll_read(context, &mut into))?;
        let come = into.filled().len();
        bytes.truncate(come);
        self.late = (come > 0).then(|| Late {
            due: Box::pin(tokio::time::sleep(delay)),
            bytes,
            given: 0,
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut side = lock(&self.0);
        side.reader = Some(context.waker().clone());
        side.read(context, buffer)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut side = lock(&self.0);
        side.writer = Some(context.waker().clone());
        side.bytes()?.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).bytes()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).bytes()?.poll_shutdown(context)
    }
}
