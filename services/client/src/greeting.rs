//! What answers at an address: a gRPC server greets with the settings of HTTP/2, anything else with
//! something else. hyper would only say that a frame has a wrong size.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use esker_env::{Connection, Listener, Network, Pending};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes that open every frame of HTTP/2 (RFC 9113, 4.1).
const FRAME_HEADER_BYTES: usize = 9;
/// The type of the frame that a server must open with (RFC 9113, 3.4).
const SETTINGS: u8 = 4;
/// What a server of HTTP/1 answers, whichever paths it has.
const QUESTION: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// How long that may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// What the servers behind a client's connections greeted with.
#[derive(Clone, Default, Debug)]
pub(crate) struct Greeting(Arc<Mutex<Heard>>);

#[derive(Clone, Default, Debug)]
enum Heard {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Nothing, and the connection was closed: a server of HTTP/1 may do so, one of ours that has no
    /// place left, too.
    HungUp,
    /// The same, and it was asked in HTTP/1.
    Asked,
    /// HTTP/2, once at least: whatever answers now, a server was there.
    Http2,
    /// This, which is not HTTP/2.
    Other(Other),
}

/// What answers instead of a server of HTTP/2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Other {
    /// Something that speaks so.
    Speaks(&'static str),
    /// Something that speaks TLS, where it was not spoken to so.
    Tls,
    /// A server that speaks TLS, and has ended it: why.
    Refuses(String),
}

impl Greeting {
    /// Whether a server of HTTP/2 was heard.
    pub(crate) fn is_heard(&self) -> bool {
        matches!(*self.heard(), Heard::Http2)
    }

    /// What answers instead of a server of HTTP/2, if none was ever heard.
    pub(crate) fn other(&self) -> Option<Other> {
        match &*self.heard() {
            Heard::Other(what) => Some(what.clone()),
            Heard::Nothing | Heard::HungUp | Heard::Asked | Heard::Http2 => None,
        }
    }

    /// Asks in HTTP/1 what hung up on HTTP/2, once: its answer is its greeting.
    pub(crate) async fn ask(&self, network: &dyn Network, address: &str) {
        {
            let mut heard = self.heard();
            if !matches!(*heard, Heard::HungUp) {
                return;
            }
            *heard = Heard::Asked;
        }
        let asked = async {
            let mut connection = network.connect(address).await?;
            connection.write_all(QUESTION).await?;
            connection.read(&mut [0; FRAME_HEADER_BYTES]).await
        };
        // Whatever it came to, what was heard is noted.
        let _ = tokio::time::timeout(ANSWER_PATIENCE, asked).await;
    }

    fn hung_up(&self) {
        let mut heard = self.heard();
        if matches!(*heard, Heard::Nothing) {
            *heard = Heard::HungUp;
        }
    }

    /// TLS was ended by the other side, which said why before it said anything else.
    fn refused(&self, why: &io::Error) {
        let mut heard = self.heard();
        if !matches!(*heard, Heard::Http2) {
            *heard = Heard::Other(Other::Refuses(why.to_string()));
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().expect("no holder panics")
    }

    fn hear(&self, first: &[u8]) {
        let mut heard = self.heard();
        match (is_settings(first), &*heard) {
            (true, _) => *heard = Heard::Http2,
            (false, Heard::Http2) => {}
            (false, _) => *heard = Heard::Other(what(first)),
        }
    }
}

/// Whether `first` may be how a frame of settings begins: of length, at most 16 KiB, and type.
fn is_settings(first: &[u8]) -> bool {
    first[0] == 0 && first.get(3).is_none_or(|kind| *kind == SETTINGS)
}

/// What speaks so.
fn what(first: &[u8]) -> Other {
    match first {
        [b'H', b'T', ..] => Other::Speaks("HTTP/1"),
        // A record of TLS: an alert, or a handshake.
        [0x15 | 0x16, 3, ..] => Other::Tls,
        _ => Other::Speaks("neither HTTP/2 nor HTTP/1"),
    }
}

/// A network whose connections tell what they were greeted with.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) greeting: Greeting,
}

impl Network for Greeted {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Listener>> {
        self.network.listen(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Connection> {
        Box::pin(async move {
            let connection = self.network.connect(address).await?;
            let peer = connection.peer().to_owned();
            let listening = Listening {
                connection,
                first: Some(Vec::with_capacity(FRAME_HEADER_BYTES)),
                greeting: self.greeting.clone(),
            };
            Ok(Connection::new(listening, peer))
        })
    }
}

/// A connection whose first bytes are looked at.
struct Listening {
    connection: Connection,
    /// Until there are enough of them.
    first: Option<Vec<u8>>,
    greeting: Greeting,
}

impl Listening {
    fn heard(&mut self, bytes: &[u8], ended: bool) {
        let Some(first) = &mut self.first else {
            return;
        };
        let wanted = FRAME_HEADER_BYTES - first.len();
        first.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
        // Who says less and waits for more is no server of HTTP/2 either.
        let enough =
            first.len() == FRAME_HEADER_BYTES || ended || !first.is_empty() && !is_settings(first);
        if enough {
            match first.is_empty() {
                true => self.greeting.hung_up(),
                false => self.greeting.hear(first),
            }
            self.first = None;
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.connection, f)
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.connection).poll_read(context, buffer);
        match &polled {
            // Bytes that are none after a handshake are TLS's word for it: a certificate is refused.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.greeting.refused(error);
                self.first = None;
            }
            Poll::Ready(_) if self.first.is_some() => {
                let read = &buffer.filled()[before..];
                self.heard(read, read.is_empty());
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_known_by_its_first_bytes() {
        let neither = Some(Other::Speaks("neither HTTP/2 nor HTTP/1"));
        for (first, other) in [
            (&b"\0\0\x12\x04\0\0\0\0\0"[..], None),
            (b"\0\0\0\x04\0\0\0\0\0", None),
            (b"HTTP/1.1 400 Bad Request", Some(Other::Speaks("HTTP/1"))),
            (b"\x15\x03\x01\0\x02\x02\x46", Some(Other::Tls)),
            (b"SSH-2.0-OpenSSH", neither.clone()),
            (b"\0\0\x08\x07\0\0\0\0\0", neither.clone()),
            (b"-E", neither),
        ] {
            let greeting = Greeting::default();
            greeting.hear(first);
            assert_eq!(greeting.other(), other, "{first:?}");
            assert_eq!(greeting.is_heard(), other.is_none(), "{first:?}");
            greeting.hear(b"\0\0\0\x04\0\0\0\0\0");
            greeting.hear(b"HTTP/1.1");
            assert!(
                greeting.is_heard(),
                "a server was there, whatever answers later"
            );
        }
    }
}
