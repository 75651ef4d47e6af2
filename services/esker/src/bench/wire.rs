//! What gRPC over loopback does with messages of the same size and transport settings, when
//! nothing is done with them.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::{Clock, Env};
use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::log_server::{Log, LogServer};
use esker_proto::v1::{self, append_reply, append_request};
use esker_proto::{transport, tuning};
use futures::{Stream, StreamExt as _};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::histogram::Histogram;
use super::sink::{Sink, Waiting};

/// Replies and messages that wait for the transport.
pub(super) const MESSAGES_MAX: usize = 64;

/// What gRPC did.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    /// Payload, in both ways one at a time.
    pub(crate) in_per_second: f64,
    pub(crate) out_per_second: f64,
    /// Of one small append that is answered at once.
    pub(crate) round_trip: Histogram,
}

/// The far end: answers every append at once, or once it is on a disk, and sends the same message for ever, or
/// what was written.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    pub(super) message: Bytes,
    pub(super) sink: Option<Sink>,
    pub(super) again: Option<Arc<Mutex<mpsc::Receiver<Bytes>>>>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Log for Mirror {
    type AppendStream = Replies<v1::AppendReply>;
    type ReadStream = Replies<v1::ReadReply>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let sink = self.sink.clone();
        let replies = request.into_inner().map(move |request| {
            let sink = sink.clone();
            async move {
                let request = request?;
                if let (Some(sink), Some(append_request::Payload::Batch(batch))) =
                    (sink, request.payload)
                {
                    let written = sink.write(batch).await;
                    written.map_err(|error| Status::unavailable(error.to_string()))?;
                }
                Ok(v1::AppendReply {
                    request_id: request.request_id,
                    result: Some(append_reply::Result::Appended(v1::Appended::default())),
                })
            }
        });
        // They are under way together, and answered in order.
        Ok(Response::new(Box::pin(replies.buffered(MESSAGES_MAX))))
    }

    async fn read(
        &self,
        _: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        if let Some(again) = &self.again {
            let again = Arc::clone(again).lock_owned().await;
            let replies = futures::stream::unfold(again, async |mut again| {
                Some((Ok(reply(again.recv().await?)), again))
            });
            return Ok(Response::new(Box::pin(replies)));
        }
        let reply = reply(self.message.clone());
        let replies = futures::stream::repeat_with(move || Ok(reply.clone()));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn offsets(
        &self,
        _: Request<v1::OffsetsRequest>,
    ) -> Result<Response<v1::OffsetsReply>, Status> {
        Err(Status::unimplemented("a mirror has no offsets"))
    }

    async fn allocate_producer(
        &self,
        _: Request<v1::AllocateProducerRequest>,
    ) -> Result<Response<v1::AllocateProducerReply>, Status> {
        Err(Status::unimplemented("a mirror has no producers"))
    }
}

fn reply(data: Bytes) -> v1::ReadReply {
    let batch = v1::Batch {
        data,
        ..v1::Batch::default()
    };
    v1::ReadReply {
        batches: vec![batch],
        ..v1::ReadReply::default()
    }
}

/// What a mirror takes.
pub(super) fn request(message: Bytes) -> v1::AppendRequest {
    v1::AppendRequest {
        payload: Some(append_request::Payload::Batch(message)),
        ..v1::AppendRequest::default()
    }
}

/// A server that ends when it is dropped.
pub(super) struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Serves `mirror` on a free port of loopback: where.
pub(super) async fn serve(env: &Env, mirror: Mirror) -> Result<(Server, String), Failed> {
    let listener = env.network.listen("127.0.0.1:0").await?;
    let address = listener.address().to_owned();
    let mirror = LogServer::new(mirror)
        .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX);
    let serving = tuning::server()
        .add_service(mirror)
        .serve_with_incoming(transport::incoming(listener));
    Ok((Server(tokio::spawn(serving).abort_handle()), address))
}

