//! Reads one partition: every record from one offset to another, once, in order, over any break
//! of the connection.
//!
//! ```text
//!   service ─► fetch: resumes, checks that offsets go on ─► decode, on other threads ─► Reader
//!                                  └──── read-ahead, bounded in bytes and batches ────┘
//! ```

pub(crate) mod batch; // decoded records
mod fetch; // the stream, its breaks, where to go on

use std::fmt;

use esker_proto::v1;
use esker_types::{Offset, Timestamp};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::client::Client;
use crate::error::{Code, Error};
pub use batch::Batch;
use esker_types::Durability;
use fetch::{BATCHES_AHEAD_MAX, Coming, Fetch, coming};

/// Where to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum From {
    /// With the first record kept.
    #[default]
    Earliest,
    /// With the first record to be written once the read has begun.
    End,
    /// With this offset.
    Offset(Offset),
    /// With the first record, in offset order, of this time or later.
    Time(Timestamp),
}

/// Where to end. Never beyond where the partition ended when the read began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Until {
    /// Where the partition ended when the read began.
    #[default]
    End,
    /// Before this offset.
    Offset(Offset),
    /// Before the first record, in offset order, of this time or later.
    Time(Timestamp),
}

/// How to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadOptions {
    /// Where to begin. Default: with the first record kept.
    pub from: From,
    /// Where to end, unless `follow`. Default: where the partition ends now.
    pub until: Until,
    /// Go on for ever with what is appended. `until` must be [`Until::End`].
    pub follow: bool,
    /// History is read: leaves the cache of those who read the tail alone.
    pub backfill: bool,
    /// Step over damaged batches; [`Batch::skipped`] tells of each.
    pub skip_damaged: bool,
    /// What is not in the bucket yet comes from nodes that do not lead, as far as they have what this
    /// reader was told. Takes work from who leads; the records are the same.
    pub prefer_followers: bool,
    /// What an earlier reader has seen: no answer is older, and one of another life of the cluster
    /// is [`Code::OtherIncarnation`].
    pub mark: Option<v1::Mark>,
    /// The id of the topic, as [`Client::offsets`] tells it: one of this name that was made anew is
    /// [`Code::UnknownTopic`]. Default: that of the topic that has the name when the read begins.
    pub topic_id: Option<u64>,
    /// Bytes to read ahead, about: what compressed batches come to is estimated. Default: 16 MiB.
    pub read_ahead_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            from: From::default(),
            until: Until::default(),
            follow: false,
            backfill: false,
            skip_damaged: false,
            prefer_followers: false,
            mark: None,
            topic_id: None,
            read_ahead_bytes: 16 << 20,
        }
    }
}

/// The records of one partition, a batch at a time.
pub struct Reader {
    batches: mpsc::Receiver<Coming>,
    /// Kept here, so that a call of [`Reader::next`] may be dropped.
    coming: Option<Coming>,
    mark: Option<v1::Mark>,
    next: Option<Offset>,
    fetch: Option<AbortHandle>,
    /// Why it has ended before its end.
    failed: Option<Error>,
}

