//! One stream of batches or records.
//!
//! ```text
//!   Reader ─► batches ───────────────────────────────► reply ─► channel ─► client
//!                └ records ─► share ─► [part] [part] ─►   │        └ holds a share, or is alone
//!                                      on a worker        └ closed by bytes and by records
//! ```
//! Whoever reads nothing costs others nothing: the first reply needs no share of the budget, and
//! what is decoded is let go before anything waits for a client. What a [`Reader`] itself is ahead
//! is bounded for each, and their number by `READ_STREAMS_MAX`.

use std::ops::Range;

use esker_env::{Env, WorkersExt};
use esker_log::{Chunk, Mark, ReadBatch, ReadError, Reader};
use esker_proto::v1;
use esker_types::limits::{
    MESSAGE_BYTES_MAX, MESSAGE_FRAMING_BYTES, READ_REPLIES_WAITING, READ_REPLY_BYTES,
    READ_REPLY_RECORDS_MAX, REPLY_STALL_MAX,
};
use esker_types::{Durability, Offset, TopicName};
use tokio::sync::OwnedSemaphorePermit;

use crate::budget::Budget;
use crate::fault;
use crate::plain::{Part, Scratches, Unpacking};
use crate::stream::{Sender, Unsent};
use crate::traffic::OpenRead;

/// Reads one partition into a channel.
pub(crate) struct Reading {
    pub(crate) topic: TopicName,
    pub(crate) reader: Reader,
    pub(crate) from: Offset,
    /// `None` follows for ever.
    pub(crate) until: Option<Offset>,
    pub(crate) format: v1::ReadFormat,
    pub(crate) skip_damaged: bool,
    pub(crate) open: OpenRead,
    pub(crate) agent: Reads,
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What all reads of an agent have in common.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(crate) env: Env,
    pub(crate) budget: Budget,
    pub(crate) scratches: Scratches,
}

/// What ends a read before its end: nothing to say to a client that has gone, else an error.
type Stop = Option<v1::Error>;

/// A read under way.
struct Going {
    reading: Reading,
    replies: Sender<v1::ReadReply>,
}

impl Reading {
    /// Until the end of what was asked for, an error, or the client's going away.
    pub(crate) async fn run(self, replies: Sender<v1::ReadReply>) -> Result<(), v1::Error> {
        let mut going = Going {
            reading: self,
            replies,
        };
        going.run().await.or_else(|stop| stop.map_or(Ok(()), Err))
    }
}

impl Going {
    async fn run(&mut self) -> Result<(), Stop> {
        // The first reply tells how the partition stands, whatever there is to read.
        let bounds = self.reading.reader.bounds();
        let first = v1::ReadReply {
            mark: Some(mark(bounds.mark)),
            log_start: bounds.log_start.get(),
            end: bounds.end.get(),
            next_offset: self.reading.from.get(),
            ..v1::ReadReply::default()
        };
        self.send(first).await?;
        while self
            .reading
            .until
            .is_none_or(|until| self.reading.reader.position() < until)
        {
            let stepped = tokio::select! {
                biased;
                () = self.replies.gone() => return Err(None),
                stepped = self.reading.reader.step() => stepped,
            };
            match stepped {
                Ok(chunk) if chunk.batches.is_empty() => {
                    if self.reading.until.is_some() {
                        return Ok(());
                    }
                    self.grown().await?;
                }
                Ok(chunk) => self.tell(chunk).await?,
                Err(error) => self.fail(error).await?,
            }
        }
        Ok(())
    }

