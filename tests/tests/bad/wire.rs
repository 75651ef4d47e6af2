//! HTTP/2 by hand: calls with bodies and headers that no stub would send, and frames.

use std::time::Duration;

use bytes::Bytes;
use esker_env::Connection;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};

use crate::world::World;

/// A connection of its own that speaks HTTP/2.
pub(crate) struct Wire {
    pub(crate) requests: SendRequest<Bytes>,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) http: StatusCode,
    /// From the headers or the trailers.
    pub(crate) status: Option<Status>,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(world: &World) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20);
        Self::with(world, &builder).await
    }

    pub(crate) async fn with(world: &World, builder: &h2::client::Builder) -> Self {
        let shaken = builder.handshake(world.connection().await).await;
        let (requests, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        Self { requests }
    }

    pub(crate) async fn ready(&mut self) -> Result<(), h2::Error> {
        self.requests = self.requests.clone().ready().await?;
        Ok(())
    }

    /// Calls `method` with `body` as it is and `more` headers.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        more: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Told, h2::Error> {
        self.ready().await?;
        let request = head(method, more);
        let (response, mut sending) = self.requests.send_request(request, false)?;
        sending.send_data(body.into(), true)?;
        let (head, mut receiving) = response.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = receiving.data().await {
            let data = data?;
            receiving.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        let trailers = receiving.trailers().await?.unwrap_or_default();
        let from = |headers: &HeaderMap| Status::from_header_map(headers);
        let status = from(&head.headers).or_else(|| from(&trailers));
        Ok(Told {
            http: head.status,
            status,
            body,
        })
    }
}

pub(crate) fn head(method: &str, more: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://agent/esker.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

/// A message with the five bytes in front of it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    prefixed(0, u32::try_from(message.len()).expect("small"), message)
}

pub(crate) fn prefixed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flag];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame of HTTP/2 (RFC 9113, 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The preface and empty settings.
pub(crate) fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The header block of a call, with no compression but HPACK's literals.
pub(crate) fn block(method: &str) -> Vec<u8> {
    let path = format!("/esker.v1.{method}");
    let mut bytes = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "agent"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        literal(&mut bytes, name, value);
    }
    bytes
}

pub(crate) fn literal(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.push(0x10);
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).expect("below 127"));
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// Writes `bytes` and reads until the other side closes. What was read, and how long it took;
/// `None` if it stays open for `patience`.
pub(crate) async fn until_closed(
    connection: &mut Connection,
    bytes: &[u8],
    patience: Duration,
) -> Option<(Vec<u8>, Duration)> {
    let began = tokio::time::Instant::now();
    // It may be closed before all is written.
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(patience, connection.read_to_end(&mut answer)).await;
    closed.is_ok().then(|| (answer, began.elapsed()))
}