/// To a mirror.
pub(super) async fn connect(env: &Env, address: &str) -> Result<LogClient<Channel>, Failed> {
    let endpoint = tuning::endpoint(&format!("http://{address}"))?;
    let channel = transport::connect(Arc::clone(&env.network), &endpoint).await?;
    Ok(LogClient::new(channel)
        .max_decoding_message_size(tuning::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(tuning::MESSAGE_BYTES_MAX))
}

/// A message that no codec makes smaller.
pub(super) fn message(env: &Env, bytes: u64) -> Result<Bytes, Failed> {
    let mut message = vec![0; usize::try_from(bytes)?];
    env.entropy.fill(&mut message);
    Ok(message.into())
}

/// Sends messages of `bytes` there with at most `in_flight` of them unanswered, and back, each for
/// as long as `lasting`; and one of `small_bytes` at a time.
pub(crate) async fn measure(
    env: &Env,
    bytes: u64,
    in_flight: u64,
    small_bytes: u64,
    lasting: Duration,
) -> Result<Wire, Failed> {
    let message = message(env, bytes)?;
    let mirror = Mirror {
        message: message.clone(),
        sink: None,
        again: None,
    };
    let (_server, address) = serve(env, mirror).await?;
    let client = connect(env, &address).await?;
    let small = message.slice(..message.len().min(usize::try_from(small_bytes)?));
    let clock = &*env.clock;
    let large = |_| request(message.clone());
    let (in_per_second, _) = there(clock, client.clone(), large, in_flight, lasting).await?;
    let small = |_| request(small.clone());
    let (_, round_trip) = there(clock, client.clone(), small, 1, lasting).await?;
    Ok(Wire {
        in_per_second,
        out_per_second: back(clock, client, lasting).await?,
        round_trip,
    })
}

/// Sends what `request` makes of each number, from 0 on: bytes a second, and how long each took to be answered.
#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
pub(super) async fn there(
    clock: &dyn Clock,
    mut client: LogClient<Channel>,
    request: impl Fn(u64) -> v1::AppendRequest,
    in_flight: u64,
    lasting: Duration,
) -> Result<(f64, Histogram), Status> {
    let (requests, sending) = mpsc::channel(MESSAGES_MAX);
    let mut replies = client
        .append(ReceiverStream::new(sending))
        .await?
        .into_inner();
    let (mut latency, mut sent, mut number) = (Histogram::new(), HashMap::new(), 0);
    let (began, mut answered) = (clock.monotonic(), 0_u64);
    loop {
        let now = clock.monotonic();
        let lasted = now.since(began);
        if lasted >= lasting {
            return Ok((answered as f64 / lasted.as_secs_f64(), latency));
        }
        if (sent.len() as u64) < in_flight.min(MESSAGES_MAX as u64) {
            let gone = |_| Status::unavailable("the stream has ended");
            let request = v1::AppendRequest {
                request_id: number,
                ..request(number)
            };
            sent.insert(number, (now, payload_bytes(&request)));
            number += 1;
            requests.send(request).await.map_err(gone)?;
            continue;
        }
        let Some(reply) = replies.message().await? else {
            return Err(Status::unavailable("the stream has ended"));
        };
        if let Some(append_reply::Result::Error(error)) = reply.result {
            return Err(Status::unavailable(error.message));
        }
        if let Some((at, bytes)) = sent.remove(&reply.request_id) {
            answered += bytes;
            latency.add(clock.monotonic().since(at));
        }
    }
}

fn payload_bytes(request: &v1::AppendRequest) -> u64 {
    match &request.payload {
        Some(append_request::Payload::Batch(batch)) => batch.len() as u64,
        _ => 0,
    }
}

/// Sends what waits, in order, and says of each when it is answered.
pub(super) async fn pass_on(
    mut client: LogClient<Channel>,
    mut waiting: mpsc::Receiver<Waiting>,
) -> Result<(), Status> {
    let (requests, sending) = mpsc::channel(MESSAGES_MAX);
    let mut replies = client
        .append(ReceiverStream::new(sending))
        .await?
        .into_inner();
    let mut sent = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            reply = replies.message() => {
                let none = || Status::unavailable("the stream has ended");
                reply?.ok_or_else(none)?;
                // Who asked may have gone.
                let _ = sent.pop_front().map(|done: oneshot::Sender<()>| done.send(()));
            }
            Some((message, done)) = waiting.recv(), if sent.len() < MESSAGES_MAX => {
                sent.push_back(done);
                // There is room for as many as have no answer. If nobody takes it, the replies say why.
                let _ = requests.try_send(request(message));
            }
            else => return Ok(()),
        }
    }
}

/// Bytes a second.
#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
async fn back(
    clock: &dyn Clock,
    mut client: LogClient<Channel>,
    lasting: Duration,
) -> Result<f64, Status> {
    let mut replies = client.read(v1::ReadRequest::default()).await?.into_inner();
    let (began, mut bytes) = (clock.monotonic(), 0_u64);
    loop {
        let lasted = clock.monotonic().since(began);
        if lasted >= lasting {
            return Ok(bytes as f64 / lasted.as_secs_f64());
        }
        let Some(reply) = replies.message().await? else {
            return Err(Status::unavailable("the stream has ended"));
        };
        bytes += reply
            .batches
            .iter()
            .map(|batch| batch.data.len() as u64)
            .sum::<u64>();
    }
}
