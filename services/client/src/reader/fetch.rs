//! The task of a reader: keeps a stream going, checks that offsets go on without a gap, and hands
//! batches to be decoded, ahead of who reads them.

use std::sync::Arc;
use std::time::Duration;

use esker_env::{Env, WorkersExt};
use esker_proto::v1::log_client::LogClient;
use esker_proto::v1::{self, ReadFormat, ReadPreference, ReadReply, ReadRequest};
use esker_record::{Codec, Header};
use esker_types::{Durability, Offset, OffsetRange, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::Channel;

use super::batch::{Batch, Scratches, Wrapped};
use super::{From, ReadOptions, damaged};
use crate::client::Client;
use crate::error::{Code, Detail, Error};
use crate::patience::Patience;
use crate::setback::Setback;

/// Batches that wait to be read, decoded or about to be.
pub(super) const BATCHES_AHEAD_MAX: usize = 8;
/// What a compressed batch is taken to come to, until it is known.
const EXPANSION: usize = 8;
/// A stream that lasted as long was a success, even if nothing came: its end is not counted
/// against patience.
const STREAM_LASTED: Duration = Duration::from_secs(10);

/// A batch on its way, with its share of what may be read ahead.
#[derive(Debug)]
pub(super) enum Coming {
    Decoding(JoinHandle<(Result<Batch, Error>, OwnedSemaphorePermit)>),
    Arrived(Option<Result<Batch, Error>>),
}

/// Waits for `coming`. May be dropped and called again until it has returned.
pub(super) async fn coming(coming: &mut Coming) -> Result<Batch, Error> {
    match coming {
        Coming::Arrived(arrived) => arrived
            .take()
            .unwrap_or_else(|| Err(Error::odd_reply("a batch was asked for twice"))),
        Coming::Decoding(job) => match job.await {
            Ok((batch, _share)) => batch,
            Err(error) => Err(damaged(format!("decoding ended: {error}"))),
        },
    }
}

pub(super) struct Fetch {
    env: Env,
    log: LogClient<Channel>,
    request: ReadRequest,
    /// The next offset to give; `None` until the first reply says.
    next: Option<Offset>,
    /// The first one not to give.
    until: Option<Offset>,
    patience: Patience,
    setback: Setback,
    scratches: Scratches,
    ahead: Arc<Semaphore>,
    ahead_bytes: usize,
    batches: mpsc::Sender<Coming>,
}

/// Why the task ends before its time.
enum Stop {
    /// Nobody reads any more.
    Alone,
    Failed(Error),
}

impl std::convert::From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Fetch {
    pub(super) fn new(
        client: &Client,
        topic: &str,
        partition: u32,
        options: &ReadOptions,
        until: Option<Offset>,
        mark: Option<v1::Mark>,
        batches: mpsc::Sender<Coming>,
    ) -> Self {
        let (from, next) = match options.from {
            From::Earliest => (v1::Position::earliest(), None),
            From::End => (v1::Position::end(), None),
            From::Offset(offset) => (v1::Position::offset(offset), Some(offset)),
            From::Time(Timestamp(ms)) => (v1::position::At::TimestampMs(ms).into(), None),
        };
        let ahead_bytes = options.read_ahead_bytes.clamp(1, 1 << 31);
        Self {
            env: client.env.clone(),
            log: client.log_alone(),
            request: ReadRequest {
                topic: topic.to_owned(),
                partition,
                from: Some(from),
                until: until.map(v1::Position::offset),
                follow: options.follow,
                format: ReadFormat::Batches.into(),
                backfill: options.backfill,
                skip_damaged: options.skip_damaged,
                mark,
                topic_id: options.topic_id,
                preference: match options.prefer_followers {
                    true => ReadPreference::Follower.into(),
                    false => ReadPreference::Leader.into(),
                },
            },
            next,
            until,
            patience: Patience::new(&client.env, client.options.patience),
            setback: client.setbacks.one(),
            scratches: Scratches::default(),
            ahead: Arc::new(Semaphore::new(ahead_bytes)),
            ahead_bytes,
            batches,
        }
    }

    /// Reads until the end, an error, or nobody listens.
    pub(super) async fn run(mut self) {
        loop {
            let began = self.env.clock.monotonic();
            let ended = self.stream().await;
            let error = match ended {
                Ok(()) if self.is_done() => return,
                // A service that stops ends its streams so.
                Ok(()) => None,
                Err(Stop::Alone) => return,
                Err(Stop::Failed(error)) => Some(error),
            };
            if self.env.clock.monotonic().since(began) >= STREAM_LASTED {
                self.patience.renew();
            }
            match &error {
                Some(error) => self.setback.met(error),
                None => self.setback.met(&ended_early()),
            }
            let retriable = error.as_ref().is_none_or(Error::is_retriable);
            if !retriable || !self.patience.rest().await {
                let error = error.unwrap_or_else(|| {
                    Error::odd_reply("the service ends the read before its end, again and again")
                });
                let told = Coming::Arrived(Some(Err(error.of_a_read())));
                let _ = self.batches.send(told).await;
                return;
            }
            if let Some(next) = self.next {
                self.request.from = Some(v1::Position::offset(next));
            }
        }
    }

    fn is_done(&self) -> bool {
        match (self.next, self.until) {
            (Some(next), Some(until)) => next >= until,
            _ => false,
        }
    }

    /// Reads one stream to its end.
    async fn stream(&mut self) -> Result<(), Stop> {
        let mut stream = self.open().await?;
        while !self.is_done() {
            let Some(reply) = stream.message().await.map_err(Error::from)? else {
                break;
            };
            self.setback.over();
            self.take(reply).await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<Streaming<ReadReply>, Error> {
        Ok(self.log.read(self.request.clone()).await?.into_inner())
    }

    async fn take(&mut self, reply: ReadReply) -> Result<(), Stop> {
        let mark = reply.mark.unwrap_or_default();
        let end = esker_proto::offset("end", reply.end).map_err(Error::from)?;
        let log_start = esker_proto::offset("log_start", reply.log_start).map_err(Error::from)?;
        let next_offset =
            esker_proto::offset("next_offset", reply.next_offset).map_err(Error::from)?;
        if reply.mark.is_some() {
            self.request.mark = reply.mark;
        }
        let stepped = reply.skipped.is_some();
        if let Some(skipped) = reply.skipped {
            self.step_over(skipped.into(), mark, end).await?;
        }
        for (at, batch) in reply.batches.into_iter().enumerate() {
            let may_leap = stepped && at == 0;
            let Some(wrapped) = self.place(batch, log_start, may_leap)? else {
                continue;
            };
            self.next = Some(wrapped.range.end());
            self.patience.renew();
            self.decode(Wrapped {
                mark,
                partition_end: end,
                ..wrapped
            })
            .await?;
        }
        match self.next {
            Some(next) if next_offset > next && !stepped && !self.is_done() => {
                Err(gap(next, next_offset).into())
            }
            Some(next) => {
                self.next = Some(next.max(next_offset));
                Ok(())
            }
            None => {
                self.next = Some(next_offset);
                Ok(())
            }
        }
    }

    /// Finds a batch's place: it must begin where the last one ended. `None` if nothing of it was
    /// asked for.
    fn place(
        &self,
        batch: v1::Batch,
        log_start: Offset,
        may_leap: bool,
    ) -> Result<Option<Wrapped>, Error> {
        let base = esker_proto::offset("base_offset", batch.base_offset)?;
        let header = Header::parse(&batch.data)
            .map_err(|error| damaged(format!("the batch at offset {base} is damaged: {error}")))?;
        let whole = OffsetRange::from_count(base, u64::from(header.records))
            .ok_or_else(|| Error::odd_reply("offsets beyond the last"))?;
        // A batch may begin below what was asked for, and below what is kept.
        let next = self.next.unwrap_or_else(|| base.max(log_start));
        if base > next && !may_leap {
            return Err(gap(next, base));
        }
        let last = self.until.unwrap_or(Offset::MAX);
        let wanted = OffsetRange::new(next, last.max(next));
        let range = wanted.and_then(|wanted| wanted.intersect(whole));
        Ok(range.map(|range| Wrapped {
            data: batch.data,
            base,
            range,
            mark: v1::Mark::default(),
            partition_end: Offset::ZERO,
        }))
    }

    async fn step_over(&mut self, skipped: Error, mark: v1::Mark, end: Offset) -> Result<(), Stop> {
        let Some(Detail::Damage(damage)) = skipped.detail() else {
            return Err(Error::odd_reply("it does not tell the damaged range").into());
        };
        let start = esker_proto::offset("damage.start", damage.start).map_err(Error::from)?;
        let stop = esker_proto::offset("damage.end", damage.end).map_err(Error::from)?;
        let next = self.next.unwrap_or(start);
        if start > next {
            return Err(gap(next, start).into());
        }
        let Some(range) = OffsetRange::new(next, stop).filter(|range| !range.is_empty()) else {
            return Ok(());
        };
        self.next = Some(range.end());
        self.patience.renew();
        let told = Batch::stepped_over(range, skipped, mark, end);
        self.hand_over(Coming::Arrived(Some(Ok(told)))).await
    }

    async fn decode(&mut self, wrapped: Wrapped) -> Result<(), Stop> {
        let compressed = Header::parse(&wrapped.data)
            .is_ok_and(|header| header.attributes.codec() != Codec::None);
        let bytes = wrapped.data.len() * if compressed { EXPANSION } else { 1 };
        let share = u32::try_from(bytes.min(self.ahead_bytes)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.ahead).acquire_many_owned(share).await;
        let share = share.expect("the semaphore is never closed");
        let (scratches, workers) = (self.scratches.clone(), Arc::clone(&self.env.workers));
        let job = tokio::spawn(async move {
            let batch = workers.run(move || scratches.open(wrapped)).await;
            (batch, share)
        });
        self.hand_over(Coming::Decoding(job)).await
    }

    async fn hand_over(&self, coming: Coming) -> Result<(), Stop> {
        let sent = self.batches.send(coming).await;
        sent.map_err(|_| Stop::Alone)
    }
}

fn ended_early() -> Error {
    let text = "the service ended the stream";
    Error::new(Code::Unavailable, Durability::NotWritten, text)
}

fn gap(next: Offset, found: Offset) -> Error {
    Error::odd_reply(format!("it goes on at offset {found}, {next} is due"))
}
