//! What both sides of a connection set. Each is a bound of its own or was measured to matter.

use std::time::Duration;

use esker_types::limits::{DATA_SHARDS_MAX, HEAD_CALLS_MAX, HEAD_POLLS_MAX};
use tonic::transport::{Endpoint, Server};
use tower::layer::util::{Identity, Stack};

use crate::whole::{self, Layer};

/// Bytes of one gRPC message, in either direction. tonic's own default, 4 MiB, is below the
/// largest batch: hand this to `max_decoding_message_size` and `max_encoding_message_size` of
/// every client and server.
pub const MESSAGE_BYTES_MAX: usize = esker_types::limits::MESSAGE_BYTES_MAX;
/// Bytes that a server may send on one stream before they are read. HTTP/2's default, 64 KiB, makes
/// every message wait for round trips.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for a whole connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What a client may send on one stream before it is read: less, since a server has many clients
/// and holds this for each that it does not listen to.
pub const SERVER_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for a whole connection.
pub const SERVER_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of one HTTP/2 frame.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Bytes of the headers of a request.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Streams of one connection: each producer is one, each call one while it lasts. A reader of the
/// SDK has a connection of its own.
pub const STREAMS_MAX: u32 = 128;
/// Streams that a peer has opened and reset before anybody looked at them; one more ends the
/// connection (CVE-2023-44487).
pub const RESETS_UNSEEN_MAX: usize = 20;
/// Streams of one connection that we have reset for what the peer did wrong on them; one more ends
/// the connection.
pub const RESETS_FOR_ERRORS_MAX: usize = 128;
/// Silence after which a peer is asked whether it is there.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Silence after that question which ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client waits for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

// A stream's window is part of the connection's; a message of any size passes in few frames.
const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(SERVER_STREAM_WINDOW_BYTES <= SERVER_CONNECTION_WINDOW_BYTES);
const _: () = assert!(FRAME_BYTES_MAX <= SERVER_STREAM_WINDOW_BYTES);
// HTTP/2's own bounds (RFC 9113, 6.5.2).
const _: () = assert!(FRAME_BYTES_MAX >= 1 << 14 && FRAME_BYTES_MAX < 1 << 24);
const _: () = assert!(CONNECTION_WINDOW_BYTES < 1 << 31);
const _: () = assert!(HEADER_BYTES_MAX as usize == esker_types::limits::HEADER_BYTES_MAX);

/// A server as all of ours are set. Serve it with [`crate::transport::incoming`], and set the
/// message limit on each service.
#[must_use]
pub fn server() -> Server<Stack<Layer, Identity>> {
    Server::builder()
        .layer(whole::layer())
        .initial_stream_window_size(SERVER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_UNSEEN_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_FOR_ERRORS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Bytes of one message between nodes, in either direction.
pub const PEER_MESSAGE_BYTES_MAX: usize = esker_types::limits::PEER_MESSAGE_BYTES_MAX;
/// Streams of one connection to a node: per shard one of appends and calls that are short, and what an
/// agent asks. Of more, the last wait for one that ends.
pub const PEER_STREAMS_MAX: u32 = 4 * DATA_SHARDS_MAX + 8192;
// All that waits, and all that an agent asks of a dozen shards, finds room beside its streams of appends.
const _: () = assert!(
    DATA_SHARDS_MAX as usize + 12 * HEAD_CALLS_MAX + HEAD_POLLS_MAX <= PEER_STREAMS_MAX as usize
);
/// Streams of one that were opened and reset before anybody looked at them: when a node comes late to an
/// election, the candidates of all shards give up on it at once.
pub const PEER_RESETS_UNSEEN_MAX: usize = PEER_STREAMS_MAX as usize;
/// Silence after which a node asks another whether it is there, and silence after that which ends
/// the connection: about what followers wait before they campaign.
pub const PEER_KEEPALIVE: Duration = Duration::from_secs(1);

/// A server for the other nodes of a cluster: few connections, large windows.
#[must_use]
pub fn peer_server() -> Server<Stack<Layer, Identity>> {
    Server::builder()
        .layer(whole::layer())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(PEER_STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(PEER_RESETS_UNSEEN_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_FOR_ERRORS_MAX))
        .http2_keepalive_interval(Some(PEER_KEEPALIVE))
        .http2_keepalive_timeout(Some(PEER_KEEPALIVE))
}

/// A node's end of a connection to another at `uri`, set likewise.
///
/// # Errors
/// If `uri` is none.
pub fn peer_endpoint(uri: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(endpoint(uri)?
        .connect_timeout(PEER_KEEPALIVE)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(PEER_KEEPALIVE)
        .keep_alive_timeout(PEER_KEEPALIVE))
}

/// A client's end of a connection to `uri` (`http://host:port`), set likewise.
///
/// # Errors
/// If `uri` is none.
pub fn endpoint(uri: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}
