//! An answer that may be larger than a message: what it is, then its pieces.

use bytes::Bytes;
use esker_log::{Head, HeadError, Mark};
use esker_proto::internal as wire;
use esker_proto::internal::part::Of;
use esker_types::ShardId;
use esker_types::limits::HEAD_PIECE_BYTES;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::Status;

use super::{asked, catch_up};
use crate::words::{self, Question, Reply};

type Fetched = Result<(Reply, Vec<Bytes>), HeadError>;

/// What `head` answers, and the pieces that follow. What fits a message has none.
pub(super) async fn fetch(
    head: &dyn Head,
    shard: ShardId,
    seen: Option<Mark>,
    question: Question,
) -> Fetched {
    match question {
        Question::FlushJob { bytes_max } => {
            catch_up(head, shard, seen).await?;
            let Some(job) = head.flush_job(shard, bytes_max).await? else {
                return Ok((Reply::None, Vec::new()));
            };
            let job = words::flush_job(job).map_err(|what| HeadError::Refused {
                shard,
                what: what.into(),
            })?;
            Ok((Reply::FlushJob(job.len() as u64), pieces([job])))
        }
        Question::Checkpoint => {
            catch_up(head, shard, seen).await?;
            let checkpoint = head.checkpoint(shard).await?;
            let bytes = checkpoint.chunks.iter().map(Bytes::len).sum::<usize>() as u64;
            let mark = checkpoint.mark;
            let beginning = Reply::Checkpoint { mark, bytes };
            Ok((beginning, pieces(checkpoint.chunks)))
        }
        other => Ok((asked::answer(head, shard, seen, other).await?, Vec::new())),
    }
}

/// The same as a stream, of a shard that stands at `mark` by now.
pub(super) fn parts(
    mark: Option<Mark>,
    fetched: Fetched,
) -> BoxStream<'static, Result<wire::Part, Status>> {
    let (reply, pieces) = match fetched {
        Ok((reply, pieces)) => (Ok(reply), pieces),
        Err(error) => (Err(error), Vec::new()),
    };
    let answer = Of::Answer(words::answer(mark, reply));
    let parts = stream::iter([answer]).chain(stream::iter(pieces).map(Of::Piece));
    parts.map(|of| Ok(wire::Part { of: Some(of) })).boxed()
}

/// None of them empty, none above the bound.
fn pieces(chunks: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    for mut chunk in chunks {
        while !chunk.is_empty() {
            pieces.push(chunk.split_to(chunk.len().min(HEAD_PIECE_BYTES)));
        }
    }
    pieces
}
