//! A head that answers others: the service in front of it.

mod appends; // a stream of appends
mod asked; // one question, one answer
mod fetched; // an answer in pieces
mod sessions; // whose stream of appends goes on

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use esker_log::{Head, HeadError, Mark};
use esker_proto::internal as wire;
use esker_proto::internal::head_server::{Head as Service, HeadServer};
use esker_proto::streams;
use esker_proto::tuning::PEER_MESSAGE_BYTES_MAX;
use esker_types::limits::{HEAD_BEHIND_MAX, HEAD_CALL_MAX};
use esker_types::{ClusterId, RaftIndex, ShardId};
use futures::stream::BoxStream;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::shown;
use crate::words::{self, Call, Fault};
use sessions::Sessions;

/// The service in front of a head. Clones share it.
#[derive(Clone, Debug)]
pub struct Answering {
    cluster: ClusterId,
    head: Arc<dyn Head>,
    sessions: Arc<Sessions>,
    refusals: Arc<Refusals>,
    /// Whether it stops. Every stream of appends listens.
    stopping: watch::Sender<bool>,
}

/// Calls that were not meant for this node, or not to be understood.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Of another cluster, or about no shard.
    pub misdirected: AtomicU64,
    /// Malformed.
    pub malformed: AtomicU64,
    /// Streams of appends that a later one of the same caller had taken the place of.
    pub overtaken: AtomicU64,
}

type Reply<T> = Result<Response<T>, Status>;

impl Answering {
    /// Answers for `head` to who is of `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId, head: Arc<dyn Head>) -> Self {
        Self {
            cluster,
            head,
            sessions: Arc::default(),
            refusals: Arc::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Takes no append any more, and returns once all that were taken are answered. Each stream ends then
    /// and says that nothing else was taken, so that nobody is in doubt when the process ends.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.stopping.closed().await;
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// The service, to be added to a server as `esker_proto::tuning::peer_server` makes it.
    #[must_use]
    pub fn service(&self) -> HeadServer<Self> {
        HeadServer::new(self.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    fn shard(&self, shown: &MetadataMap) -> Result<ShardId, Status> {
        shown::check(self.cluster, shown).map_err(|what| {
            let refused = 1 + self.refusals.misdirected.fetch_add(1, Ordering::Relaxed);
            // One line tells of many: who is set up wrongly calls again and again.
            if refused.is_power_of_two() {
                tracing::warn!(%what, refused, "a call for the head was refused");
            }
            Status::failed_precondition(what)
        })
    }

    fn malformed(&self, fault: Fault) -> Status {
        self.refusals.malformed.fetch_add(1, Ordering::Relaxed);
        Status::invalid_argument(fault)
    }
}

/// Waits until `head` has applied what the caller has `seen` of the shard. A head that does not come
/// to it soon is one that no longer leads, so this is what it is told: the others may know more, and
/// nothing was written.
async fn catch_up(head: &dyn Head, shard: ShardId, seen: Option<Mark>) -> Result<(), HeadError> {
    let Some(seen) = seen else { return Ok(()) };
    // Without a state it has no answer either.
    let Some(mut stands) = head.mark(shard) else {
        return Ok(());
    };
    if stands >= seen {
        return Ok(());
    }
    if stands.incarnation == seen.incarnation {
        let before = RaftIndex(seen.index.0 - 1);
        let reached = head.progress_past(shard, before, HEAD_BEHIND_MAX).await?;
        stands = reached.mark;
        if stands >= seen {
            return Ok(());
        }
    }
    Err(HeadError::NotLeader {
        shard,
        leader: None,
        what: format!(
            "this node has applied {} of incarnation {}, and {} of incarnation {} was seen \
             elsewhere: another leads by now",
            stands.index, stands.incarnation, seen.index, seen.incarnation
        ),
    })
}

#[tonic::async_trait]
impl Service for Answering {
    type FetchStream = BoxStream<'static, Result<wire::Part, Status>>;
    type AppendStream = BoxStream<'static, Result<wire::AppendAnswers, Status>>;

    async fn ask(&self, request: Request<wire::Question>) -> Reply<wire::Answer> {
        let shard = self.shard(request.metadata())?;
        let read = words::read_question(request.into_inner());
        let (seen, question) = read.map_err(|fault| self.malformed(fault))?;
        let reply = asked::answer(&*self.head, shard, seen, question).await;
        // Whoever was deposed meanwhile has said what it said.
        let mark = self.head.mark(shard);
        Ok(streams::in_pieces(words::answer(mark, reply)))
    }

    async fn fetch(&self, request: Request<wire::Question>) -> Reply<Self::FetchStream> {
        let shard = self.shard(request.metadata())?;
        let read = words::read_question(request.into_inner());
        let (seen, question) = read.map_err(|fault| self.malformed(fault))?;
        let fetched = fetched::fetch(&*self.head, shard, seen, question).await;
        // Whoever was deposed meanwhile has said what it said.
        let mark = self.head.mark(shard);
        Ok(Response::new(fetched::parts(mark, fetched)))
    }

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendCall>>,
    ) -> Reply<Self::AppendStream> {
        let shard = self.shard(request.metadata())?;
        let stopping = self.stopping.subscribe();
        if *stopping.borrow() {
            return Err(stops());
        }
        let mut calls = streams::came(request, PEER_MESSAGE_BYTES_MAX);
        let first = within(HEAD_CALL_MAX, calls.message()).await?;
        let beginning = match first.map(words::read_call).transpose() {
            Ok(Some(Call::Beginning(beginning))) => beginning,
            Ok(_) => return Err(self.malformed("a stream begins with something else")),
            Err(fault) => return Err(self.malformed(fault)),
        };
        let turn = self.sessions.begin(shard, &beginning).inspect_err(|_| {
            self.refusals.overtaken.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(Response::new(appends::answers(
            self,
            shard,
            (turn, stopping),
            beginning.seen,
            calls,
        )))
    }
}

/// Said of a stream of appends: all that was taken is answered.
fn stops() -> Status {
    Status::failed_precondition("the node stops; what has no answer was not taken")
}

async fn within<T>(
    most: Duration,
    next: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded(format!("nothing came for {most:?}"));
    tokio::time::timeout(most, next).await.map_err(silent)?
}