    /// Waits for more.
    async fn grown(&mut self) -> Result<(), Stop> {
        let grown = tokio::select! {
            biased;
            () = self.replies.gone() => return Err(None),
            grown = self.reading.reader.grown() => grown,
        };
        match grown {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error).await,
        }
    }

    /// Sends a chunk in messages of a bounded size.
    async fn tell(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let mut parcel = Parcel::of(&chunk);
        for batch in chunk.batches {
            if self
                .reading
                .until
                .is_some_and(|until| batch.range.start() >= until)
            {
                break;
            }
            let next = batch.range.end();
            match self.reading.format {
                v1::ReadFormat::Batches => {
                    let bytes = batch.bytes.len();
                    if parcel.is_full_with(bytes) {
                        self.send(parcel.take()).await?;
                    }
                    parcel.batch(batch);
                }
                v1::ReadFormat::Records => self.unpack(&mut parcel, batch).await?,
            }
            parcel.reply.next_offset = next.get();
        }
        self.send_if_any(&mut parcel).await
    }

    /// Sends the records of a batch, a part at a time. What it decodes to is held, and of the
    /// budget, only while the client takes what it is sent.
    async fn unpack(&mut self, parcel: &mut Parcel, batch: ReadBatch) -> Result<(), Stop> {
        let range = batch.range;
        let until = self.reading.until.map_or(u64::MAX, Offset::get);
        let wanted = self.reading.from.get()..until;
        let mut unpacking = Unpacking::new(batch);
        let mut share = None;
        loop {
            let needs = unpacking.needs();
            if needs > 0 {
                share = match self.reading.agent.budget.take(needs).await {
                    Ok(share) => Some(share),
                    Err(none) => {
                        self.send_if_any(parcel).await?;
                        return Err(Some(fault::no_share_to_read(none)));
                    }
                };
            }
            let part;
            (unpacking, part) = self.part(unpacking, wanted.clone()).await;
            if let Some(share) = &mut share {
                share.keep(unpacking.holds());
            }
            let part = match part {
                Ok(part) if part.is_empty() => return Ok(()),
                Ok(part) => part,
                Err(error) => {
                    drop(share);
                    self.send_if_any(parcel).await?;
                    let error = ReadError::Batch {
                        partition: self.reading.reader.partition(),
                        range,
                        what: error.to_string(),
                    };
                    return self.skip_or_fail(error).await;
                }
            };
            if unpacking.is_done() {
                drop((unpacking, share));
                return self.tell_records(parcel, part, || {}).await;
            }
            let let_go = || {
                unpacking.let_go();
                share = None;
            };
            self.tell_records(parcel, part, let_go).await?;
        }
    }

    /// The next part of a batch, made where it stalls nobody.
    async fn part(
        &self,
        mut unpacking: Unpacking,
        wanted: Range<u64>,
    ) -> (Unpacking, Result<Part, esker_record::Error>) {
        let Reads { env, scratches, .. } = self.reading.agent.clone();
        let small = unpacking.is_small();
        let make = move || {
            let part = unpacking.part(&wanted, &scratches);
            (unpacking, part)
        };
        if small {
            make()
        } else {
            env.workers.run(make).await
        }
    }

    /// Puts records into replies. Before one is sent to a client that has something to take already,
    /// and may let it wait, `let_go` is called.
    async fn tell_records(
        &mut self,
        parcel: &mut Parcel,
        records: Part,
        mut let_go: impl FnMut(),
    ) -> Result<(), Stop> {
        for (record, bytes) in records {
            if bytes > MESSAGE_BYTES_MAX - MESSAGE_FRAMING_BYTES {
                let limit = MESSAGE_BYTES_MAX - MESSAGE_FRAMING_BYTES;
                let offset = record.offset;
                let text = format!(
                    "the record at offset {offset} has {bytes} bytes, a message holds {limit}: read it \
                     with format BATCHES"
                );
                let error = v1::Error::new(v1::Code::MessageTooLarge, Durability::Durable, text);
                let_go();
                self.send_if_any(parcel).await?;
                return Err(Some(error.with_limit(limit as u64, bytes as u64)));
            }
            if parcel.is_full_with(bytes) {
                if self.replies.room() < READ_REPLIES_WAITING {
                    let_go();
                }
                self.send(parcel.take()).await?;
            }
            parcel.reply.next_offset = record.offset + 1;
            parcel.record(record, bytes);
        }
        Ok(())
    }

    /// An error of the reader: stepped over if that was asked for and is possible.
    async fn fail(&mut self, error: ReadError) -> Result<(), Stop> {
        if self.reading.skip_damaged
            && let Some((_, range)) = fault::damaged(&error)
        {
            self.reading.reader.skip_to(range.end());
        }
        self.skip_or_fail(error).await
    }

    async fn skip_or_fail(&mut self, error: ReadError) -> Result<(), Stop> {
        let told = fault::of_read(&error, &self.reading.topic);
        let Some((_, range)) = fault::damaged(&error).filter(|_| self.reading.skip_damaged) else {
            return Err(Some(told));
        };
        let bounds = self.reading.reader.bounds();
        self.send(v1::ReadReply {
            mark: Some(mark(bounds.mark)),
            log_start: bounds.log_start.get(),
            end: bounds.end.get(),
            next_offset: range.end().get(),
            skipped: Some(told),
            ..v1::ReadReply::default()
        })
        .await
    }

    async fn send_if_any(&mut self, parcel: &mut Parcel) -> Result<(), Stop> {
        if parcel.is_empty() {
            return Ok(());
        }
        self.send(parcel.take()).await
    }

    async fn send(&self, reply: v1::ReadReply) -> Result<(), Stop> {
        let batches = reply.batches.iter().map(|batch| batch.data.len());
        let records = reply.records.iter().map(prost_bytes);
        let (bytes, next) = (batches.chain(records).sum(), reply.next_offset);
        let budget = &self.reading.agent.budget;
        let sent = self.replies.send_within(reply, bytes, budget).await;
        sent.map_err(|unsent| match unsent {
            Unsent::Gone => None,
            Unsent::Stalled => Some(stalled(next)),
        })?;
        self.reading.open.sent(bytes);
        Ok(())
    }
}

