//! What every call passes on its way in and out.
//!
//! ```text
//!   call ─► metadata small? ─► grpc-timeout sound? ─► service ─► its reply
//!              │ no                │ no                 │ panics, is late, or the message is none
//!              └───────────────────┴────────────────────┴─► a status of ours: limit, value, durability
//! ```
//! A handler that panics costs its own call. What works on a stream after the first reply is watched
//! by [`crate::stream`].

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use esker_proto::v1::{Code, Error};
use esker_types::Durability;
use esker_types::limits::{CALL_TIME_MAX, METADATA_BYTES_MAX};
use futures::FutureExt;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::Layer;

use crate::fault;

/// Puts a [`Gate`] before the services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateLayer;

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, services: S) -> Gate<S> {
        Gate { services }
    }
}

/// The services, behind the checks that all calls share.
#[derive(Clone, Debug)]
pub(crate) struct Gate<S> {
    services: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let time = match metadata(request.headers()).and_then(|()| time(request.headers())) {
            Ok(time) => time,
            Err(error) => return refused(error.into()),
        };
        // Made here, not when first polled: tonic's own timer, which says less, begins now too.
        let late = tokio::time::sleep(time);
        let answer = std::panic::catch_unwind(AssertUnwindSafe(|| self.services.call(request)));
        let answer = match answer {
            Ok(answer) => AssertUnwindSafe(answer).catch_unwind(),
            Err(panic) => return refused(panicked(&*panic)),
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(Ok(response)) => Ok(explained(response)),
                    Ok(Err(never)) => match never {},
                    Err(panic) => Ok(panicked(&*panic).into_http()),
                },
                () = late => Ok(out_of_time(time).into_http()),
            }
        })
    }
}

fn refused(status: Status) -> Answer<Infallible> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

/// Whether the metadata of a call is within its bound.
fn metadata(headers: &HeaderMap) -> Result<(), Error> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes <= METADATA_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "the call was not begun: its metadata has {bytes} bytes, the limit is {METADATA_BYTES_MAX}"
    );
    Err(fault::invalid(text).with_limit(METADATA_BYTES_MAX as u64, bytes as u64))
}

/// What the call may take: what `grpc-timeout` says, [`CALL_TIME_MAX`] at most.
fn time(headers: &HeaderMap) -> Result<Duration, Error> {
    let mut said = headers.get_all("grpc-timeout").iter();
    let Some(first) = said.next() else {
        return Ok(CALL_TIME_MAX);
    };
    let more = said.count();
    if more > 0 {
        let text = format!(
            "the call was not begun: `grpc-timeout` is there {} times, the limit is 1",
            more + 1
        );
        return Err(fault::invalid(text).with_limit(1, more as u64 + 1));
    }
    match timeout(first.as_bytes()) {
        Some(asked) => Ok(asked.min(CALL_TIME_MAX)),
        None => Err(fault::invalid(
            "the call was not begun: `grpc-timeout` is not 1 to 8 digits and one of H M S m u n",
        )),
    }
}

/// `TimeoutValue TimeoutUnit` of gRPC over HTTP/2.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (&unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// A call that took too long. What it does may go on, or be done.
fn out_of_time(time: Duration) -> Status {
    let text = format!("no reply within {time:?}, which is all the call was given; it may be done");
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let error = Error::new(Code::OutcomeUnknown, Durability::Unknown, text);
    let error = error.with_limit(millis, millis);
    error.into_status(tonic::Code::DeadlineExceeded)
}

/// What the caller is told of a panic: that it was one. The text of it goes to the log.
fn panicked(panic: &(dyn Any + Send)) -> Status {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(what, "a call panicked");
    bug("the call ended in a bug of the server; it may be done").into()
}

pub(crate) fn bug(text: &str) -> Error {
    Error::new(Code::Internal, Durability::Unknown, text)
}

