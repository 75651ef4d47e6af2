//! That the leaders of a node live, told to one other node: of all shards on one stream, what is due
//! together in one message.

use std::collections::BTreeMap;

use esker_proto::internal::beat_reply::Reply;
use esker_proto::internal::raft_client::RaftClient;
use esker_proto::internal::{self as wire};
use esker_types::limits::REPLICATION_STALL_MAX;
use esker_types::{NodeId, ShardId};
use esker_wal::peers::{AppendReply, AppendRequest, PeerError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::credentials::Credentials;
use super::reach::Reach;
use super::words;

/// Beats that wait for the task, or for an answer. A shard has few under way.
const BEATS_MAX: usize = 4096;
/// Beats of one message.
const BEATS_JOINED_MAX: usize = 1024;
/// Messages that wait for the connection.
const MESSAGES_MAX: usize = 16;

/// The way of all beats to one node. With the last clone the stream ends.
#[derive(Clone, Debug)]
pub(super) struct Pulse(mpsc::Sender<Beat>);

/// One that waits.
#[derive(Debug)]
struct Beat {
    shard: ShardId,
    request: AppendRequest,
    told: oneshot::Sender<Result<AppendReply, PeerError>>,
}

impl Pulse {
    /// To `node`, over `channel`. Connects with the first beat, and again after a broken stream.
    pub(super) fn start(
        node: NodeId,
        channel: Channel,
        credentials: Credentials,
        reach: Reach,
    ) -> Self {
        let (sender, beats) = mpsc::channel(BEATS_MAX);
        let way = Way {
            node,
            channel,
            credentials,
            reach,
        };
        tokio::spawn(way.run(beats));
        Self(sender)
    }

    /// Tells that the leader of `shard` lives, and what is answered.
    pub(super) async fn beat(
        &self,
        shard: ShardId,
        request: AppendRequest,
    ) -> Result<AppendReply, PeerError> {
        let (told, answer) = oneshot::channel();
        let beat = Beat {
            shard,
            request,
            told,
        };
        let full = |_| PeerError(format!("{BEATS_MAX} beats wait for an answer"));
        self.0.try_send(beat).map_err(full)?;
        let ended = |_| PeerError("nobody carries it any more".into());
        answer.await.map_err(ended)?
    }
}

struct Way {
    node: NodeId,
    channel: Channel,
    credentials: Credentials,
    reach: Reach,
}

/// A stream to the node.
struct Line {
    messages: mpsc::Sender<wire::Beats>,
    replies: Streaming<wire::BeatReplies>,
    number: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<AppendReply, PeerError>>>,
    /// Since when there was no answer of any shard to what was asked.
    unanswered: Option<Instant>,
}

impl Way {
    async fn run(self, mut beats: mpsc::Receiver<Beat>) {
        while let Some(first) = beats.recv().await {
            let mut line = match self.connect().await {
                Ok(line) => line,
                Err(error) => {
                    // Those that came meanwhile were to go the same way.
                    for beat in joined(first, &mut beats) {
                        let _ = beat.told.send(Err(error.clone()));
                    }
                    continue;
                }
            };
            let ended = match line.send(joined(first, &mut beats)) {
                Ok(()) => self.talk(&mut line, &mut beats).await,
                Err(error) => Some(error),
            };
            let Some(error) = ended else { return };
            for told in line.waiting.into_values() {
                let _ = told.send(Err(error.clone()));
            }
        }
    }

    async fn connect(&self) -> Result<Line, PeerError> {
        let (messages, sent) = mpsc::channel(MESSAGES_MAX);
        let mut request = Request::new(ReceiverStream::new(sent));
        self.credentials
            .show(self.node, ShardId::CATALOG, request.metadata_mut());
        let mut client = RaftClient::new(self.channel.clone());
        let asked = tokio::time::timeout(REPLICATION_STALL_MAX, client.beat(request));
        let late = |_| PeerError(format!("no stream within {REPLICATION_STALL_MAX:?}"));
        let replies = asked.await.map_err(late)?;
        let replies = replies.map_err(|status| self.reach.failed(self.node, &status))?;
        self.reach.answered(self.node);
        Ok(Line {
            messages,
            replies: replies.into_inner(),
            number: 0,
            waiting: BTreeMap::new(),
            unanswered: None,
        })
    }

    /// Carries beats and replies until the stream breaks; `None` once nobody sends any more.
    async fn talk(&self, line: &mut Line, beats: &mut mpsc::Receiver<Beat>) -> Option<PeerError> {
        let mut looks = tokio::time::interval(REPLICATION_STALL_MAX);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                replies = line.replies.message() => match replies {
                    Ok(Some(replies)) => line.answered(self.node, replies),
                    Ok(None) => return Some(PeerError("it ended the stream of beats".into())),
                    Err(status) => return Some(self.reach.failed(self.node, &status)),
                },
                beat = beats.recv() => {
                    let sent = line.send(joined(beat?, beats));
                    if let Err(error) = sent {
                        return Some(error);
                    }
                }
                _ = looks.tick() => {
                    // One shard that is slow is no reason to begin anew for all.
                    let silent = line.unanswered;
                    if silent.is_some_and(|since| since.elapsed() > REPLICATION_STALL_MAX) {
                        let what = format!("no answer to a beat for {REPLICATION_STALL_MAX:?}");
                        return Some(PeerError(what));
                    }
                }
            }
        }
    }
}

impl Line {
    fn send(&mut self, beats: Vec<Beat>) -> Result<(), PeerError> {
        let mut message = wire::Beats::default();
        if self.waiting.len() + beats.len() > BEATS_MAX {
            // Who asked has given up.
            self.waiting.retain(|_, told| !told.is_closed());
        }
        for beat in beats {
            if self.waiting.len() >= BEATS_MAX {
                let what = format!("{BEATS_MAX} beats wait for an answer");
                let _ = beat.told.send(Err(PeerError(what)));
                continue;
            }
            self.number += 1;
            message.beats.push(wire::Beat {
                number: self.number,
                shard: beat.shard.0,
                append: Some(words::append(beat.request)),
            });
            self.waiting.insert(self.number, beat.told);
        }
        let stuck = |_| PeerError("the connection takes no beat".into());
        if message.beats.is_empty() {
            return Ok(());
        }
        self.unanswered.get_or_insert_with(Instant::now);
        self.messages.try_send(message).map_err(stuck)
    }

    fn answered(&mut self, node: NodeId, replies: wire::BeatReplies) {
        self.unanswered = None;
        for reply in replies.replies {
            // One that nobody asked for is none, or one that was given up.
            let Some(told) = self.waiting.remove(&reply.number) else {
                continue;
            };
            let none =
                |fault| PeerError(format!("node {node} gave an answer that is none: {fault}"));
            let reply = match reply.reply {
                Some(Reply::Append(reply)) => words::read_append_reply(reply).map_err(none),
                Some(Reply::Failed(what)) => Err(PeerError(what)),
                None => Err(none("it is empty")),
            };
            // Who asked may have given up.
            let _ = told.send(reply);
        }
    }
}

/// `first`, and all that are there by now, without those that nobody waits for any more.
fn joined(first: Beat, beats: &mut mpsc::Receiver<Beat>) -> Vec<Beat> {
    let mut joined = vec![first];
    while joined.len() < BEATS_JOINED_MAX
        && let Ok(next) = beats.try_recv()
    {
        joined.push(next);
    }
    joined.retain(|beat| !beat.told.is_closed());
    joined
}