fn stalled(next: u64) -> v1::Error {
    let seconds = REPLY_STALL_MAX.as_secs();
    let text = format!(
        "the client took no reply for {seconds} s, the limit; nothing is lost: read on from the last `next_offset`, which is \
         at most {next}"
    );
    let error = v1::Error::new(v1::Code::Overloaded, Durability::Durable, text);
    error.with_limit(seconds, seconds)
}

/// A reply that is being filled.
struct Parcel {
    reply: v1::ReadReply,
    bytes: usize,
}

impl Parcel {
    fn of(chunk: &Chunk) -> Self {
        let bounds = chunk.bounds;
        let reply = v1::ReadReply {
            mark: Some(mark(bounds.mark)),
            log_start: bounds.log_start.get(),
            end: bounds.end.get(),
            ..v1::ReadReply::default()
        };
        Self { reply, bytes: 0 }
    }

    fn is_empty(&self) -> bool {
        self.reply.batches.is_empty() && self.reply.records.is_empty()
    }

    /// Whether something is in it and `bytes` more would be too much.
    fn is_full_with(&self, bytes: usize) -> bool {
        (self.bytes > 0 && self.bytes + bytes > READ_REPLY_BYTES)
            || self.reply.records.len() >= READ_REPLY_RECORDS_MAX
    }

    fn batch(&mut self, batch: ReadBatch) {
        self.bytes += batch.bytes.len();
        self.reply.batches.push(v1::Batch {
            base_offset: batch.range.start().get(),
            data: batch.bytes,
        });
    }

    fn record(&mut self, record: v1::StoredRecord, bytes: usize) {
        self.bytes += bytes;
        self.reply.records.push(record);
    }

    /// What is in it; the rest goes on with the same watermarks.
    fn take(&mut self) -> v1::ReadReply {
        self.bytes = 0;
        let next = v1::ReadReply {
            mark: self.reply.mark,
            log_start: self.reply.log_start,
            end: self.reply.end,
            next_offset: self.reply.next_offset,
            ..v1::ReadReply::default()
        };
        std::mem::replace(&mut self.reply, next)
    }
}

pub(crate) fn mark(mark: Mark) -> v1::Mark {
    v1::Mark::new(mark.incarnation, mark.index)
}

fn prost_bytes(record: &v1::StoredRecord) -> usize {
    esker_proto::encoded_bytes(record)
}