/// Says in our words what tonic itself found wrong with a request.
fn explained(response: Response<Body>) -> Response<Body> {
    // tonic leaves the status that a response was made from with it.
    let status = response.extensions().get::<Status>();
    match status.and_then(fault::of_message) {
        Some(error) => Status::from(error).into_http(),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use esker_env::Network;
    use esker_env::sim::SimNetwork;
    use esker_proto::v1::log_client::LogClient;
    use esker_proto::v1::log_server::LogServer;
    use esker_proto::{transport, tuning, v1};

    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them_and_clamped() {
        let of = |text: &str| timeout(text.as_bytes());
        assert_eq!(of("99999999H").unwrap().as_secs(), 99_999_999 * 3600);
        assert_eq!(of("0m"), Some(Duration::ZERO));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        for wrong in [
            "",
            "S",
            "1",
            "123456789S",
            "-1S",
            "1s",
            "1.5S",
            "٣S",
            "1 S",
            " 1S",
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(time(&headers), Ok(CALL_TIME_MAX));
        headers.append("grpc-timeout", "99999999H".parse().unwrap());
        assert_eq!(time(&headers), Ok(CALL_TIME_MAX));
        headers.append("grpc-timeout", "1S".parse().unwrap());
        let error = time(&headers).unwrap_err();
        assert_eq!((error.limit, error.value), (Some(1), Some(2)));
    }

    /// A service with a bug.
    struct Buggy;

    type Replies<T> = crate::stream::Replies<T>;

    #[tonic::async_trait]
    impl v1::log_server::Log for Buggy {
        type AppendStream = Replies<v1::AppendReply>;
        type ReadStream = Replies<v1::ReadReply>;

        async fn append(
            &self,
            _: tonic::Request<tonic::Streaming<v1::AppendRequest>>,
        ) -> Result<tonic::Response<Self::AppendStream>, Status> {
            let stream = crate::stream::replies(4, |replies| async move {
                let sent = replies.put(v1::AppendReply::default());
                panic!("a bug met {sent:?}");
            });
            Ok(tonic::Response::new(stream))
        }

        async fn read(
            &self,
            _: tonic::Request<v1::ReadRequest>,
        ) -> Result<tonic::Response<Self::ReadStream>, Status> {
            std::future::pending().await
        }

        async fn offsets(
            &self,
            request: tonic::Request<v1::OffsetsRequest>,
        ) -> Result<tonic::Response<v1::OffsetsReply>, Status> {
            panic!("a bug met {}", request.into_inner().topic);
        }

        async fn allocate_producer(
            &self,
            _: tonic::Request<v1::AllocateProducerRequest>,
        ) -> Result<tonic::Response<v1::AllocateProducerReply>, Status> {
            Ok(tonic::Response::new(v1::AllocateProducerReply::default()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_its_own_call_and_no_other() {
        let network = Arc::new(SimNetwork::new());
        let listener = network.listen("127.0.0.1:1").await.unwrap();
        let served = tuning::server()
            .layer(GateLayer)
            .add_service(LogServer::new(Buggy))
            .serve_with_incoming(transport::incoming(listener));
        tokio::spawn(served);
        let endpoint = tuning::endpoint("http://127.0.0.1:1").unwrap();
        let connected = transport::connect(Arc::<SimNetwork>::clone(&network), &endpoint).await;
        let mut log = LogClient::new(connected.unwrap());

        // One that is under way all the while, until its time is over.
        let mut other = log.clone();
        let waiting = tokio::spawn(async move { other.read(v1::ReadRequest::default()).await });
        for _ in 0..3 {
            let topic = "quartzite".to_owned();
            let request = v1::OffsetsRequest {
                topic,
                ..v1::OffsetsRequest::default()
            };
            let status = log.offsets(request).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
            let error = Error::from(&status);
            assert_eq!(error.code(), Code::Internal);
            assert_eq!(error.durability(), v1::Durability::Unknown);
            assert!(!error.message.contains("quartzite"), "{}", error.message);
            let fine = log
                .allocate_producer(v1::AllocateProducerRequest::default())
                .await;
            assert!(fine.is_ok());
        }
        let requests = futures::stream::pending();
        let mut replies = log.append(requests).await.unwrap().into_inner();
        assert!(replies.message().await.unwrap().is_some());
        let status = replies.message().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
        assert_eq!(network.connections(), 1, "the connection did not survive");

        let status = waiting.await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        let error = Error::from(&status);
        assert_eq!(error.durability(), v1::Durability::Unknown);
        assert_eq!(error.limit, Some(300_000));
    }
}
