//! Metrics and health over HTTP, for whoever looks after a server.
//!
//! ```text
//!   GET /metrics   Prometheus text        what is counted, as of now; 503 while it is not ready
//!   GET /healthz   200                    the process answers
//!   GET /readyz    200, or 503 and why    reads of some shard are taken; with 200, of which they are not, and
//!                                         which appends. A WAL node: it has what a quorum has, since it was
//!                                         started
//! ```
//! It answers from the first moment on, while the log is still being read.

mod figures; // what is counted, by name
mod asked; // what the shards' leaders say
mod awaited; // what a node lacks to count for a quorum
mod replicas; // how the replicas in this process stand
mod doors; // who was let in
mod fullness; // whether a head has room

use std::borrow::Cow;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Connection, Env, Listener, WallMs};
use esker_proto::Accepting;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};

pub(crate) use doors::Doors;
use figures::Life;
pub(crate) use figures::{Figures, Log};

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a request's head may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// How a server stands, for those who ask whether it is ready.
#[derive(Clone, Debug)]
pub(crate) enum Stand {
    /// Not yet: what is being done, or waited for.
    Starting(Cow<'static, str>),
    /// It takes appends and reads, and this is what it counts.
    Ready(Arc<Figures>),
    /// No longer: it was asked to stop.
    Stopping,
}

/// Answers on `listener` for as long as it is polled.
pub(crate) async fn observe(
    listener: Box<dyn Listener>,
    env: Env,
    stand: watch::Receiver<Stand>,
) -> io::Error {
    let mut listener = Accepting::new(listener);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let began = env.clock.wall();
    loop {
        let free = Arc::clone(&connections).acquire_owned().await;
        let free = free.expect("the semaphore is never closed");
        let connection = match listener.next().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let (stand, env) = (stand.clone(), env.clone());
        tokio::spawn(async move {
            let _free = free;
            // Who goes away, or sends nothing useful, learns nothing: that is all.
            let _ =
                tokio::time::timeout(CONNECTION_TIMEOUT, talk(connection, env, stand, began)).await;
        });
    }
}

async fn talk(
    connection: Connection,
    env: Env,
    stand: watch::Receiver<Stand>,
    began: WallMs,
) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let stand = stand.borrow().clone();
        let env = env.clone();
        async move { Ok::<_, Infallible>(answer(&request, &env, stand, began).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service)
        .await
}

async fn answer(
    request: &Request<Incoming>,
    env: &Env,
    stand: Stand,
    began: WallMs,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "only GET and HEAD are answered\n";
        return text_of(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    match (request.uri().path(), stand) {
        ("/healthz", _) => text_of(StatusCode::OK, "ok\n"),
        ("/readyz", Stand::Ready(figures)) => match figures.ready().await {
            Ok(said) => text_of(StatusCode::OK, ready(&said)),
            Err(trouble) => text_of(StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
        },
        ("/readyz" | "/metrics", Stand::Starting(what)) => text_of(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("starting: {what}\n"),
        ),
        ("/readyz" | "/metrics", Stand::Stopping) => {
            text_of(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
        }
        ("/metrics", Stand::Ready(figures)) => {
            let text = figures.text(env, Life { began }).await;
            let mut response = text_of(StatusCode::OK, text);
            let kind = HeaderValue::from_static(figures::CONTENT);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => text_of(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n",
        ),
    }
}

fn ready(said: &[String]) -> String {
    let mut text = "ready\n".to_owned();
    for line in said {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn text_of(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
