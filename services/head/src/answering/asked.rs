//! One question, one answer. Whatever a caller asks for at most, an answer fits a message.

use std::time::Duration;

use esker_log::{AcceptedRun, Head, HeadError, HeadRead, Mark, Progress};
use esker_types::limits::{
    HEAD_BATCH_FRAMING_BYTES, HEAD_LISTING_MAX, HEAD_POLL_MAX, HEAD_READ_BYTES_MAX, KIB,
    PEER_MESSAGE_BYTES_MAX,
};
use esker_types::{RaftIndex, RaftRange, ShardId};

use super::catch_up;
use crate::words::{Question, Reply};

/// What `head` answers to somebody who has seen the shard up to `seen`.
pub(super) async fn answer(
    head: &dyn Head,
    shard: ShardId,
    seen: Option<Mark>,
    question: Question,
) -> Result<Reply, HeadError> {
    // With what the reader of a follower was told, its replica catches up itself: here only leaders can.
    if !matches!(&question, Question::Read { who, .. } if who.seen().is_some()) {
        catch_up(head, shard, seen).await?;
    }
    Ok(match question {
        Question::Propose(command) if command.is_the_leaders() => {
            let what = "such a command is its leader's to propose, of its own accord".into();
            return Err(HeadError::Refused { shard, what });
        }
        Question::Propose(command) => Reply::Outcome(head.propose(shard, command).await?),
        Question::ReadIndex => Reply::Reached(head.read_index(shard).await?),
        Question::Bounds(partition) => or_none(head.bounds(shard, partition).await?, Reply::Bounds),
        Question::Read {
            partition,
            from,
            bytes_max,
            who,
        } => {
            let bytes_max = bytes_max.min(HEAD_READ_BYTES_MAX);
            let read = head.read(shard, partition, from, bytes_max, who).await?;
            or_none(read.map(fitting), Reply::Read)
        }
        Question::ByTime {
            partition,
            time,
            from,
        } => {
            let found = head.by_time(shard, partition, time, from).await?;
            or_none(found, Reply::Offset)
        }
        Question::Past {
            partition,
            seen,
            patience,
        } => {
            let past = head.past(shard, partition, seen);
            match tokio::time::timeout(patience.min(HEAD_POLL_MAX), past).await {
                Ok(past) => or_none(past?, Reply::Bounds),
                // One that was cut off from the others must not keep its readers waiting for ever.
                Err(_) => head.read_index(shard).await.map(|_| Reply::Same)?,
            }
        }
        Question::Progress => Reply::Progress(head.progress(shard).await?),
        Question::ProgressPast { seen, patience } => {
            Reply::Progress(progress_past(head, shard, seen, patience).await?)
        }
        Question::Tick => head.tick(shard).await.map(|()| Reply::Done)?,
        Question::Turn(bid) => Reply::Turn(head.turn(shard, bid).await?),
        Question::AcceptTime => head.accept_time(shard).await.map(|()| Reply::Done)?,
        Question::Accepted { raft, bytes_max } => {
            Reply::Accepted(accepted(head, shard, raft, bytes_max).await?)
        }
        Question::FlushJob { .. } | Question::Checkpoint => {
            let what = "it may be larger than a message, and is to be fetched".into();
            return Err(HeadError::Refused { shard, what });
        }
        listing => return list(head, shard, listing).await,
    })
}

/// What is answered in pages.
async fn list(head: &dyn Head, shard: ShardId, question: Question) -> Result<Reply, HeadError> {
    Ok(match question {
        Question::Manifest { after, count } => Reply::Manifest(
            head.manifest(shard, after, count.min(HEAD_LISTING_MAX))
                .await?,
        ),
        Question::Topic(name) => or_none(head.topic(&name).await?, Reply::Topic),
        Question::Topics { after, count } => {
            Reply::Topics(head.topics(after, count.min(HEAD_LISTING_MAX)).await?)
        }
        Question::Ending { name, after, count } => {
            let count = count.min(HEAD_LISTING_MAX);
            Reply::Topics(head.ending(&name, after, count).await?)
        }
        Question::ShardTopics { after, count } => {
            let count = count.min(HEAD_LISTING_MAX);
            Reply::ShardTopics(head.shard_topics(shard, after, count).await?)
        }
        Question::Tombstones { after, count } => {
            let count = count.min(HEAD_LISTING_MAX);
            Reply::Tombstones(head.tombstones(shard, after, count).await?)
        }
        other => unreachable!("{other:?} is answered above"),
    })
}

fn or_none<T>(found: Option<T>, reply: impl FnOnce(T) -> Reply) -> Reply {
    found.map_or(Reply::None, reply)
}

/// Waits as long as it is asked to. If nothing came, a quorum has said that this is all there is.
async fn progress_past(
    head: &dyn Head,
    shard: ShardId,
    seen: RaftIndex,
    patience: Duration,
) -> Result<Progress, HeadError> {
    let patience = patience.min(HEAD_POLL_MAX);
    let progress = head.progress_past(shard, seen, patience).await?;
    if progress.mark.index > seen || patience.is_zero() {
        return Ok(progress);
    }
    head.read_index(shard).await?;
    head.progress(shard).await
}

/// The first batches of `read` that fit a message.
fn fitting(mut read: HeadRead) -> HeadRead {
    let mut bytes = 0;
    let fit = read.batches.iter().take_while(|batch| {
        let first = bytes == 0;
        bytes += batch.bytes.len() + HEAD_BATCH_FRAMING_BYTES;
        first || bytes <= PEER_MESSAGE_BYTES_MAX - KIB
    });
    let fit = fit.count();
    read.batches.truncate(fit);
    read
}

/// Of entries of very small batches fewer fit a message than their bytes say. A single one does.
async fn accepted(
    head: &dyn Head,
    shard: ShardId,
    raft: RaftRange,
    bytes_max: usize,
) -> Result<AcceptedRun, HeadError> {
    let mut bytes_max = bytes_max.min(HEAD_READ_BYTES_MAX);
    loop {
        let run = head.accepted(shard, raft, bytes_max).await?;
        let batches = run.batches.iter();
        let bytes: usize = batches
            .map(|batch| batch.bytes.len() + HEAD_BATCH_FRAMING_BYTES)
            .sum();
        if bytes <= PEER_MESSAGE_BYTES_MAX - KIB || bytes_max == 0 {
            return Ok(run);
        }
        bytes_max /= 2;
    }
}
