//! Questions, asked until somebody answers who leads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_env::Monotonic;
use esker_log::{HeadError, ReadFrom};
use esker_proto::codec::Exact;
use esker_proto::internal::head_client::HeadClient;
use esker_proto::internal::part::Of;
use esker_proto::internal::{self as wire};
use esker_proto::streams;
use esker_proto::tuning::PEER_MESSAGE_BYTES_MAX;
use esker_types::ShardId;
use esker_types::limits::{
    HEAD_CALL_MAX, HEAD_FETCH_STALL_MAX, HEAD_FLUSH_JOB_BYTES_MAX, HEAD_FOLLOWER_CALL_MAX,
    HEAD_POLL_MAX, HEAD_PROPOSE_MAX, HEAD_REST_MAX, HEAD_RUN_MAX, SNAPSHOT_STATE_BYTES_MAX,
};
use futures::stream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::gate::Gate;
use super::search::{Miss, Search};
use super::ways::Ways;
use crate::words::{self, Question, Reply};

/// As head.proto names it.
const ASK: &str = "/esker.internal.v1.Head/Ask";

/// What a node has come to.
pub(super) enum Asked<T> {
    Answered(T),
    /// Nobody else will say anything else.
    Refused(HeadError),
    Missed(Miss),
}

/// Asks `question` of `shard`; the pieces of the answer, if it comes in pieces. What changes something
/// is asked again only as long as nothing can have come of it; the rest until somebody answers, or
/// `patience` is over, of which some may be spent since it `began`.
pub(super) async fn ask(
    ways: &Arc<Ways>,
    shard: ShardId,
    question: &Question,
    (mut began, patience): (Monotonic, Duration),
) -> Result<(Reply, Vec<Bytes>), HeadError> {
    let mut search = Search::new(ways, shard);
    let mut done = false;
    loop {
        let asking = ways.now();
        let asked = words::question(ways.seen(shard), question);
        let asked = asked.map_err(|error| HeadError::Refused {
            shard,
            what: format!("the command is refused: {error}"),
        })?;
        let missed = match search.node() {
            Ok(node) => match ask_node(ways, shard, question, asked, node).await {
                Asked::Answered(answer) => {
                    search.found();
                    return Ok(answer);
                }
                Asked::Refused(error) => return Err(error),
                Asked::Missed(miss) => miss,
            },
            Err(miss) => miss,
        };
        done |= missed.left() && changes(question);
        if waits(question) && missed.broke() && ways.now().since(asking) > HEAD_REST_MAX {
            // Until its connection broke, it was waited as was asked for.
            began = ways.now();
        }
        let rest = search.missed(&missed);
        let spent = ways.now().since(began);
        let once = matches!(question, Question::Propose(_));
        if (done && once) || spent + rest > patience {
            return Err(search.failed(missed, done));
        }
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

async fn ask_node(
    ways: &Ways,
    shard: ShardId,
    question: &Question,
    asked: wire::Question,
    node: Channel,
) -> Asked<(Reply, Vec<Bytes>)> {
    let most = match question {
        Question::FlushJob { .. } => HEAD_FLUSH_JOB_BYTES_MAX as u64,
        Question::Checkpoint => SNAPSHOT_STATE_BYTES_MAX,
        _ => {
            return match ask_once(ways, shard, question, asked, node).await {
                Asked::Answered(reply) => Asked::Answered((reply, Vec::new())),
                Asked::Refused(error) => Asked::Refused(error),
                Asked::Missed(miss) => Asked::Missed(miss),
            };
        }
    };
    fetch_once(ways, shard, question, asked, node, most).await
}

const fn changes(question: &Question) -> bool {
    matches!(
        question,
        Question::Propose(_) | Question::Tick | Question::AcceptTime
    )
}

pub(super) const fn waits(question: &Question) -> bool {
    matches!(
        question,
        Question::Past { .. } | Question::ProgressPast { .. }
    )
}

/// What one node may take.
const fn most(question: &Question) -> Duration {
    match question {
        Question::Propose(_) => HEAD_PROPOSE_MAX,
        Question::Past { .. } | Question::ProgressPast { .. } => {
            HEAD_POLL_MAX.saturating_add(HEAD_CALL_MAX)
        }
        Question::Checkpoint => HEAD_FETCH_STALL_MAX,
        Question::Accepted { .. } => HEAD_RUN_MAX,
        Question::Read {
            who: ReadFrom::Follower { .. },
            ..
        } => HEAD_FOLLOWER_CALL_MAX,
        _ => HEAD_CALL_MAX,
    }
}

/// Asks `node`. As [`HeadClient::ask`] does, but knows whether the question has left.
pub(super) async fn ask_once(
    ways: &Ways,
    shard: ShardId,
    question: &Question,
    asked: wire::Question,
    node: Channel,
) -> Asked<Reply> {
    let gate = Gate::default();
    let request = ways.request(shard, gate.before(stream::iter([asked])));
    let most = most(question);
    let began = ways.now();
    let answer = tokio::time::timeout(most, unary(node, request)).await;
    let left = gate.shut() > 0;
    match answer {
        Ok(Ok(answer)) => read(ways, shard, question, answer),
        Ok(Err(status)) => Asked::Missed(Miss::of(&status, left, ways.now().since(began))),
        Err(_) => Asked::Missed(Miss::late(most, left)),
    }
}

async fn unary(
    channel: Channel,
    request: tonic::Request<impl futures::Stream<Item = wire::Question> + Send + 'static>,
) -> Result<wire::Answer, Status> {
    let mut grpc = Grpc::new(streams::asking(channel))
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let unready = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    grpc.ready().await.map_err(unready)?;
    let codec: Exact<wire::Question, wire::Answer> = Exact::default();
    let path = PathAndQuery::from_static(ASK);
    let answer = grpc.streaming(request, path, codec).await?;
    streams::answered(answer, PEER_MESSAGE_BYTES_MAX).await
}

/// What an answer comes to.
fn read(ways: &Ways, shard: ShardId, question: &Question, answer: wire::Answer) -> Asked<Reply> {
    let (mark, reply) = match words::read_answer(answer) {
        Ok(read) => read,
        Err(fault) => return Asked::Missed(Miss::unread(fault)),
    };
    ways.saw(shard, mark);
    match reply {
        Ok(reply) => Asked::Answered(reply),
        Err(HeadError::NotLeader {
            shard,
            leader,
            what,
        }) => Asked::Missed(Miss::Elsewhere {
            leader: leader.clone(),
            error: HeadError::NotLeader {
                shard,
                leader,
                what,
            },
        }),
        // Another node may have what this one has not, or know what this one does not know.
        Err(error @ HeadError::NoShard { .. }) => Asked::Missed(Miss::Elsewhere {
            leader: None,
            error,
        }),
        Err(error @ HeadError::Unknown { .. }) if !changes(question) => {
            Asked::Missed(Miss::Elsewhere {
                leader: None,
                error,
            })
        }
        Err(error) => Asked::Refused(error),
    }
}

async fn fetch_once(
    ways: &Ways,
    shard: ShardId,
    question: &Question,
    asked: wire::Question,
    node: Channel,
    bytes_max: u64,
) -> Asked<(Reply, Vec<Bytes>)> {
    let mut client = HeadClient::new(node)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let most = most(question);
    let began = ways.now();
    let late = |_| Miss::late(most, true);
    let of = |status: Status| Miss::of(&status, true, ways.now().since(began));
    let fetched = async {
        let opened = tokio::time::timeout(most, client.fetch(ways.request(shard, asked))).await;
        let mut parts = opened.map_err(late)?.map_err(of)?.into_inner();
        let answer = match next(&mut parts, most).await.map_err(of)? {
            Some(Of::Answer(answer)) => answer,
            _ => return Err(Miss::unread("it begins with something else")),
        };
        let reply = match read(ways, shard, question, answer) {
            Asked::Answered(reply) => reply,
            Asked::Refused(error) => return Ok(Asked::Refused(error)),
            Asked::Missed(miss) => return Err(miss),
        };
        let bytes = match reply {
            Reply::FlushJob(bytes) | Reply::Checkpoint { bytes, .. } => bytes,
            _ => 0,
        };
        if bytes > bytes_max {
            return Ok(Asked::Refused(HeadError::Refused {
                shard,
                what: format!("the answer has {bytes} bytes, the limit is {bytes_max}"),
            }));
        }
        let (mut pieces, mut left) = (Vec::new(), bytes);
        while let Some(part) = next(&mut parts, most).await.map_err(of)? {
            match part {
                Of::Piece(piece) if piece.len() as u64 <= left => {
                    left -= piece.len() as u64;
                    pieces.push(piece);
                }
                _ => return Err(Miss::unread("there is more of it than was said")),
            }
        }
        if left > 0 {
            return Err(Miss::unread("it ends before it is whole"));
        }
        Ok(Asked::Answered((reply, pieces)))
    };
    fetched.await.unwrap_or_else(Asked::Missed)
}

async fn next(parts: &mut Streaming<wire::Part>, most: Duration) -> Result<Option<Of>, Status> {
    let next = tokio::time::timeout(most, parts.message()).await;
    let silent = |_| Status::deadline_exceeded(format!("nothing of it came for {most:?}"));
    match next.map_err(silent)?? {
        None => Ok(None),
        Some(part) => {
            let empty = || Status::internal("a part of an answer is empty");
            part.of.ok_or_else(empty).map(Some)
        }
    }
}
