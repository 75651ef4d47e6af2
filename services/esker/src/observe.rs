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
use esker_proto::{Accepting, Newest, Spared};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;

pub(crate) use doors::Doors;
use figures::Life;
pub(crate) use figures::{Figures, Log};

/// Connections at once, each for one request. For one more the oldest that has asked nothing is given up, and
/// only where all have asked, the oldest: who connects and is silent keeps no probe out.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a request's head may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may last, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

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
    let mut connections = Newest::new(CONNECTIONS_MAX);
    let began = env.clock.wall();
    loop {
        let connection = tokio::select! {
            biased;
            // Who goes away, or sends nothing useful, learns nothing: that is all.
            Some(_) = connections.next() => continue,
            accepted = listener.next() => match accepted {
                Ok(connection) => connection,
                Err(error) => return error,
            },
        };
        let (stand, env) = (stand.clone(), env.clone());
        let asked = Spared::default();
        let talking = talk(connection, env, stand, (began, asked.clone()));
        connections.begin(asked, tokio::time::timeout(CONNECTION_TIMEOUT, talking));
        // Before others are accepted, so that what it asks is read before they are too many.
        tokio::task::yield_now().await;
    }
}

async fn talk(
    connection: Connection,
    env: Env,
    stand: watch::Receiver<Stand>,
    (began, asked): (WallMs, Spared),
) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        asked.set();
        let stand = stand.borrow().clone();
        let env = env.clone();
        async move { Ok::<_, Infallible>(answer(&request, &env, stand, began).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
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

#[cfg(test)]
mod tests {
    use esker_env::Network;
    use esker_env::sim::SimNetwork;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, sleep};

    use super::*;

    const AT: &str = "node:7071";
    /// Twice what is answered at a time.
    const SILENT: usize = 2 * CONNECTIONS_MAX;

    async fn get(network: &SimNetwork, path: &str) -> String {
        let mut connection = network.connect(AT).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).await.unwrap();
        said
    }

    fn observed() -> SimNetwork {
        let network = SimNetwork::new();
        let (mut env, _, _) = Env::simulated(1);
        env.network = Arc::new(network.clone());
        tokio::spawn(async move {
            let listener = env.network.listen(AT).await.unwrap();
            // Whoever tells is gone, and this is what he told last.
            let (_, stand) = watch::channel(Stand::Starting("reading the log".into()));
            observe(listener, env, stand).await
        });
        network
    }

    /// Connects, says nothing, and does so again once the connection is closed.
    async fn silent(network: SimNetwork) {
        loop {
            if let Ok(mut connection) = network.connect(AT).await {
                let _ = connection.read(&mut [0; 1]).await;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_keeps_no_probe_out() {
        let network = observed();
        tokio::task::yield_now().await;
        for _ in 0..SILENT {
            tokio::spawn(silent(network.clone()));
        }
        for _ in 0..10 {
            sleep(Duration::from_millis(100)).await;
            let began = Instant::now();
            let said = get(&network, "/healthz").await;
            assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
        }
        let said = get(&network, "/readyz").await;
        assert!(said.ends_with("starting: reading the log\n"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_comes_soon_or_not_at_all() {
        let network = observed();
        tokio::task::yield_now().await;
        let mut connection = network.connect(AT).await.unwrap();
        let began = Instant::now();
        connection
            .write_all(b"GET /healthz HTTP/1.1\r\n")
            .await
            .unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).await.unwrap();
        assert_eq!(began.elapsed(), HEAD_TIMEOUT, "{said}");
        // One request a connection: whoever asked keeps no place.
        let began = Instant::now();
        let said = get(&network, "/elsewhere").await;
        assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