impl Reader {
    pub(crate) async fn open(
        client: &Client,
        topic: &str,
        partition: u32,
        options: ReadOptions,
    ) -> Result<Self, Error> {
        if options.follow && options.until != Until::End {
            return Err(Error::invalid(
                "a read that follows has no `until`; leave one out",
            ));
        }
        let at = match options.until {
            Until::Time(Timestamp(ms)) => Some(v1::position::At::TimestampMs(ms).into()),
            Until::End | Until::Offset(_) => None,
        };
        let offsets = client.offsets(topic, &[partition], at).await?;
        let Some(now) = offsets
            .iter()
            .find(|offsets| offsets.partition == partition)
        else {
            return Err(Error::odd_reply("it does not tell the partition's offsets"));
        };
        let until = match options.until {
            _ if options.follow => None,
            Until::End => Some(now.end),
            Until::Offset(offset) => Some(offset.get().min(now.end)),
            Until::Time(_) => Some(now.found.unwrap_or(now.end).min(now.end)),
        };
        let until = until
            .map(|until| esker_proto::offset("end", until))
            .transpose()?;
        // Resolved by the service it would move with what is appended until the stream is open.
        let from = match options.from {
            From::End => From::Offset(esker_proto::offset("end", now.end)?),
            from => from,
        };
        let topic_id = options.topic_id.or(now.topic_id);
        let options = ReadOptions {
            from,
            topic_id,
            ..options
        };
        let mark = later(options.mark, now.mark);
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD_MAX);
        let nothing = match (options.from, until) {
            (From::Offset(from), Some(until)) => from >= until && from.get() <= now.end,
            _ => until == Some(Offset::ZERO),
        };
        // Who comes from another life or topic hears of it, even if there is nothing to read.
        let life = |mark: Option<v1::Mark>| mark.map(|mark| mark.incarnation);
        let same = life(mark) == life(now.mark.or(mark)) && topic_id == now.topic_id;
        let needless = nothing && same;
        let fetch = (!needless).then(|| {
            let fetch = Fetch::new(client, topic, partition, &options, until, mark, sender);
            tokio::spawn(fetch.run()).abort_handle()
        });
        Ok(Self {
            batches,
            coming: None,
            mark,
            next: match options.from {
                From::Offset(offset) => Some(offset),
                _ => None,
            },
            fetch,
            failed: None,
        })
    }

    /// The next batch; `None` at the end of a bounded read. May be dropped and called again.
    ///
    /// # Errors
    /// [`Code::OffsetOutOfRange`] if what is to be read is trimmed, [`Code::UnknownTopic`] if the
    /// topic is gone, also if another has its name, [`Code::DataLoss`] with the range if stored
    /// bytes are damaged, and what a call may meet once patience is over. The
    /// reader has ended then, and says the same again; [`Reader::next_offset`] is where to go on.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.coming.is_none() {
            self.coming = self.batches.recv().await;
        }
        let Some(next) = self.coming.as_mut() else {
            return Ok(None);
        };
        let arrived = coming(next).await;
        self.coming = None;
        let batch = arrived.map_err(|error| self.ended(error))?;
        self.mark = Some(batch.mark());
        self.next = Some(batch.range().end());
        Ok(Some(batch))
    }

    /// After an error there is nothing more: what was read ahead lies behind it.
    fn ended(&mut self, error: Error) -> Error {
        self.stop();
        self.batches.close();
        while self.batches.try_recv().is_ok() {}
        self.failed = Some(error.clone());
        error
    }

    fn stop(&self) {
        if let Some(fetch) = &self.fetch {
            fetch.abort();
        }
    }

    /// Where to go on after what [`Reader::next`] has given; `None` before the first batch of a
    /// read that begins with the first record kept, or with a time.
    #[must_use]
    pub const fn next_offset(&self) -> Option<Offset> {
        self.next
    }

    /// How far this reader has seen the log: hand it to the next one by [`ReadOptions::mark`].
    #[must_use]
    pub const fn mark(&self) -> Option<v1::Mark> {
        self.mark
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("next_offset", &self.next)
            .field("mark", &self.mark)
            .finish_non_exhaustive()
    }
}

/// What was seen, and what is seen now: the later one of one life. Of two lives it is what was seen,
/// for what follows from it may not be so in this one: the service says so.
fn later(seen: Option<v1::Mark>, now: Option<v1::Mark>) -> Option<v1::Mark> {
    match (seen, now) {
        (Some(seen), Some(now)) if now.incarnation == seen.incarnation => Some(v1::Mark {
            index: seen.index.max(now.index),
            ..now
        }),
        (seen, now) => seen.or(now),
    }
}

/// What is read is not what was written.
fn damaged(message: impl fmt::Display) -> Error {
    Error::new(Code::DataLoss, Durability::Unknown, message.to_string())
}
